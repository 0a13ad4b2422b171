"""Does the model put the right drugs first? Ranking of the drugs of each cell line, within one source.

AUC lies in 0..1 and **low = potent**: the first drug of a list is the one with the lowest AUC. A cell's list
never mixes sources, whose AUC scales differ. For a cell with n drugs that have a truth y and a prediction p:

* recall@k: share of the k truly lowest drugs that are also among the k predicted lowest. Random: k/n.
* NDCG@k: DCG = sum over the k predicted lowest of (1 - y) / log2(1 + place), over the DCG of the true order
  (Jarvelin & Kekalainen 2002). Random: mean(1 - y) * sum_{place <= k} 1/log2(1 + place) over the same, which
  is exact.
* hit rate@k: is the truly lowest drug among the k predicted lowest? (1 or 0; over the cells, the share of them.)
  Random: k/n.
* precision@k: share of the k predicted lowest with y < low. Random: share of all n with y < low.
* Spearman of y and p, average ranks in ties. Random: 0.
* F-beta of the classes "y < low" and "p < low": (1 + b^2) TP / (b^2 P + M), P true and M predicted positives.
  It is linear in TP, so shuffling the predictions gives exactly (1 + b^2) (P M / n) / (b^2 P + M).

**Ties**, in truth or prediction, are scored by the expectation over breaking them at random, independently in
both: no result depends on the order of rows, and a constant prediction scores exactly the random expectation
(Spearman: 0). The price: where truths tie across place k, even a perfect prediction has recall below 1, as
nobody could know which of the tied drugs the "true" list holds. Undefined is NaN: NDCG where all y = 1,
F-beta where P = M = 0, Spearman where all y are alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from hedflow.errors import LOW_AUC
from hedflow.intervals import check_level, holm, percentile_interval, resample_weights
from hedflow.ranking_lists import Panel, panels

METRICS = ("recall", "ndcg", "precision", "hit", "spearman", "fbeta")

_SUMMARY = ["source", "metric", "estimate", "low", "high", "random", "n_cells", "n_cells_excluded", "n_drugs"]
_SUMMARY += ["method"]
_DIFFERENCES = ["source", "metric", "a", "b", "difference", "low", "high", "p", "p_holm", "n_cells"]
_DIFFERENCES += ["n_cells_excluded", "n_drugs", "n_unpaired", "method"]
_LINES = ["source", "cell", "n", "n_unpredicted", "ranked", *METRICS, *(f"{metric}_random" for metric in METRICS)]
_LINES += ["method"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Comparison(NamedTuple):
    """What `ranking_comparison` finds."""

    summary: pd.DataFrame
    differences: pd.DataFrame
    lines: pd.DataFrame


def ranking_table(
    frame: pd.DataFrame, k: int = 10, low: float = LOW_AUC, beta: float = 1.0, min_drugs: int = 20
) -> pd.DataFrame:
    """One row a (source, cell) of the prediction ``frame``, sorted by both.

    Columns: source, cell, n (drugs with a prediction), n_unpredicted (drugs without: left out of the list),
    ranked (n >= ``min_drugs``; where False all scores are NaN, so that excluded cells are seen and counted),
    then each of `METRICS` and its random expectation ``<metric>_random``. All 0..1 except Spearman, -1..1;
    higher is better. ValueError: columns missing, a (source, cell, drug) given twice, k above min_drugs.
    """
    rule, tables = _Rule(k, low, beta), []
    for panel in panels([frame], k, min_drugs):
        once = np.ones((len(panel.drugs), 1), dtype=np.int64)
        tables.append(_lines(panel, _scores(panel, once, rule)[0, :, :, 0], _random(panel, 0, rule)))
    return pd.concat(tables, ignore_index=True)


def ranking_comparison(
    frames: Mapping[str, pd.DataFrame],
    reference: str,
    k: int = 10,
    n_boot: int = 200,
    seed: int = 0,
    *,
    low: float = LOW_AUC,
    beta: float = 1.0,
    min_drugs: int = 20,
    level: float = 0.95,
) -> Comparison:
    """(summary, differences, lines) of the methods ``frames``, on the (source, cell, drug) that all of them predict.

    Summary: mean over the ranked cells of each source, with a percentile bootstrap interval over its drugs.
    One row a (method, source, metric): estimate, low, high, random (mean over the same cells), n_cells (where
    the metric is defined), n_cells_excluded (fewer than ``min_drugs`` drugs), n_drugs.

    Differences: each other method - ``reference``, cell by cell; positive: the method ranks better. One row a
    (method, source, metric): a, b (means of the method and the reference over the cells where both are
    defined), difference, low, high, p (normal, with the SD of the resamples), p_holm (over the methods and
    sources of the metric), n_cells, n_cells_excluded, n_drugs, n_unpaired (rows of the source that some of the
    methods predict, but not all).

    Lines: `ranking_table` of every method on these rows, with the column method.

    Drugs of the source are drawn with replacement, the same for all methods; one drawn twice is two items of
    each list; in a resample, cells left with fewer than k items are left out. The interval speaks of other
    drugs with the same cells. Equal seeds and drugs give equal resamples. Memory: 8 bytes a (method, metric,
    cell, resample) of one source. Without any frame, empty tables. ValueError: different true AUCs for a row, or no
    row in common.
    """
    check_level(level)
    if not frames:
        return Comparison(*(pd.DataFrame(columns=columns) for columns in (_SUMMARY, _DIFFERENCES, _LINES)))
    if reference not in frames:
        raise ValueError(f"There is no method {reference} to compare with; there are {', '.join(frames)}.")
    rule, names = _Rule(k, low, beta), list(frames)
    against = names.index(reference)
    summaries: dict[str, list[dict[str, object]]] = {name: [] for name in names}
    differences: dict[str, list[dict[str, object]]] = {name: [] for name in names if name != reference}
    lines: dict[str, list[pd.DataFrame]] = {name: [] for name in names}
    for panel in panels(list(frames.values()), k, min_drugs):
        n_drugs = len(panel.drugs)
        draws = resample_weights(max(n_drugs, 1), n_boot, seed)[:, :n_drugs]
        # Column 0: the drugs as they are.
        scores = _scores(panel, np.vstack([np.ones((1, n_drugs), dtype=np.int64), draws]).T, rule)
        excluded = int((~panel.counts["ranked"]).sum())
        for which, name in enumerate(names):
            own, gap = scores[which], scores[which] - scores[against]
            means, gaps, random = _over_cells(own), _over_cells(gap), _random(panel, which, rule)
            lines[name].append(_lines(panel, own[..., 0], random).assign(method=name))
            defined, paired = np.isfinite(own[..., 0]), np.isfinite(gap[..., 0])
            a, b = (_over_cells(np.where(paired, s[..., 0], np.nan)) for s in (own, scores[against]))
            chance = _over_cells(np.where(defined, random, np.nan))
            for i, metric in enumerate(METRICS):
                row = {"source": panel.source, "metric": metric}
                counts = {"n_cells_excluded": excluded, "n_drugs": n_drugs}
                lower, upper = _bounds(means[i, 1:], level, n_drugs)
                summaries[name].append(
                    {
                        **row,
                        "estimate": means[i, 0],
                        "low": lower,
                        "high": upper,
                        "random": chance[i],
                        "n_cells": int(defined[i].sum()),
                        **counts,
                        "method": name,
                    }
                )
                if which == against:
                    continue
                lower, upper = _bounds(gaps[i, 1:], level, n_drugs)
                differences[name].append(
                    {
                        **row,
                        "a": a[i],
                        "b": b[i],
                        "difference": gaps[i, 0],
                        "low": lower,
                        "high": upper,
                        "p": _p(gaps[i], n_drugs),
                        "n_cells": int(paired[i].sum()),
                        **counts,
                        "n_unpaired": panel.n_unpaired,
                        "method": name,
                    }
                )
    gaps_table = pd.DataFrame([*chain.from_iterable(differences.values())], columns=_DIFFERENCES)
    gaps_table["p_holm"] = gaps_table.groupby("metric")["p"].transform(lambda p: holm(p.to_numpy(np.float64)))
    return Comparison(
        pd.DataFrame([*chain.from_iterable(summaries.values())], columns=_SUMMARY),
        gaps_table,
        pd.concat([*chain.from_iterable(lines.values())], ignore_index=True),
    )


@dataclass(frozen=True)
class _Rule:
    k: int
    low: float
    beta: float

    @cached_property
    def discounts(self) -> Floats:
        """(k + 1,): sum of 1/log2(1 + place) over the first 0, 1, ..., k places."""
        gains = 1 / np.log2(np.arange(2, self.k + 2))
        return np.concatenate([np.zeros(1), np.cumsum(gains)])


@dataclass(frozen=True)
class _Places:
    """Where the items of a list stand in each resample. Its drugs are in rising order; ties form groups.

    ``group`` (drugs,): the tie group of each drug, and ``alone`` whether it has no other. ``starts``
    (groups,): the first drug of each. ``begin``, ``end`` (groups, resamples): number of items before the
    group, and up to its end. Of the first ``top`` drugs, and (top, resamples), what one item may expect, ties
    broken at random: its ``chance`` to be among the first k, to be the very ``first``, and its NDCG
    ``discount``. No other drug comes among the first k in any resample.
    """

    group: Ints
    alone: NDArray[np.bool_]
    starts: Ints
    begin: Ints
    end: Ints
    top: int
    chance: Floats
    first: Floats
    discount: Floats

    @classmethod
    def of(cls, ordered: Floats, weights: Ints, rule: _Rule) -> _Places:
        """``ordered`` (drugs,): rising values; ``weights`` (drugs, resamples): items of each drug."""
        k, (drugs, resamples) = rule.k, weights.shape
        totals = np.zeros((drugs + 1, resamples), dtype=np.int64)
        np.cumsum(weights, axis=0, out=totals[1:])
        edge = np.ones(drugs + 1, dtype=bool)
        edge[1:-1] = ordered[1:] != ordered[:-1]
        if not edge.all():
            totals = totals[edge]
        begin, end = totals[:-1], totals[1:]
        group = np.cumsum(edge[:-1]) - 1
        # Totals rise: the groups that begin before k items in some resample are the first ones.
        groups = int(np.count_nonzero(begin.min(axis=1) < k))
        top = int(np.searchsorted(group, groups))
        first, last = np.minimum(begin[:groups], k), np.minimum(end[:groups], k)
        # A group without items counts for nothing in any sum; its size of 1 only keeps the division quiet.
        size = np.maximum(end[:groups] - begin[:groups], 1)
        chance = (last - first) / size
        discount = (rule.discounts.take(last) - rule.discounts.take(first)) / size
        return cls(
            group,
            edge[:-1] & edge[1:],
            np.flatnonzero(edge[:-1]),
            begin,
            end,
            top,
            chance[group[:top]],
            ((np.minimum(last, 1) - np.minimum(first, 1)) / size)[group[:top]],
            discount[group[:top]],
        )

    def spread(self, n: Floats, cubes: Floats) -> Floats:
        """(resamples,): sum over the items of (begin + end - n)^2, exactly. ``cubes``: see `_cell_scores`."""
        if len(self.starts) < len(self.group):
            size = (self.end - self.begin).astype(np.float64)
            cubes = (size * size * size).sum(axis=0)
        return np.asarray((n**3 - cubes) / 3, dtype=np.float64)


def _scores(panel: Panel, weights: Ints, rule: _Rule) -> Floats:
    """(methods, metrics, cells, resamples): `METRICS` when drug j is ``weights[j]`` items of every list."""
    present, low, marked = ~np.isnan(panel.auc), panel.auc < rule.low, panel.preds < rule.low
    items, b2 = weights.astype(np.float64), rule.beta**2
    n, cubes, positives = present @ items, present @ items**3, low @ items
    scores = np.empty((len(panel.preds), len(METRICS), *n.shape))

    for cell, measured in enumerate(present):
        here = np.flatnonzero(measured)
        here = here[np.argsort(panel.auc[cell, here])]
        auc, preds = panel.auc[cell, here], panel.preds[:, cell, here]
        scores[:, :-1, cell] = _cell_scores(auc, preds, weights[here], n[cell], cubes[cell], rule)
    for own, called in zip(scores, marked, strict=True):
        own[-1] = _over((1 + b2) * ((low & called) @ items), b2 * positives + called @ items)
    scores[:, :, n < rule.k] = np.nan
    return scores


def _cell_scores(auc: Floats, preds: Floats, weights: Ints, n: Floats, cubes: Floats, rule: _Rule) -> Floats:
    """(methods, metrics but F-beta, resamples) of one cell, its drugs in rising order of ``auc`` (drugs,).

    ``preds`` (methods, drugs), ``weights`` (drugs, resamples); ``n`` and ``cubes`` (resamples,): sums over
    the drugs of the weights and of their cubes.
    """
    truth = _Places.of(auc, weights, rule)
    ideal = (1 - auc[: truth.top]) @ (weights[: truth.top] * truth.discount)
    # Twice the centred ranks: integers, so that the spread of a constant is exactly 0.
    centred = weights * ((truth.begin + truth.end)[truth.group] - n.astype(np.int64))
    spread = truth.spread(n, cubes)
    scores = np.empty((len(preds), len(METRICS) - 1, len(n)))
    for pred, own in zip(preds, scores, strict=True):
        order = np.argsort(pred)
        items = weights.take(order, axis=0)
        guess = _Places.of(pred[order], items, rule)
        first, items = order[: guess.top], items[: guess.top]
        both = np.flatnonzero(first < truth.top)
        y = guess.chance[both]
        # Items of one drawn-twice drug are told apart alike in both lists; ties of different drugs
        # independently.
        alone = (truth.alone[first[both]] & guess.alone[both])[:, None]
        for place, x in ((0, truth.chance[first[both]]), (3, truth.first[first[both]])):
            own[place] = _dot(items[both], np.where(alone, np.minimum(x, y), x * y))
        own[0] /= rule.k
        ranks = centred.take(order, axis=0)
        if len(guess.starts) < len(order):
            ranks = np.add.reduceat(ranks, guess.starts, axis=0)
        cross = _dot(ranks, guess.begin + guess.end)
        other = guess.spread(n, cubes)
        own[1] = _over((1 - auc[first]) @ (items * guess.discount), ideal)
        own[2] = (auc[first] < rule.low).astype(np.float64) @ (items * guess.chance) / rule.k
        # A constant prediction ranks nothing: 0, its expectation; the 1 only keeps the division quiet.
        own[4] = _over(cross, np.sqrt(spread) * np.sqrt(np.where(other > 0, other, 1.0)))
    return scores


def _random(panel: Panel, which: int, rule: _Rule) -> Floats:
    """(metrics, cells): exact expectation of each of `METRICS` when the method's predictions are shuffled."""
    present = ~np.isnan(panel.auc)
    n = present.sum(axis=1)
    gain = np.where(present, 1 - panel.auc, 0)
    best = -np.sort(-gain, axis=1)[:, : rule.k]
    table, b2 = rule.discounts, rule.beta**2
    ideal = best @ np.diff(table)[: best.shape[1]]
    positives, marked = (panel.auc < rule.low).sum(axis=1), (panel.preds[which] < rule.low).sum(axis=1)
    return np.stack(
        [
            rule.k / n,
            _over(gain.sum(axis=1) / n * table[-1], ideal),
            positives / n,
            rule.k / n,
            np.zeros(len(n)),
            _over((1 + b2) * positives * marked / n, b2 * positives + marked),
        ]
    )


