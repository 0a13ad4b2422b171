"""Laws of the ranking scores: brute force over all ways to break ties, chance, paired resamples."""

from itertools import pairwise, permutations, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hedflow import ranking
from hedflow.intervals import resample_weights
from hedflow.ranking import METRICS

SCORES = list(METRICS)
RANDOM = [f"{metric}_random" for metric in METRICS]


def one_cell(auc, pred, source="CCLE", cell=0):
    auc = np.asarray(auc, dtype=float)
    return pd.DataFrame({"cell": cell, "drug": np.arange(len(auc)), "source": source, "auc": auc, "auc_pred": pred})


def score(frame, k, **settings):
    return ranking.ranking_table(frame, k=k, min_drugs=k, **settings).iloc[0]


def summarise(frame, **settings):
    return ranking.ranking_comparison({"own": frame}, "own", **settings)[0]


def compare(a, b, **settings):
    return ranking.ranking_comparison({"a": a, "b": b}, "b", **settings)[1]


def many(seed=0, cells=6, drugs=30, noise=0.1, steps=1000, source="CCLE"):
    """Rows of several cells, some pairs not measured; ``steps``: few of them make many ties."""
    rng = np.random.default_rng(seed)
    cell, drug = np.divmod(np.arange(cells * drugs), drugs)
    auc = np.round(np.clip(rng.beta(4, 1.5, drugs)[drug] + rng.normal(0, 0.1, len(cell)), 0, 1) * steps) / steps
    pred = np.round((auc + rng.normal(0, noise, len(cell))) * steps) / steps
    frame = pd.DataFrame({"cell": cell, "drug": drug, "source": source, "auc": auc, "auc_pred": pred})
    return frame[rng.random(len(cell)) < 0.85].reset_index(drop=True)


def orders(values):
    """All orders of the items that sort ``values``: every way of breaking its ties."""
    return [o for o in permutations(range(len(values))) if all(values[a] <= values[b] for a, b in pairwise(o))]


def test_a_case_by_hand():
    auc = [0.1, 0.2, 0.3, 0.6, 0.9]
    pred = [0.3, 0.1, 0.8, 0.2, 0.9]
    found = score(one_cell(auc, pred), k=2)
    log = np.log2
    assert found["n"] == 5
    assert found["recall"] == 0.5
    assert found["hit"] == 0  # the best drug is the third of the prediction
    assert score(one_cell(auc, pred), k=3)["hit"] == 1
    assert found["precision"] == 0.5
    assert found["ndcg"] == pytest.approx((0.8 + 0.4 / log(3)) / (0.9 + 0.8 / log(3)))
    assert found["spearman"] == pytest.approx(stats.spearmanr(auc, pred)[0])
    # truly low: 0, 1, 2; called low: 0, 1, 3
    assert found["fbeta"] == pytest.approx(2 / 3)
    assert found["recall_random"] == found["hit_random"] == 0.4
    assert found["precision_random"] == 0.6
    assert found["ndcg_random"] == pytest.approx(0.58 * (1 + 1 / log(3)) / (0.9 + 0.8 / log(3)))
    assert found["fbeta_random"] == pytest.approx(2 * (9 / 5) / 6)
    other = score(one_cell(auc, pred), k=2, low=0.7, beta=2)
    assert other["fbeta"] == pytest.approx(5 * 3 / (4 * 4 + 3))
    assert other["fbeta_random"] == pytest.approx(5 * (4 * 3 / 5) / (4 * 4 + 3))


levels = st.lists(st.integers(0, 3), min_size=5, max_size=5)


