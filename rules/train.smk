"""Train: one job a run. It reads the bundle and its own row of the plan, and writes two files.

With `training.runs_per_job` above 1 a job before it trains several runs at once, and a run's own job takes its files.
"""


rule train_together:
    input:
        manifest=rules.build_bundle.output.manifest,
        plan=ancient(f"{RESULTS}/{{experiment}}/plan.parquet"),
        audit=ancient(f"{RESULTS}/{{experiment}}/audit.json"),
    output:
        temp(directory(f"{RESULTS}/{{experiment}}/together/{{group}}")),
    log:
        f"{RESULTS}/logs/{{experiment}}/together/{{group}}.log",
    conda:
        CONDA
    threads: lambda wildcards: int(plan_of(wildcards).loc[group_runs(wildcards)[0]].threads)
    resources:
        mem_mb=group_memory,
        # What it reads again and again: worksteal puts a copy on each node's own disk, if asked to.
        stage=f"{RESULTS}/bundle",
        # Where it saves its state: worksteal lets it go on from there after SIGTERM.
        resume=lambda wildcards: f"{RESULTS}/{wildcards.experiment}/checkpoints/{group_runs(wildcards)[0]}",
    params:
        digests=lambda wildcards: {run: plan_of(wildcards).loc[run].digest for run in group_runs(wildcards)},
        runs=f"{RESULTS}/{{experiment}}/runs",
        checkpoints=f"{RESULTS}/{{experiment}}/checkpoints",
    message:
        "Train runs of '{wildcards.experiment}' together (group {wildcards.group})"
    script:
        "../scripts/train_together.py"


rule train:
    input:
        manifest=rules.build_bundle.output.manifest,
        # A new plan with the same row is no reason to train again; a changed row is, through params.
        plan=ancient(f"{RESULTS}/{{experiment}}/plan.parquet"),
        audit=ancient(f"{RESULTS}/{{experiment}}/audit.json"),
        together=group_folder,
    output:
        predictions=f"{RESULTS}/{{experiment}}/runs/{{run}}/predictions.parquet",
        record=f"{RESULTS}/{{experiment}}/runs/{{run}}/run.json",
    log:
        f"{RESULTS}/logs/{{experiment}}/runs/{{run}}.log",
    conda:
        CONDA
    threads: lambda wildcards: int(plan_row(wildcards).threads)
    resources:
        mem_mb=training_memory,
        stage=f"{RESULTS}/bundle",
        resume=lambda wildcards: f"{RESULTS}/{wildcards.experiment}/checkpoints/{wildcards.run}",
    params:
        digest=lambda wildcards: plan_row(wildcards).digest,
        checkpoints=f"{RESULTS}/{{experiment}}/checkpoints",
    message:
        "Train {wildcards.run} of '{wildcards.experiment}'"
    script:
        "../scripts/train.py"
