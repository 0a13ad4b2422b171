"""Second step: what became of the high error drugs that an earlier experiment found, against control and first step."""

from hedflow.analysis import SECOND_STEP_TABLES


rule second_step:
    input:
        manifest=rules.build_bundle.output.manifest,
        plan=f"{RESULTS}/{{experiment}}/plan.parquet",
        tables=expand(f"{RESULTS}/{{experiment}}/tables/{{name}}.parquet", name=STEP_TABLES, allow_missing=True),
        baselines=rules.baselines.output[0],
        first_plan=lambda wildcards: f"{RESULTS}/{earlier_of(wildcards)}/plan.parquet",
        first_tables=lambda wildcards: expand(
            f"{RESULTS}/{earlier_of(wildcards)}/tables/{{name}}.parquet", name=[*STEP_TABLES, "drugs"]
        ),
        first_baselines=lambda wildcards: f"{RESULTS}/{earlier_of(wildcards)}/baselines.parquet",
    output:
        tables=expand(f"{RESULTS}/{{experiment}}/tables/{{name}}.parquet", name=SECOND_STEP_TABLES, allow_missing=True),
        figure=report(
            f"{RESULTS}/{{experiment}}/figures/second_step.png",
            caption="../workflow/report/second_step.rst",
            category="{experiment}",
            labels={"figure": "0. High error drugs before and after"},
        ),
    log:
        f"{RESULTS}/logs/{{experiment}}/second_step.log",
    conda:
        CONDA
    params:
        analysis=CONFIG.analysis.model_dump(),
        earlier=earlier_of,
        code=code_digest("hedflow.analysis.second_step", "hedflow.figures.second_step"),
    message:
        "Compare '{wildcards.experiment}' with its control and with its first step"
    script:
        "../scripts/second_step.py"
