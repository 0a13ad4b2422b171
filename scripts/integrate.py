"""Adapter of the rule `integrate`."""

from pathlib import Path

from hedflow.config import Curves, Quality
from hedflow.files import write_parquet
from hedflow.improve import find_layout
from hedflow.integrate import integrate, integrate_improve
from hedflow.script import job, paths

with job(snakemake):
    quality, stereo = Quality(**snakemake.params.quality), snakemake.params.stereo
    if snakemake.params.improve:
        layout = find_layout(snakemake.params.improve)
        made = integrate_improve(layout, snakemake.params.sources, quality, stereo)
    else:
        made = integrate(
            {source: paths(snakemake.input[source]) for source in snakemake.params.sources},
            paths(snakemake.input.identity),
            dict(zip(snakemake.params.points, paths(snakemake.input.points), strict=True)),
            Curves(**snakemake.params.curves),
            quality,
            stereo,
        )
    for name, path in snakemake.output.items():
        write_parquet(Path(path), getattr(made, name))
