"""Adapter of the rule `load`."""

from hedflow.figures.load import draw_load, pools_folder, read_pools
from hedflow.script import job

with job(snakemake):
    draw_load(read_pools(pools_folder()), snakemake.output[0])
