"""How wrong the predictions are: point metrics, z-scores, errors by drug, by cell and by AUC range.

AUC lies in 0..1 and **low = potent**. An *error* is ``auc_pred - auc`` (AUC units): positive means that the
model takes the drug for weaker than it is. A *prediction frame* has one row a test response and the columns
``cell`` (int), ``drug`` (int), ``source`` (str), ``auc`` (truth, finite) and ``auc_pred`` (may hold NaN: no
prediction). Rows without a finite prediction stay in every count ``n``; ``coverage`` says which share of them
the errors rest on.

The z-scores and the two sets of ranges are those of Gwinn, Wozniak et al., WORKS@SC25.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

LOW_AUC = 0.5
"""A response is *low* (the drug works) where auc < LOW_AUC."""

# Quotients, not multiples of 0.1: 3 * 0.1 is not 0.3, and a response of exactly 0.3 would change its range.
EDGES_10: tuple[float, ...] = tuple(i / 10 for i in range(11))
EDGES_2: tuple[float, ...] = (0.0, LOW_AUC, 1.0)

_MAD_TO_SD = 0.6745  # median absolute deviation of a normal distribution, in standard deviations
_FLAT = 1e-6  # AUC; a difference of two float32 predictions carries rounding of about 1e-7

Floats = NDArray[np.float64]


def check_frame(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raise ValueError unless ``frame`` has ``columns``, a finite ``auc`` and no missing id in any row."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise ValueError(
            f"The prediction frame has no column {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}."
        )
    truth = frame["auc"].to_numpy(dtype=np.float64, na_value=np.nan)
    bad = int(np.count_nonzero(~np.isfinite(truth)))
    if bad:
        raise ValueError(
            f"{bad} of {len(frame)} rows of the prediction frame have no finite true auc; "
            "leave them out, and count them."
        )
    for name in columns:
        if name in ("cell", "drug", "source") and bool(frame[name].isna().any()):
            raise ValueError(f"The prediction frame has rows with no {name}; every row needs its {name}.")


def _pair(auc: ArrayLike, other: ArrayLike, name: str) -> tuple[Floats, Floats]:
    """Truth and another column as float64; ValueError where they do not fit or the truth has gaps."""
    truth, values = np.asarray(auc, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != values.shape:
        raise ValueError(f"auc has shape {truth.shape} and {name} {values.shape}; expected one value a row in both.")
    if not np.isfinite(truth).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(truth))} of {len(truth)} true auc values are not finite.")
    return truth, values


def _correlation(x: Floats, y: Floats, flat: float = 0.0) -> float:
    """Pearson correlation; NaN where either spreads over no more than ``flat``: no rounding artefacts."""
    if len(x) < 2 or np.ptp(x) <= flat or np.ptp(y) <= flat:
        return float("nan")
    dx, dy = x - x.mean(), y - y.mean()
    # Scaled first: squares of very small spreads would underflow to zero.
    dx, dy = dx / np.abs(dx).max(), dy / np.abs(dy).max()
    return float(np.clip(dx @ dy / np.sqrt((dx @ dx) * (dy @ dy)), -1.0, 1.0))


def _rank_correlation(x: Floats, y: Floats, flat: float = 0.0) -> float:
    """Spearman correlation, average ranks in ties; NaN where either spreads over no more than ``flat``."""
    if len(x) < 2 or np.ptp(x) <= flat or np.ptp(y) <= flat:
        return float("nan")
    return _correlation(rankdata(x), rankdata(y))


def point_metrics(auc: ArrayLike, auc_pred: ArrayLike) -> dict[str, float]:
    """Errors and agreement of predictions with the truth, over all rows alike.

    ``auc``, ``auc_pred``: (n,), 0..1, low = potent. Returns n (rows), coverage (share with a finite
    prediction) and, over those, mae, rmse, bias (mean of prediction - truth) in AUC units, r2 = 1 - SSE/SST
    (may be negative), pearson and spearman. What is undefined (a constant, no row) is NaN. ValueError: shapes
    differ, truth not finite.
    """
    truth, values = _pair(auc, auc_pred, "auc_pred")
    known = np.isfinite(values)
    y, p = truth[known], values[known]
    nan = float("nan")
    result = {"n": float(len(truth)), "coverage": float(known.mean()) if len(truth) else nan}
    if len(y) == 0:
        return result | dict.fromkeys(("mae", "rmse", "r2", "pearson", "spearman", "bias"), nan)
    error = p - y
    sse, sst = float(error @ error), float(np.square(y - y.mean()).sum())
    return result | {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt(sse / len(y))),
        "r2": 1.0 - sse / sst if np.ptp(y) > 0 and sst > 0 else nan,
        "pearson": _correlation(y, p),
        "spearman": _rank_correlation(y, p),
        "bias": float(error.mean()),
    }


def normalised_metrics(auc: ArrayLike, auc_pred: ArrayLike, naive_pred: ArrayLike) -> dict[str, float]:
    """Agreement after the naive prediction is subtracted from truth and prediction: what the model adds to
    it.

    All (n,), AUC. With t = auc - naive and q = auc_pred - naive: r2 = 1 - sum (t - q)^2 / sum t^2 = 1 -
    SSE(model) / SSE(naive), positive where the model beats the naive one; pearson and spearman of t and q
    (NaN where q or t is the same in all rows to 1e-6 AUC). n and coverage as in `point_metrics`; a row needs
    both predictions. Source: the normalised scores of DrEval (Nat Commun 2026), with r2 not centred again.
    """
    truth, values = _pair(auc, auc_pred, "auc_pred")
    _, naive = _pair(auc, naive_pred, "naive_pred")
    known = np.isfinite(values) & np.isfinite(naive)
    t, q = truth[known] - naive[known], values[known] - naive[known]
    error = truth[known] - values[known]
    sse_naive = float(t @ t)
    return {
        "n": float(len(truth)),
        "coverage": float(known.mean()) if len(truth) else float("nan"),
        "r2": 1.0 - float(error @ error) / sse_naive if sse_naive > 0 else float("nan"),
        "pearson": _correlation(t, q, _FLAT),
        "spearman": _rank_correlation(t, q, _FLAT),
    }


def z_score(x: ArrayLike, robust: bool = False) -> Floats:
    """Standardise ``x`` (n,): (x - mean) / sd, or with ``robust`` 0.6745 * (x - median) / MAD.

    sd is the sample's (ddof = 1, as everywhere in this package); MAD is the median of |x - median| (modified
    z-score, Iglewicz & Hoaglin 1993). Missing values stay missing and count for nothing. No spread (a
    constant, one value, for ``robust`` more than half of the values alike) gives NaN: a 0 would claim
    "ordinary" where nothing is known.
    """
    values = np.asarray(x, dtype=np.float64)
    return grouped_z(values, np.zeros(len(values), dtype=np.int64), robust)


def grouped_z(x: ArrayLike, groups: ArrayLike, robust: bool = False) -> Floats:
    """`z_score` of ``x`` (n,) within each of the ``groups`` (n,), in the order of ``x``."""
    values = pd.Series(np.asarray(x, dtype=np.float64))
    labels = np.asarray(groups)
    if len(values) != len(labels):
        raise ValueError(f"{len(values)} values and {len(labels)} group labels; expected one label a value.")
    values = values.where(np.isfinite(values))
    by = values.groupby(labels)
    if robust:
        away = values - by.transform("median")
        spread = away.abs().groupby(labels).transform("median") / _MAD_TO_SD
    else:
        away = values - by.transform("mean")
        spread = by.transform("std")  # Welford's: exactly 0 for equal numbers
    return np.asarray((away / spread.where(spread > 0)).to_numpy(), dtype=np.float64)


def row_scores(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy of the prediction ``frame`` (n rows, same order and index) with its row-wise errors and
    z-scores.

    error = auc_pred - auc and abs_error (AUC units); residual_z = z of error over all rows given, that is
    over the pooled test predictions; auc_z_drug and auc_z_cell = z of the *true* AUC within the row's drug or
    cell, over all sources given (-2: far more potent than usual there). Each z also as ``..._robust``. See
    `z_score`.
    """
    check_frame(frame, ("cell", "drug", "auc", "auc_pred"))
    scored = frame.copy()
    auc = frame["auc"].to_numpy(dtype=np.float64)
    error = frame["auc_pred"].to_numpy(dtype=np.float64, na_value=np.nan) - auc
    error[~np.isfinite(error)] = np.nan
    scored["error"], scored["abs_error"] = error, np.abs(error)
    for suffix, robust in (("", False), ("_robust", True)):
        scored["residual_z" + suffix] = z_score(error, robust)
        for level in ("drug", "cell"):
            scored[f"auc_z_{level}{suffix}"] = grouped_z(auc, frame[level].to_numpy(), robust)
    return scored


