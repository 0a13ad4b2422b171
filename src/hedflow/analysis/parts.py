"""What each part of a split trains on, seen from its test drugs, and the error of knowing nothing there."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from hedflow.bundle import Bundle
from hedflow.config import Split
from hedflow.errors import LOW_AUC
from hedflow.similarity import tanimoto
from hedflow.splits import make_rows
from hedflow.splits.groups import scaffold

IN_TRAINING, NEW, NO_RING = "in training", "new", "no ring"


def describe_parts(parts: Iterable[tuple[str, str, Split]], bundle: Bundle) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What each part of a split trains on, seen from its test drugs and from its validation rows.

    Args:
        parts: (name of the part, label, split).

    Returns:
        A row a tested drug: drug, nearest (name of the most similar training drug), similarity (Tanimoto, 0..1),
        scaffold (`in training`: a training drug has the same Bemis-Murcko scaffold; `new`; `no ring`: it has none).
        Where a drug is tested in several parts, the part that knows most of it counts. And a row a part: split,
        validation_mae, validation_balanced_mae of the mean of its training rows as the only prediction.
    """
    similarity = tanimoto(bundle.array("fingerprints"), bundle.array("fingerprints"))
    drug, auc = bundle.response["drug"].to_numpy(), bundle.response["auc"].to_numpy(np.float64)
    names, rings = bundle.drugs["drug_name"].to_numpy(), _scaffolds(bundle.drugs["smiles"])
    tables, levels = [], []
    for part, label, split in parts:
        rows = make_rows(split, label, bundle)
        train, test = (np.flatnonzero(np.bincount(drug[own])) for own in (rows.train, rows.test))
        closest = similarity[np.ix_(test, train)]
        known = np.isin(rings[test], rings[train])
        found = {
            "drug": test,
            "nearest": names[train[closest.argmax(axis=1)]],
            "similarity": closest.max(axis=1),
            "scaffold": np.where(rings[test] < 0, NO_RING, np.where(known, IN_TRAINING, NEW)),
        }
        tables.append(pd.DataFrame(found))
        levels.append((part, *_constant_errors(auc[rows.validation], float(auc[rows.train].mean()))))
    table = pd.concat(tables).sort_values(["drug", "similarity"], ascending=[True, False])
    # `in training` comes before `new` in the alphabet.
    table["scaffold"] = table.groupby("drug")["scaffold"].transform("min")
    level = pd.DataFrame(levels, columns=["split", "validation_mae", "validation_balanced_mae"])
    return table.drop_duplicates("drug", ignore_index=True), level


def _scaffolds(smiles: pd.Series[str]) -> np.ndarray:
    """Number of each drug's scaffold (int64); -1 for a drug without a ring."""
    found = pd.Series([scaffold(s) for s in smiles], dtype=object)
    return pd.factorize(found.where(found != "", None))[0]


def _constant_errors(auc: np.ndarray, constant: float) -> tuple[float, float]:
    """MAE of one prediction for all rows, and the mean of its MAE below and above AUC 0.5 (as training balances it)."""
    error, low = np.abs(auc - constant), auc < LOW_AUC
    mae = float(error.mean())
    balanced = (float(error[low].mean()) + float(error[~low].mean())) / 2 if low.any() and not low.all() else mae
    return mae, balanced
