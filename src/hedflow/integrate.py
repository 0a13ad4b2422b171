"""Integrate: the sources' own tables -> one long table of (source, cell, drug, AUC), every lost row counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hedflow import HedflowError
from hedflow.config import Curves, Quality
from hedflow.curves.fit import Options
from hedflow.curves.screens import fit_points, refit
from hedflow.identity.cells import describe_cells, map_cells, name_cells, read_depmap
from hedflow.identity.drugs import describe_drugs, map_drugs
from hedflow.identity.mechanisms import Targets, read_targets
from hedflow.identity.parents import Stereo
from hedflow.identity.structures import read_structures
from hedflow.identity.synonyms import read_synonyms
from hedflow.improve import Layout
from hedflow.improve.read import identify, read_response
from hedflow.improve.read import read_structures as read_chem_ids
from hedflow.schemas import CELLS, CURVE, DRUGS, RESPONSE, checked
from hedflow.sources import read_points, read_source
from hedflow.sources.scales import check_auc
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
    curves: pd.DataFrame  # one row a fitted curve (`hedflow.curves.screens.fit_points`)


def integrate(
    sources: dict[str, list[Path]],
    identity: list[Path],
    points: dict[str, Path] | None = None,
    curves: Curves | None = None,
    quality: Quality | None = None,
    stereo: Stereo = "ignore",
) -> Integrated:
    """Read, identify and merge the sources.

    Args:
        sources: the response files of each source, in the order of the table.
        identity: annotation, expression and structure files; with DepMap's among them cells get ModelIDs.
        points: the file of dose points of each source whose curves are fitted.
        curves, quality: how, and which curves are good enough; by default least squares, and all.
        stereo: whether stereoisomers are different drugs (`keep`) or one (`ignore`).
    """
    readings = {source: read_source(source, paths) for source, paths in sources.items()}
    fitted = _fit(points or {}, curves or Curves())
    for source, table in fitted.items():
        readings[source] = refit(source, readings[source], table)
    by_name = {path.name: path for path in identity}
    cell_names = _names(readings, "cell_name")
    metadata = None
    if "CCLE.RData" in by_name:
        metadata = read_depmap(by_name["CCLE.RData"])["metadata"]
        cells = map_cells(cell_names, metadata, by_name["Cell_Lines_Details.xlsx"], by_name["cell_annotation_all.csv"])
    else:
        cells = name_cells(cell_names)
    drugs = map_drugs(_names(readings, "drug_name"), read_structures(identity), read_synonyms(identity), stereo)
    found = pd.concat(fitted.values(), ignore_index=True) if fitted else NO_CURVES
    targets = read_targets(sources, identity)
    return _merge(readings, cells, drugs, metadata, quality or Quality(), found, targets)


def integrate_improve(
    layout: Layout,
    studies: Sequence[str] | None = None,
    quality: Quality | None = None,
    stereo: Stereo = "ignore",
) -> Integrated:
    """Read and merge the studies of a csa folder, whose ids are its own and whose curves are fitted already.

    Args:
        studies: only these; None or none = every study of the folder.
        quality, stereo: as of `integrate`.
    """
    readings = read_response(layout.response, studies or None)
    for study, table in readings.items():
        check_auc(study, table["auc"])
    cells, drugs = identify(readings, read_chem_ids(layout.smiles, stereo))
    return _merge(readings, cells, drugs, None, quality or Quality(), NO_CURVES)


def _merge(
    readings: dict[str, pd.DataFrame],
    cells: pd.DataFrame,
    drugs: pd.DataFrame,
    metadata: pd.DataFrame | None,
    rules: Quality,
    curves: pd.DataFrame,
    targets: Targets | None = None,
) -> Integrated:
    """The tables of this step from readings and who their names are."""
    cells, drugs = _with_rows(cells, readings, "cell_name"), _with_rows(drugs, readings, "drug_name")
    tally = Tally([])
    parts = [_one_source(source, table, cells, drugs, rules, tally) for source, table in readings.items()]
    response = pd.concat(parts, ignore_index=True)
    if response.empty:
        raise HedflowError("integrate: no row has both a known cell line and a drug structure; see the sources.")
    ids = pd.Index(np.unique(response["cell_id"].to_numpy(dtype=str)))
    used = drugs[drugs["drug_id"].isin(response["drug_id"])]
    return Integrated(
        response=checked(response, RESPONSE, "integrated response"),
        cells=checked(describe_cells(ids, metadata), CELLS, "cells"),
        drugs=checked(describe_drugs(used, targets), DRUGS, "drugs"),
        losses=tally.table(),
        cell_identity=cells,
        drug_identity=drugs,
        curves=curves,
    )


NO_CURVES = pd.DataFrame(columns=["source", "cell_name", "drug_name", "status", "used"])


def _fit(points: dict[str, Path], curves: Curves) -> dict[str, pd.DataFrame]:
    options = Options(parameters=curves.parameters, loss=curves.loss, scale=curves.loss_scale)
    return {source: fit_points(source, read_points(source, path), options) for source, path in points.items()}


def _names(tables: dict[str, pd.DataFrame], column: str) -> dict[str, pd.Index[str]]:
    return {source: pd.Index(table[column].dropna().unique()) for source, table in tables.items()}


def _with_rows(identity: pd.DataFrame, readings: dict[str, pd.DataFrame], column: str) -> pd.DataFrame:
    """The table of names with the number of rows that each has in its source's file."""
    counts = pd.concat({source: table[column].value_counts() for source, table in readings.items()})
    asked = pd.MultiIndex.from_frame(identity[["source", column]])
    return identity.assign(rows=counts.reindex(asked).to_numpy(dtype="int64"))


