"""The analysis from prediction frames to tables, on hand-made predictions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from written import CELLS, DRUGS, frame

from hedflow.analysis import tables
from hedflow.analysis.experiment import Experiment, legal_baselines
from hedflow.config import Analysis
from hedflow.errors import normalised_metrics, point_metrics


def test_methods_say_what_the_rows_say(experiment, made):
    table = made["methods"].set_index(["source", "method"])
    for name, rows in experiment.frames.items():
        for source, part in [("all", rows), *rows.groupby("source")]:
            error, low = (part["auc_pred"] - part["auc"]).abs().astype(float), part["auc"] < 0.5
            found = table.loc[(source, name)]
            assert found["mae"] == pytest.approx(error.mean(), rel=1e-6)
            assert found["mae_low"] == pytest.approx(error[low].mean(), rel=1e-6)
            assert found["mae_rest"] == pytest.approx(error[~low].mean(), rel=1e-6)
            assert (found["n"], found["n_low"], found["n_drugs"]) == (len(part), low.sum(), DRUGS)
            assert found["mae_lower"] < found["mae"] < found["mae_upper"]
            assert found["r2"] == pytest.approx(point_metrics(part["auc"], part["auc_pred"])["r2"])
            if name in experiment.methods:  # a constant has none above 0
                assert found["r2_lower"] < found["r2"] < found["r2_upper"]


def test_the_strongest_naive_baseline_is_the_yardstick(experiment, made):
    assert experiment.strongest == "tanimoto_knn"
    table = made["methods"].query("source == 'all'").set_index("method")
    assert table.loc["tanimoto_knn", "r2_normalised"] == 0
    rest = table.drop("tanimoto_knn")
    assert (rest["r2_normalised"] < 0).all()
    naive = experiment.naive["tanimoto_knn"]["auc_pred"]
    for name, row in rest.iterrows():
        rows = experiment.frames[name]
        assert row["r2_normalised"] == pytest.approx(normalised_metrics(rows["auc"], rows["auc_pred"], naive)["r2"])
        assert row["r2_normalised_lower"] < row["r2_normalised"] < row["r2_normalised_upper"]


def test_contrasts_are_paired_differences(experiment, made):
    table = made["contrasts"].set_index(["method", "against", "part"])
    error = {name: (rows["auc_pred"] - rows["auc"]).abs().astype(float) for name, rows in experiment.frames.items()}
    low = experiment.methods["mse"]["auc"] < 0.5
    found = table.loc[("low", "mse", "mae_low")]
    assert found["difference"] == pytest.approx(error["low"][low].mean() - error["mse"][low].mean(), rel=1e-6)
    assert found["relative"] == pytest.approx(found["difference"] / error["mse"][low].mean(), rel=1e-6)
    assert found["upper"] < 0 < table.loc[("low", "mse", "mae_rest"), "lower"]
    assert {against for _, against, _ in table.index} == {"mse", "tanimoto_knn", "global_mean"}
    assert {method for method, _, _ in table.index} == {"mse", "low"}  # never a naive one


def test_a_shift_is_told_from_a_model(experiment):
    """A naive prediction less a constant is `no different` from itself; a model that orders the drugs beats it."""
    naive = experiment.naive["global_mean"]
    shifted = naive.assign(auc_pred=naive["auc_pred"] - 0.2)
    knowing = frame(lambda auc, drug, rng: np.where(auc < 0.5, auc, auc - 0.25))
    methods = {"mse": experiment.methods["mse"], "shifted": shifted, "knowing": knowing}
    only = Experiment(methods, {"global_mean": naive}, "mse", "drug_blind", experiment.settings)
    curve, equal_cost = tables.shift_tables(only)
    found = equal_cost.set_index("method")
    assert found.loc["shifted", "shift"] == pytest.approx(0.2, abs=1e-4)
    assert found.loc["shifted", "difference"] == pytest.approx(0, abs=1e-4)
    assert found.loc["knowing", "upper"] < 0
    methods_row = tables.methods_table(only).query("source == 'all' and method == 'global_mean'").iloc[0]
    assert curve.loc[0, ["mae_low", "mae_rest"]].tolist() == pytest.approx([methods_row.mae_low, methods_row.mae_rest])


def test_the_interval_at_equal_cost_holds_what_is_not_known_of_the_shift():
    """Each resample has a shift of its own: the same gain on the rest in every drug would else look certain."""
    rng, drugs, rows = np.random.default_rng(0), 60, 20
    drug = np.repeat(np.arange(drugs), rows)
    auc = np.clip(rng.beta(4, 1.2, drugs)[drug] + rng.normal(0, 0.08, len(drug)), 0, 1)
    knows = 0.25 * (auc - 0.77) + rng.normal(0, 0.05, drugs)[drug]
    base = {"row": np.arange(len(drug)), "cell": 0, "drug": drug, "source": "A", "auc": auc.astype(np.float32)}
    methods = {"m": pd.DataFrame({**base, "auc_pred": 0.62 + knows})}
    naive = {"global_mean": pd.DataFrame({**base, "auc_pred": 0.77})}
    only = Experiment(methods, naive, "m", "drug_blind", Analysis(bootstrap=300))
    found = tables.shift_tables(only)[1].iloc[0]
    lowered = np.abs(only.error("global_mean") - found["shift"])
    given = only.boot.difference(np.abs(only.error("m")), lowered, auc.astype(np.float32) < 0.5)
    assert found["difference"] == pytest.approx(given.estimate)
    assert found["lower"] < found["difference"] < found["upper"]
    assert found["upper"] - found["lower"] > 1.03 * (given.high - given.low)


def test_the_global_mean_ranks_at_random_whatever_the_parts_of_the_split(experiment):
    """Its value differs between the folds; ranked as it is, drugs of one fold would all come before another's."""
    naive = experiment.naive["global_mean"]
    by_fold = naive.assign(auc_pred=0.8 + 0.1 * (naive["drug"] % 3))
    other = experiment.methods["mse"].assign(auc_pred=lambda t: t["auc"] + 0.1 * (t["drug"] % 3))
    only = Experiment({"mse": other}, {"global_mean": by_fold}, "mse", "drug_blind", experiment.settings)
    cells = pd.DataFrame({name: [f"{name}{i}" for i in range(CELLS)] for name in ("cell_id", "cell_name")})
    summary, *_ = tables.ranking_tables(only, cells)
    found = summary[summary["metric"].isin(["recall", "ndcg", "spearman"])].set_index(["method", "source", "metric"])
    naive_rows = found.loc["global_mean"]
    assert naive_rows["estimate"].tolist() == pytest.approx(naive_rows["random"].tolist(), abs=1e-9)
    assert found.loc["mse"].query("metric == 'spearman'")["estimate"].tolist() == pytest.approx([1, 1])


