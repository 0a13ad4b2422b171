"""The leak audit: proof, from the rows themselves, that what a run is blind to is not in its training.

It does not ask the splitter: structures are compared again from their SMILES, and tissues, scaffolds, similarities,
sources and AUC ranges are looked up again, by other means where there are any.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
from rdkit import Chem
from rdkit.Chem.Scaffolds import MurckoScaffold

from hedflow import UNKNOWN, HedflowError
from hedflow.bundle import Bundle
from hedflow.config import IMPROVE_SPLITS, Split
from hedflow.identity.parents import parent
from hedflow.plan import parts_of
from hedflow.splits import Rows, make_rows, twin_groups

DRUG_BLIND = (
    "drug_blind",
    "leave_one_drug_out",
    "drug_lists",
    "scaffold",
    "tanimoto_cluster",
    "disjoint",
    "auc_range",
    "high_error",
    "improve_drug_blind",
)
CELL_BLIND = ("cell_blind", "tissue_blind", "disjoint", "improve_cell_blind")
# A (cell, drug) pair is in one part only, though its drug and its cell are in several.
PAIR_BLIND = ("random_pairs", "improve")
# Why a row is used nowhere, for the kinds that leave some out.
UNUSED = {
    "disjoint": "a held-out drug or cell together with one of another part",
    "tissue_blind": "cell line of unknown tissue",
    "leave_source_out": "pair that a held-out source measured too",
    **dict.fromkeys(IMPROVE_SPLITS, "not named by the split's files"),
}
SHOWN = 5
# The pairs of parts that must share nothing: else a test would not be blind, nor the early stopping.
PAIRS = (("test", "train"), ("test", "validation"), ("validation", "train"))


def audit(
    split: Split, parts: Iterable[tuple[str, Rows]], bundle: Bundle, errors: pd.DataFrame | None = None
) -> list[dict[str, Any]]:
    """Audit every part (label, rows) of a split; returns one record a part.

    Args:
        errors: of a high_error split the drug errors of the earlier experiment (`high_error.read_drug_errors`).

    Raises:
        HedflowError: names the drugs (cells, pairs, ...) that leak, and from which part into which.
    """
    kind, cell, drug = split.kind, bundle.response["cell"].to_numpy(), bundle.response["drug"].to_numpy()
    by_structure = kind in DRUG_BLIND or kind == "leave_source_out"
    twins = _twins(bundle)[drug] if by_structure else drug
    drug_name = _named(bundle.drugs["drug_name"], drug)
    cell_name = _named(bundle.cells["cell_name"], cell)
    # What no two parts may share: a number a row, and how to call a row.
    units: list[tuple[np.ndarray, Callable[[int], str]]] = []
    if kind in DRUG_BLIND:
        units.append((twins, drug_name))
    if kind in CELL_BLIND:
        units.append((cell, cell_name))
    if kind == "tissue_blind":
        tissue = bundle.cells["tissue"].to_numpy(dtype=str)[cell]
        units.append((pd.factorize(tissue)[0], lambda row: f"{cell_name(row)} ({tissue[row]})"))
    if kind == "scaffold":
        units.append((_scaffolds(bundle)[drug], drug_name))
    if kind == "leave_source_out":
        source = bundle.response["source"].to_numpy(dtype=str)
        units.append((pd.factorize(source)[0], lambda row: str(source[row])))
    if kind in PAIR_BLIND or (kind == "leave_source_out" and split.shared_pairs == "remove"):
        same = twins if kind == "leave_source_out" else drug
        units.append((cell.astype(np.int64) * len(bundle.drugs) + same, lambda row: f"pair in row {row}"))
    records = []
    for label, rows in parts:
        for unit, name in units:
            _no_shared(kind, label, rows, unit, name)
        _disjoint(kind, label, rows)
        _as_claimed(split, label, rows, bundle, twins, errors)
        counts = {name: len(getattr(rows, name)) for name in ("train", "validation", "test")}
        unused = len(bundle.response) - sum(counts.values())
        if unused and kind not in UNUSED:
            raise HedflowError(f"leak audit: split {kind} {label}: {unused} rows are in no part; expected each in one.")
        why = {"unused_because": UNUSED[kind]} if unused else {}
        records.append({"split": kind, "label": label, **counts, "unused": unused, **why, "leaks": 0})
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


def _scaffolds(bundle: Bundle) -> np.ndarray:
    """Number of each drug's scaffold: rings and linkers without stereochemistry; without a ring one of its own."""
    keys = []
    for i, smiles in enumerate(bundle.drugs["smiles"]):
        frame = MurckoScaffold.GetScaffoldForMol(Chem.MolFromSmiles(smiles))
        Chem.RemoveStereochemistry(frame)
        keys.append(Chem.MolToSmiles(frame) if frame.GetNumAtoms() else f"none {i}")
    return pd.factorize(np.array(keys, dtype=object))[0]


