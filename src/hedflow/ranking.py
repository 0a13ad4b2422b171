"""Does the model put the right drugs first? Ranking of the drugs of each cell line, within one source.

AUC lies in 0..1 and **low = potent**: the first drug of a list is the one with the lowest AUC. A cell's list
never mixes sources, whose AUC scales differ. For a cell with n drugs that have a truth y and a prediction p:

* recall@k: share of the k truly lowest drugs that are also among the k predicted lowest. Random: k/n.
* NDCG@k: DCG = sum over the k predicted lowest of (1 - y) / log2(1 + place), over the DCG of the true order
  (Jarvelin & Kekalainen 2002). Random: mean(1 - y) * sum_{place <= k} 1/log2(1 + place) over the same, which
  is exact.
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

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hedflow.errors import LOW_AUC, check_frame
from hedflow.intervals import check_level, percentile_interval, resample_weights

METRICS = ("recall", "ndcg", "precision", "spearman", "fbeta")
_KEYS = ["source", "cell", "drug"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def ranking_table(
    frame: pd.DataFrame, k: int = 10, low: float = LOW_AUC, beta: float = 1.0, min_drugs: int = 20
) -> pd.DataFrame:
    """One row a (source, cell) of the prediction ``frame``, sorted by both.

    Columns: source, cell, n (drugs with a prediction), n_unpredicted (drugs without: left out of the list),
    ranked (n >= ``min_drugs``; where False all scores are NaN, so that excluded cells are seen and counted),
    then each of `METRICS` and its random expectation ``<metric>_random``. All 0..1 except Spearman, -1..1;
    higher is better. ValueError: columns missing, a (source, cell, drug) given twice, k above min_drugs.
    """
    tables = [_score_source(panel, _Rule(k, low, beta)) for panel in _panels(frame, k, min_drugs)]
    columns = ["source", "cell", "n", "n_unpredicted", "ranked", *_metric_columns()]
    return pd.concat(tables, ignore_index=True)[columns]


def ranking_summary(
    frame: pd.DataFrame,
    k: int = 10,
    n_boot: int = 200,
    seed: int = 0,
    *,
    low: float = LOW_AUC,
    beta: float = 1.0,
    min_drugs: int = 20,
    level: float = 0.95,
) -> pd.DataFrame:
    """Mean over the ranked cells of each source, with a percentile bootstrap interval over its drugs.

    Long table, one row a (source, metric): estimate, low, high, random (mean over the same cells), n_cells
    (where the metric is defined), n_cells_excluded (fewer than ``min_drugs`` drugs), n_drugs. Drugs of the
    source are drawn with replacement; one drawn twice is two items of each list; in a resample, cells left
    with fewer than k items are left out. The interval speaks of other drugs with the same cells. Equal seeds
    and drugs give equal resamples.
    """
    check_level(level)
    rule, rows = _Rule(k, low, beta), []
    for panel in _panels(frame, k, min_drugs):
        table = _score_source(panel, rule)
        scores = table[list(METRICS)].to_numpy(dtype=np.float64).T
        draws = np.array([_over_cells(found[0]) for found in _resamples(panel, rule, n_boot, seed)])
        for i, metric in enumerate(METRICS):
            defined = np.isfinite(scores[i])
            lower, upper = _bounds(draws, i, level, panel)
            rows.append(
                {
                    "source": panel.source,
                    "metric": metric,
                    "estimate": _over_cells(scores)[i],
                    "low": lower,
                    "high": upper,
                    "random": table.loc[defined, f"{metric}_random"].mean(),
                    "n_cells": int(defined.sum()),
                    "n_cells_excluded": int((~table["ranked"]).sum()),
                    "n_drugs": len(panel.drugs),
                }
            )
    return pd.DataFrame(rows)


def ranking_difference(
    frame_a: pd.DataFrame,
    frame_b: pd.DataFrame,
    k: int = 10,
    n_boot: int = 200,
    seed: int = 0,
    *,
    low: float = LOW_AUC,
    beta: float = 1.0,
    min_drugs: int = 20,
    level: float = 0.95,
) -> pd.DataFrame:
    """Paired difference a - b of two methods' ranking scores; positive: a ranks better.

    Both are scored on the (source, cell, drug) that both predict, with the same resamples, and compared cell
    by cell. Long table, one row a (source, metric): a, b (means over the cells where both are defined),
    difference, low, high, n_cells, n_cells_excluded, n_drugs, n_unpaired (rows of the source that only one of
    them predicts). A source that they do not share has no row. ValueError: different true AUCs for a row, or
    no row in common.
    """
    check_level(level)
    both, unpaired = _paired(frame_a, frame_b)
    rule, rows = _Rule(k, low, beta), []
    for panel in _panels(both, k, min_drugs, ("auc_pred_a", "auc_pred_b")):
        once = np.ones(len(panel.drugs), dtype=np.int64)
        a, b = (_scores(panel, i, once, rule) for i in (0, 1))
        defined = np.isfinite(a) & np.isfinite(b)
        draws = np.array([_over_cells(s[0] - s[1]) for s in _resamples(panel, rule, n_boot, seed)])
        for i, metric in enumerate(METRICS):
            lower, upper = _bounds(draws, i, level, panel)
            rows.append(
                {
                    "source": panel.source,
                    "metric": metric,
                    "a": _over_cells(np.where(defined, a, np.nan))[i],
                    "b": _over_cells(np.where(defined, b, np.nan))[i],
                    "difference": _over_cells(a - b)[i],
                    "low": lower,
                    "high": upper,
                    "n_cells": int(defined[i].sum()),
                    "n_cells_excluded": len(panel.excluded),
                    "n_drugs": len(panel.drugs),
                    "n_unpaired": unpaired.get(panel.source, 0),
                }
            )
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _Rule:
    k: int
    low: float
    beta: float

    @property
    def discounts(self) -> Floats:
        """(k + 1,): sum of 1/log2(1 + place) over the first 0, 1, ..., k places."""
        gains = 1 / np.log2(np.arange(2, self.k + 2))
        return np.concatenate([np.zeros(1), np.cumsum(gains)])


@dataclass(frozen=True)
class _Order:
    """The drugs of each cell from low to high value, with ties as groups; (cells, drugs), missing ones last.

    ``order``: drug at each place. ``lower``, ``upper``: for each *drug*, where its tie group begins and ends,
    as flat indices into (cells, drugs + 1) running totals. ``alone``: the drug ties with no other.
    """

    order: Ints
    lower: Ints
    upper: Ints
    alone: NDArray[np.bool_]

    @classmethod
    def of(cls, values: Floats) -> _Order:
        cells, drugs = values.shape
        keys = np.where(np.isnan(values), np.inf, values)
        order = np.argsort(keys, axis=1, kind="stable")
        ordered = np.take_along_axis(keys, order, axis=1)
        new = np.ones((cells, drugs + 1), dtype=bool)
        new[:, 1:-1] = ordered[:, 1:] != ordered[:, :-1]
        place = np.arange(drugs)
        first = np.maximum.accumulate(np.where(new[:, :-1], place, 0), axis=1)
        last = np.minimum.accumulate(np.where(new[:, 1:], place + 1, drugs)[:, ::-1], axis=1)[:, ::-1]
        row = np.arange(cells)[:, None] * (drugs + 1)
        lower, upper = np.empty_like(order), np.empty_like(order)
        np.put_along_axis(lower, order, first + row, axis=1)
        np.put_along_axis(upper, order, last + row, axis=1)
        return cls(order, lower, upper, upper - lower == 1)

    def places(self, weights: Ints, k: int, discounts: Floats) -> tuple[Floats, Floats, Ints]:
        """For each (cell, drug), when drug j is ``weights[j]`` items: what one of its items may expect, ties
        broken at random. Its chance to be among the first ``k``; its NDCG discount; twice its average place,
        less 1.
        """
        cells, drugs = self.order.shape
        totals = np.zeros((cells, drugs + 1), dtype=np.int64)
        np.cumsum(weights.take(self.order), axis=1, out=totals[:, 1:])
        begin, end = totals.ravel().take(self.lower), totals.ravel().take(self.upper)
        # A group without items counts for nothing in any sum; its size of 1 only keeps the division quiet.
        size = np.maximum(end - begin, 1)
        chance: Floats = np.clip((k - begin) / size, 0, 1)
        discount: Floats = (discounts.take(np.minimum(end, k)) - discounts.take(np.minimum(begin, k))) / size
        return chance, discount, begin + end


@dataclass(frozen=True)
class _Panel:
    """One source as matrices (ranked cells, drugs); NaN where a pair lacks the truth or a prediction."""

    source: str
    cells: NDArray[np.generic]
    drugs: NDArray[np.generic]
    auc: Floats
    preds: tuple[Floats, ...]
    truth_order: _Order
    pred_orders: tuple[_Order, ...]
    counts: pd.DataFrame  # every cell of the source: n, n_unpredicted, ranked
    excluded: NDArray[np.generic]


def _panels(
    frame: pd.DataFrame, k: int, min_drugs: int, predictions: tuple[str, ...] = ("auc_pred",)
) -> Iterator[_Panel]:
    """The sources of the frame, by name."""
    check_frame(frame, (*_KEYS, "auc", *predictions))
    if frame.empty:
        raise ValueError("The prediction frame has no rows; there is nothing to rank.")
    if not 1 <= k <= min_drugs:
        raise ValueError(f"Ranking needs 1 <= k <= min_drugs, not k = {k} and min_drugs = {min_drugs}.")
    rows = frame[[*_KEYS, "auc", *predictions]].assign(source=frame["source"].astype(str))
    repeated = int(rows.duplicated(_KEYS).sum())
    if repeated:
        raise ValueError(
            f"{repeated} rows of the prediction frame repeat a (source, cell, drug); "
            "average replicates before ranking."
        )
    values = rows[list(predictions)].to_numpy(dtype=np.float64, na_value=np.nan)
    rows["known"] = np.isfinite(values).all(axis=1)
    for source, part in rows.groupby("source", sort=True):
        yield _panel(str(source), part, min_drugs, predictions)


def _panel(source: str, rows: pd.DataFrame, min_drugs: int, predictions: tuple[str, ...]) -> _Panel:
    by_cell = rows.groupby("cell", sort=True)["known"]
    counts = pd.DataFrame({"n": by_cell.sum(), "n_unpredicted": by_cell.size() - by_cell.sum()})
    counts["ranked"] = counts["n"] >= min_drugs
    cells = counts.index[counts["ranked"]].to_numpy()
    kept = rows[rows["known"] & rows["cell"].isin(cells)]
    drugs, column = np.unique(kept["drug"].to_numpy(), return_inverse=True)
    row = np.searchsorted(cells, kept["cell"].to_numpy())

    def matrix(name: str) -> Floats:
        values = np.full((len(cells), len(drugs)), np.nan)
        values[row, column] = kept[name].to_numpy(dtype=np.float64)
        return values

    auc, preds = matrix("auc"), tuple(matrix(name) for name in predictions)
    excluded = counts.index[~counts["ranked"]].to_numpy()
    orders = tuple(_Order.of(pred) for pred in preds)
    return _Panel(source, cells, drugs, auc, preds, _Order.of(auc), orders, counts, excluded)


def _scores(panel: _Panel, which: int, weights: Ints, rule: _Rule) -> Floats:
    """(metrics, cells): `METRICS` of prediction ``which`` when drug j is ``weights[j]`` items of a list."""
    k, b2 = rule.k, rule.beta**2
    present = ~np.isnan(panel.auc)
    w = np.where(present, weights, 0)
    n = w.sum(axis=1)
    truth, guess = panel.truth_order, panel.pred_orders[which]
    in_truth, discount_truth, rank_truth = truth.places(weights, k, rule.discounts)
    in_guess, discount_guess, rank_guess = guess.places(weights, k, rule.discounts)
    # Items of one drawn-twice drug are told apart alike in both lists; ties of different drugs independently.
    hit = np.where(truth.alone & guess.alone, np.minimum(in_truth, in_guess), in_truth * in_guess)
    gain = w * np.where(present, 1 - panel.auc, 0)
    # Twice the centred ranks: integers, so that the spread of a constant is exactly 0.
    x, y = rank_truth - n[:, None], rank_guess - n[:, None]
    spread_x, spread_y = _dot(w * x, x), _dot(w * y, y)
    low, marked = w * (panel.auc < rule.low), panel.preds[which] < rule.low
    scores = np.stack(
        [
            _dot(w, hit) / k,
            _over(_dot(gain, discount_guess), _dot(gain, discount_truth)),
            _dot(low, in_guess) / k,
            # A constant prediction ranks nothing: 0, its expectation; the 1 only keeps the division quiet.
            _over(_dot(w * x, y), np.sqrt(spread_x) * np.sqrt(np.where(spread_y > 0, spread_y, 1.0))),
            _over((1 + b2) * _dot(low, marked), b2 * low.sum(axis=1) + _dot(w, marked)),
        ]
    )
    scores[:, n < k] = np.nan
    return scores


def _random(panel: _Panel, rule: _Rule) -> Floats:
    """(metrics, cells): exact expectation of each of `METRICS` when the cell's predictions are shuffled."""
    present = ~np.isnan(panel.auc)
    n = present.sum(axis=1)
    gain = np.where(present, 1 - panel.auc, 0)
    best = -np.sort(-gain, axis=1)[:, : rule.k]
    table, b2 = rule.discounts, rule.beta**2
    ideal = best @ np.diff(table)[: best.shape[1]]
    positives, marked = (panel.auc < rule.low).sum(axis=1), (panel.preds[0] < rule.low).sum(axis=1)
    return np.stack(
        [
            rule.k / n,
            _over(gain.sum(axis=1) / n * table[-1], ideal),
            positives / n,
            np.zeros(len(n)),
            _over((1 + b2) * positives * marked / n, b2 * positives + marked),
        ]
    )


