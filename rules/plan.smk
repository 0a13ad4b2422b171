"""Plan: an experiment's runs, and the proof that none of them sees what it is blind to.

The audit is the checkpoint: no run exists for Snakemake before its plan has passed. (An audit between the plan and
the runs would not do: Snakemake does not look behind a pending job whose output is an `ancient` input.)
"""


rule plan:
    input:
        manifest=rules.build_bundle.output.manifest,
        parameters=lambda wildcards: [
            path
            for path in (
                CONFIG.experiments[wildcards.experiment].upf,
                CONFIG.experiments[wildcards.experiment].defaults,
            )
            if path
        ],
        earlier=earlier_tables,
    output:
        f"{RESULTS}/{{experiment}}/plan.parquet",
    log:
        f"{RESULTS}/logs/{{experiment}}/plan.log",
    conda:
        CONDA
    params:
        settings=plan_settings,
        code=plan_code,
    message:
        "Write out the runs of '{wildcards.experiment}'"
    script:
        "../scripts/plan.py"


checkpoint audit:
    input:
        manifest=rules.build_bundle.output.manifest,
        plan=f"{RESULTS}/{{experiment}}/plan.parquet",
        earlier=earlier_tables,
    output:
        f"{RESULTS}/{{experiment}}/audit.json",
    log:
        f"{RESULTS}/logs/{{experiment}}/audit.log",
    conda:
        CONDA
    params:
        code=code_digest("hedflow.audit"),
    message:
        "Prove that no run of '{wildcards.experiment}' trains on what it is tested on"
    script:
        "../scripts/audit.py"
