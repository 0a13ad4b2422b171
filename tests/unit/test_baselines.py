"""The naive baselines against slow, obvious loops; what they do with the unseen; which split uses which."""

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hedflow.baselines import BASELINES, fit_predict, informed
from hedflow.similarity import tanimoto

CELLS, DRUGS = 7, 9


def screen(seed, n=60):
    """A random screen with replicates and gaps, a training and a test part, tissues and fingerprints."""
    rng = np.random.default_rng(seed)
    response = pd.DataFrame(
        {
            "cell": rng.integers(0, CELLS, n).astype(np.int32),
            "drug": rng.integers(0, DRUGS, n).astype(np.int32),
            "source": rng.choice(["CCLE", "gCSI"], n),
            "auc": rng.uniform(0, 1, n).astype(np.float32),
        }
    )
    order = rng.permutation(n)
    tissue = np.array(["lung", "skin", "lung", "bone", "skin", "lung", "eye"])
    return (
        response,
        order[: n // 2],
        order[n // 2 :],
        tissue,
        (rng.random((DRUGS, 24)) < 0.3).astype(np.uint8),
    )


def bits_in_common(x, y):
    a, b = {*np.flatnonzero(x)}, {*np.flatnonzero(y)}
    return len(a & b) / len(a | b) if a | b else 0.0


def slow_effects(rows):
    """Least squares over indicator columns; effects centred over the training rows; 0 where unseen."""
    cells, drugs = sorted({*rows["cell"]}), sorted({*rows["drug"]})
    design = np.array(
        [[c == x for x in cells] + [d == x for x in drugs] for c, d in zip(rows["cell"], rows["drug"], strict=True)]
    )
    mean = rows["auc"].mean()
    fit = np.linalg.lstsq(design.astype(float), rows["auc"].to_numpy(float) - mean, rcond=None)[0]
    c, d = dict(zip(cells, fit[: len(cells)], strict=True)), dict(zip(drugs, fit[len(cells) :], strict=True))
    shift = np.mean([d[x] for x in rows["drug"]])
    return mean, {x: v + shift for x, v in c.items()}, {x: v - shift for x, v in d.items()}


def slow(response, train, test, tissue, prints, k):
    rows = response.iloc[train].astype({"auc": float})
    mean, c, d = slow_effects(rows)

    def average(chosen):
        return chosen["auc"].mean() if len(chosen) else mean

    def middle(chosen):
        return chosen["auc"].median() if len(chosen) else rows["auc"].median()

    def effects(cell, drug):
        return mean + c.get(cell, 0) + d.get(drug, 0)

    def knn(cell, drug):
        near = sorted(d, key=lambda other: (-bits_in_common(prints[drug], prints[other]), other))[:k]
        weights = [bits_in_common(prints[drug], prints[other]) for other in near]
        if sum(weights) == 0:
            return effects(cell, drug)
        values = []
        for other in near:
            same = rows[(rows["cell"] == cell) & (rows["drug"] == other)]
            values.append(same["auc"].mean() if len(same) else effects(cell, other))
        return np.average(values, weights=weights)

    out = []
    for cell, drug in zip(response["cell"].iloc[test], response["drug"].iloc[test], strict=True):
        here = [tissue[x] == tissue[cell] for x in rows["cell"]]
        out.append(
            [
                mean,
                middle(rows),
                average(rows[rows["drug"] == drug]),
                middle(rows[rows["drug"] == drug]),
                average(rows[rows["cell"] == cell]),
                middle(rows[rows["cell"] == cell]),
                average(rows[here]),
                effects(cell, drug),
                knn(cell, drug),
            ]
        )
    return pd.DataFrame(out, columns=list(BASELINES))


def connected(rows):
    """Whether every cell reaches every drug: only then are the effects one answer."""
    group = {("c", x): {("c", x)} for x in rows["cell"]} | {("d", x): {("d", x)} for x in rows["drug"]}
    for cell, drug in zip(rows["cell"], rows["drug"], strict=True):
        union = group["c", cell] | group["d", drug]
        for member in union:
            group[member] = union
    return len({id(x) for x in group.values()}) == 1


@given(st.integers(0, 100_000), st.integers(1, 12), st.booleans())
@settings(max_examples=40, deadline=None)
def test_baselines_equal_slow_obvious_loops(seed, k, drug_blind):
    response, train, test, tissue, prints = screen(seed)
    if drug_blind:
        blind = response["drug"].to_numpy() < 3
        train, test = np.flatnonzero(~blind), np.flatnonzero(blind)
    assume(connected(response.iloc[train]))
    found = fit_predict(response, train, test, tissue, prints, k)
    expected = slow(response, train, test, tissue, prints, k)
    np.testing.assert_allclose(found.to_numpy(), expected.to_numpy(), atol=2e-5)


def test_the_answer_has_one_float32_column_a_baseline_in_the_order_of_the_test_rows():
    response, train, test, tissue, prints = screen(1)
    found = fit_predict(response, train, test, tissue, prints)
    assert tuple(found.columns) == BASELINES
    assert (found.dtypes == np.float32).all()
    np.testing.assert_array_equal(found.index, test)
    turned = fit_predict(response, train[::-1], test[::-1], tissue, prints)
    pd.testing.assert_frame_equal(turned.iloc[::-1], found, rtol=1e-5)


def test_the_truth_of_the_test_rows_is_never_read():
    response, train, test, tissue, prints = screen(2)
    hidden = response.copy()
    hidden.loc[test, "auc"] = np.nan
    pd.testing.assert_frame_equal(
        fit_predict(hidden, train, test, tissue, prints), fit_predict(response, train, test, tissue, prints)
    )


def grid(cells=6, drugs=5, seed=0):
    """Every cell met every drug; response = 0.6 + cell effect + drug effect exactly."""
    rng = np.random.default_rng(seed)
    c, d = rng.normal(0, 0.05, cells), rng.normal(0, 0.1, drugs)
    c, d = c - c.mean(), d - d.mean()
    cell, drug = np.divmod(np.arange(cells * drugs), drugs)
    return pd.DataFrame({"cell": cell, "drug": drug, "source": "x", "auc": 0.6 + c[cell] + d[drug]})


def test_mean_effects_recovers_an_additive_screen_from_unbalanced_rows():
    response = grid(12, 10)
    keep = np.random.default_rng(3).random(120) < 0.5
    train, test = np.flatnonzero(keep), np.flatnonzero(~keep)
    found = fit_predict(response, train, test, np.array(["a"] * 12), np.eye(10, dtype=np.uint8))
    np.testing.assert_allclose(found["mean_effects"], response["auc"].to_numpy()[test], atol=1e-4)
    # Plain means are misled by who met whom: the adjustment is what makes it exact.
    assert (found["cell_mean"] - response["auc"].to_numpy()[test]).abs().max() > 0.05


def test_an_unseen_drug_is_known_by_its_twin_alone():
    response = grid()
    prints = np.eye(5, dtype=np.uint8)
    prints[4] = prints[2]
    blind = response["drug"].to_numpy() == 4
    found = fit_predict(response, np.flatnonzero(~blind), np.flatnonzero(blind), np.array(["a"] * 6), prints)
    np.testing.assert_allclose(found["tanimoto_knn"], response.loc[response["drug"] == 2, "auc"], atol=1e-6)
    np.testing.assert_allclose(found["drug_mean"], found["global_mean"])
    np.testing.assert_allclose(found["mean_effects"], found["cell_mean"], atol=1e-6)


def test_an_unseen_drug_like_no_other_gets_the_mean_effects():
    response = grid()
    blind = response["drug"].to_numpy() == 4
    prints = np.eye(5, dtype=np.uint8)
    found = fit_predict(response, np.flatnonzero(~blind), np.flatnonzero(blind), np.array(["a"] * 6), prints)
    np.testing.assert_array_equal(found["tanimoto_knn"], found["mean_effects"])


def test_an_unseen_cell_gets_the_levels_of_the_drugs():
    response = grid()
    blind = response["cell"].to_numpy() == 5
    prints = np.ones((5, 4), dtype=np.uint8)
    tissue = np.array(["a", "a", "b", "b", "b", "a"])
    found = fit_predict(response, np.flatnonzero(~blind), np.flatnonzero(blind), tissue, prints)
    seen = response[~blind]
    drug_means = seen.groupby("drug")["auc"].mean().to_numpy()
    np.testing.assert_allclose(found["cell_mean"], found["global_mean"])
    np.testing.assert_allclose(found["mean_effects"], drug_means, atol=1e-6)
    np.testing.assert_allclose(found["tanimoto_knn"], drug_means.mean(), atol=1e-6)
    np.testing.assert_allclose(found["tissue_mean"], seen.loc[seen["cell"] < 2, "auc"].mean(), atol=1e-6)


def test_an_unseen_or_unnamed_tissue_gets_the_global_mean():
    response = grid()
    blind = response["cell"].to_numpy() >= 4
    tissue = np.array(["a", "a", None, "b", "c", None], dtype=object)
    found = fit_predict(response, np.flatnonzero(~blind), np.flatnonzero(blind), tissue, np.eye(5, dtype=np.uint8))
    np.testing.assert_array_equal(found["tissue_mean"], found["global_mean"])


@given(st.integers(0, 100_000))
@settings(max_examples=30)
def test_tanimoto_equals_set_arithmetic(seed):
    rng = np.random.default_rng(seed)
    a, b = ((rng.random((n, 12)) < rng.random()).astype(np.uint8) for n in (5, 4))
    found = tanimoto(a, b)
    assert found.dtype == np.float32
    assert found.shape == (5, 4)
    np.testing.assert_allclose(found, [[bits_in_common(x, y) for y in b] for x in a], rtol=1e-6)
    np.testing.assert_array_equal(found, tanimoto(b, a).T)
    np.testing.assert_array_equal(np.diag(tanimoto(a, a)), a.any(axis=1).astype(np.float32))


@pytest.mark.parametrize("kind", ["drug_blind", "leave_one_drug_out", "drug_lists", "random_pairs", "cell_blind"])
def test_informed_baselines_differ_from_the_global_mean_on_their_split_and_the_others_do_not(kind):
    response = grid(8, 8)
    rng = np.random.default_rng(0)
    held = {"random_pairs": rng.random(64) < 0.3, "cell_blind": (response["cell"] >= 6).to_numpy()}
    blind = held.get(kind, (response["drug"] >= 6).to_numpy())
    prints = (rng.random((8, 30)) < 0.4).astype(np.uint8)
    tissue = np.array(["a", "b"] * 4)
    found = fit_predict(response, np.flatnonzero(~blind), np.flatnonzero(blind), tissue, prints, k=3)
    plain = ("global_mean", "global_median")
    says = {name for name in BASELINES if all((found[name] - found[p]).abs().max() > 1e-4 for p in plain)}
    assert {*plain, *says} == {*informed(kind)}
    assert informed(kind)[0] == "global_mean"


def test_a_fold_of_full_size_takes_about_a_second():
    rng = np.random.default_rng(0)
    n, cells, drugs = 670_000, 1200, 776
    response = pd.DataFrame(
        {
            "cell": rng.integers(0, cells, n),
            "drug": rng.integers(0, drugs, n),
            "source": "x",
            "auc": rng.random(n),
        }
    )
    blind = response["drug"].to_numpy() < 77
    prints = (rng.random((drugs, 512)) < 0.05).astype(np.uint8)
    start = time.perf_counter()
    fit_predict(response, np.flatnonzero(~blind), np.flatnonzero(blind), np.array(["a"] * cells), prints)
    # A second is usual; the bound only catches a loop over rows or drugs.
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": np.array([], dtype=int)}, "no training rows"),
        ({"test": np.array([60])}, "test rows reach outside"),
        ({"train": np.array([-1])}, "train rows reach outside"),
        ({"k": 0}, "at least one neighbour"),
        ({"tissue": np.array(["a"])}, "there are only 1"),
        ({"fingerprints": np.zeros((2, 8), dtype=np.uint8)}, "there are only 2"),
        ({"fingerprints": np.full((DRUGS, 8), 255, dtype=np.uint8)}, "unpack"),
        ({"response": screen(0)[0].drop(columns="auc")}, "no column auc"),
        ({"response": screen(0)[0].assign(auc=np.nan)}, "no finite auc"),
    ],
)
def test_bad_input_gets_one_sentence(change, message):
    names = ("response", "train", "test", "tissue", "fingerprints")
    with pytest.raises(ValueError, match=message):
        fit_predict(**(dict(zip(names, screen(0), strict=True)) | change))


def test_a_wrong_name_of_a_split_and_fingerprints_of_two_lengths_get_one_sentence():
    with pytest.raises(ValueError, match="drug_blind, drug_lists"):
        informed("drugblind")
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        tanimoto(np.zeros((2, 3), dtype=np.uint8), np.zeros((2, 4), dtype=np.uint8))
