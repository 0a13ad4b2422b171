"""Adapter of the checkpoint `audit`."""

from pathlib import Path

import pandas as pd

from hedflow.audit import audit_plan
from hedflow.bundle import open_bundle
from hedflow.files import write_json
from hedflow.script import job

with job(snakemake):
    bundle = open_bundle(Path(snakemake.input.manifest).parent)
    write_json(snakemake.output[0], audit_plan(pd.read_parquet(snakemake.input.plan), bundle))
