"""The analysis from prediction frames to tables, figures and the opening page, on hand-made predictions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_splits import make_bundle

from hedflow.analysis import TABLES, tables
from hedflow.analysis.experiment import Experiment, legal_baselines
from hedflow.analysis.paired import contrasts_table
from hedflow.analysis.run import Measurements, make_tables
from hedflow.bundle import open_bundle
from hedflow.config import Analysis, Split
from hedflow.figures import FIGURES
from hedflow.figures import experiment as figures
from hedflow.figures.integration import draw_lost_rows
from hedflow.files import write_json, write_parquet
from hedflow.harmony import NOISE_COLUMNS, agreement, noise, second_errors, shared_pairs
from hedflow.integrate import NO_CURVES
from hedflow.report import _escaped, headline, make_answer

DRUGS, CELLS = 30, 24


def frame(predict) -> pd.DataFrame:
    """Two sources of 30 drugs x 24 cells; `predict(auc, drug, rng)` makes the predictions."""
    rng = np.random.default_rng(0)
    level = np.clip(rng.beta(5, 1.2, DRUGS), 0.1, 1)
    parts = []
    for source in ("A", "B"):
        cell, drug = (grid.ravel() for grid in np.meshgrid(np.arange(CELLS), np.arange(DRUGS)))
        auc = np.clip(level[drug] + rng.normal(0, 0.08, len(drug)), 0, 1)
        parts.append(pd.DataFrame({"cell": cell, "drug": drug, "source": source, "auc": auc.astype(np.float32)}))
    table = pd.concat(parts, ignore_index=True)
    table.insert(0, "row", np.arange(len(table)))
    return table.assign(auc_pred=predict(table["auc"].to_numpy(), table["drug"].to_numpy(), rng))


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return Experiment(
        methods={
            "mse": frame(lambda auc, drug, rng: 0.8 + 0.1 * rng.random(len(auc))),
            "low": frame(lambda auc, drug, rng: 0.5 + 0.1 * rng.random(len(auc))),
        },
        naive={
            "global_mean": frame(lambda auc, drug, rng: np.full(len(auc), auc.mean())),
            "tanimoto_knn": frame(lambda auc, drug, rng: auc + rng.normal(0, 0.05, len(auc))),
        },
        reference="mse",
        split_kind="drug_blind",
        settings=Analysis(bootstrap=100, top_k=5, high_error_z=1.0),
    )


@pytest.fixture(scope="module")
def made(experiment, tmp_path_factory) -> dict[str, pd.DataFrame]:
    """All tables of the experiment, on a bundle whose response is the frames'."""
    folder = tmp_path_factory.mktemp("bundle")
    make_bundle(folder, range(DRUGS), n_cells=CELLS)
    rows = experiment.rows.drop(columns="row")
    write_parquet(folder / "response.parquet", rows)
    drugs = pd.read_parquet(folder / "drugs.parquet")
    mechanism = np.where(np.arange(DRUGS) < 3, "rare", "common")
    write_parquet(
        folder / "drugs.parquet", drugs.assign(drug_name="*drug_" + drugs.index.astype(str) + "*", mechanism=mechanism)
    )
    bundle = open_bundle(folder)
    split = Split(folds=3)
    history = [
        {"epoch": i, "loss": 1 / (i + 1), "validation_balanced_mae": 0.3 - i / 100, "validation_mae": 0.2, "rate": 1e-3}
        for i in range(4)
    ]
    spec = {"split": split.deciding(), "training": {"epochs": 4}}
    plan = pd.DataFrame(
        [
            {"run": f"{method}.{label}", "method": method, "split": f"drug_blind-{label}", "split_kind": "drug_blind",
             "spec": json.dumps({**spec, "label": label})}
            for method in experiment.methods for label in ("f0", "f1", "f2")
        ]
    )  # fmt: skip
    runs = plan[["run"]].assign(seed=0, best_epoch=0, history=json.dumps(history), monitor="validation_balanced_mae")
    response = rows.assign(
        cell_id=bundle.cells["cell_id"].to_numpy()[rows["cell"]],
        drug_id=bundle.drugs["drug_id"].to_numpy()[rows["drug"]],
        auc_sd=np.nan,
        replicates=1,
    )
    shared = shared_pairs(response)
    found = noise(response, shared, agreement(shared), NO_CURVES)
    measurements = Measurements(response, found, second_errors(response, shared, NO_CURVES))
    return make_tables(experiment, bundle, plan, runs, measurements)


