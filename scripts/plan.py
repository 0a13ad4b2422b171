"""Adapter of the rule `plan`."""

from pathlib import Path

from hedflow.bundle import open_bundle
from hedflow.config import parse_config
from hedflow.files import write_parquet
from hedflow.plan import MADE_FROM, made_from, make_plan, plan_files, summary
from hedflow.script import job
from hedflow.splits import empty_ranges

with job(snakemake):
    bundle = open_bundle(Path(snakemake.input.manifest).parent, verify=True)
    config, experiment = parse_config(snakemake.config), snakemake.wildcards.experiment
    earlier = Path(snakemake.input.earlier[0]).parent if snakemake.input.earlier else None
    plan = make_plan(config, experiment, bundle, earlier)
    plan.attrs[MADE_FROM] = made_from(
        [snakemake.params.settings, snakemake.params.code], bundle, plan_files(config, experiment, earlier)
    )
    write_parquet(snakemake.output[0], plan)
    print(summary(plan, empty_ranges(config.experiments[experiment].split, bundle)))
