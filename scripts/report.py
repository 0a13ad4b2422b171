"""Adapter of the rule `report`."""

from pathlib import Path

from hedflow.report import pack_report
from hedflow.script import job

with job(snakemake):
    pack_report(
        snakemake.config,
        snakemake.output[0],
        target="everything_reported",
        stylesheet=Path(snakemake.scriptdir).parent / "workflow" / "report" / "style.css",
    )
