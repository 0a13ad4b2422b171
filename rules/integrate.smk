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
    log:
        f"{RESULTS}/logs/integrate.log",
    conda:
        CONDA
    resources:
        mem_mb=4000,
    params:
        sources=list(CONFIG.data.names),
        improve=CONFIG.data.improve,
        code=code_digest("hedflow.integrate"),
    message:
        "Read, identify and merge " + (", ".join(CONFIG.data.names) or f"the studies in {CONFIG.data.improve}")
    script:
        "../scripts/integrate.py"


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