@pytest.fixture(scope="module")
def written(made, tmp_path_factory) -> Path:
    """A results folder with the tables of one experiment, `e`, as the rules leave it."""
    results = tmp_path_factory.mktemp("results")
    assert tuple(made) == TABLES
    for name, table in made.items():
        write_parquet(results / "e" / "tables" / f"{name}.parquet", table)
    losses = pd.DataFrame(
        {"source": ["A"], "step": "integrate", "reason": "no AUC", "rows_before": 10, "rows_lost": 2, "rows_after": 8}
    )
    response = pd.DataFrame({"source": ["A", "A"], "clipped": [1, 0], "replicates": [3, 1]})
    write_parquet(results / "integration" / "response.parquet", response)
    write_parquet(results / "integration_report.parquet", losses)
    noise = pd.DataFrame([("A", "other sources", 50, 0.1, 0.2, 0.75, 0.07)], columns=list(NOISE_COLUMNS))
    write_parquet(results / "integration" / "noise.parquet", noise)
    write_parquet(results / "integration" / "curves.parquet", NO_CURVES)
    write_parquet(
        results / "integration" / "cell_identity.parquet", pd.DataFrame({"route": ["name", "ambiguous name"]})
    )
    write_parquet(results / "integration" / "drug_identity.parquet", pd.DataFrame({"drug_id": ["A" * 14, None]}))
    manifest = {
        "rows": 8,
        "cells": 2,
        "drugs": 3,
        "sources": {"A": 8},
        "views": {"expression": {"columns": ["G"]}, "mutations": {"columns": ["G"], "cells_imputed": 2}},
        "digest": "d",
    }
    write_json(results / "bundle" / "manifest.json", manifest)
    audits = [{"unused": count, **({"unused_because": "no tissue"} if count else {})} for count in (0, 3, 1200)]
    write_json(results / "e" / "audit.json", audits)
    figures.draw_all(results / "e" / "tables", results / "e" / "figures")
    return results


def table_of(written, name) -> pd.DataFrame:
    return pd.read_parquet(written / "e" / "tables" / f"{name}.parquet")


def test_methods_say_what_the_rows_say(experiment, written):
    table = table_of(written, "methods").set_index(["source", "method"])
    for name, rows in experiment.frames.items():
        for source, part in [("all", rows), *rows.groupby("source")]:
            error, low = (part["auc_pred"] - part["auc"]).abs().astype(float), part["auc"] < 0.5
            found = table.loc[(source, name)]
            assert found["mae"] == pytest.approx(error.mean(), rel=1e-6)
            assert found["mae_low"] == pytest.approx(error[low].mean(), rel=1e-6)
            assert found["mae_rest"] == pytest.approx(error[~low].mean(), rel=1e-6)
            assert (found["n"], found["n_low"], found["n_drugs"]) == (len(part), low.sum(), DRUGS)
            assert found["mae_lower"] < found["mae"] < found["mae_upper"]


def test_the_strongest_naive_baseline_is_the_yardstick(experiment, written):
    assert experiment.strongest == "tanimoto_knn"
    table = table_of(written, "methods").query("source == 'all'").set_index("method")
    assert table.loc["tanimoto_knn", "r2_normalised"] == 0
    assert (table.drop("tanimoto_knn")["r2_normalised"] < 0).all()


def test_contrasts_are_paired_differences(experiment, written):
    table = table_of(written, "contrasts").set_index(["method", "against", "part"])
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


def test_the_ranking_of_every_line_averages_to_the_summary(written):
    lines = table_of(written, "cell_ranking").groupby(["method", "source"])["recall"].mean()
    summary = table_of(written, "ranking").query("metric == 'recall'").set_index(["method", "source"])["estimate"]
    assert lines.loc[summary.index].tolist() == pytest.approx(summary.tolist())


def test_no_potent_pair_was_tested(experiment, written, tmp_path):
    def without(frames):
        return {name: rows[rows["auc"] >= 0.5].reset_index(drop=True) for name, rows in frames.items()}

    only = Experiment(without(experiment.methods), without(experiment.naive), "mse", "drug_blind", experiment.settings)
    copy_tables(written, tmp_path)
    write_parquet(tmp_path / "e/tables/contrasts.parquet", contrasts_table(only))
    for name in ("methods", "ranges"):
        write_parquet(tmp_path / f"e/tables/{name}.parquet", getattr(tables, f"{name}_table")(only))
    for name, table in zip(("shift_curve", "equal_cost"), tables.shift_tables(only), strict=True):
        assert table.empty
        write_parquet(tmp_path / f"e/tables/{name}.parquet", table)
    figures.draw_all(tmp_path / "e/tables", tmp_path / "e/figures")
    page, numbers = make_answer(tmp_path, ["e"])
    assert "No pair with a true AUC below 0.5 was tested." in page
    assert numbers["e"]["best_low"] is None


def copy_tables(written, folder) -> None:
    for path in written.rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(written)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())