def _named(names: pd.Series[str], index: np.ndarray) -> Callable[[int], str]:
    array = names.to_numpy()
    return lambda row: str(array[index[row]])


def _disjoint(kind: str, label: str, rows: Rows) -> None:
    joined = np.concatenate([rows.train, rows.validation, rows.test])
    used = np.zeros(int(joined.max()) + 1, bool)
    used[joined] = True
    if np.count_nonzero(used) != len(joined):
        row = int(np.argmax(np.bincount(joined) > 1))
        raise HedflowError(f"leak audit: split {kind} {label}: row {row} is in two parts.")


def _no_shared(kind: str, label: str, rows: Rows, unit: np.ndarray, name: Callable[[int], str]) -> None:
    """No unit (numbers from 0) has rows in two parts."""
    has = {}
    for part in ("train", "validation", "test"):
        has[part] = np.zeros(int(unit.max()) + 1, bool)
        has[part][unit[getattr(rows, part)]] = True
    for held, other in PAIRS:
        shared = np.flatnonzero(has[held] & has[other])
        if len(shared):
            held_rows, other_rows = getattr(rows, held), getattr(rows, other)
            in_held = sorted({name(r) for r in held_rows[np.isin(unit[held_rows], shared)]})
            in_other = sorted({name(r) for r in other_rows[np.isin(unit[other_rows], shared)]})
            raise HedflowError(
                f"leak audit: split {kind} {label}: {_list(in_held)} ({held}) is in {other} as well, as "
                f"{_list(in_other)}; the same by structure counts as the same. Move them to one side."
            )


