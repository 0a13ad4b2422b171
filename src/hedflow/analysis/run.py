"""One experiment's analysis from files to files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hedflow.analysis import tables
from hedflow.analysis.candidates import candidates_tables
from hedflow.analysis.collect import parts_of_rows, pool
from hedflow.analysis.conformal import conformal_table
from hedflow.analysis.convergence import convergence_table
from hedflow.analysis.experiment import Experiment, legal_baselines
from hedflow.analysis.floors import floors_table
from hedflow.analysis.naive import baseline_frames
from hedflow.analysis.paired import contrasts_table, ranks_table
from hedflow.analysis.pairs import measured_again, pairs_tables
from hedflow.analysis.parts import describe_parts
from hedflow.analysis.slices import distance_table, distance_trend_table, slices_table
from hedflow.bundle import Bundle, open_bundle
from hedflow.config import Analysis
from hedflow.files import write_parquet, write_text
from hedflow.plan import parts_of

# What the plan says of a run.
PLANNED = ("run", "method", "split", "model", "loss_name", "alpha")


@dataclass(frozen=True)
class Measurements:
    """Tables of the integrated data: response (`schemas.RESPONSE`), noise and second (see `hedflow.harmony`)."""

    response: pd.DataFrame
    noise: pd.DataFrame
    second: pd.DataFrame


def analyse(
    bundle: str | Path,
    plan: str | Path,
    predictions: Sequence[str | Path],
    records: Sequence[str | Path],
    baselines: str | Path,
    measurements: Measurements,
    settings: Analysis,
    out: str | Path,
) -> None:
    """Write an experiment's tables to the folder `out`: the modules of `hedflow.analysis` say what their columns are.

    Args:
        predictions, records: the chunks that `analysis.collect` made.
        baselines: predictions of the naive baselines on the same splits.
    """
    opened, planned, out = open_bundle(bundle), pd.read_parquet(plan), Path(out)
    predicted = pd.concat([pd.read_parquet(path) for path in predictions])
    kind = str(planned["split_kind"].iloc[0])
    names = legal_baselines(kind, opened.cells["tissue"])
    reference = planned.loc[planned["reference"], "method"]
    experiment = Experiment(
        methods=pool(planned, predicted, opened),
        naive=baseline_frames(pd.read_parquet(baselines), names, opened),
        reference=str(reference.iloc[0] if len(reference) else planned["method"].iloc[0]),
        split_kind=kind,
        settings=settings,
        part=parts_of_rows(planned, predicted),
    )
    runs = pd.concat([pd.read_parquet(path) for path in records], ignore_index=True)
    made = make_tables(experiment, opened, planned, runs, measurements)
    for name, table in made.items():
        write_parquet(out / f"{name}.parquet", table)
    write_text(out / "high_error_drugs.csv", made["high_error_drugs"].to_csv(index=False, float_format="%.5g"))


def make_tables(
    experiment: Experiment, bundle: Bundle, plan: pd.DataFrame, runs: pd.DataFrame, measurements: Measurements
) -> dict[str, pd.DataFrame]:
    """All `TABLES` of an experiment.

    Args:
        runs: the records that `analysis.collect` made of the runs of the `plan`.
    """
    named = [(str(part), *rest) for part, rest in zip(plan["split"].unique(), parts_of(plan), strict=True)]
    nearest, levels = describe_parts(named, bundle)
    runs = runs.merge(plan[list(PLANNED)], on="run", validate="one_to_one")
    drugs = tables.drugs_table(experiment, bundle.drugs, nearest)
    similarity = nearest.set_index("drug")["similarity"]
    high = tables.high_error_table(experiment, drugs)
    again = measured_again(bundle, measurements.response)
    pairs, concentration = pairs_tables(experiment, drugs, high, again, bundle.cells)
    ranking, ranking_differences, lines = tables.ranking_tables(experiment, bundle.cells)
    shift_curve, equal_cost = tables.shift_tables(experiment)
    candidates, shown_lines = candidates_tables(experiment, lines, bundle)
    conformal, why_not = conformal_table(experiment)
    return {
        "runs": runs,
        "convergence": convergence_table(runs, plan, levels),
        "methods": tables.methods_table(experiment),
        "floors": floors_table(experiment, measurements.noise, measurements.second),
        "contrasts": contrasts_table(experiment),
        "ranks": ranks_table(experiment),
        "ranges": tables.ranges_table(experiment),
        "slices": slices_table(experiment, drugs, bundle.cells["tissue"]),
        "distance": distance_table(experiment, similarity),
        "distance_trend": distance_trend_table(experiment, similarity),
        "drugs": drugs,
        "cells": tables.cells_table(experiment, bundle.cells),
        "high_error_drugs": high,
        "pairs": pairs,
        "concentration": concentration,
        "ranking": ranking,
        "cell_ranking": lines,
        "ranking_differences": ranking_differences,
        "candidates": candidates,
        "shown_lines": shown_lines,
        "shift_curve": shift_curve,
        "equal_cost": equal_cost,
        "conformal": conformal,
        "scores": tables.scores_table(experiment),
        "comparison": _comparison(experiment, why_not),
    }


def _comparison(experiment: Experiment, why_not: str) -> pd.DataFrame:
    """What is compared with what, and why there is no table `conformal` (empty: there is one)."""
    found = {
        "reference": experiment.reference,
        "strongest": experiment.strongest,
        "strongest_squared": experiment.strongest_squared,
        "split_kind": experiment.split_kind,
        "top_k": experiment.settings.top_k,
        "conformal": why_not,
    }
    return pd.DataFrame([found])