def _score_source(panel: _Panel, rule: _Rule) -> pd.DataFrame:
    once = np.ones(len(panel.drugs), dtype=np.int64)
    values = np.concatenate([_scores(panel, 0, once, rule), _random(panel, rule)])
    names = [*METRICS, *(f"{metric}_random" for metric in METRICS)]
    scores = pd.DataFrame(values.T, index=panel.cells, columns=names)
    return panel.counts.join(scores).rename_axis("cell").reset_index().assign(source=panel.source)


def _metric_columns() -> list[str]:
    return [name for metric in METRICS for name in (metric, f"{metric}_random")]


def _resamples(panel: _Panel, rule: _Rule, n_boot: int, seed: int) -> Iterator[Floats]:
    """For each resample of the drugs: (predictions, metrics, cells)."""
    for weights in resample_weights(max(len(panel.drugs), 1), n_boot, seed)[:, : len(panel.drugs)]:
        yield np.stack([_scores(panel, i, weights, rule) for i in range(len(panel.preds))])


def _bounds(draws: Floats, metric: int, level: float, panel: _Panel) -> tuple[float, float]:
    """Percentile interval of one metric; none from a single drug, or from no cell."""
    if len(panel.drugs) < 2:
        return float("nan"), float("nan")
    return percentile_interval(draws[:, metric], level)


