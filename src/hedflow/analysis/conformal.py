"""Conformal intervals of the predicted AUC, calibrated over drugs, and where they hold what they promise.

The rows of one drug share its difficulty, so what may be exchanged is drugs, not rows. The interval of a row of drug d
is prediction +- r, cut to 0..1, with r the (1 - a)(K + 1)-th part of the absolute errors of K other test drugs, each of
which counts once, its rows sharing its weight (hierarchical conformal prediction: Lee, Barber & Willett 2023,
arXiv 2306.06342; Dunn, Wasserman & Ramdas 2022, JASA). No new output of the runs is needed: every test drug is in turn
the one that is predicted, and the others calibrate.

**What is promised.** Where the K drugs are of d's own part of the split (`same part`), model and calibration are the
same for d and for them: if the drugs are exchangeable, a random row of a new drug lies in its interval with a
probability of at least 1 - a, for any number of drugs. Where parts hold too few drugs (leave-one-drug-out), or rows are
tested by several parts, the drugs of all parts calibrate (`all parts`): their errors come from other models, trained
also on d, so that there is no such promise, only what cross-validation gives where models are alike (with CV+ of Barber
et al. 2021, Ann Stat 49:486, it would be 1 - 2a). The promise is **marginal**: over drugs and rows. It says nothing of
the rows with a low AUC, which are few and worst predicted: there coverage lies below the level, and how far below is
what the table shows. It speaks of other drugs like these, on these cell lines.

`by prediction` calibrates rows apart by five ranges of their *predicted* AUC (Mondrian; fewer where a range would hold
too few drugs), so that the width follows the prediction and the promise holds in each range of predictions, still not
in ranges of the true AUC.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hedflow.analysis.experiment import Experiment
from hedflow.errors import EDGES_2, EDGES_10
from hedflow.intervals import distinct

LEVELS = (0.8, 0.9, 0.95)
# So many drugs calibrate at least: with 19 others an interval of 95 % is finite.
MIN_DRUGS = 20
STRATA = 5
KINDS = ("constant", "by prediction")  # of widths
SAME_PART, ALL_PARTS = "same part", "all parts"
COLUMNS = (
    "method", "naive", "width_kind", "level", "grouping", "low", "high", "source", "n", "n_drugs", "coverage",
    "coverage_lower", "coverage_upper", "coverage_drugs", "width", "calibration",
)  # fmt: skip

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class _Grouping:
    """Groups of the test rows whose coverage is given: the group of each row, and low, high, source of each group."""

    name: str
    of_row: Ints
    groups: list[tuple[float, float, str]]


def conformal_table(experiment: Experiment) -> tuple[pd.DataFrame, str]:
    """Coverage and width of conformal intervals, of the models and the strongest naive baseline.

    Returns:
        method, naive, width_kind (`constant`, `by prediction`), level, grouping (`all`, `10 ranges`, `2 ranges` of the
        true AUC, `source`), low, high (of the range, else missing), source (else empty), n, n_drugs, coverage (share
        of the rows in their interval, with _lower and _upper over drugs), coverage_drugs (mean of the drugs' own
        coverages, which the promise is about), width (mean, AUC units), calibration (`same part`, `all parts`).
        And the reason why the table is empty, else an empty text.
    """
    drug = np.unique(experiment.rows["drug"].to_numpy(), return_inverse=True)[1]
    n_drugs = int(drug.max()) + 1
    if n_drugs < MIN_DRUGS:
        return pd.DataFrame(columns=list(COLUMNS)), f"{n_drugs} drugs are tested; {MIN_DRUGS} are needed to calibrate"
    part = experiment.part_of_row
    pool, calibration = part, SAME_PART
    if part.min() < 0 or distinct(part, drug, int(part.max()) + 1).min() < MIN_DRUGS:
        pool, calibration = np.zeros_like(part), ALL_PARTS
    groupings, tables = _groupings(experiment.rows), []
    for name in [*experiment.methods, experiment.strongest]:
        absolute = np.abs(experiment.error(name))
        # Rows of a failed run have no prediction; they neither calibrate nor count.
        known = np.flatnonzero(np.isfinite(absolute))
        auc_pred = experiment.frames[name]["auc_pred"].to_numpy(np.float64)[known]
        for kind in KINDS:
            strata = pool[known] if kind == "constant" else _strata(auc_pred, pool[known], drug[known])
            halves = half_widths(absolute[known], drug[known], strata, LEVELS)
            for level, half in zip(LEVELS, halves, strict=True):
                covered, width = np.full((2, len(drug)), np.nan)
                covered[known] = absolute[known] <= half
                width[known] = np.maximum(np.minimum(auc_pred + half, 1) - np.maximum(auc_pred - half, 0), 0)
                found = _coverage(experiment, covered, width, drug, groupings)
                found = found.assign(method=name, naive=name in experiment.naive, width_kind=kind, level=level)
                tables.append(found.assign(calibration=calibration))
    return pd.concat(tables, ignore_index=True)[list(COLUMNS)], ""


def half_widths(absolute: Floats, drug: Ints, strata: Ints, levels: tuple[float, ...]) -> Floats:
    """Half the width of each row's interval before it is cut to 0..1: (levels, n); infinite where drugs are too few.

    ``absolute`` (n,): absolute errors; ``drug`` (n,): numbers from 0; ``strata`` (n,): rows that calibrate each other,
    but for those of their own drug. With K other drugs in a stratum, the half width is the smallest r for which
    sum over them of (share of the drug's rows with an error up to r) >= level (K + 1).
    """
    halves = np.full((len(levels), len(absolute)), np.inf)
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        rows = rows[np.argsort(absolute[rows], kind="stable")]
        own, size = np.unique(drug[rows], return_inverse=True)[1], np.bincount(drug[rows])
        weight = 1 / size[drug[rows]]
        reached = np.cumsum(weight)  # all drugs' shares up to each error
        by_drug = np.split(np.argsort(own, kind="stable"), np.cumsum(np.bincount(own))[:-1])
        for i, level in enumerate(levels):
            # K others of len(by_drug) drugs in all: K + 1 = len(by_drug).
            needed = level * len(by_drug) - 1e-9
            first, last = np.searchsorted(reached, [needed, needed + 1])
            for places in by_drug:
                # The drug's own share is between 0 and 1: only there can the others reach what is needed.
                window = np.arange(first, min(last + 1, len(rows)))
                others = reached[window] - np.searchsorted(places, window, side="right") / len(places)
                enough = np.flatnonzero(others >= needed)
                if len(enough):
                    halves[i, rows[places]] = absolute[rows[window[enough[0]]]]
    return halves


def _strata(auc_pred: Floats, pool: Ints, drug: Ints) -> Ints:
    """Ranges of the predicted AUC within each pool, as many as hold enough drugs each, up to `STRATA`.

    They are made of all predictions alike, of the drug in question and of those that calibrate, as the promise needs.
    """
    strata = np.zeros(len(pool), dtype=np.int64)
    for number in np.unique(pool):
        rows = np.flatnonzero(pool == number)
        for count in range(STRATA, 0, -1):
            edges = np.unique(np.quantile(auc_pred[rows], np.arange(1, count) / count))
            place = np.searchsorted(edges, auc_pred[rows], side="right")
            sizes = distinct(place, drug[rows], len(edges) + 1)
            if count == 1 or sizes[sizes > 0].min() >= MIN_DRUGS:
                strata[rows] = number * STRATA + place
                break
    return strata


def _groupings(rows: pd.DataFrame) -> list[_Grouping]:
    auc, n = rows["auc"].to_numpy(), len(rows)
    found = [_Grouping("all", np.zeros(n, dtype=np.int64), [(np.nan, np.nan, "")])]
    for name, edges in (("10 ranges", EDGES_10), ("2 ranges", EDGES_2)):
        # float32 keeps a value on an edge on the same side as in `errors.range_errors`.
        cuts = np.array(edges, dtype=auc.dtype)
        place = np.clip(np.searchsorted(cuts, auc, side="right") - 1, 0, len(edges) - 2)
        groups = [(low, high, "") for low, high in itertools.pairwise(edges)]
        found.append(_Grouping(name, place.astype(np.int64), groups))
    codes, names = pd.factorize(rows["source"].astype(str), sort=True)
    found.append(_Grouping("source", codes.astype(np.int64), [(np.nan, np.nan, str(name)) for name in names]))
    return found


def _coverage(
    experiment: Experiment, covered: Floats, width: Floats, drug: Ints, groupings: list[_Grouping]
) -> pd.DataFrame:
    """Coverage and width in the groups that have rows; ``covered`` (n,) 1 or 0, NaN without a prediction."""
    tables, n_drugs, known = [], int(drug.max()) + 1, np.isfinite(covered)
    for grouping in groupings:
        size = len(grouping.groups)
        found = experiment.boot.means(covered, grouping.of_row, size)
        at = (grouping.of_row * n_drugs + drug)[known]
        counts, hits = (np.bincount(at, w, minlength=size * n_drugs).reshape(size, -1) for w in (None, covered[known]))
        share = np.divide(hits, counts, out=np.zeros(hits.shape), where=counts > 0).sum(axis=1)
        n, drugs = np.where(found.n > 0, found.n, np.nan), np.where(found.n_drugs > 0, found.n_drugs, np.nan)
        low, high, source = zip(*grouping.groups, strict=True)
        columns = {
            "grouping": grouping.name,
            "low": low,
            "high": high,
            "source": source,
            "n": found.n,
            "n_drugs": found.n_drugs,
            "coverage": found.estimate,
            "coverage_lower": found.low,
            "coverage_upper": found.high,
            "coverage_drugs": share / drugs,
            "width": np.bincount(grouping.of_row[known], width[known], minlength=size) / n,
        }
        tables.append(pd.DataFrame(columns))
    table = pd.concat(tables, ignore_index=True)
    return table[table["n"] > 0]
