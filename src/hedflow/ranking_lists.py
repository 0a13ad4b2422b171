"""The lists of drugs that `hedflow.ranking` ranks: one matrix of cells and drugs a source, the same for all methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hedflow.errors import check_frame

_KEYS = ["source", "cell", "drug"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """One source as matrices (ranked cells, drugs); NaN where a pair lacks the truth or a prediction."""

    source: str
    cells: NDArray[np.generic]
    drugs: NDArray[np.generic]
    auc: Floats
    preds: Floats  # (methods, cells, drugs)
    counts: pd.DataFrame  # every cell of the source: n, n_unpredicted, ranked
    n_unpaired: int


def in_common(frames: Mapping[str, pd.DataFrame], reference: str) -> dict[str, pd.DataFrame]:
    """The frames whose drugs can be ranked beside the reference's: some of their rows are predicted by all of them.

    A method whose runs failed has no prediction, or none of the rows that the others predict; those that predict most
    rows are kept first, in the order of `frames`. Nothing is kept where the reference predicts nothing.
    """
    known = {name: frame.loc[np.isfinite(frame["auc_pred"]), "row"].to_numpy() for name, frame in frames.items()}
    shared, kept = known[reference], {reference}
    for name in sorted(known, key=lambda name: -len(known[name])):
        both = np.intersect1d(shared, known[name])
        if len(both):
            shared, kept = both, kept | {name}
    return {name: frame for name, frame in frames.items() if name in kept and len(shared)}


def panels(frames: Sequence[pd.DataFrame], k: int, min_drugs: int) -> Iterator[Panel]:
    """The sources of the methods' frames, by name."""
    if not 1 <= k <= min_drugs:
        raise ValueError(f"Ranking needs 1 <= k <= min_drugs, not k = {k} and min_drugs = {min_drugs}.")
    for frame in frames:
        check_frame(frame, (*_KEYS, "auc", "auc_pred"))
        if frame.empty:
            raise ValueError("The prediction frame has no rows; there is nothing to rank.")
    # Each distinct (source, cell, drug) of any frame becomes a row of (methods, rows) matrices.
    columns = [pd.concat([frame[key] for frame in frames], ignore_index=True) for key in _KEYS]
    columns[0] = columns[0].astype(str)
    codes, labels = zip(*(pd.factorize(column, sort=True) for column in columns), strict=True)
    sizes = [len(label) for label in labels]
    flat, row = np.unique(np.ravel_multi_index(codes, sizes), return_inverse=True)
    method = np.repeat(np.arange(len(frames)), [len(frame) for frame in frames])
    repeated = len(row) - np.count_nonzero(np.bincount(method * len(flat) + row))
    if repeated:
        raise ValueError(
            f"{repeated} rows of the prediction frames repeat a (source, cell, drug) of their method; "
            "average replicates before ranking."
        )
    auc, pred = np.full((2, len(frames), len(flat)), np.nan)
    for values, name in ((auc, "auc"), (pred, "auc_pred")):
        values[method, row] = np.concatenate(
            [frame[name].to_numpy(dtype=np.float64, na_value=np.nan) for frame in frames]
        )
    predicted = np.isfinite(pred)
    known = predicted.all(axis=0)
    if not known.any():
        raise ValueError("No (source, cell, drug) in common is predicted by all methods; nothing can be ranked.")
    stale = int((np.ptp(auc[:, known], axis=0) > 1e-6).sum())
    if stale:
        raise ValueError(f"The methods give different true AUCs in {stale} rows; one of them is stale.")
    unpaired = predicted.any(axis=0) & ~known
    source, cell, drug = np.unravel_index(flat, sizes)
    for i, name in enumerate(labels[0]):
        own = source == i
        rows = np.flatnonzero(own & known)
        listed = np.flatnonzero(np.bincount(cell[own]))
        counts = pd.DataFrame({"n": np.bincount(cell[rows], minlength=sizes[1])[listed]}, index=labels[1][listed])
        counts["n_unpredicted"] = np.bincount(cell[own & ~known], minlength=sizes[1])[listed]
        counts["ranked"] = counts["n"] >= min_drugs
        ranked = listed[counts["ranked"].to_numpy()]
        rows = rows[np.isin(cell[rows], ranked)]
        drugs, column = np.unique(drug[rows], return_inverse=True)
        place = np.searchsorted(ranked, cell[rows])
        truth = np.full((len(ranked), len(drugs)), np.nan)
        truth[place, column] = auc[0, rows]
        preds = np.full((len(frames), *truth.shape), np.nan)
        preds[:, place, column] = pred[:, rows]
        yield Panel(
            str(name),
            counts.index[counts["ranked"]].to_numpy(),
            np.asarray(labels[2][drugs]),
            truth,
            preds,
            counts,
            int((own & unpaired).sum()),
        )