def _dot(x: NDArray[Any], y: NDArray[Any]) -> Floats:
    """(cells, drugs) twice -> (cells,): sum of products over the drugs."""
    return np.asarray(np.einsum("ij,ij->i", x, y), dtype=np.float64)


def _over(above: Floats, below: Floats) -> Floats:
    """above / below, NaN where below is not positive."""
    return np.asarray(above / np.where(below > 0, below, np.nan), dtype=np.float64)


def _over_cells(scores: Floats) -> Floats:
    """(metrics, cells) -> (metrics,): mean over the cells in which the metric is defined; NaN if none."""
    defined = np.isfinite(scores)
    return _over(np.where(defined, scores, 0.0).sum(axis=1), defined.sum(axis=1).astype(np.float64))


def _paired(frame_a: pd.DataFrame, frame_b: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """The rows that both methods predict; and by source, the number of rows that only one predicts."""
    parts = []
    for frame in (frame_a, frame_b):
        check_frame(frame, (*_KEYS, "auc", "auc_pred"))
        known = np.isfinite(frame["auc_pred"].to_numpy(dtype=np.float64, na_value=np.nan))
        rows = frame.loc[known, [*_KEYS, "auc", "auc_pred"]]
        parts.append(rows.assign(source=rows["source"].astype(str)))
    for part in parts:
        if bool(part.duplicated(_KEYS).any()):
            raise ValueError(
                "A prediction frame repeats a (source, cell, drug); average replicates before ranking."
            )
    merged = parts[0].merge(parts[1], on=_KEYS, how="outer", suffixes=("_a", "_b"), indicator=True)
    paired = merged["_merge"] == "both"
    both = merged[paired]
    if both.empty:
        raise ValueError(
            "The two methods predict no (source, cell, drug) in common; nothing can be compared."
        )
    apart = (both["auc_a"] - both["auc_b"]).abs() > 1e-6
    if bool(apart.any()):
        raise ValueError(
            f"The two methods give different true AUCs in {int(apart.sum())} rows; one of them is stale."
        )
    unpaired = merged.loc[~paired, "source"].value_counts()
    return both.rename(columns={"auc_a": "auc"}), {str(name): int(count) for name, count in unpaired.items()}
