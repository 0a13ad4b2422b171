"""Adapter of the rule `integrate`."""

from pathlib import Path

from hedflow.config import Curves, Quality
from hedflow.files import write_parquet
from hedflow.integrate import integrate
from hedflow.script import job, paths

with job(snakemake):
    made = integrate(
        {source: paths(snakemake.input[source]) for source in snakemake.params.sources},
        paths(snakemake.input.identity),
        dict(zip(snakemake.params.points, paths(snakemake.input.points), strict=True)),
        Curves(**snakemake.params.curves),
        Quality(**snakemake.params.quality),
        snakemake.params.stereo,
    )
    for name, path in snakemake.output.items():
        write_parquet(Path(path), getattr(made, name))
