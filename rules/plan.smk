"""Plan: an experiment's runs, and the proof that none of them sees what it is blind to."""


def plan_settings(wildcards):
    """What a plan is made from, as one digest: the experiment, the models it names, the files it reads."""
    experiment = CONFIG.experiments[wildcards.experiment]
    return digest(
        experiment.model_dump(),
        CONFIG.training_of(wildcards.experiment).model_dump(),
        {name: CONFIG.models[name].model_dump() for name in experiment.models},
    )[:16]


checkpoint plan:
    message:
        "Write out the runs of '{wildcards.experiment}'"
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
    output:
        f"{RESULTS}/{{experiment}}/plan.parquet",
    params:
        settings=plan_settings,
        code=code_digest("hedflow.plan", "hedflow.training"),
    log:
        f"{RESULTS}/logs/{{experiment}}/plan.log",
    script:
        "../scripts/plan.py"


rule audit:
    message:
        "Prove that no run of '{wildcards.experiment}' trains on what it is tested on"
    input:
        manifest=rules.build_bundle.output.manifest,
        plan=f"{RESULTS}/{{experiment}}/plan.parquet",
    output:
        f"{RESULTS}/{{experiment}}/audit.json",
    params:
        code=code_digest("hedflow.audit"),
    log:
        f"{RESULTS}/logs/{{experiment}}/audit.log",
    script:
        "../scripts/audit.py"
