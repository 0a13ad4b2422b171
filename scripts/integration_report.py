"""Adapter of the rule `integration_report`."""

import pandas as pd

from hedflow.figures.integration import draw_lost_rows
from hedflow.files import write_parquet
from hedflow.script import job

with job(snakemake):
    table = pd.concat([pd.read_parquet(path) for path in snakemake.input], ignore_index=True)
    write_parquet(snakemake.output.table, table)
    draw_lost_rows(table, snakemake.output.figure)
