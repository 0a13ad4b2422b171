"""Paired comparisons: Holm, sign flips and Friedman against direct computations, and laws of the tables."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hedflow.analysis.experiment import Experiment
from hedflow.analysis.paired import contrasts_table, friedman, holm, ranks_table, sign_flip_p
from hedflow.config import Analysis


def make_experiment(drugs=25, cells=12, seed=0, shuffle=None, **shifts):
    """Models `mse`, `a`, `b` and two naive baselines on the same rows; `shifts`: what is added to |error| of one."""
    rng = np.random.default_rng(seed)
    cell, drug = (grid.ravel() for grid in np.meshgrid(range(cells), range(drugs), indexing="ij"))
    auc = np.clip(rng.beta(4, 1.5, drugs)[drug] + rng.normal(0, 0.1, len(drug)), 0, 1)
    rows = pd.DataFrame({"cell": cell, "drug": drug, "source": np.where(cell % 2, "A", "B"), "auc": auc})
    rows = rows[rng.random(len(rows)) < 0.8].reset_index(drop=True)
    rows.insert(0, "row", np.arange(len(rows)))
    frames = {}
    for name in ("mse", "a", "b", "mean", "knn"):
        own = rng.normal(0, 0.1, drugs)[rows["drug"]] + rng.normal(0, 0.05, len(rows))
        size = np.abs(own) + shifts.get(name, 0.0)
        frames[name] = rows.assign(auc_pred=rows["auc"] + np.where(own < 0, -size, size))
    if shuffle is not None:
        frames = {name: frame.sample(frac=1, random_state=shuffle) for name, frame in frames.items()}
    models = {name: frames[name] for name in ("mse", "a", "b")}
    naive = {name: frames[name] for name in ("mean", "knn")}
    return Experiment(models, naive, "mse", "drug_blind", Analysis(bootstrap=100))


@given(st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), min_size=1, max_size=8))
def test_holm_is_the_largest_of_the_steps_up_to_each(p):
    p = np.array(p)
    found, known = holm(p), np.flatnonzero(np.isfinite(p))
    m = len(known)
    for i in known:
        # p_i is rejected at a level only if every smaller one is, each at its own.
        smaller = sorted(p[j] for j in known if p[j] <= p[i])
        wanted = max(min(1, (m - k) * value) for k, value in enumerate(smaller))
        assert found[i] == pytest.approx(wanted)
    assert np.isnan(found[np.isnan(p)]).all()


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_few_drugs_are_tested_by_all_their_flips(sums):
    found = sign_flip_p([sums])[0]
    if not any(sums):
        assert np.isnan(found)
        return
    flipped = [abs(np.dot(signs, sums)) for signs in product((-1, 1), repeat=len(sums))]
    assert found == pytest.approx(np.mean(np.array(flipped) >= abs(sum(sums))))


def test_p_values_are_uniform_where_nothing_differs():
    """300 pairs of methods that are alike on 30 drugs of unequal weight: as many p below a level as it says."""
    rng = np.random.default_rng(1)
    weight = rng.integers(1, 50, 30)
    alike = (rng.exponential(1, (300, 30)) - rng.exponential(1, (300, 30))) * weight
    p = sign_flip_p(alike, flips=1999)
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert 1e-3 < np.mean(p < 0.05) < 0.1
    assert (sign_flip_p(alike + 2 * weight, flips=1999) < 0.05).mean() > 0.95


def test_friedman_is_scipys_and_the_critical_difference_demsars():
    """Demsar 2006, table 5: q = 2.569 for four methods at 0.05; his example has 14 data sets and CD = 1.25."""
    error = np.random.default_rng(2).random((4, 14))
    found = friedman(error)
    assert found["critical_difference"] == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=1e-3)
    assert (found["statistic"], found["p"]) == pytest.approx(tuple(stats.friedmanchisquare(*error)))
    chi2 = found["statistic"]
    assert found["p_iman_davenport"] == pytest.approx(stats.f.sf(13 * chi2 / (14 * 3 - chi2), 3, 39))


def test_every_comparison_is_there_once_and_says_what_its_rows_say():
    experiment = make_experiment()
    table = contrasts_table(experiment)
    assert not table.duplicated(["method", "against", "part"]).any()
    pairs = {frozenset(pair) for pair in zip(table["method"], table["against"], strict=True)}
    strongest = experiment.strongest
    models = [{"mse", "a"}, {"mse", "b"}, {"a", "b"}]
    naive = [{"mse", "mean"}, {"mse", "knn"}, {"a", strongest}, {"b", strongest}]
    assert pairs == {frozenset(pair) for pair in models + naive}
    for row in table.itertuples():
        frame = experiment.frames[row.method]
        own, other = ((experiment.frames[m]["auc_pred"] - frame["auc"]).abs() for m in (row.method, row.against))
        used = {"mae": frame["auc"] >= 0, "mae_low": frame["auc"] < 0.5, "mae_rest": frame["auc"] >= 0.5}[row.part]
        assert row.difference == pytest.approx((own - other)[used].mean())
        assert row.relative == pytest.approx(own[used].mean() / other[used].mean() - 1)
        by_drug = (own - other)[used].groupby(frame["drug"]).mean()
        assert (row.n, row.n_drugs, row.n_better) == (used.sum(), len(by_drug), (by_drug < 0).sum())
        assert row.p_wilcoxon == pytest.approx(stats.wilcoxon(by_drug).pvalue)
        assert row.p <= row.p_holm <= 1
        assert row.family == 7
    assert (table["against_naive"] == table["against"].isin(["mean", "knn"])).all()


def test_a_difference_on_every_drug_is_found_and_none_is_not():
    table = contrasts_table(make_experiment(a=0.1)).set_index(["method", "against", "part"])
    assert table.loc[("a", "mse", "mae"), "p_holm"] < 0.01
    assert table.loc[("b", "mse", "mae"), "p"] > 0.05


def test_contrasts_and_ranks_do_not_depend_on_the_order_of_the_rows():
    for make in (contrasts_table, ranks_table):
        pd.testing.assert_frame_equal(make(make_experiment()), make(make_experiment(shuffle=3)))


def test_mean_ranks_are_those_of_the_drugs_errors():
    experiment = make_experiment(a=0.05)
    table = ranks_table(experiment).query("part == 'mae'").set_index("method")
    error = pd.DataFrame(
        {n: (f["auc_pred"] - f["auc"]).abs().groupby(f["drug"]).mean() for n, f in experiment.frames.items()}
    )
    ranks = error.rank(axis=1).mean()
    assert table["mean_rank"].to_dict() == pytest.approx(ranks.to_dict())
    assert table["mean_rank"].idxmax() == "a"
    assert set(table["n_drugs"]) == {len(error)}


@pytest.mark.parametrize("drugs", [1, 2])
def test_one_drug_has_no_p_and_no_ranks(drugs):
    experiment = make_experiment(drugs=drugs)
    table = contrasts_table(experiment).query("part == 'mae'")
    assert table["p"].isna().all() == (drugs == 1)
    assert table["difference"].notna().all()
    ranks = ranks_table(experiment)
    assert ranks.query("part == 'mae'").empty == (drugs == 1)
