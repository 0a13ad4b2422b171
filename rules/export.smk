"""Export: the bundle and an experiment's splits in the layout of IMPROVE's csa data, for its models to run on."""


rule export_improve:
    input:
        manifest=rules.build_bundle.output.manifest,
        plan=f"{RESULTS}/{{experiment}}/plan.parquet",
        audit=f"{RESULTS}/{{experiment}}/audit.json",
        response=rules.integrate.output.response,
        earlier=earlier_tables,
    output:
        directory(f"{RESULTS}/{{experiment}}/csa_data"),
    log:
        f"{RESULTS}/logs/{{experiment}}/export_improve.log",
    conda:
        CONDA
    resources:
        mem_mb=4000,
    params:
        code=code_digest("hedflow.improve.write"),
    message:
        "Write the bundle and the splits of '{wildcards.experiment}' as IMPROVE's csa data"
    script:
        "../scripts/export_improve.py"
