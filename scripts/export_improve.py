"""Adapter of the rule `export_improve`."""

from pathlib import Path

import pandas as pd

from hedflow.bundle import open_bundle
from hedflow.high_error import read_drug_errors
from hedflow.improve.write import Extras, export_experiment
from hedflow.script import job

with job(snakemake):
    bundle = open_bundle(Path(snakemake.input.manifest).parent, verify=True)
    earlier = snakemake.input.earlier
    extras = Extras(
        response=Path(snakemake.input.response),
        errors=read_drug_errors(Path(earlier[0]).parent) if earlier else None,
    )
    print(export_experiment(bundle, pd.read_parquet(snakemake.input.plan), Path(snakemake.output[0]), extras))