@given(levels, levels, st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_ties_score_the_mean_over_all_ways_to_break_them(truth, guess, k):
    auc, pred = np.array(truth) / 4, np.array(guess) / 4
    found = score(one_cell(auc, pred), k)
    discount = 1 / np.log2(np.arange(2, k + 2))
    truths, guesses = orders(auc), orders(pred)
    overlap = [len({*t[:k]} & {*g[:k]}) / k for t in truths for g in guesses]
    ideal = ((1 - np.sort(auc))[:k] * discount).sum()
    dcg = [((1 - auc[list(g[:k])]) * discount).sum() for g in guesses]
    assert found["recall"] == pytest.approx(np.mean(overlap))
    assert found["hit"] == pytest.approx(np.mean([t[0] in g[:k] for t in truths for g in guesses]))
    assert found["ndcg"] == pytest.approx(np.mean(dcg) / ideal)
    assert found["precision"] == pytest.approx(np.mean([(auc[list(g[:k])] < 0.5).mean() for g in guesses]))
    if len({*truth}) > 1 and len({*guess}) > 1:
        assert found["spearman"] == pytest.approx(stats.spearmanr(auc, pred)[0], abs=1e-12)


@given(levels, levels, st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_random_columns_are_the_mean_over_all_shuffles_of_the_prediction(truth, guess, k):
    auc = np.array(truth) / 4
    shuffled = [one_cell(auc, np.array(p) / 4, cell=i) for i, p in enumerate(permutations(guess))]
    table = ranking.ranking_table(pd.concat(shuffled), k=k, min_drugs=k)
    expected = table.iloc[0][RANDOM].to_numpy(dtype=float)
    means = table[SCORES].mean().to_numpy(dtype=float, copy=True)
    if np.ptp(auc) == 0:
        assert np.isnan(means[SCORES.index("spearman")])
        means[SCORES.index("spearman")] = 0
    np.testing.assert_allclose(means, expected, atol=1e-12)


@given(st.integers(0, 10_000), st.sampled_from([4, 20, 1000]), st.sampled_from([0.0, 0.3, 0.8]))
@settings(max_examples=30, deadline=None)
def test_a_constant_prediction_scores_exactly_what_chance_does(seed, steps, constant):
    table = ranking.ranking_table(many(seed, steps=steps).assign(auc_pred=constant), k=10)
    np.testing.assert_allclose(table[SCORES].to_numpy(), table[RANDOM].to_numpy(), rtol=1e-12)
    assert table["ranked"].any()


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_a_perfect_prediction_scores_one(seed):
    frame = many(seed, steps=10**9)
    table = ranking.ranking_table(frame.assign(auc_pred=frame["auc"]), k=10)
    table = table[table["ranked"]]
    np.testing.assert_allclose(table[["recall", "ndcg", "hit", "spearman"]].to_numpy(), 1, rtol=1e-12)
    lows = frame[frame["auc"] < 0.5].groupby("cell").size().reindex(table["cell"]).fillna(0).to_numpy()
    np.testing.assert_allclose(table["precision"], np.minimum(lows, 10) / 10)
    assert (table["fbeta"][lows > 0] == 1).all()
    assert table["fbeta"][lows == 0].isna().all()


def test_the_reverse_of_the_truth_is_worse_than_chance():
    frame = many(1, steps=10**9)
    table = ranking.ranking_table(frame.assign(auc_pred=1 - frame["auc"]), k=10)
    assert (table["spearman"] + 1).abs().max() < 1e-12
    assert (table["recall"] < table["recall_random"]).all()
    assert (table["ndcg"] < table["ndcg_random"]).all()


@given(st.integers(0, 10_000), st.sampled_from([5, 1000]))
@settings(max_examples=20, deadline=None)
def test_row_order_and_any_rising_function_of_the_prediction_change_nothing(seed, steps):
    frame = many(seed, steps=steps)
    expected = ranking.ranking_table(frame)
    mixed = frame.sample(frac=1, random_state=seed)
    pd.testing.assert_frame_equal(ranking.ranking_table(mixed), expected, rtol=1e-12, atol=1e-12)
    # Rising, and it leaves the side of 0.5 as it is.
    bent = frame.assign(auc_pred=0.5 + (frame["auc_pred"] - 0.5) * 3)
    pd.testing.assert_frame_equal(ranking.ranking_table(bent), expected, rtol=1e-12, atol=1e-12)


def test_each_source_is_ranked_by_itself():
    a, b = many(1), many(2, source="gCSI")
    both = ranking.ranking_table(pd.concat([b, a]))
    alone = pd.concat([ranking.ranking_table(a), ranking.ranking_table(b)], ignore_index=True)
    pd.testing.assert_frame_equal(both, alone)
    categories = pd.concat([b, a]).astype({"source": "category"})
    pd.testing.assert_frame_equal(ranking.ranking_table(categories), alone)


def test_short_lists_and_missing_predictions_are_counted():
    frame = pd.concat([one_cell(np.linspace(0, 1, n), np.linspace(0, 1, n), cell=n) for n in (19, 20, 25)])
    frame.loc[(frame["cell"] == 25) & (frame["drug"] < 3), "auc_pred"] = np.nan
    table = ranking.ranking_table(frame)
    assert list(table["n"]) == [19, 20, 22]
    assert list(table["n_unpredicted"]) == [0, 0, 3]
    assert list(table["ranked"]) == [False, True, True]
    assert table.loc[0, SCORES + RANDOM].isna().all()
    assert table.loc[1:, "recall"].eq(1).all()
    summary = summarise(frame, n_boot=5)
    assert set(summary["n_cells_excluded"]) == {1}
    assert set(summary["n_drugs"]) == {25 - 3 + 3}


def test_a_source_without_any_ranked_cell_still_has_its_rows():
    summary = summarise(one_cell([0.1, 0.5], [0.1, 0.5]), n_boot=5)
    assert list(summary["metric"]) == SCORES
    assert summary["estimate"].isna().all()
    assert set(summary["n_cells"]) == {0}
    assert set(summary["n_cells_excluded"]) == {1}


def test_a_cell_where_nothing_works_has_no_ndcg():
    found = score(one_cell(np.ones(6), np.linspace(0, 1, 6)), k=3)
    assert np.isnan(found["ndcg"])
    assert np.isnan(found["spearman"])
    assert found["recall"] == 0.5


def test_summary_is_the_mean_over_cells_and_its_interval_a_bootstrap_of_drugs():
    """The resampled scores equal those of a table in which a drug drawn twice is literally there twice."""
    frame = many(3, cells=4, drugs=30, steps=10**9)
    # No two drugs tie, which would tell their copies apart in another way than below.
    frame["auc"] -= 1e-6 * frame["drug"]
    # One cell of few drugs, so that some resamples leave it too few for a list of five.
    frame = frame[(frame["cell"] > 0) | (frame["drug"] % 4 == 0)]
    assert (frame["cell"] == 0).sum() >= 5
    summary = summarise(frame, k=5, n_boot=12, seed=9, min_drugs=5).set_index("metric")
    table = ranking.ranking_table(frame, k=5, min_drugs=5)
    np.testing.assert_allclose(summary["estimate"], table[SCORES].mean())
    np.testing.assert_allclose(summary["random"], table[RANDOM].mean())
    draws, too_short = [], 0
    for weights in resample_weights(30, 12, seed=9):
        copies = np.repeat(np.arange(30), weights)
        drawn = pd.DataFrame({"drug": copies, "item": np.arange(30), "copy": 0})
        drawn["copy"] = drawn.groupby("drug").cumcount()
        literal = drawn.merge(frame, on="drug")
        # Copies of one drug keep one order in both lists: told apart by amounts below any other difference.
        for column in ("auc", "auc_pred"):
            literal[column] += 1e-12 * literal["copy"]
        literal = literal.drop(columns="drug").rename(columns={"item": "drug"})
        too_short += literal["cell"].value_counts().reindex(range(4), fill_value=0).lt(5).any()
        draws.append(ranking.ranking_table(literal, k=5, min_drugs=5)[SCORES].mean())
    assert 0 < too_short < 12
    draws = pd.DataFrame(draws)
    for metric in ("recall", "ndcg", "precision", "fbeta"):
        low, high = np.quantile(draws[metric], [0.025, 0.975])
        assert summary.loc[metric, ["low", "high"]].to_numpy(dtype=float) == pytest.approx([low, high], abs=1e-9)
    # Spearman: average ranks of copies, not the tiny amounts.
    assert summary.loc["spearman", "low"] < summary.loc["spearman", "estimate"] < summary.loc["spearman", "high"]


def test_spearman_of_resamples_equals_scipy_on_literal_copies():
    frame = many(5, cells=1, drugs=30, steps=20)
    found = summarise(frame, n_boot=1, seed=2).set_index("metric").loc["spearman"]
    drugs = np.unique(frame["drug"])
    weights = pd.Series(resample_weights(len(drugs), 1, seed=2)[0], index=drugs)
    literal = frame.loc[frame.index.repeat(weights[frame["drug"]])]
    assert found["low"] == found["high"] == pytest.approx(stats.spearmanr(literal["auc"], literal["auc_pred"])[0])


def test_perfect_predictions_are_perfect_in_every_resample_and_constant_ones_random():
    frame = many(4, steps=10**9)
    perfect = summarise(frame.assign(auc_pred=frame["auc"]), n_boot=30).set_index("metric")
    np.testing.assert_allclose(
        perfect.loc[["recall", "ndcg", "spearman"], ["low", "high"]].astype(float), 1, rtol=1e-12
    )
    constant = summarise(frame.assign(auc_pred=0.7), n_boot=30).set_index("metric")
    np.testing.assert_allclose(constant["estimate"], constant["random"], rtol=1e-12)
    assert constant.loc["recall", "low"] <= constant.loc["recall", "random"] <= constant.loc["recall", "high"]


def test_summary_is_repeatable_by_seed():
    frame = many(6)
    first = summarise(frame, n_boot=20, seed=1)
    pd.testing.assert_frame_equal(first, summarise(frame.iloc[::-1], n_boot=20, seed=1), rtol=1e-12)
    assert (first["low"] != summarise(frame, n_boot=20, seed=2)["low"]).any()


def test_identical_methods_differ_by_exactly_nothing():
    frame = many(7, steps=20)
    found = compare(frame, frame.iloc[::-1], n_boot=20)
    assert (found[["difference", "low", "high"]].to_numpy() == 0).all()
    assert set(found["n_unpaired"]) == {0}


def test_a_better_method_is_found_better_and_the_difference_turns_its_sign():
    good, bad = many(8, noise=0.02), many(8, noise=0.5)
    there = compare(good, bad, n_boot=60).set_index("metric")
    back = compare(bad, good, n_boot=60).set_index("metric")
    assert (there.loc[["recall", "ndcg", "spearman"], "low"] > 0).all()
    np.testing.assert_allclose(there["low"], -back["high"])
    np.testing.assert_allclose(there["difference"], there["a"] - there["b"])
    summary = summarise(good, n_boot=5).set_index("metric")
    np.testing.assert_allclose(there.loc["recall", "a"], summary.loc["recall", "estimate"])


def test_difference_is_taken_on_the_rows_that_both_predict():
    a, b = many(9), many(9, noise=0.3)
    b.loc[b.index[:7], "auc_pred"] = np.nan
    b = b.iloc[:-2]
    found = compare(a, b, n_boot=5, min_drugs=10).set_index("metric")
    assert set(found["n_unpaired"]) == {9}
    kept = b.dropna().merge(a.drop(columns="auc_pred"), on=["source", "cell", "drug", "auc"])
    expected = ranking.ranking_table(kept, min_drugs=10)["recall"].mean()
    assert found.loc["recall", "b"] == pytest.approx(expected)


def slow_scores(auc, pred, alone, k, low=0.5):
    """`SCORES` of literal items, one by one: truth, prediction, whether the drug ties with no other."""
    n = len(auc)
    if n < k:
        return [np.nan] * len(SCORES)

    def expected(values):
        """Chance to be among the first k, NDCG discount, chance to be the first."""
        begin, size = (values < values[:, None]).sum(1), (values == values[:, None]).sum(1)
        steps = np.where(np.arange(n) < k, 1 / np.log2(np.arange(n) + 2), 0)
        discount = np.array([steps[b : b + s].mean() for b, s in zip(begin, size, strict=True)])
        return np.clip((k - begin) / size, 0, 1), discount, np.where(begin == 0, 1 / size, 0)

    (x, ideal, best), (y, discount, _) = expected(auc), expected(pred)
    both, hit = (np.where(alone, np.minimum(z, y), z * y) for z in (x, best))
    gain, is_low, called = 1 - auc, auc < low, pred < low
    spearman = 0 if np.ptp(pred) == 0 else np.nan
    if np.ptp(auc) == 0:
        spearman = np.nan
    elif np.ptp(pred) > 0:
        spearman = stats.spearmanr(auc, pred)[0]
    found = is_low.sum() + called.sum()
    return [
        both.sum() / k,
        gain @ discount / (gain @ ideal) if gain @ ideal > 0 else np.nan,
        is_low @ y / k,
        hit.sum(),
        spearman,
        2 * (is_low & called).sum() / found if found else np.nan,
    ]


@given(st.integers(0, 10_000), st.sampled_from([3, 10, 1000]), st.sampled_from([1, 4]))
@settings(max_examples=12, deadline=None)
def test_comparison_equals_the_slow_way_over_literal_copies(seed, steps, k):
    """Each resample scored item by item, method by method, cell by cell."""
    truth = many(seed, cells=4, drugs=12, steps=steps)
    noisy = many(seed, cells=4, drugs=12, steps=steps, noise=0.5)
    rough = truth.assign(auc_pred=truth["auc_pred"].round(1))
    frames = {"good": truth, "noisy": noisy, "rough": rough, "constant": truth.assign(auc_pred=0.4)}
    options = {"k": k, "n_boot": 8, "seed": seed, "min_drugs": 6}
    summary, differences, lines = ranking.ranking_comparison(frames, "noisy", **options)
    one_by_one = [ranking.ranking_table(f, k=k, min_drugs=6).assign(method=name) for name, f in frames.items()]
    pd.testing.assert_frame_equal(lines, pd.concat(one_by_one, ignore_index=True))
    drugs = np.unique(truth["drug"])
    weights = np.vstack([np.ones((1, len(drugs)), int), resample_weights(len(drugs), 8, seed)])
    scores = np.full((len(frames), len(weights), 4, len(SCORES)), np.nan)
    for m, frame in enumerate(frames.values()):
        for (r, items), (c, cell) in product(enumerate(weights), frame.groupby("cell")):
            if len(cell) < 6:  # min_drugs
                continue
            tied = cell["auc"].duplicated(keep=False) | cell["auc_pred"].duplicated(keep=False)
            cell = cell.assign(alone=~tied)
            literal = cell.loc[cell.index.repeat(items[np.searchsorted(drugs, cell["drug"])])]
            auc, pred, alone = (literal[name].to_numpy() for name in ("auc", "auc_pred", "alone"))
            scores[m, r, c] = slow_scores(auc, pred, alone, k)
    for values, table, names in (
        (scores, summary, list(frames)),
        (scores[[0, 2, 3]] - scores[1], differences, ["good", "rough", "constant"]),
    ):
        assert list(table["method"]) == list(np.repeat(names, len(SCORES)))
        means = pd.DataFrame(np.moveaxis(values, 2, 0).reshape(4, -1)).mean().to_numpy()
        means = means.reshape(len(names), len(weights), len(SCORES))
        estimate = table["estimate" if "estimate" in table else "difference"]
        np.testing.assert_allclose(estimate, means[:, 0].ravel(), atol=1e-12)
        bounds = pd.DataFrame(means[:, 1:].swapaxes(0, 1).reshape(8, -1)).quantile([0.025, 0.975])
        np.testing.assert_allclose(table[["low", "high"]].to_numpy().T, bounds, atol=1e-12)
        np.testing.assert_array_equal(table["n_cells"], np.isfinite(values[:, 0]).sum(axis=1).ravel())


def test_all_methods_are_compared_on_the_rows_that_all_predict():
    a, b, c = many(9), many(9, noise=0.3), many(9, noise=0.6)
    b = b.iloc[:-2]
    c.loc[c.index[:7], "auc_pred"] = np.nan
    other = many(10, source="gCSI")
    summary, differences, _ = ranking.ranking_comparison(
        {"a": pd.concat([a, other]), "b": b, "c": c}, "a", n_boot=5, min_drugs=10
    )
    kept = a.iloc[7:-2]
    expected = ranking.ranking_table(kept, min_drugs=10)[SCORES].mean()
    ccle = summary[summary["source"] == "CCLE"]
    np.testing.assert_allclose(ccle.loc[ccle["method"] == "a", "estimate"], expected)
    assert list(dict.fromkeys(differences["method"])) == ["b", "c"]
    unpaired = differences.groupby("source")["n_unpaired"].unique().explode()
    assert dict(unpaired) == {"CCLE": 9, "gCSI": len(other)}
    # A source that they do not share is there, without a cell to compare.
    assert set(differences.loc[differences["source"] == "gCSI", "n_cells"]) == {0}
    assert set(differences.loc[differences["source"] == "CCLE", "n_cells"]) == {6}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: ranking.ranking_table(f.drop(columns="source")), "no column source"),
        (lambda f: ranking.ranking_table(f.iloc[:0]), "no rows"),
        (lambda f: ranking.ranking_table(pd.concat([f, f.iloc[:3]])), "3 rows .* repeat"),
        (lambda f: ranking.ranking_table(f, k=30), "k <= min_drugs"),
        (lambda f: ranking.ranking_table(f, k=0), "1 <= k"),
        (lambda f: ranking.ranking_table(f.assign(auc=np.nan)), "no finite true auc"),
        (lambda f: summarise(f, level=95), "between 0 and 1"),
        (lambda f: compare(f.assign(auc_pred=np.nan), f), "in common"),
        (lambda f: compare(f, f.iloc[:0]), "no rows"),
        (lambda f: ranking.ranking_comparison({"a": f}, "b"), "no method b"),
        (lambda f: compare(f, f.assign(auc=f["auc"] / 2)), "different true AUCs"),
        (lambda f: compare(f, f.assign(cell=f["cell"] + 100)), "in common"),
        (lambda f: compare(f, pd.concat([f, f])), "repeat"),
    ],
)
def test_bad_input_gets_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call(many(0, cells=2))