def _list(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _as_claimed(
    split: Split, label: str, rows: Rows, bundle: Bundle, twins: np.ndarray, errors: pd.DataFrame | None
) -> None:
    """What a kind claims beyond its units: that it tests what its label says, and nothing too near trains."""
    if split.kind == "leave_one_drug_out":
        asked = (bundle.drugs["drug_id"] == label).to_numpy()[bundle.response["drug"].to_numpy()]
        _tests_exactly(split, label, rows, twins == twins[np.argmax(asked)])
    elif split.kind == "tissue_blind":
        _tissues_known(label, rows, bundle)
    elif split.kind == "tanimoto_cluster":
        _none_similar(split, label, rows, bundle)
    elif split.kind == "leave_source_out":
        _tests_exactly(split, label, rows, bundle.response["source"].to_numpy(dtype=str) == label)
    elif split.kind == "auc_range":
        low, high = (float(edge) for edge in label.removeprefix("auc").split("-"))
        mean = bundle.response["auc"].astype(np.float64).groupby(twins).transform("mean").to_numpy(np.float32)
        below = mean <= np.float32(high) if high == split.edges[-1] else mean < np.float32(high)
        _tests_exactly(split, label, rows, (mean >= np.float32(low)) & below)
    elif split.kind == "high_error":
        if errors is None:
            raise HedflowError(f"leak audit: split high_error {label}: the errors of '{split.experiment}' are missing.")
        mae = errors["mae"]
        high_ids = errors["drug_id"][(mae - mae.mean()) / mae.std(ddof=1) > float(split.high_error_z or 0)]
        is_high = bundle.drugs["drug_id"].isin(high_ids).to_numpy()[bundle.response["drug"].to_numpy()]
        _tests_exactly(split, label, rows, np.isin(twins, twins[is_high]))


def _tests_exactly(split: Split, label: str, rows: Rows, claimed: np.ndarray) -> None:
    """The test rows are those, and all of those, that the part's name promises."""
    found = np.zeros(len(claimed), bool)
    found[rows.test] = True
    if (found != claimed).any():
        row = int(np.flatnonzero(found != claimed)[0])
        raise HedflowError(
            f"leak audit: split {split.kind} {label}: row {row} is {'' if found[row] else 'not '}tested, and by its "
            f"{'source' if split.kind == 'leave_source_out' else 'drug'} it should {'not ' if found[row] else ''}be."
        )


def _tissues_known(label: str, rows: Rows, bundle: Bundle) -> None:
    unknown = (bundle.cells["tissue"] == UNKNOWN).to_numpy()[bundle.response["cell"].to_numpy()]
    used = np.concatenate([rows.train, rows.validation, rows.test])
    if unknown[used].any():
        row = used[unknown[used]][0]
        raise HedflowError(
            f"leak audit: split tissue_blind {label}: row {row} is of a cell line of unknown tissue, which may be any."
        )


def _none_similar(split: Split, label: str, rows: Rows, bundle: Bundle) -> None:
    """No drug of a part has one as similar as the threshold in another part: counted in whole numbers."""
    bits = np.asarray(bundle.array("fingerprints"), dtype=np.int64)
    threshold = Fraction(str(split.similarity))
    drug, names = bundle.response["drug"].to_numpy(), bundle.drugs["drug_name"].to_numpy()
    for held, other in PAIRS:
        left, right = (np.unique(drug[getattr(rows, part)]) for part in (held, other))
        both = bits[left] @ bits[right].T
        either = bits[left].sum(axis=1)[:, None] + bits[right].sum(axis=1)[None, :] - both
        near = (both * threshold.denominator >= either * threshold.numerator) & (either > 0)
        if near.any():
            a, b = np.argwhere(near)[0]
            raise HedflowError(
                f"leak audit: split tanimoto_cluster {label}: {names[left[a]]} ({held}) and {names[right[b]]} "
                f"({other}) have a similarity of {both[a, b] / either[a, b]:.3g}; expected less than "
                f"{split.similarity:g}."
            )


def _weighs_the_worst(plan: pd.DataFrame, errors: pd.DataFrame | None) -> None:
    """The drugs that count more in training are those with the highest errors, and the same ones in every run."""
    specs = (json.loads(spec) for spec in plan.loc[plan["factor"] != 1, "spec"])
    weighed = {tuple(spec["weights"]["drugs"]) for spec in specs}
    for drugs in weighed:
        if errors is None or len(weighed) > 1:
            raise HedflowError("audit: runs weigh drugs, but not the same ones or none knows why; plan them anew.")
        chosen = errors["drug_id"].isin(drugs)
        least, most = errors.loc[chosen, "mae"].min(), errors.loc[~chosen, "mae"].max()
        if chosen.sum() != len(drugs) or least < most:
            raise HedflowError(
                f"audit: {len(drugs)} drugs are weighed, the least wrong of them with a mean absolute error of "
                f"{least:.4f}, but another one has {most:.4f}; plan the runs anew."
            )


def audit_plan(plan: pd.DataFrame, bundle: Bundle, errors: pd.DataFrame | None = None) -> list[dict[str, Any]]:
    """Audit every part of the splits that a plan's runs use; one record a part.

    Args:
        errors: where an earlier experiment's high error drugs are held out or weighed, that experiment's drug errors.
    """
    _weighs_the_worst(plan, errors)
    by_split: dict[str, tuple[Split, list[str]]] = {}
    for label, split in parts_of(plan):
        by_split.setdefault(split.model_dump_json(), (split, []))[1].append(label)
    records: list[dict[str, Any]] = []
    for split, names in by_split.values():
        records += audit(split, ((label, make_rows(split, label, bundle)) for label in names), bundle, errors)
    return records
