"""Why a name got its id, as plain text: every route that was asked and what it said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from hedflow import HedflowError
from hedflow.config import Config, nearest
from hedflow.identity.cells import normalise as normalise_cell
from hedflow.identity.drugs import disagreeing
from hedflow.identity.sections import Annotation, read_annotation
from hedflow.identity.synonyms import normalise as normalise_drug
from hedflow.improve import CELL, find_layout
from hedflow.registry import identity_files, read_registry


def explain(config: Config, name: str) -> str:
    """All that is known of a native name, or of an id, of a cell line or a drug.

    Raises:
        HedflowError: nothing is integrated yet, or no source has such a name (with the nearest ones).
    """
    folder = Path(config.results)
    tables = {kind: folder / "integration" / f"{kind}_identity.parquet" for kind in ("cell", "drug")}
    for path in tables.values():
        if not path.is_file():
            raise HedflowError(f"{path}: no such file; run `snakemake bundle` first.")
    cells, drugs = pd.read_parquet(tables["cell"]), pd.read_parquet(tables["drug"])
    found_cells = _rows(cells, "cell", name, normalise_cell)
    found_drugs = _rows(drugs, "drug", name, normalise_drug)
    if found_cells.empty and found_drugs.empty:
        names = [*cells["cell_name"].unique(), *drugs["drug_name"].unique()]
        said = nearest(name, names)
        raise HedflowError(f"no source has a cell line or drug called '{name}'{said}")
    known = read_annotation(_identity_paths(config), config.identity.stereo)
    lines = [line for row in found_cells.to_dict("records") for line in _cell(row, cells, known)]
    lines += [line for row in found_drugs.to_dict("records") for line in _drug(row, drugs, known)]
    return "\n".join(lines)


def _identity_paths(config: Config) -> list[Path]:
    if config.data.improve is not None:
        return find_layout(config.data.improve).identity
    keys = identity_files(config.data, read_registry(config.data.registry))
    paths = [Path(config.results) / "raw" / key for key in keys]
    for path in paths:
        if not path.is_file():
            raise HedflowError(
                f"{path}: no such file, which this configuration reads; run `snakemake bundle` with it, or name the "
                "configuration that the results were made with by --config."
            )
    return paths


def _rows(table: pd.DataFrame, kind: str, name: str, normalise: Callable[[str], str]) -> pd.DataFrame:
    """Rows of the name as it is spelt, of the id, else of the normalised name."""
    exact = table.loc[(table[f"{kind}_name"] == name) | (table[f"{kind}_id"] == name)]
    if len(exact) or not normalise(name):
        return exact
    bare = table[f"{kind}_name"].map(normalise)
    if kind == "cell":  # CCLE's names end with the tissue
        bare = bare.where(table["source"] != "CCLE", table["cell_name"].str.split("_").str[0].map(normalise))
    return table.loc[bare == normalise(name)]


def _cell(row: dict[Any, Any], cells: pd.DataFrame, known: Annotation) -> list[str]:
    lines = [f"cell line '{row['cell_name']}' of {row['source']} ({row['rows']:,} rows)"]
    if row["cell_id"] == row["cell_id"] and row["cell_id"]:
        line = known.line.get(row["cell_id"], row["cell_id"])
        lines.append(f"  is {row['cell_id']} ({line}), by {row['route']}")
    else:
        lines.append(f"  has no id: {row['reason']}")
    if row["route"] == CELL:
        return [*lines, "  a csa folder (data.improve) carries its own ids"]
    if known.cells is None:
        return [*lines, "  the wheel-only edition has no annotation: the id is the name without punctuation"]
    for answer in known.cells.answers(row["source"], row["cell_name"]):
        ids = ", ".join(f"{i} ({known.line.get(i, '?')})" for i in answer.cell_ids)
        lines.append(f"  {answer.route:<16} {answer.key}: {ids}{'' if len(answer.cell_ids) == 1 else ', ambiguous'}")
    if accession := known.cells.accession(row["source"], row["cell_name"]):
        lines.append(f"  Cellosaurus accession {accession}")
    lines += _also(cells, "cell", row)
    if known.remarks is not None:
        said = known.remarks[known.remarks["cell_id"] == row["cell_id"]]
        lines += [f"  remark of {r.origin}: {r.remark}" for r in said.itertuples()]
    return lines


def _drug(row: dict[Any, Any], drugs: pd.DataFrame, known: Annotation) -> list[str]:
    lines = [f"drug '{row['drug_name']}' of {row['source']} ({row['rows']:,} rows)"]
    if row["status"] == "structure":
        lines.append(f"  is {row['drug_id']}, by {row['route']} '{row['matched']}' in {row['table']}")
        lines.append(f"  parent {row['smiles']} ({row['inchikey']})")
    else:
        lines.append(f"  has no id: {row['status']} ({row['reason']})")
    answers = known.drugs.answers(row["source"], row["drug_name"])
    others = disagreeing(answers[0], answers) if answers else []
    for answer in answers:
        mark = "  another structure" if answer in others else ""
        lines.append(f"  {answer.route:<20} '{answer.matched}' in {answer.table}: {answer.drug_id}{mark}")
    if synonyms := known.drugs.synonyms.of(row["drug_name"]):
        lines.append(f"  synonyms: {', '.join(synonyms)}")
    return lines + _also(drugs, "drug", row)


def _also(table: pd.DataFrame, kind: str, row: dict[Any, Any]) -> list[str]:
    """Other names of the same id."""
    same = table[(table[f"{kind}_id"] == row[f"{kind}_id"]) & (table[f"{kind}_name"] != row[f"{kind}_name"])]
    names = ", ".join(f"{r['source']}: {r[f'{kind}_name']}" for r in same.to_dict("records"))
    return [f"  the same in {names}"] if names else []
