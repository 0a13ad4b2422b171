"""Classes of convergence: one history for each, and none depends on the scale of the loss."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedflow.analysis import convergence
from hedflow.analysis.convergence import CLASSES, convergence_table, judge

NAIVE = 0.2
MONITOR = "validation_mae"


def history(error, loss):
    return pd.DataFrame({"epoch": range(len(error)), MONITOR: error, "loss": loss})


FALLING = np.geomspace(1, 0.1, 20)
PLATEAU = np.r_[np.linspace(0.19, 0.1, 8), np.full(12, 0.101)]
CASES = {
    convergence.CONVERGED: history(PLATEAU, FALLING),
    convergence.IMPROVING: history(np.linspace(0.19, 0.1, 20), FALLING),
    convergence.OVERFITTED: history(np.r_[np.linspace(0.19, 0.1, 8), np.linspace(0.1, 0.12, 12)], FALLING),
    convergence.NO_GAIN: history(np.full(20, 0.2), FALLING),
    convergence.NOT_TRAINED: history(np.full(20, 0.2), np.full(20, 1.0)),
    convergence.DIVERGED: history(np.r_[0.19, 0.1, np.full(18, 0.5)], FALLING[::-1]),
    convergence.ONE_EPOCH: history([0.1], [0.1]),
    convergence.NOT_ITERATIVE: history([], []),
}


@pytest.mark.parametrize("expected", CLASSES)
def test_each_class(expected):
    assert judge(CASES[expected], MONITOR, NAIVE)["class"] == expected


def test_what_is_not_finite_has_diverged():
    for broken in (history([0.19, np.nan], [1, 0.5]), history([0.19, 0.1], [1, np.inf]), history([np.nan] * 2, [1, 1])):
        assert judge(broken, MONITOR, NAIVE)["class"] == convergence.DIVERGED


def test_a_run_that_stopped_early_has_converged_whatever_its_last_quarter():
    found = judge(CASES[convergence.IMPROVING], MONITOR, NAIVE, stopped_early=True)
    assert found["class"] == convergence.CONVERGED


def test_a_rise_while_the_training_loss_rises_too_is_no_overfitting():
    """Only a loss that goes on falling says that the training rows are learnt by heart."""
    rising = CASES[convergence.OVERFITTED].assign(loss=np.r_[np.linspace(1, 0.1, 8), np.linspace(0.1, 0.5, 12)])
    assert judge(rising, MONITOR, NAIVE)["class"] == convergence.CONVERGED


errors = st.lists(st.floats(0.01, 1), min_size=2, max_size=30)


@given(errors, st.integers(0, 99), st.floats(1e-6, 1e6))
def test_the_class_does_not_depend_on_the_scale_of_the_loss(error, seed, scale):
    loss = np.random.default_rng(seed).uniform(0.1, 1, len(error))
    once, scaled = (judge(history(error, loss * by), MONITOR, NAIVE) for by in (1, scale))
    assert once["class"] == scaled["class"]
    assert {k: v for k, v in once.items() if k != "class"} == pytest.approx(
        {k: v for k, v in scaled.items() if k != "class"}, nan_ok=True
    )


@given(errors, st.integers(0, 99), st.floats(0.1, 10))
def test_nor_on_the_unit_of_the_response(error, seed, unit):
    """Errors in percent are judged as errors in shares."""
    loss = np.random.default_rng(seed).uniform(0.1, 1, len(error))
    error = np.array(error)
    found = [judge(history(error * by, loss), MONITOR, NAIVE * by)["class"] for by in (1, 2.0 ** np.round(unit))]
    assert found[0] == found[1]


def test_the_table_takes_the_monitor_and_the_part_of_each_run():
    balanced = CASES[convergence.CONVERGED].rename(columns={MONITOR: "validation_balanced_mae"})
    runs = pd.DataFrame({"run": ["a", "b"], "method": ["mse", "mae"], "split": ["f0", "f1"], "seed": [0, 1]}).assign(
        monitor=[MONITOR, "validation_balanced_mae"],
        status="trained",
        history=[json.dumps(t.to_dict("records")) for t in (CASES[convergence.OVERFITTED], balanced)],
    )
    plan = pd.DataFrame({"run": ["b", "a"], "spec": [json.dumps({"training": {"epochs": 50}}), json.dumps({})]})
    levels = pd.DataFrame(
        {"split": ["f1", "f0"], "validation_mae": [9.0, NAIVE], "validation_balanced_mae": [0.25, 9.0]}
    )
    found = convergence_table(runs, plan, levels).set_index("run")
    assert found.loc["a", ["class", "naive", "best_epoch", "stopped_early"]].tolist() == ["overfitted", NAIVE, 7, False]
    assert found.loc["b", ["class", "naive", "planned_epochs"]].tolist() == ["converged", 0.25, 50]
    assert found.loc["b", "stopped_early"]
    failed = convergence_table(runs.assign(status=["failed", "trained"]), plan, levels)
    assert failed["class"].tolist() == ["diverged", "converged"]
    assert found.loc["a", "rise"] == pytest.approx(np.median(np.linspace(0.1, 0.12, 12)[-3:]) / 0.1 - 1)


def test_a_run_that_monitors_its_loss_is_judged_by_an_error_of_known_scale():
    """Of a loss there is no level of knowing nothing: a run that never learnt would have converged."""
    nothing = pd.DataFrame({"epoch": range(10), "loss": 1.0, "validation_loss": 0.03, "validation_balanced_mae": 0.25})
    blown = nothing.assign(validation_loss=2.0 ** np.arange(10), validation_balanced_mae=np.linspace(0.2, 0.8, 10))
    histories = [nothing, blown, nothing.head(0)]
    runs = pd.DataFrame(
        {"run": ["a", "b", "c"], "method": "mse", "split": "f0", "seed": 0, "status": "trained"}
    ).assign(monitor="validation_loss", history=[json.dumps(t.to_dict("records")) for t in histories])
    plan = runs[["run"]].assign(spec=json.dumps({"training": {"epochs": 10}}))
    levels = pd.DataFrame({"split": ["f0"], "validation_mae": [9.0], "validation_balanced_mae": [0.25]})
    found = convergence_table(runs, plan, levels)
    assert found["class"].tolist() == ["not trained", "diverged", "not iterative"]
    assert found["judged_by"].unique().tolist() == ["validation_balanced_mae"]
    assert not found["stopped_early"].any()
    assert found["planned_epochs"].isna().tolist() == [False, False, True]
