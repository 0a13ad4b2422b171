"""Reads a csa folder: responses by study, structures by chem id, expression. CRLF and LF alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from hedflow import HedflowError
from hedflow.config import nearest
from hedflow.identity.cells import COLUMNS as CELL_COLUMNS
from hedflow.identity.drugs import COLUMNS as DRUG_COLUMNS
from hedflow.identity.drugs import ROUTES
from hedflow.identity.parents import BLOCKS, Stereo, standardise
from hedflow.improve import CELL, DRUG, EVERY, PARAMETERS, SMILES, SMILES_FILE, SOURCE
from hedflow.schemas import CURVE, READING, checked
from hedflow.sources.tables import read_table

STUDY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
AUC_RULE = "auc of IMPROVE's csa"
# Of an AUC column with its AAC: they fall together only if one of the two is called by the other's name.
SWAPPED = 0.5
MISSING = ("", "NA", "NaN", "nan", "NULL")


class Structure(NamedTuple):
    """The parent structure of a drug (`identity.parents`)."""

    drug_id: str
    inchikey: str
    smiles: str


def read_response(path: Path, studies: Sequence[str] | None = None) -> dict[str, pd.DataFrame]:
    """The measurements by study, in the order of the file: tables `schemas.READING` whose names are csa ids.

    `auc` is IMPROVE's: the fitted curve's area over 4..10 of -log10 M, divided by 6; 0..1, low = potent. So is
    `auc_fixed`. Its fitted parameters are taken where the file has them (`PARAMETERS`).

    Args:
        studies: only these, in this order; None = every study of the file.

    Raises:
        HedflowError: a column is missing, no row, a study that is not there, an `auc` that is an AAC.
    """
    table = read_ids(path, numbers=["auc"], optional=[*PARAMETERS, "aac1"])
    _check_direction(path, table)
    found = list(dict.fromkeys(table[SOURCE]))
    for study in studies or ():
        if study not in found:
            raise HedflowError(f"{path}: data.sources names {study}, which has no row{nearest(study, found)}")
    readings = {}
    for study in studies or found:
        rows = table[table[SOURCE] == study]
        if not STUDY.fullmatch(study) or study == EVERY:
            raise HedflowError(
                f"{path}: a study is called '{study}'; expected letters, digits, '.', '_', '-', and not '{EVERY}'."
            )
        fitted = {ours: rows[theirs] for theirs, ours in PARAMETERS.items() if theirs in rows}
        reading = pd.DataFrame(
            {
                "cell_name": rows[CELL],
                "drug_name": rows[DRUG],
                "auc": rows["auc"],
                "auc_rule": AUC_RULE,
                "combination": False,
                "repeated": rows.duplicated(),
                "auc_fixed": rows["auc"],
                **fitted,
            }
        ).reindex(columns=list(READING.columns))
        reading = reading.astype(dict.fromkeys(CURVE, float)).reset_index(drop=True)
        readings[study] = checked(reading, READING, f"{path}: {study}")
    return readings


def read_ids(path: Path, numbers: Sequence[str] = (), optional: Sequence[str] = ()) -> pd.DataFrame:
    """source, sample id and chem id of response.tsv; row i is the i of the split files.

    Args:
        numbers, optional: columns of numbers besides; the `optional` ones where they are there.
    """
    columns = [SOURCE, CELL, DRUG, *numbers]
    table = read_table(path, columns, sep="\t", numbers=[*numbers, *optional], optional=optional)
    if table.empty:
        raise HedflowError(f"{path}: the file has a header and no rows.")
    if table[SOURCE].isna().any():
        row = int(table[SOURCE].isna().to_numpy().argmax())
        raise HedflowError(f"{path}: data row {row + 1} has no {SOURCE}; expected the name of its study.")
    return table


def _check_direction(path: Path, table: pd.DataFrame) -> None:
    """The file may carry an area above the curve beside the AUC: the one falls where the other rises."""
    if "aac1" not in table:
        return
    auc, above = table["auc"], table["aac1"]
    both = np.isfinite(auc) & np.isfinite(above)
    if both.sum() < 3 or auc[both].nunique() < 2 or above[both].nunique() < 2:
        return
    correlation = float(np.corrcoef(auc[both], above[both])[0, 1])
    if correlation > SWAPPED:
        raise HedflowError(
            f"{path}: `auc` rises with `aac1` (r = {correlation:.2f}), but an AUC (low = potent) falls where an area "
            "above the curve rises; one column has the other's values. Put 1 - AAC into `auc`."
        )


def read_smiles(path: Path) -> list[tuple[str, str]]:
    """(chem id, SMILES as given) of each row; empty where there is none."""
    table = read_table(path, [DRUG, SMILES], sep="\t")
    table = table[table[DRUG].notna()].fillna("")
    return list(zip(table[DRUG], table[SMILES], strict=True))


def read_structures(path: Path, stereo: Stereo = "ignore") -> dict[str, Structure | None]:
    """chem id -> parent structure; None where RDKit reads none, or one that is no drug's.

    Args:
        stereo: whether stereochemistry makes two drugs of one connectivity.

    Raises:
        HedflowError: a column is missing, or a chem id has two structures that differ.
    """
    found: dict[str, Structure | None] = {}
    for chem, smiles in read_smiles(path):
        whole = standardise(smiles) if smiles else None
        structure = Structure(whole[0][: BLOCKS[stereo]], *whole) if whole else None
        if chem in found and _id(found[chem]) != _id(structure):
            raise HedflowError(f"{path}: {chem} is there twice with different structures; expected one row an id.")
        found.setdefault(chem, structure)
    return found


def _id(structure: Structure | None) -> str:
    return structure.drug_id if structure else ""


def identify(
    readings: dict[str, pd.DataFrame], structures: dict[str, Structure | None]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Identities as the integration wants them; no name is guessed: a csa folder carries its own ids.

    Returns:
        cells (columns as of `cells.map_cells`), drugs (as of `drugs.map_drugs`).
    """
    cells, drugs = [], []
    for source, table in readings.items():
        cells += [(source, name, name, CELL, "", "") for name in table["cell_name"].dropna().unique()]
        drugs += [_drug(source, name, structures) for name in table["drug_name"].dropna().unique()]
    text = {"drug_id": "str", "inchikey": "str", "smiles": "str"}
    return (
        pd.DataFrame(cells, columns=CELL_COLUMNS).astype({"cell_id": "str"}),
        pd.DataFrame(drugs, columns=DRUG_COLUMNS).astype(text),
    )