def _one_source(
    source: str, table: pd.DataFrame, cells: pd.DataFrame, drugs: pd.DataFrame, quality: Quality, tally: Tally
) -> pd.DataFrame:
    """Drop what cannot be used (counted), then average the replicates of each (cell, drug)."""
    cell_id = cells[cells["source"] == source].set_index("cell_name")["cell_id"]
    drug = drugs[drugs["source"] == source].set_index("drug_name")
    table = table.assign(cell_id=table["cell_name"].map(cell_id), drug_id=table["drug_name"].map(drug["drug_id"]))
    combination = table["combination"] | (table["drug_name"].map(drug["status"]) == "combination")

    def keep(table: pd.DataFrame, reason: str, good: pd.Series[bool]) -> pd.DataFrame:
        return tally.keep(table, source, "integrate", reason, good)

    table = keep(table, "no AUC", table["auc"].notna())
    table = keep(table, "AUC not between 0 and 2", table["auc"].between(0, HIGHEST_AUC))
    table = keep(table, "no cell or drug name", table["cell_name"].notna() & table["drug_name"].notna())
    table = keep(table, "combination of drugs", ~combination.loc[table.index])
    table = keep(table, "no structure for the drug", table["drug_id"].notna())
    table = keep(table, "cell line not identified", table["cell_id"].notna())
    if table.empty:
        raise HedflowError(_nothing_left(source, tally))
    # After the other reasons: a row that could not be used anyway is no repetition.
    table = keep(table, "duplicated row", ~table["repeated"])
    for reason, good in _quality_rules(table, quality):
        table = keep(table, reason, good.reindex(table.index))
    table = table.assign(clipped=(table["auc"] > 1).astype("int32"), auc=table["auc"].clip(0, 1))
    merged = (
        table.groupby(["cell_id", "drug_id"], sort=True)
        .agg(
            auc=("auc", "mean"),
            auc_sd=("auc", "std"),
            replicates=("auc", "size"),
            clipped=("clipped", "sum"),
            auc_rule=("auc_rule", "first"),
            **{name: (name, "mean") for name in CURVE},
        )
        .reset_index()
        .astype({"replicates": "int32", "clipped": "int32"})
    )
    # Averaging is no loss of measurements, but it is where rows become fewer.
    tally.rows.append((source, "integrate", "replicates averaged", len(table), len(table) - len(merged), len(merged)))
    merged.insert(0, "source", source)
    return merged[list(RESPONSE.columns)]


def _nothing_left(source: str, tally: Tally) -> str:
    """Why a source has no row with a cell line and a structure: else it would be missing without a word."""
    lost = [(n, reason, before) for name, _, reason, before, n, _ in tally.rows if name == source]
    n, reason, _ = max(lost)
    return (
        f"integrate: {source}: no row has both a known cell line and a drug structure; of {lost[0][2]} rows {n} "
        f"have the reason '{reason}' (are the columns of cells and drugs swapped, or the names of another screen?)."
    )


def _quality_rules(table: pd.DataFrame, quality: Quality) -> list[tuple[str, pd.Series[bool]]]:
    """(what is wrong, which rows are good) of each rule that is set."""
    rules = [
        (quality.min_r2, "R2 of the curve below {}", table["r2"], 1),
        (quality.max_rmse, "RMSE of the curve above {}", table["rmse"], -1),
        (quality.max_ec50_se, "standard error of the EC50 above {} decades", table["ec50_se"], -1),
        (quality.min_doses, "fewer than {} doses", table["doses"], 1),
        (quality.min_decades, "doses over fewer than {} decades", table["x_high"] - table["x_low"], 1),
    ]
    found = []
    for limit, reason, value, sign in rules:
        if limit is not None:
            good = sign * value >= sign * limit
            found.append((reason.format(f"{limit:g}"), good | (value.isna() & (quality.unknown == "keep"))))
    return found
