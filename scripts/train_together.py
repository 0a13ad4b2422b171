"""Adapter of the rule `train_together`."""

from pathlib import Path

from hedflow.script import job, staged
from hedflow.together import unfinished

with job(snakemake):
    # Imported here: a missing PyTorch is then a sentence in this job's log.
    from hedflow.training import train_runs

    folder = Path(snakemake.output[0])
    folder.mkdir(parents=True, exist_ok=True)
    runs = unfinished(snakemake.params.digests, Path(snakemake.params.runs))
    if runs:
        train_runs(
            bundle=staged(Path(snakemake.input.manifest).parent),
            plan=snakemake.input.plan,
            files={run: (folder / run / "predictions.parquet", folder / run / "run.json") for run in runs},
            checkpoints={run: Path(snakemake.params.checkpoints, run) for run in runs},
        )
