"""Analyse: all predictions of an experiment -> tables and figures."""

from hedflow.analysis import TABLES
from hedflow.figures import DRUGS, FIGURES


rule collect:
    input:
        plan=ancient(f"{RESULTS}/{{experiment}}/plan.parquet"),
        predictions=lambda wildcards: expand(
            rules.train.output.predictions,
            run=chunk_runs(wildcards),
            allow_missing=True,
        ),
        records=lambda wildcards: expand(rules.train.output.record, run=chunk_runs(wildcards), allow_missing=True),
    output:
        predictions=f"{RESULTS}/{{experiment}}/collected/{{chunk}}.predictions.parquet",
        records=f"{RESULTS}/{{experiment}}/collected/{{chunk}}.records.parquet",
    log:
        f"{RESULTS}/logs/{{experiment}}/collect/{{chunk}}.log",
    conda:
        CONDA
    params:
        runs=chunk_runs,
        code=code_digest("hedflow.analysis.collect"),
    message:
        "Gather runs of '{wildcards.experiment}' (chunk {wildcards.chunk})"
    script:
        "../scripts/collect.py"


rule baselines:
    input:
        manifest=rules.build_bundle.output.manifest,
        # Asked of the checkpoint: parameters that need the plan would else look changed until it is known.
        plan=ancient(audited_plan),
    output:
        f"{RESULTS}/{{experiment}}/baselines.parquet",
    log:
        f"{RESULTS}/logs/{{experiment}}/baselines.log",
    conda:
        CONDA
    params:
        parts=plan_parts,
        neighbours=CONFIG.analysis.neighbours,
        code=code_digest("hedflow.analysis.naive"),
    message:
        "Predict the test rows of '{wildcards.experiment}' by the naive baselines"
    script:
        "../scripts/baselines.py"


rule analyse:
    input:
        manifest=rules.build_bundle.output.manifest,
        plan=f"{RESULTS}/{{experiment}}/plan.parquet",
        predictions=lambda wildcards: expand(
            rules.collect.output.predictions,
            chunk=chunks(wildcards),
            allow_missing=True,
        ),
        records=lambda wildcards: expand(rules.collect.output.records, chunk=chunks(wildcards), allow_missing=True),
        baselines=rules.baselines.output[0],
        response=rules.integrate.output.response,
        noise=rules.harmony.output.noise,
        second=rules.harmony.output.second,
    output:
        expand(
            f"{RESULTS}/{{experiment}}/tables/{{table}}.parquet",
            table=TABLES,
            allow_missing=True,
        ),
        high_error_drugs=report(
            f"{RESULTS}/{{experiment}}/tables/high_error_drugs.csv",
            caption="../workflow/report/high_error_drugs.rst",
            category="{experiment}",
            subcategory=DRUGS,
            labels={"figure": "6. High error drugs (table)"},
        ),
    log:
        f"{RESULTS}/logs/{{experiment}}/analyse.log",
    conda:
        CONDA
    params:
        analysis=CONFIG.analysis.model_dump(),
        code=code_digest("hedflow.analysis.run"),
    message:
        "Errors, rankings and intervals of '{wildcards.experiment}'"
    script:
        "../scripts/analyse.py"
