"""Adapter of the rule `train`."""

from pathlib import Path

from hedflow.script import job

with job(snakemake):
    # Imported here: a missing PyTorch is then a sentence in this run's log.
    from hedflow.training import train_run

    train_run(
        bundle=Path(snakemake.input.manifest).parent,
        plan=snakemake.input.plan,
        run=snakemake.wildcards.run,
        predictions=snakemake.output.predictions,
        record=snakemake.output.record,
    )
