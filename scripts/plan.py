"""Adapter of the rule `plan`."""

from pathlib import Path

from hedflow.bundle import open_bundle
from hedflow.config import parse_config
from hedflow.files import write_parquet
from hedflow.plan import make_plan, summary
from hedflow.script import job

with job(snakemake):
    bundle = open_bundle(Path(snakemake.input.manifest).parent, verify=True)
    plan = make_plan(parse_config(snakemake.config), snakemake.wildcards.experiment, bundle)
    write_parquet(snakemake.output[0], plan)
    print(summary(plan))
