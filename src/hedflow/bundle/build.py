"""Makes a bundle (see `hedflow.bundle`) from the integrated tables, expression and structures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hedflow import HedflowError
from hedflow.bundle import FILES, FORMAT, IMPROVE_SPLITS_FILE
from hedflow.config import Features
from hedflow.features import descriptors, fingerprints, read_expression, usable_columns
from hedflow.files import digest, sha256, write_json, write_npy, write_parquet
from hedflow.improve import Layout
from hedflow.improve.splits import parts_of_rows
from hedflow.tally import Tally


def build_bundle(
    response: pd.DataFrame,
    cells: pd.DataFrame,
    drugs: pd.DataFrame,
    expression_files: Sequence[Path],
    features: Features,
    out: Path,
    improve: Layout | None = None,
) -> pd.DataFrame:
    """Write a bundle to `out` from the integrated tables; returns the rows lost (`schemas.LOSSES`).

    With the csa folder `improve` that the tables come from, its splits are part of the bundle.
    """
    # An id without a row would become the index -1, which is the last cell or drug.
    for name, known in (("cell_id", cells), ("drug_id", drugs)):
        unknown = response[name][~response[name].isin(known[name])]
        if len(unknown):
            raise HedflowError(
                f"bundle: {name} {unknown.iloc[0]} has responses, but no row in the table of {name[:4]}s."
            )
    expression = read_expression(list(expression_files))
    tally = Tally([])
    parts = []
    for source in response["source"].unique():
        rows = response[response["source"] == source]
        has = rows["cell_id"].isin(expression.index)
        parts.append(tally.keep(rows, source, "bundle", "no expression for the cell line", has))
    kept = pd.concat(parts) if parts else response
    if kept.empty:
        raise HedflowError("bundle: no measured cell line has expression; the two tables' cell ids do not meet.")
    cells = cells[cells["cell_id"].isin(kept["cell_id"])].sort_values("cell_id", ignore_index=True)
    drugs = drugs[drugs["drug_id"].isin(kept["drug_id"])].sort_values("drug_id", ignore_index=True)

    expression = expression.loc[cells["cell_id"]]
    genes = usable_columns(expression, features.max_missing)
    described = descriptors(drugs["smiles"])
    kinds = usable_columns(described, features.max_missing)
    prints = fingerprints(drugs["smiles"], features.fingerprint_radius, features.fingerprint_bits)

    table = _indexed(kept, cells, drugs)
    # Until every file is new there is no manifest: a bundle half overwritten is no bundle.
    (out / "manifest.json").unlink(missing_ok=True)
    write_parquet(out / "response.parquet", table)
    write_npy(out / "cells.npy", expression[genes].to_numpy())
    write_npy(out / "drugs.npy", described[kinds].to_numpy())
    write_npy(out / "fingerprints.npy", prints)
    write_parquet(out / "cells.parquet", cells)
    write_parquet(out / "drugs.parquet", drugs)
    files = {name: sha256(out / name) for name in FILES}
    splits = {}
    if improve is not None:
        part_of_row, counts = parts_of_rows(improve, table, cells, drugs)
        write_parquet(out / IMPROVE_SPLITS_FILE, part_of_row)
        files[IMPROVE_SPLITS_FILE] = sha256(out / IMPROVE_SPLITS_FILE)
        splits = {"improve_splits": counts}
    write_json(
        out / "manifest.json",
        {
            "format": FORMAT,
            "digest": digest(FORMAT, files, list(genes), list(kinds))[:16],
            "rows": len(kept),
            "cells": len(cells),
            "drugs": len(drugs),
            "sources": {str(k): int(v) for k, v in kept["source"].value_counts(sort=False).items()},
            "genes": list(genes),
            "descriptors": list(kinds),
            "left_out": {
                "genes": int(expression.shape[1] - len(genes)),
                "descriptors": sorted(set(described.columns) - set(kinds)),
            },
            **splits,
            "files": files,
        },
    )
    return tally.table()


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
