"""Adapter of the rule `build_bundle`."""

from pathlib import Path

import pandas as pd

from hedflow.bundle.build import build_bundle
from hedflow.config import Features
from hedflow.files import write_parquet
from hedflow.improve import find_layout
from hedflow.script import job, paths

with job(snakemake):
    tables = [pd.read_parquet(snakemake.input[name]) for name in ("response", "cells", "drugs")]
    losses = build_bundle(
        *tables,
        feature_files=paths(snakemake.input.identity),
        features=Features(**snakemake.params.features),
        out=Path(snakemake.output.manifest).parent,
        improve=find_layout(snakemake.params.improve) if snakemake.params.improve else None,
    )
    write_parquet(snakemake.output.losses, losses)
