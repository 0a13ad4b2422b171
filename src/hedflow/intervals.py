"""Confidence intervals by percentile bootstrap over **drugs**, never over rows.

Rows of one drug share its difficulty, so resampling rows pretends to have hundreds of times more evidence
than there is. Here whole drugs are drawn with replacement (cluster bootstrap; Davison & Hinkley 1997, section
3.8) and a mean is a ratio of weighted per-drug sums, which costs O(rows + resamples * drugs). The interval
speaks of *other drugs*, with the cell lines and the fitted models as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate and its percentile interval [low, high], both in the units of the values.

    ``n`` rows of ``n_drugs`` drugs went in; ``n_dropped`` resamples held none of these drugs and were left
    out. ``low`` and ``high`` are NaN where fewer than two drugs went in: one drug says nothing about other
    drugs.
    """

    estimate: float
    low: float
    high: float
    n: int
    n_drugs: int
    level: float = 0.95
    n_dropped: int = 0

    def __str__(self) -> str:
        return f"{self.estimate:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Intervals:
    """`Interval` of each of several groups: arrays (groups,) in place of numbers; NaN where a group has no row."""

    estimate: Floats
    low: Floats
    high: Floats
    n: NDArray[np.int64]
    n_drugs: NDArray[np.int64]


def resample_weights(n_drugs: int, n_boot: int, seed: int) -> NDArray[np.int64]:
    """How often each drug is drawn in each resample: (n_boot, n_drugs), every row adding up to n_drugs."""
    if n_drugs < 1 or n_boot < 1:
        raise ValueError(f"A bootstrap needs at least one drug and one resample, not {n_drugs} and {n_boot}.")
    return np.random.default_rng(seed).multinomial(n_drugs, np.full(n_drugs, 1 / n_drugs), size=n_boot)


