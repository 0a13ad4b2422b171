"""IMPROVE's split files -> parts of the bundle's rows.

A split file names rows of response.tsv. The bundle has fewer rows (what has no expression or no structure is not
in it) and averages measurements of one (study, cell, drug); its part is then the most held-out one of theirs: test
before validation before training, so that nothing tested is trained on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hedflow import HedflowError
from hedflow.identity.parents import Stereo
from hedflow.improve import CELL, DRUG, EVERY, SOURCE, STAGES, Layout
from hedflow.improve.read import Structure, read_ids, read_structures

FILE = re.compile(r"(?P<name>(?P<study>.+)_(?P<axis>split|drug|cell)_(?P<number>\d+))_(?P<stage>train|val|test)")
# In the bundle: -1 is none of the three. The larger wins where measurements of one row disagree.
CODES = {"train": 0, "validation": 1, "test": 2}
NONE = -1


def find_splits(paths: Sequence[Path], studies: Sequence[str]) -> dict[str, dict[str, Path]]:
    """Split name (`CCLE_split_0`) -> stage (train, val, test) -> file, for the given studies and for `all`.

    `<study>_all.txt` and other files are not splits. Sorted by study, kind of split, number.

    Raises:
        HedflowError: a split has not all of its three files.
    """
    found: dict[tuple[str, str, int, str], dict[str, Path]] = {}
    for path in paths:
        match = FILE.fullmatch(path.stem)
        if match and match["study"] in (*studies, EVERY):
            key = (match["study"], match["axis"], int(match["number"]), match["name"])
            found.setdefault(key, {})[match["stage"]] = path
    for (*_, name), files in found.items():
        missing = [stage for stage in STAGES if stage not in files]
        if missing:
            folder = next(iter(files.values())).parent
            raise HedflowError(f"{folder}: expected {name}_{missing[0]}.txt beside {name}'s other split files.")
    return {key[-1]: found[key] for key in sorted(found)}


def read_rows(path: Path, count: int) -> np.ndarray:
    """Row numbers of a split file (int64), one a line; empty lines do not count.

    Raises:
        HedflowError: no number, text, a number outside 0..count-1, or one that is there twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise HedflowError(f"{path}: expected one row number a line, but {error}.") from None
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not (text.isascii() and text.isdecimal()):
            raise HedflowError(
                f"{path}: line {number} is {text[:40]!r}, expected the 0-based number of a row of response.tsv."
            )
    rows = np.array([int(line) for line in lines if line.strip()], dtype=np.int64)
    if len(rows) == 0:
        raise HedflowError(f"{path}: the file is empty; expected one row number a line.")
    if rows.max() >= count:
        raise HedflowError(
            f"{path}: row {rows.max()} is named, but response.tsv has rows 0 to {count - 1}; the split belongs to "
            "another version of it."
        )
    unique, times = np.unique(rows, return_counts=True)
    if len(unique) < len(rows):
        raise HedflowError(f"{path}: row {unique[times > 1][0]} is named twice; expected once.")
    return rows


def parts_of_rows(
    layout: Layout, response: pd.DataFrame, cells: pd.DataFrame, drugs: pd.DataFrame
) -> tuple[pd.DataFrame, dict[str, dict[str, int]]]:
    """The part of every row of a bundle in every split of a csa folder.

    Args:
        response, cells, drugs: the bundle's tables (source, cell, drug; cell_id; drug_id).

    Returns:
        A column a split, int8: `CODES`, or `NONE` for a row of no part. Of each split: its rows by part, `lost`
        (rows of its files that are not in the bundle) and `moved` (bundle rows whose measurements lay in
        several parts).

    Raises:
        HedflowError: a broken file, a row of another study than the file's name says, or one in two parts.
    """
    sources = list(dict.fromkeys(response["source"].astype(str)))
    splits = find_splits(layout.splits, sources)
    table = read_ids(layout.response)
    # The bundle's own ids say whether stereochemistry is part of them.
    stereo: Stereo = "keep" if drugs["drug_id"].str.contains("-").any() else "ignore"
    bundle_row = _bundle_rows(table, read_structures(layout.smiles, stereo), response, cells, drugs)
    source = table[SOURCE].to_numpy(dtype=str)
    parts, counts = {}, {}
    for name, files in splits.items():
        study = str(FILE.fullmatch(f"{name}_train")["study"])  # type: ignore[index]  # find_splits matched it
        code = np.full(len(table), NONE, np.int8)
        for stage in STAGES:
            path = files[stage]
            rows = read_rows(path, len(table))
            other = rows[source[rows] != study] if study != EVERY else rows[:0]
            if len(other):
                raise HedflowError(
                    f"{path}: row {other[0]} of response.tsv is of {source[other[0]]}, expected {study}; the split "
                    "belongs to another version or order of it."
                )
            twice = rows[code[rows] != NONE]
            if len(twice):
                first = list(CODES)[code[twice[0]]]
                raise HedflowError(f"{path}: row {twice[0]} is in the {first} part as well; expected one part a row.")
            code[rows] = CODES[STAGES[stage]]
        parts[name], counts[name] = _of_bundle(code, bundle_row, len(response))
    return pd.DataFrame(parts, index=range(len(response))), counts


def _bundle_rows(
    table: pd.DataFrame,
    structures: dict[str, Structure | None],
    response: pd.DataFrame,
    cells: pd.DataFrame,
    drugs: pd.DataFrame,
) -> np.ndarray:
    """The bundle's row of each row of response.tsv, -1 where it has none."""
    ids = {chem: structure.drug_id for chem, structure in structures.items() if structure}
    wanted = pd.MultiIndex.from_arrays([table[SOURCE], table[CELL], table[DRUG].map(ids)])
    own = pd.MultiIndex.from_arrays(
        [
            response["source"].astype(str),
            cells["cell_id"].to_numpy()[response["cell"]],
            drugs["drug_id"].to_numpy()[response["drug"]],
        ]
    )
    return np.asarray(own.get_indexer(wanted))


def _of_bundle(code: np.ndarray, bundle_row: np.ndarray, count: int) -> tuple[np.ndarray, dict[str, int]]:
    named = code != NONE
    kept = named & (bundle_row >= 0)
    highest = np.full(count, NONE, np.int8)
    np.maximum.at(highest, bundle_row[kept], code[kept])
    lowest = np.full(count, max(CODES.values()) + 1, np.int8)
    np.minimum.at(lowest, bundle_row[kept], code[kept])
    counts = {part: int((highest == value).sum()) for part, value in CODES.items()}
    counts["lost"] = int(named.sum() - kept.sum())
    counts["moved"] = int(((highest != NONE) & (lowest != highest)).sum())
    return highest, counts
