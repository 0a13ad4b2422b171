"""Laws of the bootstrap over drugs: pairing, order, coverage of its intervals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import r2_score

from hedflow.intervals import DrugBootstrap, Interval, distinct, percentile_interval, resample_weights


def excludes_zero(interval: Interval) -> bool:
    return interval.low > 0 or interval.high < 0


def rows(seed=0, n=400, n_drugs=15):
    rng = np.random.default_rng(seed)
    drug = rng.integers(0, n_drugs, n)
    return drug, rng.random(n), rng.random(n), rng.random(n) < 0.3


def test_resamples_draw_as_many_drugs_as_there_are():
    weights = resample_weights(12, 300, seed=4)
    assert weights.shape == (300, 12)
    assert (weights.sum(axis=1) == 12).all()
    np.testing.assert_array_equal(weights, resample_weights(12, 300, seed=4))
    assert (weights != resample_weights(12, 300, seed=5)).any()


def test_mean_equals_an_obvious_loop_over_resamples():
    drug, values, _, mask = rows()
    boot = DrugBootstrap(drug, n_boot=50, seed=3)
    draws = []
    for weights in boot.weights:
        w = weights[np.searchsorted(boot.drugs, drug)]
        draws.append((w * values)[mask].sum() / w[mask].sum())
    found = boot.mean(values, mask)
    assert found.estimate == pytest.approx(values[mask].mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))
    assert (found.n, found.n_drugs) == (mask.sum(), len(np.unique(drug[mask])))


def test_relative_equals_an_obvious_loop_over_resamples():
    drug, a, b, mask = rows()
    boot = DrugBootstrap(drug, n_boot=50, seed=3, level=0.8)
    draws = []
    for weights in boot.weights:
        w = (weights[drug] * mask)[:, None] * np.stack([a, b], axis=1)
        draws.append(w[:, 0].sum() / w[:, 1].sum() - 1)
    found = boot.relative(a, b, mask)
    assert found.estimate == pytest.approx(a[mask].mean() / b[mask].mean() - 1)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, [0.1, 0.9])))
    assert found.level == 0.8


def test_r2_equals_an_obvious_loop_over_resamples():
    drug, auc, predicted, mask = rows()
    auc = auc + 100  # a large mean costs no digits
    predicted = predicted + 100
    predicted[::7] = np.nan
    used = mask & np.isfinite(predicted)
    boot = DrugBootstrap(drug, n_boot=50, seed=3)
    draws = []
    for weights in boot.weights:
        w = weights[np.searchsorted(boot.drugs, drug)] * used
        mean = np.average(auc, weights=w)
        draws.append(1 - (w * (auc - np.where(used, predicted, 0)) ** 2).sum() / (w * (auc - mean) ** 2).sum())
    found = boot.r2(auc, predicted, mask)
    assert found.estimate == pytest.approx(r2_score(auc[used], predicted[used]))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))
    assert (found.n, found.n_drugs) == (used.sum(), len(np.unique(drug[used])))
    assert np.isnan(boot.r2(np.ones(len(drug)), predicted).estimate)
    one = boot.r2(auc, predicted, drug == drug[0])
    assert np.isnan([one.low, one.high]).all()


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_row_order_changes_nothing(seed):
    drug, values, _, mask = rows(seed, 60)
    order = np.random.default_rng(seed).permutation(60)
    found = DrugBootstrap(drug, 40).mean(values, mask)
    mixed = DrugBootstrap(drug[order], 40).mean(values[order], mask[order])
    assert (mixed.estimate, mixed.low, mixed.high) == pytest.approx((found.estimate, found.low, found.high))


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_identical_methods_differ_by_exactly_nothing(seed):
    drug, values, _, mask = rows(seed, 60)
    values[::7] = np.nan
    for found in (
        DrugBootstrap(drug, 40).difference(values, values, mask),
        DrugBootstrap(drug, 40).relative(values, values),
    ):
        assert (found.estimate, found.low, found.high) == (0, 0, 0)
        assert not excludes_zero(found)


def test_difference_is_paired():
    """A method better by a constant everywhere is surely better, however unlike the drugs are."""
    rng = np.random.default_rng(0)
    drug = np.repeat(np.arange(20), 10)
    a = rng.normal(0, 1, 20)[drug] + rng.normal(0, 0.1, 200)
    boot = DrugBootstrap(drug)
    found = boot.difference(a, a + 0.01)
    assert (found.estimate, found.low, found.high) == pytest.approx((-0.01, -0.01, -0.01))
    assert excludes_zero(found)
    alone = boot.mean(a)
    assert alone.high - alone.low > 0.3


def test_difference_flips_its_sign_with_the_order():
    drug, a, b, _ = rows()
    boot = DrugBootstrap(drug, 200)
    there, back = boot.difference(a, b), boot.difference(b, a)
    assert (there.estimate, there.low, there.high) == pytest.approx((-back.estimate, -back.high, -back.low))


def test_interval_covers_the_truth_of_simulated_drugs_at_about_its_level():
    """60 drugs with effects of their own: the cluster interval covers ~95 %, one over rows far less."""
    rng = np.random.default_rng(7)
    drug = np.repeat(np.arange(60), 8)
    by_drug, by_row = 0, 0
    for trial in range(400):
        values = rng.normal(0, 1, 60)[drug] + rng.normal(0, 0.3, len(drug))
        cluster = DrugBootstrap(drug, n_boot=300, seed=trial).mean(values)
        by_drug += cluster.low <= 0 <= cluster.high
        half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
        by_row += abs(values.mean()) <= half
    assert 0.90 <= by_drug / 400 <= 0.98
    assert by_row / 400 < 0.7


def test_rows_without_a_value_are_left_out_and_not_counted():
    drug = np.array([0, 0, 1, 2])
    found = DrugBootstrap(drug, 200).mean([1.0, np.nan, 3.0, np.inf])
    assert (found.estimate, found.n, found.n_drugs) == (2, 2, 2)
    assert 1 <= found.low <= found.high <= 3


def test_resamples_without_a_masked_row_are_dropped_and_counted():
    drug = np.arange(10)
    mask = drug < 2
    boot = DrugBootstrap(drug, 2000, seed=1)
    found = boot.mean(drug.astype(float), mask)
    assert found.n_dropped == (boot.weights[:, :2].sum(axis=1) == 0).sum()
    assert found.n_dropped / 2000 == pytest.approx(0.8**10, abs=0.03)
    assert (found.low, found.high) == (0, 1)


def test_one_drug_or_none_gives_no_interval():
    drug = np.array([0, 0, 1])
    boot = DrugBootstrap(drug, 100)
    one = boot.mean([0.2, 0.4, 0.9], np.array([True, True, False]))
    assert one.estimate == pytest.approx(0.3)
    assert np.isnan([one.low, one.high]).all()
    assert not excludes_zero(one)
    none = boot.mean([0.2, 0.4, 0.9], np.zeros(3, dtype=bool))
    assert np.isnan(none.estimate)
    assert (none.n, none.n_drugs, none.n_dropped) == (0, 0, 100)


def test_interval_prints():
    assert str(Interval(0.12345, 0.1, 0.2, 10, 3)) == "0.1235 [0.1000, 0.2000]"


def test_percentiles_leave_gaps_out():
    assert percentile_interval(np.array([1.0, np.nan, 3.0]), 0.5) == (1.5, 2.5)
    assert np.isnan(percentile_interval(np.array([np.nan]), 0.5)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DrugBootstrap([]), "at least one"),
        (lambda: DrugBootstrap([1, 2], n_boot=0), "at least one drug and one resample"),
        (lambda: DrugBootstrap([1, 2], level=95), "between 0 and 1"),
        (lambda: DrugBootstrap([1, 2]).mean([1.0]), "one for each of the 2 rows"),
        (lambda: DrugBootstrap([1, 2]).mean([1.0, 2.0], [1, 0]), "one bool a row"),
    ],
)
def test_bad_input_gets_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_means_of_groups_are_the_means_of_their_rows(seed):
    rng = np.random.default_rng(seed)
    drug, group = rng.integers(0, 9, 80), rng.integers(-1, 4, 80)
    values, mask = np.where(rng.random(80) < 0.9, rng.normal(size=80), np.nan), rng.random(80) < 0.7
    boot = DrugBootstrap(drug, n_boot=100, seed=seed)
    found = boot.means(values, group, 5, mask)
    assert np.isnan(found.estimate[4])
    assert found.n[4] == 0
    for i in range(5):
        alone = boot.mean(values, mask & (group == i))
        own = [getattr(found, name)[i] for name in ("estimate", "low", "high", "n", "n_drugs")]
        assert own == pytest.approx([alone.estimate, alone.low, alone.high, alone.n, alone.n_drugs], nan_ok=True)
    sums, counts = boot.drug_sums(values, mask)
    assert sums.sum() / counts.sum() == pytest.approx(boot.mean(values, mask).estimate)
    assert distinct(group, drug, 5).tolist() == [len(set(drug[group == i])) for i in range(5)]


def test_a_group_beyond_the_last_is_refused():
    with pytest.raises(ValueError, match=r"expected one of 0\.\.1 for each of the 3 rows"):
        DrugBootstrap([0, 1, 2]).means([1, 2, 3], [0, 1, 2], 2)
