"""The leak audit: proof, from the rows themselves, that what a run is blind to is not in its training.

It does not ask the splitter: structures are compared again from their SMILES.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from hedflow import HedflowError
from hedflow.bundle import Bundle
from hedflow.identity.drugs import parent
from hedflow.plan import parts_of
from hedflow.splits import Rows, make_rows, twin_groups

DRUG_BLIND = ("drug_blind", "leave_one_drug_out", "drug_lists", "improve_drug_blind")
CELL_BLIND = ("cell_blind", "improve_cell_blind")
SHOWN = 5


def audit(kind: str, parts: Iterable[tuple[str, Rows]], bundle: Bundle) -> list[dict[str, Any]]:
    """Audit every part (label, rows) of a split; returns one record a part.

    Raises:
        HedflowError: names the drugs (cells, pairs) that leak, and from which part into which.
    """
    twins = _twins(bundle) if kind in DRUG_BLIND else np.empty(0)
    cell = bundle.response["cell"].to_numpy()
    records = []
    for label, rows in parts:
        if kind in DRUG_BLIND:
            _no_shared(kind, label, rows, twins[bundle.response["drug"].to_numpy()], _drug_names(bundle))
        elif kind in CELL_BLIND:
            _no_shared(kind, label, rows, cell, lambda row: str(bundle.cells["cell_name"].iloc[cell[row]]))
        else:
            pair = cell.astype(np.int64) * len(bundle.drugs) + bundle.response["drug"].to_numpy()
            _no_shared(kind, label, rows, pair, lambda row: f"pair in row {row}")
        _disjoint(kind, label, rows)
        counts = {name: len(getattr(rows, name)) for name in ("train", "validation", "test")}
        records.append({"split": kind, "label": label, **counts, "leaks": 0})
    return records


def _twins(bundle: Bundle) -> np.ndarray:
    """Group number of each drug; one group = the same fingerprint, or the same connectivity by InChIKey."""
    group = twin_groups(bundle.array("fingerprints"))
    keys = [(parent(smiles) or (smiles, ""))[0] for smiles in bundle.drugs["smiles"]]
    by_key: dict[str, int] = {}
    for i, key in enumerate(keys):
        first = by_key.setdefault(key, i)
        if group[first] != group[i]:
            group[group == group[i]] = group[first]
    return group


def _drug_names(bundle: Bundle) -> Any:
    names = bundle.drugs["drug_name"].to_numpy()
    drug = bundle.response["drug"].to_numpy()
    return lambda row: str(names[drug[row]])


def _disjoint(kind: str, label: str, rows: Rows) -> None:
    joined = pd.Series(np.concatenate([rows.train, rows.validation, rows.test]))
    if joined.duplicated().any():
        row = joined[joined.duplicated()].iloc[0]
        raise HedflowError(f"leak audit: split {kind} {label}: row {row} is in two parts.")


def _no_shared(kind: str, label: str, rows: Rows, unit: np.ndarray, name: Any) -> None:
    pairs = (
        ("test", rows.test, "train", rows.train),
        ("test", rows.test, "validation", rows.validation),
        ("validation", rows.validation, "train", rows.train),  # else early stopping would not be blind
    )
    for held, held_rows, other, other_rows in pairs:
        shared = np.intersect1d(unit[held_rows], unit[other_rows])
        if len(shared):
            in_held = sorted({name(r) for r in held_rows[np.isin(unit[held_rows], shared)]})
            in_other = sorted({name(r) for r in other_rows[np.isin(unit[other_rows], shared)]})
            raise HedflowError(
                f"leak audit: split {kind} {label}: {_list(in_held)} ({held}) is in {other} as well, as "
                f"{_list(in_other)}; the same by structure counts as the same. Move them to one side."
            )


def _list(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def audit_plan(plan: pd.DataFrame, bundle: Bundle) -> list[dict[str, Any]]:
    """Audit every part of the splits that a plan's runs use; one record a part."""
    records: list[dict[str, Any]] = []
    for label, split in parts_of(plan):
        records += audit(split.kind, [(label, make_rows(split, label, bundle))], bundle)
    return records
