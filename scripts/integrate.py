"""Adapter of the rule `integrate`."""

from pathlib import Path

from hedflow.files import write_parquet
from hedflow.integrate import integrate
from hedflow.script import job, paths

with job(snakemake):
    made = integrate(
        {source: paths(snakemake.input[source]) for source in snakemake.params.sources},
        paths(snakemake.input.identity),
        snakemake.params.stereo,
    )
    for name, path in snakemake.output.items():
        write_parquet(Path(path), getattr(made, name))
