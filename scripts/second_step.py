"""Adapter of the rule `second_step`."""

from pathlib import Path

import pandas as pd

from hedflow.analysis.second_step import analyse_second_step
from hedflow.config import Analysis
from hedflow.figures.second_step import draw_second_step
from hedflow.script import job

with job(snakemake):
    analyse_second_step(
        Path(snakemake.input.plan).parent,
        Path(snakemake.input.first_plan).parent,
        pd.read_parquet(Path(snakemake.input.manifest).parent / "drugs.parquet"),
        Analysis(**snakemake.params.analysis),
        Path(snakemake.output.tables[0]).parent,
    )
    draw_second_step(Path(snakemake.output.tables[0]).parent, Path(snakemake.output.figure))
