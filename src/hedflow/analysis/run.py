"""One experiment's analysis from files to files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hedflow.analysis import candidates, tables
from hedflow.analysis.collect import pool
from hedflow.analysis.naive import baseline_frames, nearest_training_drug
from hedflow.bundle import Bundle, open_bundle
from hedflow.config import Analysis
from hedflow.files import write_parquet, write_text
from hedflow.plan import parts_of

# What the plan says of a run.
PLANNED = ("run", "method", "split", "model", "loss_name", "alpha")


def analyse(
    bundle: str | Path,
    plan: str | Path,
    predictions: Sequence[str | Path],
    records: Sequence[str | Path],
    baselines: str | Path,
    settings: Analysis,
    out: str | Path,
) -> None:
    """Write an experiment's tables to the folder `out`: see `hedflow.analysis.tables` for their columns.

    Args:
        predictions, records: the chunks that `analysis.collect` made.
        baselines: predictions of the naive baselines on the same splits.
    """
    opened, planned, out = open_bundle(bundle), pd.read_parquet(plan), Path(out)
    pooled = pool(planned, pd.concat([pd.read_parquet(path) for path in predictions]), opened)
    kind = str(planned["split_kind"].iloc[0])
    names = tables.legal_baselines(kind, opened.cells["tissue"])
    reference = planned.loc[planned["reference"], "method"]
    experiment = tables.Experiment(
        methods=pooled,
        naive=baseline_frames(pd.read_parquet(baselines), names, opened),
        reference=str(reference.iloc[0] if len(reference) else planned["method"].iloc[0]),
        split_kind=kind,
        settings=settings,
    )
    drugs = tables.drugs_table(experiment, opened.drugs, nearest_training_drug(parts_of(planned), opened))
    high = tables.high_error_table(experiment, drugs)
    ranking, ranking_differences = tables.ranking_tables(experiment)
    lines = tables.cell_ranking_table(experiment, opened.cells)
    shift_curve, equal_cost = tables.shift_tables(experiment)
    runs = pd.concat([pd.read_parquet(path) for path in records], ignore_index=True)
    comparison = {
        "reference": experiment.reference,
        "strongest": experiment.strongest,
        "strongest_squared": experiment.strongest_squared,
        "split_kind": kind,
        "top_k": settings.top_k,
    }
    made = {
        "runs": runs.merge(planned[list(PLANNED)], on="run", validate="one_to_one"),
        "methods": tables.methods_table(experiment),
        "contrasts": tables.contrasts_table(experiment),
        "ranges": tables.ranges_table(experiment),
        "drugs": drugs,
        "cells": tables.cells_table(experiment, opened.cells),
        "high_error_drugs": high,
        "ranking": ranking,
        "cell_ranking": lines,
        "ranking_differences": ranking_differences,
        "shift_curve": shift_curve,
        "equal_cost": equal_cost,
        "scores": tables.scores_table(experiment),
        "comparison": pd.DataFrame([comparison]),
        **candidate_tables(experiment, opened, lines),
    }
    for name, table in made.items():
        write_parquet(out / f"{name}.parquet", table)
    write_text(out / "high_error_drugs.csv", high.to_csv(index=False, float_format="%.5g"))


def candidate_tables(experiment: tables.Experiment, bundle: Bundle, lines: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The tables of cell lines' candidates: of the methods, and of the naive baseline that orders drugs best.

    Args:
        lines: the table `cell_ranking`.
    """
    settings, naive = experiment.settings, candidates.ordering_baseline(experiment.naive)
    names = [*experiment.methods, *([naive] if naive else [])]
    ranked, frames = ({name: every[name] for name in names} for every in (experiment.ranked, experiment.frames))
    chosen = candidates.shown_lines(lines, experiment.reference, settings.show_cells)
    given = (bundle.cells, bundle.drugs, settings.top_k)
    return {
        "candidates": candidates.candidates_table(ranked, frames, *given),
        "shown_lines": candidates.shown_lines_table(ranked, frames, chosen, lines, *given),
    }