def _lines(panel: Panel, scores: Floats, random: Floats) -> pd.DataFrame:
    """`ranking_table` of one source, from (metrics, cells) scores and their random expectations."""
    columns = [*METRICS, *(f"{metric}_random" for metric in METRICS)]
    table = pd.DataFrame(np.concatenate([scores, random]).T, index=panel.cells, columns=columns)
    table = panel.counts.join(table).rename_axis("cell").reset_index()
    table.insert(0, "source", panel.source)
    return table


def _bounds(draws: Floats, level: float, n_drugs: int) -> tuple[float, float]:
    """Percentile interval of one metric; none from a single drug, or from no cell."""
    return percentile_interval(draws, level) if n_drugs > 1 else (float("nan"), float("nan"))


def _p(gap: Floats, n_drugs: int) -> float:
    """Two-sided p of a difference, ``gap`` its value and the resamples' (1 + resamples,); normal.

    200 resamples are too few for the tail that a correction asks for, and enough for an SD.
    """
    draws = gap[1:][np.isfinite(gap[1:])]
    sd = float(draws.std(ddof=1)) if n_drugs > 1 and len(draws) > 1 else 0.0
    return float(2 * norm.sf(abs(gap[0]) / sd)) if sd > 0 else float("nan")


def _dot(x: NDArray[Any], y: NDArray[Any]) -> Floats:
    """(drugs, resamples) twice -> (resamples,): sum of products over the drugs."""
    return np.asarray(np.einsum("ij,ij->j", x, y), dtype=np.float64)


def _over(above: Floats, below: Floats) -> Floats:
    """above / below, NaN where below is not positive."""
    return np.asarray(above / np.where(below > 0, below, np.nan), dtype=np.float64)


def _over_cells(scores: Floats) -> Floats:
    """(metrics, cells, ...) -> (metrics, ...): mean over the cells that define the metric; NaN if none."""
    defined = np.isfinite(scores)
    return _over(np.where(defined, scores, 0.0).sum(axis=1), defined.sum(axis=1).astype(np.float64))
