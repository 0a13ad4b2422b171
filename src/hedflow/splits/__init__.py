"""Splits: which rows train, validate and test. Index arrays over the bundle's response; no table is ever copied.

The validation set is of the same kind as the test set: blind to what the test is blind to, so that early stopping
looks at the task that counts. Drugs that cannot be told apart by their fingerprint are twins and stay together;
so do the rows of one (cell, drug) pair from several sources, but where the source itself is held out.
`kinds` says how each kind divides the rows; the laws it must keep are proved by `hedflow.audit`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hedflow import HedflowError
from hedflow.bundle import Bundle
from hedflow.config import FOLDED, IMPROVE_SPLITS, Split
from hedflow.splits.groups import twin_groups
from hedflow.splits.kinds import find_drugs, labels, make_masks, range_names

__all__ = ["Rows", "empty_ranges", "find_drugs", "labels", "make_rows", "twin_groups"]


@dataclass(frozen=True)
class Rows:
    """Row numbers of the bundle's response (int32, ascending), disjoint. Rows in none of them are used nowhere."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def make_rows(split: Split, label: str, bundle: Bundle) -> Rows:
    """The rows of one part of a split. The same split, label and bundle give the same rows anywhere."""
    test, validation, train = make_masks(split, label, bundle)
    parts = Rows(*(np.flatnonzero(mask).astype(np.int32) for mask in (train, validation, test)))
    for name in ("train", "validation", "test"):
        if len(getattr(parts, name)) == 0:
            raise HedflowError(f"split {split.kind} {label}: the {name} part has no row; {_remedy(split)}.")
    return parts


def _remedy(split: Split) -> str:
    if split.kind == "tanimoto_cluster":
        return "raise `similarity` (a low one joins most drugs into one cluster), or use fewer folds"
    if split.kind == "leave_source_out":
        return "the sources measure the same pairs; set `shared_pairs` to keep, or add sources"
    if split.kind in IMPROVE_SPLITS:
        return "its files name none that the bundle has (the manifest's improve_splits counts them); choose others"
    if split.kind in FOLDED:
        return "use fewer folds, a larger `validation` share, or more data"
    return "leave more drugs for it, or use more data"


def empty_ranges(split: Split, bundle: Bundle) -> list[str]:
    """The AUC ranges that no drug's mean lies in, and that therefore have no part."""
    if split.kind != "auc_range":
        return []
    has = labels(split, bundle)
    return [name for name in range_names(split) if name not in has]
