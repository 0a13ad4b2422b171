"""Conformal intervals: the quantile against a loop, coverage of exchangeable drugs, and where none can be given."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedflow.analysis.conformal import ALL_PARTS, MIN_DRUGS, SAME_PART, conformal_table, half_widths
from hedflow.analysis.experiment import Experiment
from hedflow.config import Analysis


def make_experiment(drugs=60, cells=15, seed=0, parts=2, shuffle=None):
    """Drugs of unequal difficulty, in `parts` parts of the split; one naive baseline."""
    rng = np.random.default_rng(seed)
    drug = np.repeat(np.arange(drugs), rng.integers(3, cells, drugs))
    cell = np.concatenate([np.arange(n) for n in np.bincount(drug)])
    auc = np.clip(rng.beta(4, 1.5, len(drug)), 0, 1).astype(np.float32)
    rows = pd.DataFrame({"row": np.arange(len(drug)), "cell": cell, "drug": drug, "source": "A", "auc": auc})
    frames = {}
    for name in ("mse", "mean"):
        pred = np.clip(auc + rng.normal(0, rng.uniform(0.01, 0.3, drugs)[drug]), 0, 1)
        frames[name] = rows.assign(auc_pred=pred)
    if shuffle is not None:
        frames = {name: frame.sample(frac=1, random_state=shuffle) for name, frame in frames.items()}
    part = pd.Series(drug % parts if parts else -1, index=rows["row"])
    settings = Analysis(bootstrap=100)
    return Experiment({"mse": frames["mse"]}, {"mean": frames["mean"]}, "mse", "drug_blind", settings, part)


@given(st.integers(0, 10_000), st.sampled_from([2, 25]), st.sampled_from([1, 2]))
@settings(max_examples=12)
def test_half_widths_against_a_loop(seed, n_drugs, n_strata):
    rng = np.random.default_rng(seed)
    drug = rng.integers(0, n_drugs, 40)
    absolute = rng.integers(0, 8, 40) / 8  # ties
    strata = rng.integers(0, n_strata, 40)
    levels = (0.5, 0.9)
    found = half_widths(absolute, drug, strata, levels)
    for i in range(40):
        others = [absolute[(drug == d) & (strata == strata[i])] for d in set(drug[strata == strata[i]]) - {drug[i]}]
        for level, half in zip(levels, found[:, i], strict=True):
            needed = level * (len(others) + 1) - 1e-9
            reach = [r for r in np.unique(absolute) if sum(np.mean(e <= r) for e in others) >= needed]
            assert half == (min(reach) if reach else np.inf)


def test_a_new_drug_is_covered_as_often_as_promised():
    """1,000 drugs that may be exchanged, each with 20 others: coverage within five standard errors of the level.

    Of one row a drug, whose weight is known, the promise is also sharp: level <= coverage < level + 1 / 21.
    """
    rng = np.random.default_rng(0)
    covered, sharp = [], []
    for _ in range(1000):
        size = rng.integers(1, 6, 21)
        drug = np.repeat(np.arange(21), size)
        absolute = np.abs(rng.normal(0, rng.gamma(1, 1, 21)[drug]))
        strata = np.zeros(len(drug), dtype=int)
        new = np.flatnonzero(drug == 0)[0]
        covered.append(absolute[new] <= half_widths(absolute, drug, strata, (0.8,))[0, new])
        one = np.abs(rng.normal(0, 1, 21))
        sharp.append(one[0] <= half_widths(one, np.arange(21), np.zeros(21, dtype=int), (0.8,))[0, 0])
    error = 5 * np.sqrt(0.8 * 0.2 / 1000)
    assert np.mean(covered) > 0.8 - error
    assert 0.8 - error < np.mean(sharp) < 0.8 + 1 / 21 + error


def test_coverage_is_counted_as_the_rows_say():
    experiment = make_experiment()
    table, reason = conformal_table(experiment)
    assert reason == ""
    assert set(table["calibration"]) == {SAME_PART}
    assert set(table["method"]) == {"mse", "mean"}
    frame = experiment.frames["mse"]
    absolute = (frame["auc_pred"] - frame["auc"]).abs().to_numpy(float)
    half = half_widths(absolute, frame["drug"].to_numpy(), frame["drug"].to_numpy() % 2, (0.9,))[0]
    covered = pd.Series(absolute <= half)
    own = table.query("method == 'mse' and width_kind == 'constant' and level == 0.9")
    whole = own[own["grouping"] == "all"].iloc[0]
    assert whole["coverage"] == pytest.approx(covered.mean())
    assert whole["coverage_drugs"] == pytest.approx(covered.groupby(frame["drug"]).mean().mean())
    assert whole["coverage_drugs"] >= 0.9
    low, high = np.clip(frame["auc_pred"] - half, 0, 1), np.clip(frame["auc_pred"] + half, 0, 1)
    assert whole["width"] == pytest.approx((high - low).mean())
    for _, rows in own.groupby("grouping"):  # every row is in one group of each grouping
        assert rows["n"].sum() == len(frame)
        assert (rows["coverage"] * rows["n"]).sum() == pytest.approx(covered.sum())
        assert (rows["width"] * rows["n"]).sum() == pytest.approx((high - low).sum())
    potent = own.query("grouping == '2 ranges' and low == 0").iloc[0]
    assert potent["n"] == (frame["auc"] < 0.5).sum()


def test_wider_levels_cover_more():
    table, _ = conformal_table(make_experiment())
    whole = table[table["grouping"] == "all"].sort_values("level")
    for _, rows in whole.groupby(["method", "width_kind"]):
        assert rows["coverage"].is_monotonic_increasing
        assert rows["width"].is_monotonic_increasing


def test_few_drugs_a_part_are_calibrated_on_all_of_them():
    for parts in (60, 0):  # leave-one-drug-out; rows that several parts test
        table, _ = conformal_table(make_experiment(parts=parts))
        assert set(table["calibration"]) == {ALL_PARTS}


def test_one_part_is_enough_and_too_few_drugs_are_not():
    assert len(conformal_table(make_experiment(parts=1))[0])
    table, reason = conformal_table(make_experiment(drugs=MIN_DRUGS - 1, parts=1))
    assert table.empty
    assert "19 drugs are tested" in reason


def test_rows_without_a_prediction_neither_count_nor_calibrate():
    """The runs of drugs 0 to 4 failed: their rows might as well not be there."""
    experiment = make_experiment(parts=1)
    frame = experiment.methods["mse"]
    gap = frame.assign(auc_pred=frame["auc_pred"].where(frame["drug"] >= 5))
    left = {name: rows[rows["drug"] >= 5].reset_index(drop=True) for name, rows in experiment.frames.items()}
    failed, without = (
        conformal_table(Experiment({"mse": own}, {"mean": mean}, "mse", "drug_blind", experiment.settings))[0]
        for own, mean in ((gap, experiment.naive["mean"]), (left["mse"], left["mean"]))
    )
    columns = ["n", "n_drugs", "coverage", "coverage_drugs", "width"]
    failed, without = (t.query("method == 'mse'")[columns].reset_index(drop=True) for t in (failed, without))
    pd.testing.assert_frame_equal(failed, without)


def test_intervals_do_not_depend_on_the_order_of_the_rows():
    first, second = (conformal_table(make_experiment(shuffle=shuffle))[0] for shuffle in (None, 4))
    pd.testing.assert_frame_equal(first, second)