def percentile_interval(draws: Floats, level: float) -> tuple[float, float]:
    """The central ``level`` (0..1) of ``draws`` (n,), missing ones left out; NaN, NaN where none is left."""
    finite = draws[np.isfinite(draws)]
    if len(finite) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm(p: ArrayLike) -> Floats:
    """Holm's adjusted p-values of one family (m,), in its order; a missing p stays missing and counts for nothing."""
    values = np.asarray(p, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(values[known])]
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(len(values), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def check_level(level: float) -> None:
    """Raise ValueError unless 0 < ``level`` < 1."""
    if not 0 < level < 1:
        raise ValueError(f"The level of an interval must lie between 0 and 1, not {level}.")


def distinct(groups: ArrayLike, members: ArrayLike, n_groups: int) -> NDArray[np.int64]:
    """Number of distinct ``members`` (n,), integers from 0, in each of ``groups`` (n,), -1 for none: (n_groups,)."""
    group, member = np.asarray(groups), np.asarray(members)
    size = int(member.max(initial=0)) + 1
    at = group[group >= 0].astype(np.int64) * size + member[group >= 0]
    counts = np.bincount(at, minlength=n_groups * size).reshape(n_groups, size)
    return np.asarray((counts > 0).sum(axis=1), dtype=np.int64)


class DrugBootstrap:
    """Resamples of the drugs of one table of rows, drawn once, so that all that is computed from them is
    paired.

    ``drug_ids`` (n,): the drug of each row. Drugs are drawn in the order of their ids: the same ids, ``seed``
    and ``n_boot`` give the same resamples in any row order. Values given to the methods are (n,), in the
    rows' order; a row whose value is not finite (no prediction) or whose ``mask`` (n, bool) is False is left
    out, and not in n.
    """

    def __init__(self, drug_ids: ArrayLike, n_boot: int = 1000, seed: int = 0, level: float = 0.95) -> None:
        ids = np.asarray(drug_ids)
        if ids.ndim != 1 or len(ids) == 0:
            raise ValueError(f"drug_ids has shape {ids.shape}; expected the drug of each row, at least one.")
        check_level(level)
        self.level = level
        self.drugs, self._drug_of_row = np.unique(ids, return_inverse=True)
        self.weights: Floats = resample_weights(len(self.drugs), n_boot, seed).astype(np.float64)

    def mean(self, values: ArrayLike, mask: ArrayLike | None = None) -> Interval:
        """Mean over rows: with absolute errors and ``mask = auc < 0.5``, the MAE of the low AUC rows."""
        return self._ratio_of_sums(self._column(values), mask)

    def difference(self, values_a: ArrayLike, values_b: ArrayLike, mask: ArrayLike | None = None) -> Interval:
        """Mean of a - b over the rows where both are finite. Negative: a is lower (for errors: better)."""
        return self._ratio_of_sums(self._column(values_a) - self._column(values_b), mask)

    def relative(self, values_a: ArrayLike, values_b: ArrayLike, mask: ArrayLike | None = None) -> Interval:
        """mean(a) / mean(b) - 1 over the rows where both are finite: -0.1 is 10 % lower. For errors >= 0."""
        a, b = self._column(values_a), self._column(values_b)
        return self._ratio_of_sums(a - b, mask, below=b)

    def r2(self, auc: ArrayLike, predicted: ArrayLike, mask: ArrayLike | None = None) -> Interval:
        """R2 of the rows: 1 - (sum of squared errors) / (sum of squares of the truth about its mean, a resample's own).

        NaN where the truth does not vary.
        """
        y = self._column(auc)
        squared = (y - self._column(predicted)) ** 2
        used = np.isfinite(squared) & self._chosen(mask)
        size, drug = len(self.drugs), self._drug_of_row[used]
        # About the overall mean: the difference of two large sums would lose digits.
        y = y[used] - (y[used].mean() if used.any() else 0.0)
        columns = (None, y, y**2, squared[used])
        sums = np.stack([np.bincount(drug, column, minlength=size) for column in columns]).astype(np.float64)
        once = np.ones((1, size))

        def of(weights: Floats) -> Floats:
            n, total, squares, errors = sums @ weights.T
            about = squares - total**2 / np.where(n > 0, n, np.nan)
            found: Floats = 1 - errors / np.where(about > 0, about, np.nan)
            return found

        n, n_drugs = int(used.sum()), len(np.unique(drug))
        if n_drugs < 2:
            return Interval(float(of(once)[0]), float("nan"), float("nan"), n, n_drugs, self.level)
        draws = of(self.weights)
        bounds = percentile_interval(draws, self.level)
        return Interval(float(of(once)[0]), *bounds, n, n_drugs, self.level, int(np.isnan(draws).sum()))

    def drug_sums(self, values: ArrayLike, mask: ArrayLike | None = None) -> tuple[Floats, NDArray[np.int64]]:
        """Sum of the values of each drug of `drugs`, and the number of its rows, over the rows that are used."""
        column = self._column(values)
        used = np.isfinite(column) & self._chosen(mask)
        drug, size = self._drug_of_row[used], len(self.drugs)
        sums: Floats = np.bincount(drug, column[used], minlength=size).astype(np.float64)
        return sums, np.bincount(drug, minlength=size).astype(np.int64)

    def means(self, values: ArrayLike, groups: ArrayLike, n_groups: int, mask: ArrayLike | None = None) -> Intervals:
        """`mean` of each group of rows; ``groups`` (n,) integers, 0..n_groups - 1, a negative one is in no group.

        All drugs are resampled: in a resample that draws none of a group's drugs the group is left out.
        """
        column, group = self._column(values), np.asarray(groups)
        if group.shape != column.shape or group.max(initial=-1) >= n_groups:
            raise ValueError(f"groups has shape {group.shape} and values to {group.max(initial=-1)}; expected one of "
                             f"0..{n_groups - 1} for each of the {len(column)} rows.")  # fmt: skip
        used = np.isfinite(column) & (group >= 0) & self._chosen(mask)
        shape = (n_groups, len(self.drugs))
        at = group[used].astype(np.int64) * shape[1] + self._drug_of_row[used]
        counts = np.bincount(at, minlength=shape[0] * shape[1]).reshape(shape)
        sums = np.bincount(at, column[used], minlength=shape[0] * shape[1]).reshape(shape)
        n, n_drugs = counts.sum(axis=1), (counts > 0).sum(axis=1)
        under = self.weights @ counts.T
        draws = self.weights @ sums.T / np.where(under > 0, under, np.nan)
        bounds = [percentile_interval(draw, self.level) for draw in draws.T]
        low, high = np.where(n_drugs[:, None] > 1, np.reshape(bounds, (-1, 2)), np.nan).T
        return Intervals(sums.sum(axis=1) / np.where(n > 0, n, np.nan), low, high, n, n_drugs)

    def _chosen(self, mask: ArrayLike | None) -> NDArray[np.bool_]:
        if mask is None:
            return np.ones(self._drug_of_row.shape, dtype=bool)
        chosen = np.asarray(mask)
        if chosen.dtype != np.bool_ or chosen.shape != self._drug_of_row.shape:
            raise ValueError(f"The mask is {chosen.dtype} of shape {chosen.shape}; expected one bool a row.")
        return chosen

    def _column(self, values: ArrayLike) -> Floats:
        column = np.asarray(values, dtype=np.float64)
        if column.shape != self._drug_of_row.shape:
            raise ValueError(
                f"The values have shape {column.shape}; expected one for each of the "
                f"{len(self._drug_of_row)} rows of the bootstrap."
            )
        return np.where(np.isfinite(column), column, np.nan)

    def _ratio_of_sums(self, above: Floats, mask: ArrayLike | None, below: Floats | None = None) -> Interval:
        """Sum of ``above`` over sum of ``below`` (default: number of rows), overall and resampled."""
        used = np.isfinite(above) if below is None else np.isfinite(above) & np.isfinite(below)
        used &= self._chosen(mask)
        drug, size = self._drug_of_row[used], len(self.drugs)
        rows = np.bincount(drug, minlength=size)
        tops = np.bincount(drug, above[used], minlength=size)
        bottoms = rows.astype(np.float64) if below is None else np.bincount(drug, below[used], minlength=size)
        n, n_drugs, nan = int(rows.sum()), int(np.count_nonzero(rows)), float("nan")
        total = float(bottoms.sum())
        estimate = float(tops.sum()) / total if total != 0 else nan
        under = self.weights @ bottoms
        empty = int(np.count_nonzero(under == 0))
        if n_drugs < 2:
            return Interval(estimate, nan, nan, n, n_drugs, self.level, empty)
        draws = self.weights @ tops / np.where(under != 0, under, np.nan)
        return Interval(estimate, *percentile_interval(draws, self.level), n, n_drugs, self.level, empty)