def _drug(source: str, name: str, structures: dict[str, Structure | None]) -> tuple[str | None, ...]:
    if structure := structures.get(name):
        return (source, name, *structure, SMILES_FILE, ROUTES[0], name, "structure", "", "")
    reason = f"its {SMILES} is no drug's that RDKit can read" if name in structures else f"not in {SMILES_FILE}"
    return (source, name, None, None, None, "none", "none", "", "no structure", reason, "")


def read_expression(path: Path) -> pd.DataFrame:
    """Expression as given (csa: log2(TPM + 1)), float64, one row a sample id, one column a gene symbol.

    With three header rows (Ensembl, Entrez, symbol) the symbols are taken. A gene without a symbol of its own is
    called `<symbol>|<Ensembl or Entrez id>`, since two columns must not have one name.

    Raises:
        HedflowError: no data, a field that is no number, a sample or a gene that is there twice.
    """
    try:
        # As text: the header rows are told from the data by what is in them.
        table = pd.read_csv(
            path, sep="\t", header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig", nrows=3
        )
        rows = 3 if len(table) == 3 and _is_header(table.iloc[2, 1:]) else 1
        data = pd.read_csv(
            path, sep="\t", header=None, skiprows=rows, dtype={0: str}, keep_default_na=False, na_values=MISSING,
            encoding="utf-8-sig",
        )  # fmt: skip
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = str(error).strip().splitlines()[0]
        raise HedflowError(f"{path}: expected a table in UTF-8 separated by tabs, but {reason}.") from None
    header = table.iloc[:rows]
    if data.shape[1] != header.shape[1] or data.shape[1] < 2:
        raise HedflowError(
            f"{path}: {header.shape[1]} fields in the header and {data.shape[1]} in the data; expected a sample id "
            "and at least one gene in both."
        )
    genes = _gene_names(header)
    for position in range(1, data.shape[1]):
        if not pd.api.types.is_numeric_dtype(data.dtypes.iloc[position]):
            wrong = pd.to_numeric(data.iloc[:, position], errors="coerce").isna() & data.iloc[:, position].notna()
            row = int(wrong.to_numpy().argmax())
            raise HedflowError(
                f"{path}: {genes[position - 1]} of {data.iloc[row, 0]!s} is {data.iloc[row, position]!r}, expected a "
                "number."
            )
    made = data.iloc[:, 1:].astype(np.float64)
    made.index, made.columns = pd.Index(data.iloc[:, 0].astype("str"), name=CELL), pd.Index(genes)
    return made


def _is_header(fields: pd.Series[str]) -> bool:
    """Whether a line holds names: a line of data holds numbers, or nothing where a value is missing."""
    text = fields[~fields.isin(MISSING)]
    return len(text) > 0 and bool(pd.to_numeric(text, errors="coerce").isna().mean() > 0.5)


def _gene_names(header: pd.DataFrame) -> list[str]:
    if len(header) == 1:
        return [name.strip() for name in header.iloc[0, 1:]]
    ensembl, entrez, symbol = (header.iloc[row, 1:].str.strip().reset_index(drop=True) for row in range(3))
    named = ~symbol.isin([*MISSING, "0", "0.0"]) & ~symbol.duplicated(keep=False)
    other = ensembl.where(~ensembl.isin([*MISSING, "0", "0.0"]), entrez)
    return symbol.where(named, symbol + "|" + other).tolist()
