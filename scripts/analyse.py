"""Adapter of the rule `analyse`."""

from pathlib import Path

from hedflow.analysis.run import analyse
from hedflow.config import Analysis
from hedflow.script import job

with job(snakemake):
    analyse(
        bundle=Path(snakemake.input.manifest).parent,
        plan=snakemake.input.plan,
        predictions=snakemake.input.predictions,
        records=snakemake.input.records,
        baselines=snakemake.input.baselines,
        settings=Analysis(**snakemake.params.analysis),
        out=Path(snakemake.output[0]).parent,
    )
