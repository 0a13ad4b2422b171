"""What the opening page says of the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hedflow.files import read_json
from hedflow.improve import CELL


def data_section(results: Path, left_out: Sequence[str]) -> list[str]:
    manifest = read_json(results / "bundle" / "manifest.json")
    losses = pd.read_parquet(results / "integration_report.parquet")
    cells = pd.read_parquet(results / "integration" / "cell_identity.parquet")
    ids = pd.read_parquet(results / "integration" / "drug_identity.parquet", columns=["drug_id"])["drug_id"]
    kept = "connectivity and stereochemistry" if ids.dropna().str.contains("-").any() else "connectivity"
    start = losses.groupby("source", sort=False)["rows_before"].max()
    sources = "; ".join(f"{s} {n:,} of {start[s]:,}" for s, n in manifest["sources"].items())
    by_name = (cells["route"] == "name").any()
    by_csa = (cells["route"] == CELL).all()
    identity = (
        "Cell lines are matched by exact name in capitals without punctuation, since the wheel-only edition has no "
        f"annotation tables; {int((cells['route'] == 'ambiguous name').sum())} names that then collapse are left out"
        if by_name
        else "Cell lines and drugs are those of a folder in the layout of IMPROVE's csa data, by its own ids"
        if by_csa
        else "Cell lines are DepMap models, found by CCLE name, COSMIC id, Cellosaurus accession or normalised name"
    )
    return [
        "The data",
        "--------",
        "",
        f"{manifest['rows']:,} rows (one a cell line, drug and source) of {manifest['cells']} cell lines and "
        f"{manifest['drugs']} drugs: {sources}. {identity}. A drug is its parent structure ({kept}). "
        f"Features: {_views(manifest['views'])}. Bundle {manifest['digest']}.",
        "",
        _clipped(results),
        "",
        *([] if by_csa else [_fitted(results), ""]),
        *(
            [f"Not to be had without a mirror, so drugs they name may be missing: {', '.join(left_out)}.", ""]
            if left_out
            else []
        ),
        "AUC is as the csa folder gives it, low = potent: in IMPROVE's data the area under the fitted curve over 4 to "
        "10 of -log10 M, divided by 6, the same for every study."
        if by_csa
        else "AUC is each provider's own on a scale of 0 to 1, low = potent; dose ranges differ between sources, so a "
        "row of one is not comparable with a row of another to the last digit.",
        "",
    ]


def _fitted(results: Path) -> str:
    """Which sources' AUC are of curves that were fitted here."""
    curves = pd.read_parquet(results / "integration" / "curves.parquet", columns=["source", "status", "used"])
    if curves.empty:
        return "No dose points were at hand: every AUC is the provider's."
    curves["converged"] = curves["status"] == "converged"
    counts = curves.astype({"used": bool}).groupby("source", sort=False)[["converged", "used"]].agg(["size", "sum"])
    said = [
        f"{source!s} {row['used', 'size']:,} ({row['converged', 'sum']:,} converged, {row['used', 'sum']:,} used)"
        for source, row in counts.iterrows()
    ]
    return (
        f"Hill curves fitted to dose points: {'; '.join(said)}. CCLE's AUC is over the fixed range 1e-10 to 1e-4 "
        "M; the others' over the tested doses, as their providers'. All other AUCs are the provider's."
    )


def _views(views: dict[str, dict[str, Any]]) -> str:
    """Each view with its number of columns, and how many cell lines have none of it."""
    said = []
    for name, view in views.items():
        imputed = view.get("cells_imputed")
        lacking = f" (training means for {imputed} cell lines without them)" if imputed else ""
        said.append(f"{name} {len(view['columns']):,}{lacking}")
    return ", ".join(said)


def _clipped(results: Path) -> str:
    response = pd.read_parquet(
        results / "integration" / "response.parquet", columns=["source", "clipped", "replicates"]
    )
    sums = response.groupby("source", sort=False)[["clipped", "replicates"]].sum()
    said = [
        f"{name} {row.clipped:,} ({row.clipped / row.replicates:.1%})" for name, row in sums.iterrows() if row.clipped
    ]
    return f"Measurements with an AUC above 1, set to 1: {', '.join(said) or 'none'}."
