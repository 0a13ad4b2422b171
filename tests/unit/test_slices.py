"""Slices, distance, driving pairs and floors: they add up to the whole, and say what a loop says."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_paired import make_experiment
from test_splits import make_bundle

from hedflow.analysis.experiment import Experiment
from hedflow.analysis.floors import floors_table
from hedflow.analysis.paired import contrasts_table, ranks_table
from hedflow.analysis.pairs import measured_again, pairs_tables
from hedflow.analysis.parts import IN_TRAINING, NEW, NO_RING, describe_parts
from hedflow.analysis.slices import EDGES, distance_table, distance_trend_table, slices_table, spearman_interval
from hedflow.analysis.tables import drugs_table, high_error_table, methods_table
from hedflow.config import Split
from hedflow.harmony import NOISE_COLUMNS, agreement, noise, second_errors, shared_pairs
from hedflow.integrate import NO_CURVES
from hedflow.intervals import DrugBootstrap
from hedflow.splits import labels, make_rows

DRUGS, CELLS = 25, 12
SIMILARITY = pd.Series(np.linspace(0, 1, DRUGS).round(2), index=np.arange(DRUGS))
KNOWN = pd.DataFrame(
    {
        "drug": np.arange(DRUGS),
        "mechanism": np.where(np.arange(DRUGS) < 3, "rare", "common"),
        "scaffold": np.where(np.arange(DRUGS) % 2, "new", "in training"),
    }
)
TISSUE = pd.Series(np.where(np.arange(CELLS) % 3, "Lung", "Skin"))


@pytest.fixture(scope="module")
def experiment():
    return make_experiment(DRUGS, CELLS)


@pytest.fixture(scope="module")
def slices(experiment):
    return slices_table(experiment, KNOWN, TISSUE)


def test_the_slices_of_an_axis_add_up_to_the_whole(experiment, slices):
    distance = distance_table(experiment, SIMILARITY).assign(axis="distance")
    for (_, method), rows in pd.concat([slices, distance]).groupby(["axis", "method"]):
        error = experiment.error(method)
        low = (experiment.rows["auc"] < 0.5).to_numpy()
        assert (rows["n"].sum(), rows["n_low"].sum()) == (len(error), low.sum())
        assert (rows["mae"] * rows["n"]).sum() == pytest.approx(np.abs(error).sum())
        assert (rows["bias"] * rows["n"]).sum() == pytest.approx(error.sum())
        assert (rows["mae_low"] * rows["n_low"]).sum() == pytest.approx(np.abs(error[low]).sum())
        assert (rows["mae_rest"] * (rows["n"] - rows["n_low"])).sum() == pytest.approx(np.abs(error[~low]).sum())
        gap = np.abs(error) - np.abs(experiment.error(experiment.strongest))
        assert (rows["difference"] * rows["n"]).sum() == pytest.approx(gap.sum(), abs=1e-9)


def test_a_slice_is_what_its_rows_say(experiment, slices):
    frame = experiment.frames["a"]
    inside = frame["drug"] < 3
    row = slices.query("axis == 'mechanism' and value == 'rare' and method == 'a'").iloc[0]
    assert row["mae"] == pytest.approx((frame["auc_pred"] - frame["auc"]).abs()[inside].mean())
    assert (row["n"], row["n_drugs"], row["n_cells"]) == (inside.sum(), 3, frame["cell"][inside].nunique())
    assert row["few"]
    assert not slices.query("value == 'common'")["few"].any()
    assert row["mae_lower"] <= row["mae"] <= row["mae_upper"]
    tissue = slices.query("axis == 'tissue' and value == 'Lung' and method == 'a'").iloc[0]
    assert tissue["n"] == (frame["cell"] % 3 > 0).sum()


def test_slices_by_source_are_the_methods_by_source(experiment, slices):
    methods = methods_table(experiment).query("source != 'all'").set_index(["source", "method"])
    by_source = slices.query("axis == 'source'").set_index(["value", "method"]).loc[methods.index]
    for column in ("mae", "mae_low", "mae_rest", "bias", "n", "n_low", "n_drugs", "n_drugs_low"):
        assert by_source[column].tolist() == pytest.approx(methods[column].tolist())


def test_rows_without_a_prediction_do_not_count(experiment):
    frame = experiment.methods["a"]
    gap = frame.assign(auc_pred=frame["auc_pred"].where(frame["drug"] > 0))
    only = Experiment({**experiment.methods, "a": gap}, experiment.naive, "mse", "drug_blind", experiment.settings)
    table = slices_table(only, KNOWN, TISSUE).query("method == 'a' and axis == 'mechanism'").set_index("value")
    inside = frame["drug"].isin([1, 2])
    assert (table.loc["rare", "n"], table.loc["rare", "n_drugs"]) == (inside.sum(), 2)
    assert table.loc["rare", "mae"] == pytest.approx((frame["auc_pred"] - frame["auc"]).abs()[inside].mean())
    contrast = contrasts_table(only).query("method == 'a' and against == 'mse' and part == 'mae'").iloc[0]
    assert (contrast["n"], contrast["n_drugs"]) == ((frame["drug"] > 0).sum(), DRUGS - 1)
    ranks = ranks_table(only).query("part == 'mae'")
    assert set(ranks["n_drugs"]) == {DRUGS - 1}


def test_slices_do_not_depend_on_the_order_of_the_rows(slices):
    other = make_experiment(DRUGS, CELLS, shuffle=7)
    pd.testing.assert_frame_equal(slices, slices_table(other, KNOWN, TISSUE))


def test_bins_of_distance_hold_their_drugs(experiment):
    table = distance_table(experiment, SIMILARITY).query("method == 'mse'")
    for row in table.itertuples():
        inside = SIMILARITY.between(row.similarity_low, row.similarity_high, inclusive="left")
        inside |= (row.similarity_high == 1) & (SIMILARITY == 1)
        assert row.n_drugs == inside.sum()
        assert EDGES[row.bin] == row.similarity_low


@given(st.integers(0, 1000), st.sampled_from([3, 100]))
@settings(max_examples=15)
def test_resampled_rank_correlations_are_those_of_the_drawn_drugs(seed, steps):
    rng = np.random.default_rng(seed)
    x, y = (rng.integers(0, steps, 20).astype(float) for _ in range(2))
    boot = DrugBootstrap(np.arange(20), n_boot=20, seed=seed)
    rho, lower, upper = spearman_interval(x, y, boot, np.ones(20, dtype=bool))
    assert rho == pytest.approx(stats.spearmanr(x, y)[0])
    drawn = [np.repeat(np.arange(20), row.astype(int)) for row in boot.weights]
    slow = [stats.spearmanr(x[d], y[d])[0] for d in drawn]
    assert (lower, upper) == pytest.approx(tuple(np.nanquantile(slow, [0.025, 0.975])))


def test_the_trend_is_over_drugs(experiment):
    table = distance_trend_table(experiment, SIMILARITY).set_index(["method", "part"])
    frame = experiment.frames["b"]
    mae = (frame["auc_pred"] - frame["auc"]).abs().groupby(frame["drug"]).mean()
    assert table.loc[("b", "mae"), "rho"] == pytest.approx(stats.spearmanr(SIMILARITY[mae.index], mae)[0])
    assert np.isnan(table.loc[(experiment.strongest, "difference"), "rho"])  # it is 0 for every drug


@pytest.fixture(scope="module")
def driven(experiment):
    """The tables of pairs and of concentration, the drugs, and what is measured again."""
    drugs = pd.DataFrame({name: [f"{name}{i}" for i in range(DRUGS)] for name in ("drug_id", "drug_name")})
    drugs = drugs.assign(target="", mechanism="unknown", mechanism_from="")
    nearest = pd.DataFrame({"drug": range(DRUGS), "nearest": "x", "similarity": SIMILARITY, "scaffold": "new"})
    table = drugs_table(experiment, drugs, nearest)
    rng = np.random.default_rng(0)
    n = len(experiment.rows)
    again = pd.DataFrame({"replicates": 1, "auc_sd": np.nan, "n_others": 1, "other_auc": rng.random(n)})
    again.loc[rng.random(n) < 0.3, "other_auc"] = np.nan
    again["other_difference"] = experiment.rows["auc"] - again["other_auc"]
    again["disagrees"] = (again["other_difference"].abs() > 0.2).astype("boolean").where(again["other_auc"].notna())
    cells = pd.DataFrame({name: [f"{name}{i}" for i in range(CELLS)] for name in ("cell_id", "cell_name", "tissue")})
    return (*pairs_tables(experiment, table, high_error_table(experiment, table), again, cells), table, again)


def test_shares_of_a_drugs_error_fall_and_sum_to_one(experiment, driven):
    pairs, *_ = driven
    assert (pairs["place"] <= 20).all()
    for (method, drug), rows in pairs.groupby(["method", "drug"]):
        frame = experiment.frames[method]
        own = frame[frame["drug"] == drug]
        error = (own["auc_pred"] - own["auc"]).abs()
        assert rows["abs_error"].tolist() == pytest.approx(error.nlargest(20).tolist())
        assert rows["share"].tolist() == pytest.approx((error.nlargest(20) / error.sum()).tolist())
        assert rows["share_cumulated"].tolist() == pytest.approx(rows["share"].cumsum().tolist())
        if len(own) <= 20:
            assert rows["share"].sum() == pytest.approx(1)
            assert rows["share_squared"].sum() == pytest.approx(1)


def test_the_pairs_are_those_of_the_high_error_drugs_and_the_worst(experiment, driven):
    pairs, _, drugs, _ = driven
    for method in experiment.methods:
        worst = set(drugs[drugs["method"] == method].nlargest(5, "mae")["drug"])
        listed = set(pairs[pairs["method"] == method]["drug"])
        assert worst <= listed
    high = set(pairs[pairs["chosen"] == "high error"]["drug"])
    assert high == set(drugs.query("method == 'mse' and mae_z > 2")["drug"])


def test_concentration_against_a_loop(experiment, driven):
    _, table, _, again = driven
    table = table.set_index(["method", "drug"])
    for method, frame in experiment.frames.items():
        for drug, own in frame.groupby("drug"):
            error = np.sort((own["auc_pred"] - own["auc"]).abs())[::-1]
            n, found = len(error), table.loc[(method, drug)]
            reached = np.cumsum(error) / error.sum()
            assert found["n_half"] == np.argmax(reached >= 0.5) + 1
            assert found["gini"] == pytest.approx(np.abs(error[:, None] - error).sum() / (2 * n**2 * error.mean()))
            assert found["top_share"] == pytest.approx(error[: int(np.ceil(n / 10))].sum() / error.sum())
            other = again["other_auc"].to_numpy()[own.index]
            assert found["n_checked"] == np.isfinite(other).sum()
            assert found["second_mae"] == pytest.approx(np.nanmean(np.abs(own["auc"] - other)), nan_ok=True)
            worst = (own["auc_pred"] - own["auc"]).abs().nlargest(found["n_half"]).index
            pred, second = own["auc_pred"][worst], again["other_auc"][worst]
            assert found["worst_checked"] == second.notna().sum()
            if found["worst_checked"]:
                assert found["worst_other"] == pytest.approx((pred - second).abs().mean())


def test_what_was_measured_again(tmp_path):
    bundle = make_bundle(tmp_path, range(6), n_cells=4)
    rows = bundle.response
    response = rows.assign(
        cell_id=bundle.cells["cell_id"].to_numpy()[rows["cell"]],
        drug_id=bundle.drugs["drug_id"].to_numpy()[rows["drug"]],
        replicates=1 + (rows["cell"] == 0),
        auc_sd=np.where(rows["cell"] == 0, 0.2, np.nan),
    )
    found = measured_again(bundle, response.sample(frac=1, random_state=0))
    for row, own in zip(rows.itertuples(), found.itertuples(), strict=True):
        same = rows[(rows["cell"] == row.cell) & (rows["drug"] == row.drug) & (rows["source"] != row.source)]
        assert own.n_others == len(same)
        repeats = row.cell == 0
        if len(same):
            assert own.other_auc == pytest.approx(same["auc"].mean())
            far = abs(row.auc - same["auc"].mean()) > 0.2
            assert own.disagrees == (far or repeats)  # an SD of 0.2 is two repeats 0.28 apart
        else:
            assert own.disagrees is pd.NA if not repeats else own.disagrees


def test_scaffolds_and_the_error_of_knowing_nothing(tmp_path):
    phenols = ["Oc1ccccc1", "Cc1ccc(O)cc1", "Oc1ccc2ccccc2c1"]
    bundle = make_bundle(tmp_path, range(9), smiles=[*phenols, *("C" * (i + 2) + "O" for i in range(6))])
    split = Split(kind="leave_one_drug_out")
    parts = [(f"part-{label}", label, split) for label in labels(split, bundle)]
    found, levels = describe_parts(parts, bundle)
    assert found["scaffold"].tolist()[2:] == [NEW] + [NO_RING] * 6
    for (_, label, _), seen in zip(parts[:2], found["scaffold"][:2], strict=True):
        train = bundle.response["drug"].to_numpy()[make_rows(split, label, bundle).train]
        other = 1 - bundle.drugs["drug_id"].tolist().index(label)  # may be among the validation drugs
        assert seen == (IN_TRAINING if other in train else NEW)
    assert levels["split"].tolist() == [name for name, *_ in parts]
    assert levels["validation_mae"].between(0.1, 0.4).all()  # a constant against uniform AUCs: about 0.25


def response_of(values):
    """(source, cell, drug, auc, replicates, auc_sd) rows as an integrated table."""
    columns = ["source", "cell_id", "drug_id", "auc", "replicates", "auc_sd"]
    return pd.DataFrame(values, columns=columns)


def test_a_second_measurement_by_repeats_and_by_other_sources():
    response = response_of(
        [
            ("A", "c0", "d0", 0.5, 2, 0.2 / np.sqrt(2)),  # 0.4 and 0.6
            ("A", "c1", "d0", 0.9, 1, np.nan),
            ("B", "c1", "d0", 0.3, 1, np.nan),
            ("C", "c1", "d0", 0.5, 1, np.nan),
        ]
    )
    found = second_errors(response, shared_pairs(response), NO_CURVES).set_index(["source", "estimate"])
    repeats = found.loc[("A", "repeats")]
    assert (repeats["n"], repeats["n_low"]) == (2, 1)
    assert repeats[["second_mae", "second_mae_low", "second_mae_rest"]].tolist() == pytest.approx([0.2] * 3)
    assert found.loc[("A", "other sources"), "second_mae"] == pytest.approx((0.6 + 0.4) / 2)
    assert found.loc[("B", "other sources"), "second_mae_low"] == pytest.approx((0.6 + 0.2) / 2)
    assert np.isnan(found.loc[("B", "other sources"), "second_mae_rest"])


def test_a_second_plate_lies_as_far_as_the_mean_of_the_others():
    response = response_of([("A", "c0", "d0", 0.5, 1, np.nan)])
    curves = pd.DataFrame(
        {"source": "A", "cell_name": "c", "drug_name": "d", "used": True, "auc_tested": [0.2, 0.6, 0.9]}
    )
    found = second_errors(response, shared_pairs(response), curves).iloc[0]
    assert found["second_mae"] == pytest.approx(np.mean([(0.4 + 0.7) / 2, (0.4 + 0.3) / 2, (0.7 + 0.3) / 2]))
    assert found["second_mae_low"] == pytest.approx((0.4 + 0.7) / 2)


def test_floors_are_of_the_tested_rows(experiment):
    known = [("A", "other sources", 50, 0.05, 0.2, 0.9, 0.03), ("B", "other sources", 60, 0.1, 0.2, 0.7, 0.07)]
    known += [("A", "repeats", 9, 0.06, 0.2, 0.9, 0.04), ("C", "repeats", 9, 0.06, 0.2, 0.9, 0.04)]
    table = pd.DataFrame(known, columns=list(NOISE_COLUMNS))
    second = pd.DataFrame(
        {"source": ["A", "B"], "estimate": "other sources", "n": 5, "n_low": 2, "n_drugs": 3, "second_mae": [0.1, 0.2]}
    )
    for part in ("second_mae", "second_mae_low", "second_mae_rest"):
        second[[f"{part}{end}" for end in ("", "_lower", "_upper")]] = [[0.1] * 3, [0.2] * 3]
    found = floors_table(experiment, table, second).set_index(["source", "estimate"])
    assert list(found.index) == [
        ("all", "other sources"),
        ("A", "other sources"),
        ("B", "other sources"),
        ("A", "repeats"),
    ]
    auc, source = experiment.rows["auc"], experiment.rows["source"]
    own = auc[source == "A"]
    assert found.loc[("A", "other sources"), "best_r2"] == pytest.approx(1 - 0.05**2 / own.var(ddof=0))
    whole, share = found.loc[("all", "other sources")], (source == "A").mean()
    assert whole["best_mae"] == pytest.approx(0.03 * share + 0.07 * (1 - share))
    square = 0.05**2 * share + 0.1**2 * (1 - share)
    assert whole["best_r2"] == pytest.approx(1 - square / auc.var(ddof=0))
    low = (source[auc < 0.5] == "A").mean()
    assert whole["second_mae_low"] == pytest.approx(0.1 * low + 0.2 * (1 - low))


def test_a_perfect_model_of_the_pairs_reaches_the_floor():
    """Two sources that measure the same pairs with normal noise: who knows the pairs' own AUC errs by best_mae."""
    rng = np.random.default_rng(0)
    truth = np.clip(rng.beta(5, 2, 4000), 0.2, 0.95)
    rows = [
        (source, f"c{i % 40}", f"d{i // 40}", value, 1, np.nan)
        for source in ("A", "B")
        for i, value in enumerate(truth + rng.normal(0, 0.05, len(truth)))
    ]
    response = response_of(rows)
    shared = shared_pairs(response)
    found = noise(response, shared, agreement(shared), NO_CURVES).set_index("source").loc["A"]
    error = np.abs(response["auc"][: len(truth)] - truth)
    assert found["best_mae"] == pytest.approx(error.mean(), rel=0.05)
    second = second_errors(response, shared, NO_CURVES).set_index("source").loc["A"]
    low = (response["auc"][: len(truth)] < 0.5).to_numpy()
    assert error[low].mean() < second["second_mae_low"] < 2 * error[low].mean()  # the bound is one