def drug_errors(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a drug, by drug id: how much is known of it and how wrong the model is about it.

    Columns: drug, n (rows), coverage, n_cells, auc_mean, auc_sd (ddof 1), low_share (auc < 0.5) of the truth;
    mae, mae_low (rows with auc < 0.5), mae_rest, bias (prediction - truth) over the predicted rows, AUC
    units; mae_z and mae_z_robust = z of the drug's mae over the drugs of the table, each drug counting once.
    """
    return _errors_by(frame, "drug", "cell")


def cell_errors(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a cell line, by cell id; the columns of `drug_errors` with cell and drug exchanged."""
    return _errors_by(frame, "cell", "drug")


def _errors_by(frame: pd.DataFrame, level: str, other: str) -> pd.DataFrame:
    check_frame(frame, ("cell", "drug", "auc", "auc_pred"))
    auc = frame["auc"].to_numpy(dtype=np.float64)
    error = frame["auc_pred"].to_numpy(dtype=np.float64, na_value=np.nan) - auc
    known, low = np.isfinite(error), auc < LOW_AUC
    size = np.abs(error)
    rows = pd.DataFrame(
        {
            level: frame[level].to_numpy(),
            other: frame[other].to_numpy(),
            "auc": auc,
            "known": known,
            "low": low,
            "error": np.where(known, error, np.nan),
            "mae": np.where(known, size, np.nan),
            "mae_low": np.where(known & low, size, np.nan),
            "mae_rest": np.where(known & ~low, size, np.nan),
        }
    )
    groups = rows.groupby(level, sort=True)
    table = pd.DataFrame(
        {
            "n": groups.size(),
            "coverage": groups["known"].mean(),
            f"n_{other}s": groups[other].nunique(),
            "auc_mean": groups["auc"].mean(),
            "auc_sd": groups["auc"].std(),
            "low_share": groups["low"].mean(),
            "mae": groups["mae"].mean(),
            "mae_low": groups["mae_low"].mean(),
            "mae_rest": groups["mae_rest"].mean(),
            "bias": groups["error"].mean(),
        }
    )
    table["mae_z"] = z_score(table["mae"].to_numpy())
    table["mae_z_robust"] = z_score(table["mae"].to_numpy(), robust=True)
    return table.reset_index()


def high_error_drugs(drug_table: pd.DataFrame, z: float = 2.0, robust: bool = False) -> pd.DataFrame:
    """The High Error Drugs: rows of `drug_errors` with mae_z (or mae_z_robust) above ``z``, worst first."""
    column = "mae_z_robust" if robust else "mae_z"
    if column not in drug_table.columns or "drug" not in drug_table.columns:
        raise ValueError(
            f"High error drugs are picked by the columns drug and {column}; give the table of drug_errors."
        )
    picked = drug_table[drug_table[column] > z]
    return picked.sort_values([column, "drug"], ascending=[False, True], ignore_index=True)


def range_errors(frame: pd.DataFrame, edges: Sequence[float] = EDGES_10) -> pd.DataFrame:
    """One row an AUC range: the errors of rows whose *true* auc lies in [low, high), the last [low, high].

    ``edges`` (m + 1,) strictly increasing AUC values give m rows, empty ones included (n = 0, errors NaN).
    Rows of the frame outside all of them are in an additional first row (low = -inf) or last row (high =
    inf), present only if not empty, so that n always adds up to the rows given. Columns: low, high, n,
    n_drugs, coverage, and over the predicted rows mae, rmse, bias (prediction - truth) in AUC units.
    ValueError: edges not increasing, truth not finite.
    """
    check_frame(frame, ("drug", "auc", "auc_pred"))
    cuts = np.asarray(edges, dtype=np.float64)
    if cuts.ndim != 1 or len(cuts) < 2 or not np.isfinite(cuts).all() or not (np.diff(cuts) > 0).all():
        raise ValueError(f"The edges of AUC ranges must be two or more increasing numbers, not {list(edges)}.")
    at = _range_of(frame["auc"].to_numpy(), cuts)
    error = frame["auc_pred"].to_numpy(dtype=np.float64, na_value=np.nan) - frame["auc"].to_numpy(np.float64)
    known = np.isfinite(error)
    total = len(cuts) + 1
    n = np.bincount(at, minlength=total)
    pairs = pd.DataFrame({"at": at, "drug": frame["drug"].to_numpy()}).drop_duplicates()
    predicted = np.bincount(at[known], minlength=total)
    divisor = np.where(predicted > 0, predicted, np.nan)

    def mean(values: Floats) -> Floats:
        return np.bincount(at[known], values[known], minlength=total) / divisor

    table = pd.DataFrame(
        {
            "low": np.r_[-np.inf, cuts],
            "high": np.r_[cuts, np.inf],
            "n": n,
            "n_drugs": np.bincount(pairs["at"].to_numpy(), minlength=total),
            "coverage": predicted / np.where(n > 0, n, np.nan),
            "mae": mean(np.abs(error)),
            "rmse": np.sqrt(mean(np.square(error))),
            "bias": mean(error),
        }
    )
    inside = np.isfinite(table["low"]) & np.isfinite(table["high"])
    kept: pd.DataFrame = table[inside | (table["n"] > 0)]
    return kept.reset_index(drop=True)


def _range_of(auc: NDArray[Any], cuts: Floats) -> NDArray[np.int64]:
    """The range of each value: 0 below all ``cuts`` (m + 1,), 1..m between them, m + 1 above them all."""
    # Compared in the column's own precision: the float32 of 0.7 is below 0.7, yet belongs to [0.7, 0.8).
    own = cuts.astype(auc.dtype) if np.issubdtype(auc.dtype, np.floating) else cuts
    at = np.searchsorted(own, auc, side="right").astype(np.int64)
    at[auc == own[-1]] = len(cuts) - 1
    return at


def macro_mean(ranges: pd.DataFrame, metric: str = "mae") -> float:
    """Mean of ``metric`` over the ranges of `range_errors` that hold predictions, each range counting once.

    The rows for values outside all edges are left out. NaN where no range holds a prediction.
    """
    if metric not in ranges.columns:
        raise ValueError(f"The table of AUC ranges has no column {metric}; it has {', '.join(ranges.columns)}.")
    inside = np.isfinite(ranges["low"]) & np.isfinite(ranges["high"])
    return float(ranges.loc[inside, metric].mean())
