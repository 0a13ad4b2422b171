"""Adapter of the checkpoint `audit`."""

from pathlib import Path

import pandas as pd

from hedflow.audit import audit_plan
from hedflow.bundle import open_bundle
from hedflow.files import write_json
from hedflow.high_error import read_drug_errors
from hedflow.script import job

with job(snakemake):
    bundle = open_bundle(Path(snakemake.input.manifest).parent)
    earlier = snakemake.input.earlier
    errors = read_drug_errors(Path(earlier[0]).parent) if earlier else None
    write_json(snakemake.output[0], audit_plan(pd.read_parquet(snakemake.input.plan), bundle, errors))
