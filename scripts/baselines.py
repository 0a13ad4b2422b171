"""Adapter of the rule `baselines`."""

from pathlib import Path

import pandas as pd

from hedflow.analysis.naive import predict_baselines
from hedflow.bundle import open_bundle
from hedflow.files import write_parquet
from hedflow.plan import parts_of
from hedflow.script import job

with job(snakemake):
    parts = parts_of(pd.read_parquet(snakemake.input.plan))
    bundle = open_bundle(Path(snakemake.input.manifest).parent)
    write_parquet(snakemake.output[0], predict_baselines(parts, bundle, snakemake.params.neighbours))
