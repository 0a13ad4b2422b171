"""Adapter of the rule `export_improve`."""

from pathlib import Path

import pandas as pd

from hedflow.bundle import open_bundle
from hedflow.improve.write import export_experiment
from hedflow.script import job

with job(snakemake):
    bundle = open_bundle(Path(snakemake.input.manifest).parent, verify=True)
    print(export_experiment(bundle, pd.read_parquet(snakemake.input.plan), Path(snakemake.output[0])))
