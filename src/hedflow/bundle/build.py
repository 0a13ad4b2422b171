"""Makes a bundle (see `hedflow.bundle`) from the integrated tables, the files of cell views, and structures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hedflow import HedflowError
from hedflow.bundle import FORMAT, IMPROVE_SPLITS_FILE, bundle_files
from hedflow.config import Features
from hedflow.features import ALWAYS, VIEWS, compute_drugs, in_order, read_cells, usable_columns
from hedflow.files import digest, sha256, write_json, write_npy, write_parquet
from hedflow.improve import Layout
from hedflow.improve.splits import parts_of_rows
from hedflow.tally import Tally


def build_bundle(
    response: pd.DataFrame,
    cells: pd.DataFrame,
    drugs: pd.DataFrame,
    feature_files: Sequence[Path],
    features: Features,
    out: Path,
    improve: Layout | None = None,
) -> pd.DataFrame:
    """Write a bundle to `out` from the integrated tables; returns the rows lost (`schemas.LOSSES`).

    Args:
        feature_files: the files that cell views are read from, expression and mutations for one.
        improve: the csa folder that the tables come from; its splits are then part of the bundle.
    """
    # An id without a row would become the index -1, which is the last cell or drug.
    for name, known in (("cell_id", cells), ("drug_id", drugs)):
        unknown = response[name][~response[name].isin(known[name])]
        if len(unknown):
            raise HedflowError(
                f"bundle: {name} {unknown.iloc[0]} has responses, but no row in the table of {name[:4]}s."
            )
    views = in_order(features.views)
    tables = {name: read_cells(name, feature_files) for name in views if VIEWS[name].axis == "cell"}
    kept, losses = _with_views(response, {name: table.index for name, table in tables.items()}, features)
    cells = cells[cells["cell_id"].isin(kept["cell_id"])].sort_values("cell_id", ignore_index=True)
    drugs = drugs[drugs["drug_id"].isin(kept["drug_id"])].sort_values("drug_id", ignore_index=True)

    indexed = _indexed(kept, cells, drugs)
    arrays, described = {}, {}
    for name in views:
        if name in tables:
            table = tables[name].reindex(cells["cell_id"])
            has = tables[name].index.isin(cells["cell_id"])
            # Cells without the view say nothing about its columns.
            usable = usable_columns(tables[name][has], features.max_missing)
            lacking = np.flatnonzero(~cells["cell_id"].isin(tables[name].index))
            missing = {"cells_imputed": len(lacking), "rows_imputed": int(indexed["cell"].isin(lacking).sum())}
        else:
            table, missing = compute_drugs(name, drugs["smiles"], features), {}
            # A bit that no drug has takes no room in a fingerprint: all of them are kept.
            usable = table.columns if name == ALWAYS else usable_columns(table, features.max_missing)
        if usable.empty:
            raise HedflowError(f"bundle: no column of the view '{name}' is usable; see features.max_missing.")
        arrays[name] = table[usable].to_numpy()
        described[name] = {
            "axis": VIEWS[name].axis,
            "file": f"{name}.npy",
            "columns": [str(column) for column in usable],
            "left_out": sorted(str(column) for column in set(table.columns) - set(usable)),
            **missing,
        }
    sources = {str(name): int(count) for name, count in kept["source"].value_counts(sort=False).items()}
    splits = parts_of_rows(improve, indexed, cells, drugs) if improve else None
    _write(out, indexed, cells, drugs, arrays, described, sources, splits)
    return losses


def _with_views(
    response: pd.DataFrame, index: dict[str, pd.Index[str]], features: Features
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows whose cell line has the views it must have, and the table of those lost.

    With `features.missing_cells` = drop a line must have every view; with `impute` it may lack some, not all.
    """
    tally, parts = Tally([]), []
    for source in response["source"].unique():
        rows = response[response["source"] == source]
        if features.missing_cells == "impute" and len(index) > 1:
            has = pd.concat([rows["cell_id"].isin(ids) for ids in index.values()], axis=1).any(axis=1)
            what = " nor ".join(VIEWS[name].of for name in index)
            rows = tally.keep(rows, source, "bundle", f"neither {what} for the cell line", has)
        else:
            for name, ids in index.items():
                reason = f"no {VIEWS[name].of} for the cell line"
                rows = tally.keep(rows, source, "bundle", reason, rows["cell_id"].isin(ids))
        parts.append(rows)
    kept = pd.concat(parts) if parts else response
    if kept.empty:
        what = " and ".join(VIEWS[name].of for name in index)
        raise HedflowError(f"bundle: no measured cell line has {what}; the tables' cell ids do not meet.")
    return kept, tally.table()


def _write(
    out: Path,
    response: pd.DataFrame,
    cells: pd.DataFrame,
    drugs: pd.DataFrame,
    arrays: dict[str, np.ndarray],
    views: dict[str, dict[str, Any]],
    sources: dict[str, int],
    splits: tuple[pd.DataFrame, dict[str, dict[str, int]]] | None,
) -> None:
    """Write the bundle's files, its manifest last."""
    # Until every file is new there is no manifest: a bundle half overwritten is no bundle.
    (out / "manifest.json").unlink(missing_ok=True)
    write_parquet(out / "response.parquet", response)
    write_parquet(out / "cells.parquet", cells)
    write_parquet(out / "drugs.parquet", drugs)
    for name, array in arrays.items():
        write_npy(out / f"{name}.npy", array)
    names, counted = list(bundle_files(views)), {}
    if splits is not None:
        part_of_row, counts = splits
        write_parquet(out / IMPROVE_SPLITS_FILE, part_of_row)
        names.append(IMPROVE_SPLITS_FILE)
        counted = {"improve_splits": counts}
    files = {name: sha256(out / name) for name in names}
    write_json(
        out / "manifest.json",
        {
            "format": FORMAT,
            "digest": digest(FORMAT, files, {name: view["columns"] for name, view in views.items()})[:16],
            "rows": len(response),
            "cells": len(cells),
            "drugs": len(drugs),
            "sources": sources,
            "views": views,
            **counted,
            "files": files,
        },
    )


def _indexed(rows: pd.DataFrame, cells: pd.DataFrame, drugs: pd.DataFrame) -> pd.DataFrame:
    """Ids -> positions; rows in the order source, drug, cell, whatever order they came in."""
    table = pd.DataFrame(
        {
            "cell": pd.Index(cells["cell_id"]).get_indexer(rows["cell_id"]).astype(np.int32),
            "drug": pd.Index(drugs["drug_id"]).get_indexer(rows["drug_id"]).astype(np.int32),
            "auc": rows["auc"].to_numpy(np.float32),
            "source": rows["source"].to_numpy(),
        }
    )
    return table.sort_values(["source", "drug", "cell"], ignore_index=True)
