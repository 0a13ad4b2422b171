"""Adapter of the rule `analyse`."""

from pathlib import Path

import pandas as pd

from hedflow.analysis.run import Measurements, analyse
from hedflow.config import Analysis
from hedflow.script import job

with job(snakemake):
    analyse(
        bundle=Path(snakemake.input.manifest).parent,
        plan=snakemake.input.plan,
        predictions=snakemake.input.predictions,
        records=snakemake.input.records,
        baselines=snakemake.input.baselines,
        measurements=Measurements(
            **{name: pd.read_parquet(snakemake.input[name]) for name in ("response", "noise", "second")}
        ),
        settings=Analysis(**snakemake.params.analysis),
        out=Path(snakemake.output[0]).parent,
    )
