"""Adapter of the rule `figures`."""

from pathlib import Path

from hedflow.figures.experiment import draw_all
from hedflow.script import job

with job(snakemake):
    draw_all(Path(snakemake.input.tables[0]).parent, Path(snakemake.output[0]).parent)
