"""Adapter of the rule `harmony`."""

import pandas as pd

from hedflow.figures.harmony import draw_agreement
from hedflow.files import write_parquet
from hedflow.harmony import agreement, noise, second_errors, shared_pairs
from hedflow.script import job

with job(snakemake):
    response = pd.read_parquet(snakemake.input.response)
    shared = shared_pairs(response)
    agreed = agreement(shared)
    write_parquet(snakemake.output.agreement, agreed)
    curves = pd.read_parquet(snakemake.input.curves)
    write_parquet(snakemake.output.noise, noise(response, shared, agreed, curves))
    write_parquet(snakemake.output.second, second_errors(response, shared, curves))
    draw_agreement(agreed, snakemake.output.figure)