def test_the_ranking_of_every_line_averages_to_the_summary(made):
    lines = made["cell_ranking"].groupby(["method", "source"])["recall"].mean()
    summary = made["ranking"].query("metric == 'recall'").set_index(["method", "source"])["estimate"]
    assert lines.loc[summary.index].tolist() == pytest.approx(summary.tolist())


def test_no_potent_pair_was_tested(experiment):
    def without(frames):
        return {name: rows[rows["auc"] >= 0.5].reset_index(drop=True) for name, rows in frames.items()}

    only = Experiment(without(experiment.methods), without(experiment.naive), "mse", "drug_blind", experiment.settings)
    assert tables.methods_table(only)["mae_low"].isna().all()
    assert all(table.empty for table in tables.shift_tables(only))


def test_ranges_hold_every_row_once(experiment, made):
    table = made["ranges"]
    for (_, _), rows in table.groupby(["method", "ranges"]):
        assert rows["n"].sum() == 2 * DRUGS * CELLS
    two = table.query("ranges == 2 and method == 'mse'").sort_values("low")
    methods = made["methods"].query("source == 'all' and method == 'mse'").iloc[0]
    assert two["mae"].tolist() == pytest.approx([methods["mae_low"], methods["mae_rest"]], rel=1e-6)
    inside = table[table["lower"].notna()]
    assert (inside["lower"] <= inside["mae"] + 1e-9).all()
    assert (inside["upper"] >= inside["mae"] - 1e-9).all()


def test_high_error_drugs_are_the_worst_of_the_reference(made):
    high, drugs = made["high_error_drugs"], made["drugs"].query("method == 'mse'")
    assert 0 < len(high) < DRUGS
    assert set(high["drug"]) == set(drugs.loc[drugs["mae_z"] > 1.0, "drug"])
    assert high["mae"].is_monotonic_decreasing
    other = made["drugs"].query("method == 'low'").set_index("drug")["mae"]
    assert high["mae:low"].tolist() == other.loc[high["drug"]].tolist()


def test_baselines_without_tissues_leave_the_tissue_mean_out():
    known, unknown = pd.Series(["Lung", "unknown"]), pd.Series(["unknown", "unknown"])
    assert "tissue_mean" in legal_baselines("drug_blind", known)
    assert "tissue_mean" not in legal_baselines("drug_blind", unknown)
    assert "drug_mean" not in legal_baselines("drug_blind", known)
