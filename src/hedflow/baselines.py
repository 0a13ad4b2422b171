"""Naive predictions of AUC: what a model must beat before its errors mean anything.

AUC lies in 0..1, low = potent. No baseline sees the source of a row, as the models do not. Training rows
count alike (a pair measured in three studies counts three times). For an unseen drug only `tanimoto_knn`
knows anything about the drug; SCIENCE: "no model beats the naive ones for unseen drugs" (DrEval, Nat Commun
2026).

| baseline     | prediction for (cell, drug)                               | where not in training         |
|--------------|-----------------------------------------------------------|-------------------------------|
| global_mean  | mean of the training rows                                 |                               |
| drug_mean    | mean of the drug's training rows                          | drug: global mean             |
| cell_mean    | mean of the cell's training rows                          | cell: global mean             |
| tissue_mean  | mean of the training rows of the cell's tissue            | tissue: global mean           |
| mean_effects | global mean + cell effect + drug effect, by least squares | either: an effect of 0        |
| tanimoto_knn | similarity-weighted mean of the same cell's responses to  | cell: the neighbours' means   |
|              | the k most similar training drugs; gaps by mean_effects   | nothing similar: mean_effects |

Predictions are means, or sums of means, and are not clipped to 0..1.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hedflow.similarity import tanimoto

BASELINES = (
    "global_mean",
    "global_median",
    "drug_mean",
    "drug_median",
    "cell_mean",
    "cell_median",
    "tissue_mean",
    "mean_effects",
    "tanimoto_knn",
)

# What is known of an unseen drug or cell is what drugs (cells) have in common, its tissue, and its neighbours.
_UNSEEN_DRUG = tuple(name for name in BASELINES if not name.startswith("drug_"))
_UNSEEN_CELL = tuple(name for name in BASELINES if not name.startswith("cell_"))
_INFORMED = {
    **dict.fromkeys(
        ("drug_blind", "leave_one_drug_out", "drug_lists", "scaffold", "tanimoto_cluster", "auc_range", "high_error"),
        _UNSEEN_DRUG,
    ),
    "random_pairs": BASELINES,
    "improve": BASELINES,
    "improve_drug_blind": _UNSEEN_DRUG,
    "improve_cell_blind": _UNSEEN_CELL,
    "leave_source_out": BASELINES,
    "cell_blind": _UNSEEN_CELL,
    # An unseen tissue has no mean either.
    "tissue_blind": tuple(name for name in _UNSEEN_CELL if name != "tissue_mean"),
    # With both unseen, both effects are 0: the global mean again.
    "disjoint": tuple(name for name in _UNSEEN_DRUG if name in _UNSEEN_CELL and name != "mean_effects"),
}
_TOLERANCE = 1e-7  # AUC: an effect that moves less than this a round has converged (float32 resolution)
_ROUNDS = 500

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def informed(split_kind: str) -> tuple[str, ...]:
    """The baselines that are legal for the split and do not merely repeat the global mean under another name.

    An unseen drug has no drug mean, an unseen cell no cell mean; its tissue and its neighbours' levels are
    known.
    """
    if split_kind not in _INFORMED:
        raise ValueError(f"There is no kind of split called {split_kind!r}; there are {', '.join(sorted(_INFORMED))}.")
    return _INFORMED[split_kind]


def fit_predict(
    response: pd.DataFrame,
    train: Ints,
    test: Ints,
    tissue: NDArray[np.str_],
    fingerprints: NDArray[np.uint8],
    k: int = 10,
) -> pd.DataFrame:
    """All baselines: fitted on the ``train`` rows, predicting the ``test`` rows; truth of test rows is
    not read.

    ``response``: columns cell and drug (indices from 0) and auc (0..1, low = potent). ``train``, ``test``:
    (n,), (m,) positions of its rows. ``tissue``: (cells,) label of each cell. ``fingerprints``: (drugs, bits)
    of 0/1. ``k``: neighbours. Returns (m, 9) float32 AUC, columns `BASELINES`, index = ``test``. ValueError:
    no training row, positions or ids out of range, a training auc that is not finite.
    """
    cells, drugs = len(tissue), len(fingerprints)
    cell, drug, auc = _training(response, train, test, cells, drugs, k)
    at_cell, at_drug = (response[name].to_numpy()[test].astype(np.int64) for name in ("cell", "drug"))
    mean, median = float(auc.mean()), float(np.median(auc))
    tissues = pd.factorize(np.asarray(tissue, dtype=object))[0]
    labelled = tissues[cell] >= 0
    by_tissue = _means(tissues[cell][labelled], auc[labelled], int(tissues.max(initial=-1)) + 2, mean)
    sums, counts = _pair_sums(cell, drug, auc, (cells, drugs))
    cell_effect, drug_effect = _effects(sums - mean * counts, counts)
    effects = mean + cell_effect[:, None] + drug_effect[None, :]
    known = np.divide(sums, counts, out=effects.copy(), where=counts > 0)
    knn = _neighbour_means(known, effects, counts.sum(axis=0) > 0, np.unique(at_drug), fingerprints, k)
    columns = {
        "global_mean": np.full(len(test), mean),
        # AUC is skewed: a median has the lower absolute error, a mean the lower squared one. Both are to be beaten.
        "global_median": np.full(len(test), median),
        "drug_median": _medians(drug, auc, drugs, median)[at_drug],
        "cell_median": _medians(cell, auc, cells, median)[at_cell],
        "drug_mean": _means(drug, auc, drugs, mean)[at_drug],
        "cell_mean": _means(cell, auc, cells, mean)[at_cell],
        # A cell without a label has code -1: the last entry, which no training row feeds, is the global mean.
        "tissue_mean": by_tissue[tissues[at_cell]],
        "mean_effects": effects[at_cell, at_drug],
        "tanimoto_knn": knn[at_cell, at_drug],
    }
    return pd.DataFrame(columns, index=pd.Index(test)).astype(np.float32)[list(BASELINES)]


def knn_predictions(
    cell: Ints, drug: Ints, auc: Floats, cells: int, fingerprints: NDArray[np.uint8], wanted: Ints, k: int
) -> Floats:
    """(cells, drugs) predictions of `tanimoto_knn` for the drugs ``wanted``, fitted on the rows given.

    ``cell``, ``drug``, ``auc``: (n,) of the training rows. ``k``: neighbours. Drugs that are not wanted get their
    `mean_effects`.
    """
    mean = float(auc.mean())
    sums, counts = _pair_sums(cell, drug, auc, (cells, len(fingerprints)))
    cell_effect, drug_effect = _effects(sums - mean * counts, counts)
    effects = mean + cell_effect[:, None] + drug_effect[None, :]
    known = np.divide(sums, counts, out=effects.copy(), where=counts > 0)
    return _neighbour_means(known, effects, counts.sum(axis=0) > 0, wanted, fingerprints, k)


def _training(
    response: pd.DataFrame, train: Ints, test: Ints, cells: int, drugs: int, k: int
) -> tuple[Ints, Ints, Floats]:
    """cell, drug and auc of the training rows, after all that comes from outside has been checked."""
    missing = [name for name in ("cell", "drug", "auc") if name not in response.columns]
    if missing:
        raise ValueError(f"The response table has no column {', '.join(missing)}.")
    if k < 1:
        raise ValueError(f"tanimoto_knn needs at least one neighbour, not k = {k}.")
    if len(train) == 0:
        raise ValueError("There are no training rows; naive baselines are means of training rows.")
    for name, rows in (("train", train), ("test", test)):
        if len(rows) and not (np.min(rows) >= 0 and np.max(rows) < len(response)):
            raise ValueError(f"The {name} rows reach outside the response table of {len(response)} rows.")
    for name, size in (("cell", cells), ("drug", drugs)):
        ids = response[name].to_numpy()
        if not (ids.min() >= 0 and ids.max() < size):
            raise ValueError(f"The response table names {name} {ids.min()} to {ids.max()}; there are only {size}.")
    auc = response["auc"].to_numpy()[train].astype(np.float64)
    if not np.isfinite(auc).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(auc))} of {len(auc)} training rows have no finite auc.")
    cell, drug = (response[name].to_numpy()[train].astype(np.int64) for name in ("cell", "drug"))
    return cell, drug, auc


def _means(group: Ints, auc: Floats, size: int, otherwise: float) -> Floats:
    """(size,): mean of ``auc`` in each group, ``otherwise`` in groups without rows."""
    count = np.bincount(group, minlength=size)
    return np.where(count > 0, np.bincount(group, auc, minlength=size) / np.maximum(count, 1), otherwise)


def _medians(group: Ints, auc: Floats, size: int, otherwise: float) -> Floats:
    """Median auc of each group 0..size-1, (size,); ``otherwise`` for a group without rows."""
    found = pd.Series(auc).groupby(group).median().reindex(np.arange(size))
    return np.asarray(found.fillna(otherwise), dtype=np.float64)


def _pair_sums(cell: Ints, drug: Ints, auc: Floats, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """(cells, drugs) sums of ``auc`` and numbers of rows."""
    pair = cell * shape[1] + drug
    size = shape[0] * shape[1]
    sums = np.bincount(pair, auc, minlength=size).reshape(shape)
    counts: Floats = np.bincount(pair, minlength=size).reshape(shape).astype(np.float64)
    return sums.astype(np.float64), counts


def _effects(sums: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Least-squares cell effects c and drug effects d (AUC): sums ~ counts * (c_i + d_j); alternating means.

    Minimises the squared error over training rows, so that a cell screened against harsh drugs only is not
    taken for a sensitive one, as by the difference of plain means; both are one where every cell met every
    drug. Effects add up to 0 over the rows, as ``sums`` do; those of unseen cells and drugs are 0.
    """
    rows, columns = np.maximum(counts.sum(axis=1), 1), np.maximum(counts.sum(axis=0), 1)
    by_cell, by_drug = sums.sum(axis=1), sums.sum(axis=0)
    c, d = np.zeros(len(rows)), np.zeros(len(columns))
    for _ in range(_ROUNDS):
        c = (by_cell - counts @ d) / rows
        new = (by_drug - c @ counts) / columns
        moved = float(np.abs(new - d).max(initial=0.0))
        d = new
        if moved < _TOLERANCE:
            break
    return c, d


def _neighbour_means(
    known: Floats,
    effects: Floats,
    seen: NDArray[np.bool_],
    wanted: Ints,
    fingerprints: NDArray[np.uint8],
    k: int,
) -> Floats:
    """(cells, drugs) predictions for the ``wanted`` drugs from their ``k`` most similar ``seen`` (training)
    drugs.

    A drug that is itself in training is its own first neighbour. Equal similarities: the lower drug index is
    nearer.
    """
    pool = np.flatnonzero(seen)
    similar = tanimoto(fingerprints[wanted], fingerprints[pool]).astype(np.float64)
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, :k]
    weights = np.zeros_like(similar)
    np.put_along_axis(weights, nearest, np.take_along_axis(similar, nearest, axis=1), axis=1)
    total = weights.sum(axis=1)
    means = known[:, pool] @ (weights / np.maximum(total, np.finfo(np.float64).tiny)[:, None]).T
    predictions = effects.copy()
    predictions[:, wanted[total > 0]] = means[:, total > 0]
    return predictions