def test_ranges_hold_every_row_once(experiment, written):
    table = table_of(written, "ranges")
    for (_, _), rows in table.groupby(["method", "ranges"]):
        assert rows["n"].sum() == 2 * DRUGS * CELLS
    two = table.query("ranges == 2 and method == 'mse'").sort_values("low")
    methods = table_of(written, "methods").query("source == 'all' and method == 'mse'").iloc[0]
    assert two["mae"].tolist() == pytest.approx([methods["mae_low"], methods["mae_rest"]], rel=1e-6)
    inside = table[table["lower"].notna()]
    assert (inside["lower"] <= inside["mae"] + 1e-9).all()
    assert (inside["upper"] >= inside["mae"] - 1e-9).all()


def test_high_error_drugs_are_the_worst_of_the_reference(written):
    high, drugs = table_of(written, "high_error_drugs"), table_of(written, "drugs").query("method == 'mse'")
    assert 0 < len(high) < DRUGS
    assert set(high["drug"]) == set(drugs.loc[drugs["mae_z"] > 1.0, "drug"])
    assert high["mae"].is_monotonic_decreasing
    other = table_of(written, "drugs").query("method == 'low'").set_index("drug")["mae"]
    assert high["mae:low"].tolist() == other.loc[high["drug"]].tolist()


def test_baselines_without_tissues_leave_the_tissue_mean_out():
    known, unknown = pd.Series(["Lung", "unknown"]), pd.Series(["unknown", "unknown"])
    assert "tissue_mean" in legal_baselines("drug_blind", known)
    assert "tissue_mean" not in legal_baselines("drug_blind", unknown)
    assert "drug_mean" not in legal_baselines("drug_blind", known)


def test_every_figure_has_a_caption_and_is_drawn_alike_twice(written, repo, tmp_path):
    figures.draw_all(written / "e" / "tables", tmp_path)
    for name in FIGURES:
        assert (repo / "workflow" / "report" / f"{name}.rst").is_file()
        first = (written / "e" / "figures" / f"{name}.png").read_bytes()
        assert first.startswith(b"\x89PNG")
        assert first == (tmp_path / f"{name}.png").read_bytes()


def test_figures_of_an_experiment_without_high_error_drugs_or_rankings(written, tmp_path):
    for name in TABLES:
        table = table_of(written, name)
        write_parquet(tmp_path / f"{name}.parquet", table[:0] if name in ("high_error_drugs", "ranking") else table)
    figures.draw_all(tmp_path, tmp_path / "figures")
    assert len(list((tmp_path / "figures").glob("*.png"))) == len(FIGURES)


def test_lost_rows_are_drawn(written, tmp_path):
    draw_lost_rows(pd.read_parquet(written / "integration_report.parquet"), tmp_path / "lost.png")
    assert (tmp_path / "lost.png").stat().st_size > 1000


def test_the_page_opens_with_the_answer(written):
    page, numbers = make_answer(written, ["e"])
    assert "low has a lower error there than mse by an interval that excludes 0" in page
    assert "No model beats it by an interval that excludes 0; mse, low are worse than it" in page
    assert r"recall\@5" in page  # a bare @ would become a mail address
    assert "A 1 (25.0%)" in page  # set to 1
    assert "Used nowhere, by part of the split: 3 to 1,200 rows (no tissue)." in page
    assert "Features: expression 1, mutations 1 (training means for 2 cell lines without them)." in page
    assert (
        page.index("Which losses help")
        < page.index("Is that more than")
        < page.index("Does any model beat")
        < page.index("High error drugs")
    )
    assert r"\*drug\_" in page  # a drug's name is no markup
    assert max(map(len, page.splitlines())) < 10_000
    found = numbers["e"]
    assert (found["best_low"], found["strongest_naive"], found["drugs"]) == ("low", "tanimoto_knn", DRUGS)
    contrast = table_of(written, "contrasts").query("method == 'low' and against == 'mse' and part == 'mae_low'")
    assert found["low"]["difference"] == pytest.approx(contrast["difference"].iloc[0], abs=1e-6)


def test_the_page_of_a_single_method_compares_with_the_naive_one_only(experiment, written, tmp_path):
    single = Experiment({"mse": experiment.methods["mse"]}, experiment.naive, "mse", "drug_blind", experiment.settings)
    copy_tables(written, tmp_path)
    write_parquet(tmp_path / "e/tables/methods.parquet", tables.methods_table(single))
    write_parquet(tmp_path / "e/tables/contrasts.parquet", contrasts_table(single))
    page, numbers = make_answer(tmp_path, ["e"])
    assert "Which losses help" not in page
    assert numbers["e"]["low"] is None
    write_json(tmp_path / "report/answer.json", numbers)
    assert re.search(r"1\. .*\n  2\. .*\n  3\. ", headline(tmp_path))


def test_markup_and_templates_in_names_stay_text():
    assert _escaped("a*b_c|`{{ x }}`") == r"a\*b\_c\|\`(( x ))\`"
