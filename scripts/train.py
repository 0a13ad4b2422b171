"""Adapter of the rule `train`."""

from pathlib import Path

from hedflow.script import job
from hedflow.together import take_over

with job(snakemake):
    run, digest = snakemake.wildcards.run, snakemake.params.digest
    if not take_over(snakemake.input.get("together"), run, digest, snakemake.output):
        # Imported here: a missing PyTorch is then a sentence in this run's log.
        from hedflow.training import train_run

        train_run(
            bundle=Path(snakemake.input.manifest).parent,
            plan=snakemake.input.plan,
            run=run,
            predictions=snakemake.output.predictions,
            record=snakemake.output.record,
            checkpoints=Path(snakemake.params.checkpoints, run),
        )
