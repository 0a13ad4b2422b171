"""Bundle: response and features in one immutable folder, the only thing a training run reads."""


rule build_bundle:
    input:
        response=rules.integrate.output.response,
        cells=rules.integrate.output.cells,
        drugs=rules.integrate.output.drugs,
        identity=rules.integrate.input.identity,
        splits=[str(path) for path in IMPROVE.splits] if IMPROVE else [],
    output:
        manifest=f"{RESULTS}/bundle/manifest.json",
        losses=f"{RESULTS}/bundle/losses.parquet",
        arrays=expand(f"{RESULTS}/bundle/{{file}}", file=BUNDLE_FILES),
    log:
        f"{RESULTS}/logs/bundle.log",
    conda:
        CONDA
    resources:
        mem_mb=4000,
    params:
        features=CONFIG.features.model_dump(),
        improve=CONFIG.data.improve,
        identity=IDENTITY,
        # Views are imported by name, which the digest cannot see.
        code=code_digest("hedflow.bundle.build", *map(module_of_view, VIEWS)),
    message:
        "Compute features and write the bundle"
    script:
        "../scripts/bundle.py"
