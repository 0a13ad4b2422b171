"""Laws of the error measures: hand-computed cases, invariances, and the distributions of real predictions."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hedflow import errors

REAL = Path(__file__).parents[3] / "shared" / "data" / "improve_lgbm_csa_small"


@st.composite
def frames(draw, gaps=True):
    """Prediction frames of 1-60 rows with ties, repeated ids and, if wanted, missing predictions."""
    n = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    auc = rng.integers(0, 21, n) / 20
    pred = np.clip(auc + rng.normal(0, 0.2, n), 0, 1)
    if gaps:
        pred[rng.random(n) < 0.2] = np.nan
    return pd.DataFrame(
        {
            "cell": rng.integers(0, 5, n),
            "drug": rng.integers(10, 16, n),
            "source": rng.choice(["CCLE", "gCSI"], n),
            "auc": auc,
            "auc_pred": pred,
        }
    )


def small():
    return pd.DataFrame(
        {
            "cell": [0, 1, 0, 1, 2],
            "drug": [7, 7, 3, 3, 3],
            "source": "CCLE",
            "auc": [0.2, 0.4, 0.5, 0.9, 1.0],
            "auc_pred": [0.3, 0.7, 0.5, 0.8, np.nan],
        }
    )


def test_point_metrics_of_a_case_computed_by_hand():
    found = errors.point_metrics([0.2, 0.4, 0.9, 0.5], [0.3, 0.3, 0.8, np.nan])
    assert found["n"] == 4
    assert found["coverage"] == 0.75
    assert found["mae"] == pytest.approx(0.1)
    assert found["rmse"] == pytest.approx(0.1)
    assert found["bias"] == pytest.approx(-0.1 / 3)
    assert found["r2"] == pytest.approx(1 - 0.03 / (0.3**2 + 0.1**2 + 0.4**2))
    assert found["spearman"] == pytest.approx(np.sqrt(3) / 2)


@given(frames(gaps=False))
def test_point_metrics_agree_with_scipy(frame):
    found = errors.point_metrics(frame["auc"], frame["auc_pred"])
    if np.ptp(frame["auc"]) > 0 and np.ptp(frame["auc_pred"]) > 0:
        assert found["pearson"] == pytest.approx(stats.pearsonr(frame["auc"], frame["auc_pred"])[0], abs=1e-9)
        assert found["spearman"] == pytest.approx(stats.spearmanr(frame["auc"], frame["auc_pred"])[0], abs=1e-9)


def test_perfect_and_constant_predictions():
    truth = np.array([0.1, 0.7, 0.8])
    perfect = errors.point_metrics(truth, truth)
    assert (perfect["mae"], perfect["rmse"], perfect["bias"], perfect["r2"]) == (0, 0, 0, 1)
    assert perfect["pearson"] == pytest.approx(1)
    assert perfect["spearman"] == pytest.approx(1)
    constant = errors.point_metrics(truth, np.full(3, truth.mean()))
    assert constant["r2"] == pytest.approx(0)
    assert np.isnan(constant["pearson"])
    assert np.isnan(constant["spearman"])
    assert np.isnan(errors.point_metrics([0.7, 0.7], [0.6, 0.8])["r2"])


def test_no_prediction_at_all_is_counted_not_an_error():
    found = errors.point_metrics([0.1, 0.2], [np.nan, np.inf])
    assert (found["n"], found["coverage"]) == (2, 0)
    assert np.isnan(found["mae"])
    assert np.isnan(errors.point_metrics([], [])["coverage"])


def test_normalised_r2_is_the_share_of_the_naive_squared_error_that_is_gone():
    truth = np.array([0.2, 0.5, 0.9, 0.7])
    naive = np.array([0.4, 0.4, 0.8, 0.8])
    halfway = (truth + naive) / 2
    found = errors.normalised_metrics(truth, halfway, naive)
    assert found["r2"] == pytest.approx(0.75)
    assert found["pearson"] == pytest.approx(1)
    assert errors.normalised_metrics(truth, naive, naive)["r2"] == 0
    assert errors.normalised_metrics(truth, 2 * naive - truth, naive)["r2"] == pytest.approx(-3)
    assert errors.normalised_metrics(truth, truth, naive)["r2"] == 1


def test_normalised_correlation_of_a_shifted_naive_prediction_is_undefined():
    rng = np.random.default_rng(0)
    truth, naive = rng.random(50), rng.random(50)
    found = errors.normalised_metrics(truth, naive + 0.1, naive)
    assert np.isnan(found["pearson"])
    assert np.isnan(found["spearman"])
    assert np.isnan(errors.normalised_metrics(naive + 0.1, truth, naive)["pearson"])
    assert np.isnan(errors.normalised_metrics(truth, naive, truth)["r2"])


@given(
    st.lists(st.integers(-1000, 1000), min_size=3, max_size=40),
    st.integers(-50, 50),
    st.sampled_from([0.5, 3.0, 128.0]),
    st.booleans(),
)
def test_z_does_not_feel_shift_or_scale_and_turns_with_the_sign(values, shift, scale, robust):
    x = np.array(values, dtype=float)
    z = errors.z_score(x, robust)
    np.testing.assert_allclose(errors.z_score(scale * x + shift, robust), z, atol=1e-9)
    np.testing.assert_allclose(errors.z_score(-x, robust), -z, atol=1e-9)
    if not robust and np.ptp(x) > 0:
        assert z.mean() == pytest.approx(0, abs=1e-9)
        assert z.std(ddof=1) == pytest.approx(1)


def test_robust_z_by_hand_and_against_an_outlier():
    np.testing.assert_allclose(errors.z_score([1, 2, 3, 4, 100.0], robust=True), 0.6745 * np.array([-2, -1, 0, 1, 97]))


@pytest.mark.parametrize("x", [[0.1] * 7, [0.3], [np.nan, 0.3], []])
@pytest.mark.parametrize("robust", [False, True])
def test_z_without_spread_is_unknown_not_ordinary(x, robust):
    z = errors.z_score(x, robust)
    assert len(z) == len(x)
    assert np.isnan(z).all()


@given(st.floats(0, 1), st.integers(2, 300), st.booleans())
def test_z_of_any_constant_is_unknown(value, n, robust):
    assert np.isnan(errors.z_score(np.full(n, value), robust)).all()


def test_z_leaves_gaps_as_gaps():
    z = errors.z_score([1.0, np.nan, 3.0])
    np.testing.assert_allclose(z, [-np.sqrt(0.5), np.nan, np.sqrt(0.5)])


@given(frames(), st.booleans())
def test_grouped_z_is_z_of_each_group(frame, robust):
    found = errors.grouped_z(frame["auc"], frame["drug"], robust)
    for drug in frame["drug"].unique():
        mine = (frame["drug"] == drug).to_numpy()
        np.testing.assert_allclose(found[mine], errors.z_score(frame["auc"][mine], robust), atol=1e-9)


def test_row_scores_by_hand():
    scored = errors.row_scores(small())
    np.testing.assert_allclose(scored["error"], [0.1, 0.3, 0, -0.1, np.nan], atol=1e-12)
    np.testing.assert_allclose(scored["abs_error"], [0.1, 0.3, 0, 0.1, np.nan], atol=1e-12)
    np.testing.assert_allclose(scored["residual_z"], stats.zscore(scored["error"], ddof=1, nan_policy="omit"))
    half = np.sqrt(0.5)
    np.testing.assert_allclose(scored["auc_z_drug"][:2], [-half, half])
    np.testing.assert_allclose(scored["auc_z_cell"], [-half, -half, half, half, np.nan])
    np.testing.assert_allclose(scored["auc_z_drug_robust"], [-0.6745, 0.6745, -4 * 0.6745, 0, 0.6745])


@given(frames(), st.randoms(use_true_random=False))
def test_row_order_changes_nothing(frame, random):
    order = list(range(len(frame)))
    random.shuffle(order)
    mixed = frame.iloc[order]
    pd.testing.assert_frame_equal(errors.row_scores(mixed).sort_index(), errors.row_scores(frame), atol=1e-9)
    pd.testing.assert_frame_equal(errors.drug_errors(mixed), errors.drug_errors(frame), atol=1e-9)
    pd.testing.assert_frame_equal(errors.cell_errors(mixed), errors.cell_errors(frame), atol=1e-9)
    pd.testing.assert_frame_equal(errors.range_errors(mixed), errors.range_errors(frame), atol=1e-9)


def test_row_scores_does_not_touch_its_input():
    frame = small()
    errors.row_scores(frame)
    pd.testing.assert_frame_equal(frame, small())


def test_drug_errors_by_hand():
    table = errors.drug_errors(small()).set_index("drug")
    assert list(table.index) == [3, 7]
    three, seven = table.loc[3], table.loc[7]
    assert (three["n"], three["n_cells"], three["coverage"]) == (3, 3, pytest.approx(2 / 3))
    assert three["auc_mean"] == pytest.approx(0.8)
    assert three["auc_sd"] == pytest.approx(np.sqrt(0.07))
    # 0.5 is not low: the range is open there.
    assert (three["low_share"], seven["low_share"]) == (0, 1)
    assert three["mae"] == pytest.approx(0.05)
    assert three["bias"] == pytest.approx(-0.05)
    assert np.isnan(three["mae_low"])
    assert seven["mae"] == seven["mae_low"] == pytest.approx(0.2)
    assert seven["bias"] == pytest.approx(0.2)
    assert np.isnan(seven["mae_rest"])
    assert three["mae_z"] == pytest.approx(-np.sqrt(0.5))
    assert seven["mae_z_robust"] == pytest.approx(0.6745)


def test_cell_errors_is_drug_errors_with_the_ids_exchanged():
    frame = small()
    swapped = frame.rename(columns={"cell": "drug", "drug": "cell"})
    expected = errors.drug_errors(swapped).rename(columns={"drug": "cell", "n_cells": "n_drugs"})
    pd.testing.assert_frame_equal(errors.cell_errors(frame), expected)


@given(frames())
def test_drug_errors_add_up_to_the_pooled_ones(frame):
    table, pooled = errors.drug_errors(frame), errors.point_metrics(frame["auc"], frame["auc_pred"])
    predicted = table["n"] * table["coverage"]
    assert table["n"].sum() == pooled["n"]
    if pooled["coverage"] > 0:
        assert (table["mae"] * predicted).sum() / predicted.sum() == pytest.approx(pooled["mae"])
        assert (table["bias"] * predicted).sum() / predicted.sum() == pytest.approx(pooled["bias"], abs=1e-12)


def test_a_planted_high_error_drug_is_found_and_sorted_first():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"cell": np.tile(np.arange(20), 30), "drug": np.repeat(np.arange(30), 20), "source": "x"})
    frame["auc"] = rng.uniform(0.4, 0.9, 600)
    size = np.full(30, 0.02) + np.linspace(0, 0.01, 30)
    size[[5, 11]] = 0.2, 0.3
    frame["auc_pred"] = frame["auc"] + size[frame["drug"]] * rng.choice([-1, 1], 600)
    table = errors.drug_errors(frame)
    assert list(errors.high_error_drugs(table)["drug"]) == [11, 5]
    assert list(errors.high_error_drugs(table, z=3)["drug"]) == [11]
    assert list(errors.high_error_drugs(table, z=5, robust=True)["drug"]) == [11, 5]


@given(frames(), st.lists(st.integers(-2, 24), min_size=2, max_size=6, unique=True))
@settings(max_examples=60)
def test_ranges_partition_the_rows(frame, cuts):
    edges = [cut / 20 for cut in sorted(cuts)]
    table = errors.range_errors(frame, edges)
    assert table["n"].sum() == len(frame)
    inside = table[np.isfinite(table["low"]) & np.isfinite(table["high"])]
    assert list(inside["low"]) == edges[:-1]
    auc = frame["auc"].to_numpy()
    for row in table.itertuples():
        last = row.high == edges[-1]
        mine = (auc >= row.low) & ((auc < row.high) | (last & (auc == row.high)))
        if np.isinf(row.high):
            mine &= auc > row.low
        expected = errors.point_metrics(auc[mine], frame["auc_pred"][mine])
        assert row.n == mine.sum()
        assert row.n_drugs == frame["drug"][mine].nunique()
        for name in ("coverage", "mae", "rmse", "bias"):
            assert getattr(row, name) == pytest.approx(expected[name], nan_ok=True, abs=1e-12)


def test_values_on_an_edge_open_their_range_in_either_precision():
    for dtype in (np.float64, np.float32):
        auc = np.array(errors.EDGES_10, dtype=dtype)
        frame = pd.DataFrame({"drug": 0, "auc": auc, "auc_pred": auc})
        assert list(errors.range_errors(frame)["n"]) == [1] * 9 + [2]


def test_values_outside_are_counted_in_rows_of_their_own():
    auc = [-0.1, 0.2, 0.5, 1.0, 1.5]
    frame = pd.DataFrame({"drug": 0, "auc": auc, "auc_pred": np.add(auc, [1, 0.1, 0.2, 0.2, 1])})
    table = errors.range_errors(frame, errors.EDGES_2)
    assert list(table["n"]) == [1, 1, 2, 1]
    assert (table["low"].iloc[0], table["high"].iloc[-1]) == (-np.inf, np.inf)
    assert errors.macro_mean(table) == pytest.approx(0.15)


def test_macro_mean_counts_each_populated_range_once():
    frame = pd.DataFrame({"drug": 0, "auc": [0.1] + [0.8] * 9, "auc_pred": [0.5] + [0.9] * 9})
    assert errors.macro_mean(errors.range_errors(frame)) == pytest.approx(0.25)
    assert errors.macro_mean(errors.range_errors(frame), "bias") == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: errors.point_metrics([0.1], [0.1, 0.2]), "expected one value a row"),
        (lambda: errors.point_metrics([np.nan], [0.1]), "1 of 1 true auc"),
        (lambda: errors.row_scores(small().drop(columns="auc_pred")), "no column auc_pred"),
        (lambda: errors.drug_errors(small().assign(auc=np.nan)), "5 of 5 rows"),
        (lambda: errors.cell_errors(small().assign(cell=np.nan)), "no cell"),
        (lambda: errors.range_errors(small(), [0, 0.5, 0.5]), "increasing"),
        (lambda: errors.range_errors(small(), [0.5]), "increasing"),
        (lambda: errors.macro_mean(errors.range_errors(small()), "mea"), "no column mea"),
        (lambda: errors.high_error_drugs(small()), "table of drug_errors"),
        (lambda: errors.grouped_z([1.0], [1, 2]), "one label a value"),
    ],
)
def test_bad_input_gets_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.mirror
@pytest.mark.skipif(not REAL.exists(), reason="no mirror beside the repository")
@pytest.mark.parametrize(
    ("run", "n", "mean", "sd", "low_percent"),
    [
        ("gCSI-CCLE", 9_519, 0.786, 0.161, 8.0),
        ("CCLE-gCSI", 4_941, 0.711, 0.189, 16.9),
        ("CCLE-GDSCv2", 114_644, 0.827, 0.153, 5.3),
    ],
)
def test_known_facts_of_real_predictions(run, n, mean, sd, low_percent):
    real = pd.read_csv(REAL / run / "split_0" / "test_y_data_predicted.csv")
    real = real.rename(columns={"auc_true": "auc"}).assign(drug=0, cell=0)
    table = errors.drug_errors(real).iloc[0]
    assert round(table["auc_mean"], 3) == mean
    assert round(table["auc_sd"], 3) == sd
    halves, tenths = (errors.range_errors(real, edges) for edges in (errors.EDGES_2, errors.EDGES_10))
    assert halves["n"].sum() == tenths["n"].sum() == n
    assert round(100 * halves["n"].iloc[0] / n, 1) == low_percent
    assert tenths["n"].iloc[:5].sum() == halves["n"].iloc[0]
    # The point of this package: the rare low responses are worse predicted, and taken for too weak.
    assert halves["mae"].iloc[0] > 1.5 * halves["mae"].iloc[1]
    assert halves["bias"].iloc[0] > 0.1
    pooled = errors.point_metrics(real["auc"], real["auc_pred"])
    assert pooled["coverage"] == 1
    assert pooled["mae"] == pytest.approx((tenths["mae"] * tenths["n"]).sum() / n)
    assert errors.macro_mean(tenths) > pooled["mae"]
