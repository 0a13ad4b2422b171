"""Integrate: each source's own tables -> one long table of (source, cell, drug, AUC); every lost row counted."""


rule integrate:
    input:
        **measurements(),
    output:
        response=f"{RESULTS}/integration/response.parquet",
        cells=f"{RESULTS}/integration/cells.parquet",
        drugs=f"{RESULTS}/integration/drugs.parquet",
        losses=f"{RESULTS}/integration/losses.parquet",
        cell_identity=f"{RESULTS}/integration/cell_identity.parquet",
        drug_identity=f"{RESULTS}/integration/drug_identity.parquet",
        curves=f"{RESULTS}/integration/curves.parquet",
    log:
        f"{RESULTS}/logs/integrate.log",
    conda:
        CONDA
    resources:
        mem_mb=4000,
    params:
        sources=list(CONFIG.data.names),
        improve=CONFIG.data.improve,
        points=list(POINTS),
        identity=IDENTITY,
        curves=CONFIG.curves.model_dump(),
        quality=CONFIG.quality.model_dump(),
        stereo=CONFIG.identity.stereo,
        # Readers are imported by name, which the digest cannot see.
        code=code_digest("hedflow.integrate", *map(module_of_source, CONFIG.data.names)),
    message:
        "Read, identify and merge " + (", ".join(CONFIG.data.names) or f"the studies in {CONFIG.data.improve}")
    script:
        "../scripts/integrate.py"


rule harmony:
    input:
        response=rules.integrate.output.response,
        curves=rules.integrate.output.curves,
    output:
        agreement=f"{RESULTS}/integration/agreement.parquet",
        noise=f"{RESULTS}/integration/noise.parquet",
        second=f"{RESULTS}/integration/second.parquet",
        figure=report(
            f"{RESULTS}/integration/agreement.png",
            caption="../workflow/report/agreement.rst",
            category="Data",
            labels={"figure": "Agreement of the sources on shared pairs"},
        ),
    log:
        f"{RESULTS}/logs/harmony.log",
    conda:
        CONDA
    params:
        code=code_digest("hedflow.harmony", "hedflow.figures.harmony"),
    message:
        "How well the sources agree, and the best error that any model could reach"
    script:
        "../scripts/harmony.py"


rule identity_report:
    input:
        cells=rules.integrate.output.cell_identity,
        drugs=rules.integrate.output.drug_identity,
        identity=rules.integrate.input.identity,
    output:
        report(
            f"{RESULTS}/integration/identity.html",
            caption="../workflow/report/identity.rst",
            category="Data",
            labels={"figure": "Who is who: cell lines and drugs"},
        ),
    log:
        f"{RESULTS}/logs/identity_report.log",
    conda:
        CONDA
    params:
        stereo=CONFIG.identity.stereo,
        identity=IDENTITY,
        code=code_digest("hedflow.identity.page"),
    message:
        "Say which cell line and which drug each name is, and why"
    script:
        "../scripts/identity_report.py"


rule integration_report:
    input:
        integrate=rules.integrate.output.losses,
        bundle=f"{RESULTS}/bundle/losses.parquet",
    output:
        table=f"{RESULTS}/integration_report.parquet",
        figure=report(
            f"{RESULTS}/integration/lost_rows.png",
            caption="../workflow/report/lost_rows.rst",
            category="Data",
            labels={"figure": "Rows kept and lost, by source"},
        ),
    log:
        f"{RESULTS}/logs/integration_report.log",
    conda:
        CONDA
    params:
        code=code_digest("hedflow.figures.integration"),
    message:
        "Count the rows from the screens' files down to the bundle"
    script:
        "../scripts/integration_report.py"
