"""Splits: which rows train, validate and test. Index arrays over the bundle's response; no table is ever copied.

The validation set is of the same kind as the test set: blind to drugs where the test is, so that early stopping
looks at the task that counts. Drugs that cannot be told apart by their fingerprint are twins and stay together;
so do the rows of one (cell, drug) pair from several sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hedflow import HedflowError
from hedflow.bundle import Bundle
from hedflow.config import IMPROVE_SPLITS, Split, nearest


@dataclass(frozen=True)
class Rows:
    """Row numbers of the bundle's response (int32, ascending), disjoint."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def twin_groups(fingerprints: np.ndarray) -> np.ndarray:
    """Group number of each drug (int64, shape (drugs,)): the same for drugs with the same fingerprint bits."""
    _, group = np.unique(np.asarray(fingerprints), axis=0, return_inverse=True)
    return group.reshape(-1)


def labels(split: Split, bundle: Bundle) -> list[str]:
    """The names of a split's parts, one a run: `f0`... for folds, a drug's id for leave-one-drug-out, `lists`,
    `CCLE_split_0`... for IMPROVE's."""
    if split.kind in IMPROVE_SPLITS:
        return _improve_labels(split, bundle)
    if split.kind == "leave_one_drug_out":
        chosen = None if split.drugs is None else set(find_drugs(bundle.drugs, split.drugs))
        return [id_ for i, id_ in enumerate(bundle.drugs["drug_id"]) if chosen is None or i in chosen]
    if split.kind == "drug_lists":
        return ["lists"]
    return [f"f{fold}" for fold in (split.use_folds if split.use_folds is not None else range(split.folds))]


def make_rows(split: Split, label: str, bundle: Bundle) -> Rows:
    """The rows of one part of a split. The same split, label and bundle give the same rows anywhere."""
    if split.kind in IMPROVE_SPLITS:
        code = bundle.improve_split(label)
        return _not_empty(split, label, Rows(*(np.flatnonzero(code == part).astype(np.int32) for part in range(3))))
    cell = bundle.response["cell"].to_numpy()
    drug = bundle.response["drug"].to_numpy()
    if split.kind == "cell_blind":
        unit = cell.astype(np.int64)
    elif split.kind == "random_pairs":
        # The same pair measured by two sources is one pair: else its twin would tell the answer.
        unit = np.unique(cell.astype(np.int64) * len(bundle.drugs) + drug, return_inverse=True)[1].reshape(-1)
    else:
        unit = twin_groups(bundle.array("fingerprints"))[drug]
    test, validation = _units(split, label, bundle, unit)
    in_test = np.isin(unit, test)
    in_validation = np.isin(unit, validation)
    if split.kind == "drug_lists":
        # Listed drugs are taken as listed: a twin left in training is for the audit to find, not to hide.
        in_test = np.isin(drug, find_drugs(bundle.drugs, split.drugs or []))
        in_validation = np.isin(drug, find_drugs(bundle.drugs, split.validation_drugs or []))
    parts = Rows(*(np.flatnonzero(mask).astype(np.int32) for mask in _three(in_test, in_validation)))
    return _not_empty(split, label, parts)


def _not_empty(split: Split, label: str, parts: Rows) -> Rows:
    for name in ("train", "validation", "test"):
        if len(getattr(parts, name)) == 0:
            raise HedflowError(
                f"split {split.kind} {label}: the {name} part has no row; use fewer folds, a larger `validation` "
                "share, or more data."
            )
    return parts


def _improve_labels(split: Split, bundle: Bundle) -> list[str]:
    """Names of the csa splits that the bundle has, of the wanted studies and numbers."""
    known = [str(name).rsplit("_", 2) for name in bundle.manifest.get("improve_splits", {})]
    if not known:
        raise HedflowError(
            f"split {split.kind}: the bundle has no split of IMPROVE's; it takes a csa folder (data.improve) with "
            "files like splits/CCLE_split_0_train.txt."
        )
    studies = list(dict.fromkeys(study for study, _, _ in known))
    for study in split.studies or ():
        if study not in studies:
            raise HedflowError(f"split {split.kind}: {study} has no split files{nearest(study, studies)}")
    chosen = []
    for study in split.studies or studies:
        axes = [axis for axis in IMPROVE_SPLITS[split.kind] if any(k[:2] == [study, axis] for k in known)][:1]
        numbers = [int(number) for name, axis, number in known if name == study and [axis] == axes]
        wanted = numbers if split.use_folds is None else split.use_folds
        lacking = sorted(set(wanted) - set(numbers))
        if lacking:
            raise HedflowError(f"split {split.kind}: use_folds has {lacking}, but {study} has the splits {numbers}.")
        chosen += [f"{study}_{axes[0]}_{number}" for number in wanted]
    return chosen


def _three(test: np.ndarray, validation: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return ~(test | validation), validation, test


def _units(split: Split, label: str, bundle: Bundle, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Test and validation units (groups of twins, cells, or pairs)."""
    rng = np.random.default_rng([split.seed, *split.kind.encode()])
    order = rng.permutation(np.unique(unit))
    if split.kind == "leave_one_drug_out":
        drug = pd.Index(bundle.drugs["drug_id"]).get_loc(label)
        test = np.unique(unit[bundle.response["drug"].to_numpy() == drug])
        # The same validation drugs for every run, but for the one that is tested.
        rest = order[~np.isin(order, test)]
    elif split.kind == "drug_lists":
        return order[:0], order[:0]
    else:
        if len(order) < split.folds:
            raise HedflowError(f"split {split.kind}: {split.folds} folds of {len(order)} units; use fewer folds.")
        folds = np.array_split(order, split.folds)
        fold = int(label.removeprefix("f"))
        test = folds[fold]
        # Validation begins in the fold after the test: every unit validates about equally often.
        rest = np.concatenate([folds[(fold + i) % split.folds] for i in range(1, split.folds)])
    return test, rest[: max(1, round(split.validation * len(rest)))]


def find_drugs(drugs: pd.DataFrame, wanted: Sequence[str]) -> list[int]:
    """Rows of the bundle's drugs, by id, by name, or by any source's name (case does not count).

    Raises:
        HedflowError: a drug that is not there, with the nearest names.
    """
    aliases = [[alias.split(":", 1)[1] for alias in str(names).split("|") if ":" in alias] for names in drugs["names"]]
    known: dict[str, int] = {}
    # A drug's own name counts before what some source calls another drug.
    for column in ([[id_] for id_ in drugs["drug_id"]], [[name] for name in drugs["drug_name"]], aliases):
        for i, names in enumerate(column):
            for name in names:
                known.setdefault(str(name).lower(), i)
    found = []
    for name in wanted:
        if name.lower() not in known:
            raise HedflowError(f"unknown drug '{name}'{nearest(name, drugs['drug_name'])}")
        found.append(known[name.lower()])
    return found
