"""Train: one job a run. It reads the bundle and its own row of the plan, and writes two files."""


rule train:
    input:
        manifest=rules.build_bundle.output.manifest,
        # A new plan with the same row is no reason to train again; a changed row is, through params.
        plan=ancient(f"{RESULTS}/{{experiment}}/plan.parquet"),
        audit=ancient(f"{RESULTS}/{{experiment}}/audit.json"),
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
    params:
        digest=lambda wildcards: plan_row(wildcards).digest,
    message:
        "Train {wildcards.run} of '{wildcards.experiment}'"
    script:
        "../scripts/train.py"
