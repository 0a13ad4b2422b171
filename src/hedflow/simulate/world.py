"""`simulate_world`: the folder of files and the truth behind it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hedflow.simulate import keys, screens
from hedflow.simulate.catalogue import SOURCES, make_cells, make_drugs
from hedflow.simulate.output import write_registry
from hedflow.simulate.truth import cell_factors, make_expression, make_truth, stream

CELL_COLUMNS = ["model_id", "name", *SOURCES, "tissue", "has_expression"]
DRUG_COLUMNS = ["name", "class", "smiles", *SOURCES]


@dataclass(frozen=True)
class World:
    """What is true of a simulated world.

    Attributes:
        folder: where its files are; `datasets.csv` there is their registry.
        cells: model_id, name (DepMap's), one column a source (its spelling, None where not screened; CCLE's
            with the tissue), tissue (OncoTree lineage), has_expression.
        drugs: name, class, smiles (stereo, no salt), one column a source (its spelling or None).
        truth: model_id, drug (name), einf, ec50 (-log10 M), hs, auc (mean viability over 4..10 -log10 M;
            0..1, low = potent). Every (cell, drug), also the many that no source has screened.
        doses: source, lowest_um, highest_um: the range (uM) over which each source's own AUC is taken.
        registry: the rows of `datasets.csv`.
        noise: sd of the error in every source's AUC (scale 0..1).
    """

    folder: Path
    seed: int
    noise: float
    cells: pd.DataFrame
    drugs: pd.DataFrame
    truth: pd.DataFrame
    doses: pd.DataFrame
    registry: pd.DataFrame


def simulate_world(out: Path, seed: int = 0, n_cells: int = 60, n_drugs: int = 24, noise: float = 0.03) -> World:
    """Write a world laid out like the mirror of the five sources; the same arguments give the same bytes.

    Args:
        out: folder to write into; made if need be, other files in it are left alone.
        seed: of everything random.
        n_cells: cell lines, at least 12.
        n_drugs: drugs with a structure, 6 to 32. A mixture (CTRPv2) and a blinded drug (GDSC) come on top.
        noise: sd of the error in every source's AUC (scale 0..1).

    Raises:
        HedflowError: too few or too many cell lines or drugs.
    """
    out = Path(out)
    cells = make_cells(n_cells, stream(seed, "cells"))
    drugs = make_drugs(n_drugs)
    factors = cell_factors(cells["tissue"], stream(seed, "factors"))
    truth = make_truth(cells, drugs, factors, stream(seed, "truth"))
    expression = make_expression(cells, factors, stream(seed, "expression"))

    datasets = _write_screens(out, cells, drugs, truth, noise, seed)
    datasets |= dict.fromkeys(keys.write_depmap(out, cells, expression, stream(seed, "mutation")), "DepMap")
    datasets |= dict.fromkeys(keys.write_cell_keys(out, cells), "annotation")
    datasets |= dict.fromkeys([*keys.write_structures(out, drugs), screens.CTRP_COMPOUNDS], "structures")
    return World(
        folder=out,
        seed=seed,
        noise=noise,
        cells=cells[CELL_COLUMNS],
        drugs=drugs[DRUG_COLUMNS],
        truth=truth,
        doses=pd.DataFrame(
            [(source, *screens.DOSE_RANGE[source]) for source in SOURCES],
            columns=["source", "lowest_um", "highest_um"],
        ),
        registry=write_registry(out, datasets, seed),
    )


def _write_screens(
    out: Path, cells: pd.DataFrame, drugs: pd.DataFrame, truth: pd.DataFrame, noise: float, seed: int
) -> dict[str, str]:
    """Write the response files; path in `out` -> dataset."""
    datasets: dict[str, str] = {}
    for source in SOURCES:
        rng = stream(seed, source)
        pairs = screens.screened_pairs(source, cells, drugs, truth, rng)
        if source == "CCLE":
            files = screens.write_ccle(out, pairs, noise, rng)
        elif source == "CTRPv2":
            files = screens.write_ctrp(out, pairs, cells, drugs, noise, rng)
        elif source == "gCSI":
            files = screens.write_gcsi(out, pairs, noise, rng)
        else:
            files = screens.write_gdsc(source, out, pairs, noise, rng)
        datasets |= dict.fromkeys(files, source)
    return datasets
