"""Adapter of the rule `integrate`."""

from pathlib import Path

from hedflow.files import write_parquet
from hedflow.improve import find_layout
from hedflow.integrate import integrate, integrate_improve
from hedflow.script import job, paths

with job(snakemake):
    if snakemake.params.improve:
        made = integrate_improve(find_layout(snakemake.params.improve), snakemake.params.sources)
    else:
        made = integrate(
            {source: paths(snakemake.input[source]) for source in snakemake.params.sources},
            paths(snakemake.input.identity),
        )
    for name, path in snakemake.output.items():
        write_parquet(Path(path), getattr(made, name))
