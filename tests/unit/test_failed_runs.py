"""Experiments with failed runs: the analysis goes on to its page, which says what failed, and is fair."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from written import experiment_of, frame, naive_frames, tables_of, write_results

from hedflow.analysis.tables import shift_tables
from hedflow.figures import FIGURES
from hedflow.files import write_json
from hedflow.report import headline, make_answer
from hedflow.report.markdown import results_table

DRUGS = 24
LEVEL = frame(lambda auc, drug, rng: auc, DRUGS).groupby("drug")["auc"].mean()
HARD = LEVEL.nsmallest(4).index


def predicting(method, offset=0.0):
    """`near` the truth but for the hard drugs; `part`: the same, a little worse, its run of the hard drugs failed."""

    def predict(auc, drug, rng):
        hard = np.isin(drug, HARD)
        near = np.where(hard, auc + 0.3, auc + rng.normal(0, 0.1, len(auc))) + offset
        return {"near": near, "part": np.where(hard, np.nan, near), "failed": np.full(len(auc), np.nan)}[method]

    return frame(predict, DRUGS)


def reported(folder, repo, names=("tradeoff",), **methods):
    """Tables, page, numbers and last lines of an experiment."""
    made = tables_of(experiment_of(methods, naive_frames(DRUGS)), folder / "bundle", drugs=DRUGS)
    results = write_results(folder / "results", made, names=names)
    page, numbers = make_answer(results, ["e"], repo / "resources" / "published_hed.csv")
    write_json(results / "report" / "answer.json", numbers)
    return made, page, numbers["e"], headline(results), results


@pytest.fixture(scope="module")
def some(tmp_path_factory, repo):
    """A reference, a method worse than it whose run of the hard drugs failed, and one whose runs all failed."""
    methods = {"mse": predicting("near"), "part": predicting("part", 0.02), "bad": predicting("failed")}
    return reported(tmp_path_factory.mktemp("some"), repo, FIGURES, **methods)


def test_a_method_whose_runs_all_failed_is_left_out_and_said(some):
    made, page, numbers, last, _ = some
    assert set(made["ranking"]["method"]) >= {"mse", "part"}
    assert "bad" not in set(made["ranking"]["method"])
    assert "No run of bad made a prediction" in page
    assert "nan" not in last.lower() + page[: page.index("data:image")].lower()
    assert "potent pairs" in last
    assert not re.search(r"[ +-]nan\b", page)
    assert (numbers["best_overall"], numbers["methods"]) == ("mse", 3)


def test_a_method_that_failed_where_it_is_hard_is_not_called_the_best(some):
    """Its errors are of easier rows; beside the others' they would be the lowest, though it is worse on every row."""
    made, page, numbers, _, results = some
    overall = made["methods"].query("source == 'all'").set_index("method")
    assert overall.loc["part", "mae"] < overall.loc["mse", "mae"]
    assert overall.loc["part", "n_low"] == overall.loc["mse", "n_low"]
    assert numbers["best_low"] is None
    assert "part errs" not in page
    rows = page[page.index("**Methods.**") :].splitlines()
    assert any(line.strip().endswith(r"- \ part\*") for line in rows)
    assert r"\* part: of only" in page
    assert made["comparison"]["strongest"].iloc[0] not in {"part", "bad"}
    table = results_table(results / "e")
    assert r"| part\* |" in table
    assert "* part: of only" in table


def test_what_was_not_computed_is_not_said_to_cost_nothing(some):
    page = some[1]
    changes = page[page.index("**Against mse.**") : page.index("Epochs behind")]
    row = changes[changes.index(r"- \ part\*") :].split("\n")
    assert "costs no more" not in row[3]


def test_a_reference_whose_runs_all_failed_has_a_page_that_says_so(tmp_path, repo):
    made, page, numbers, last, results = reported(
        tmp_path, repo, FIGURES, mse=predicting("failed"), mae=predicting("near")
    )
    assert "No run of mse, the reference, made a prediction" in page
    assert "no pair was potent" not in page
    assert made["ranking"].empty
    assert made["high_error_drugs"].empty
    assert (numbers["best_overall"], numbers["reference_mae_low"]) == ("mae", None)
    assert "nan" not in last.lower() + page[: page.index("data:image")].lower()
    assert r"| mse\* | - | - | - | - |" in results_table(results / "e")


def test_only_potent_pairs_or_no_other_has_last_lines(tmp_path):
    contrast = {"difference": -0.1, "lower": -0.2, "upper": 0.0, "relative": None}
    found = {
        "runs": 1,
        "rows": 10,
        "drugs": 2,
        "split": "auc_range",
        "reference": "mse",
        "best_low": "mae",
        "low": contrast,
        "rest": None,
        "best_overall": None,
        "strongest_naive": "x",
        "against_naive": None,
        "high_error_drugs": 0,
        "reference_mae_low": None,
    }
    for low in (contrast, None):
        write_json(tmp_path / "report" / "answer.json", {"e": {**found, "low": low}})
        assert "None" not in headline(tmp_path)
        assert "nan" not in headline(tmp_path)


def test_equal_cost_is_of_the_rows_that_are_predicted(some):
    """A failed part makes the target of the others' rows, not NaN, which would leave the method out unseen."""
    frames = {"mse": predicting("near", -0.3), "part": predicting("part", -0.3)}
    experiment = experiment_of(frames, {"global_mean": naive_frames(DRUGS)["global_mean"]})
    found = shift_tables(experiment)[1].set_index("method")
    known = frames["part"]["auc_pred"].notna()
    assert found.loc["part", "n"] == (known & (frames["part"]["auc"] < 0.5)).sum()
    assert pd.notna(found.loc["part", ["difference", "lower", "upper"]]).all()
