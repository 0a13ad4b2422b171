"""Adapter of the rule `collect`."""

from pathlib import Path

import pandas as pd

from hedflow.analysis.collect import collect_runs
from hedflow.files import write_parquet
from hedflow.script import job

with job(snakemake):
    predictions, records = collect_runs(
        pd.read_parquet(snakemake.input.plan),
        snakemake.params.runs,
        Path(snakemake.input.plan).parent / "runs",
    )
    write_parquet(snakemake.output.predictions, predictions)
    write_parquet(snakemake.output.records, records)
