"""Integrate: the sources' own tables -> one long table of (source, cell, drug, AUC), every lost row counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hedflow import HedflowError
from hedflow.identity.cells import describe_cells, map_cells, name_cells, read_depmap
from hedflow.identity.drugs import describe_drugs, map_drugs, read_structures
from hedflow.improve import Layout
from hedflow.improve.read import identify, read_response
from hedflow.improve.read import read_structures as read_chem_ids
from hedflow.schemas import CELLS, DRUGS, RESPONSE, checked
from hedflow.sources import check_scale, read_source
from hedflow.tally import Tally

# Noise and slow growth in the control put some AUCs a little above 1: those are set to 1. Twice the control's
# growth is no response.
HIGHEST_AUC = 2.0


@dataclass(frozen=True)
class Integrated:
    """The tables of this step; contracts in `schemas`."""

    response: pd.DataFrame
    cells: pd.DataFrame
    drugs: pd.DataFrame
    losses: pd.DataFrame
    cell_identity: pd.DataFrame
    drug_identity: pd.DataFrame


def integrate(sources: dict[str, list[Path]], identity: list[Path]) -> Integrated:
    """Read, identify and merge the sources.

    Args:
        sources: the response files of each source, in the order of the table.
        identity: annotation, expression and structure files; with DepMap's among them cells get ModelIDs.
    """
    readings = {source: read_source(source, paths) for source, paths in sources.items()}
    by_name = {path.name: path for path in identity}
    cell_names = _names(readings, "cell_name")
    metadata = None
    if "CCLE.RData" in by_name:
        metadata = read_depmap(by_name["CCLE.RData"])["metadata"]
        cells = map_cells(cell_names, metadata, by_name["Cell_Lines_Details.xlsx"], by_name["cell_annotation_all.csv"])
    else:
        cells = name_cells(cell_names)
    single = {source: table[~table["combination"]] for source, table in readings.items()}
    drugs = map_drugs(_names(single, "drug_name"), read_structures(identity))
    return _merge(readings, cells, drugs, metadata)


def integrate_improve(layout: Layout, studies: Sequence[str] | None = None) -> Integrated:
    """Read and merge the studies of a csa folder, whose ids are its own.

    Args:
        studies: only these; None or none = every study of the folder.
    """
    readings = read_response(layout.response, studies or None)
    for study, table in readings.items():
        check_scale(study, table["auc"])
    return _merge(readings, *identify(readings, read_chem_ids(layout.smiles)), metadata=None)


def _merge(
    readings: dict[str, pd.DataFrame], cells: pd.DataFrame, drugs: pd.DataFrame, metadata: pd.DataFrame | None
) -> Integrated:
    tally = Tally([])
    parts = [_one_source(source, table, cells, drugs, tally) for source, table in readings.items()]
    response = pd.concat(parts, ignore_index=True)
    if response.empty:
        raise HedflowError("integrate: no row has both a known cell line and a drug structure; see the sources.")
    ids = pd.Index(np.unique(response["cell_id"].to_numpy(dtype=str)))
    used = drugs[drugs["drug_id"].isin(response["drug_id"])]
    return Integrated(
        response=checked(response, RESPONSE, "integrated response"),
        cells=checked(describe_cells(ids, metadata), CELLS, "cells"),
        drugs=checked(describe_drugs(used), DRUGS, "drugs"),
        losses=tally.table(),
        cell_identity=cells,
        drug_identity=drugs,
    )


def _names(tables: dict[str, pd.DataFrame], column: str) -> dict[str, pd.Index[str]]:
    return {source: pd.Index(table[column].dropna().unique()) for source, table in tables.items()}


def _one_source(
    source: str, table: pd.DataFrame, cells: pd.DataFrame, drugs: pd.DataFrame, tally: Tally
) -> pd.DataFrame:
    """Drop what cannot be used (counted), then average the replicates of each (cell, drug)."""
    cell_id = cells[cells["source"] == source].set_index("cell_name")["cell_id"]
    drug_id = drugs[drugs["source"] == source].set_index("drug_name")["drug_id"]
    table = table.assign(cell_id=table["cell_name"].map(cell_id), drug_id=table["drug_name"].map(drug_id))

    def keep(table: pd.DataFrame, reason: str, good: pd.Series[bool]) -> pd.DataFrame:
        return tally.keep(table, source, "integrate", reason, good)

    table = keep(table, "no AUC", table["auc"].notna())
    table = keep(table, "AUC not between 0 and 2", table["auc"].between(0, HIGHEST_AUC))
    table = keep(table, "no cell or drug name", table["cell_name"].notna() & table["drug_name"].notna())
    table = keep(table, "combination of drugs", ~table["combination"])
    table = keep(table, "no structure for the drug", table["drug_id"].notna())
    table = keep(table, "cell line not identified", table["cell_id"].notna())
    table = table.assign(clipped=(table["auc"] > 1).astype("int32"), auc=table["auc"].clip(0, 1))
    merged = (
        table.groupby(["cell_id", "drug_id"], sort=True)
        .agg(
            auc=("auc", "mean"),
            auc_sd=("auc", "std"),
            replicates=("auc", "size"),
            clipped=("clipped", "sum"),
            auc_rule=("auc_rule", "first"),
        )
        .reset_index()
        .astype({"replicates": "int32", "clipped": "int32"})
    )
    # Averaging is no loss of measurements, but it is where rows become fewer.
    tally.rows.append((source, "integrate", "replicates averaged", len(table), len(table) - len(merged), len(merged)))
    merged.insert(0, "source", source)
    return merged[list(RESPONSE.columns)]
