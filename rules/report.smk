"""Report: figures of each experiment, its explorer, and the page the report opens with."""

from hedflow.explorer import assets as explorer


rule figures:
    input:
        tables=rules.analyse.output,
    output:
        [
            report(
                f"{RESULTS}/{{experiment}}/figures/{name}.png",
                caption=f"../workflow/report/{name}.rst",
                category="{experiment}",
                subcategory=place.chapter,
                labels={"figure": place.title},
            )
            for name, place in FIGURES.items()
        ],
    log:
        f"{RESULTS}/logs/{{experiment}}/figures.log",
    conda:
        CONDA
    params:
        code=code_digest("hedflow.figures.experiment"),
    message:
        "Draw the figures of '{wildcards.experiment}'"
    script:
        "../scripts/figures.py"


rule explorer:
    input:
        tables=rules.analyse.output,
    output:
        f"{RESULTS}/{{experiment}}/explorer.html",
    log:
        f"{RESULTS}/logs/{{experiment}}/explorer.log",
    conda:
        CONDA
    params:
        assets=digest(explorer.asset_texts()),
        code=code_digest("hedflow.explorer.page"),
    message:
        "Make the explorer of '{wildcards.experiment}'"
    script:
        "../scripts/explorer.py"


rule answer:
    input:
        manifest=rules.build_bundle.output.manifest,
        integration=rules.integration_report.output.table,
        audits=expand(rules.audit.output[0], experiment=EXPERIMENTS),
        figures=expand(rules.figures.output, experiment=EXPERIMENTS),
        tables=expand(rules.analyse.output, experiment=EXPERIMENTS),
        second_steps=expand(rules.second_step.output, experiment=SECOND_STEPS),
        response=rules.integrate.output.response,
        cell_identity=rules.integrate.output.cell_identity,
        curves=rules.integrate.output.curves,
        drug_identity=rules.integrate.output.drug_identity,
        explorers=expand(rules.explorer.output[0], experiment=EXPERIMENTS),
        published="resources/published_hed.csv",
    output:
        page=f"{RESULTS}/report/answer.rst",
        numbers=f"{RESULTS}/report/answer.json",
    log:
        f"{RESULTS}/logs/answer.log",
    conda:
        CONDA
    params:
        experiments=EXPERIMENTS,
        left_out=left_out_files(CONFIG.data, REGISTRY),
        results=subpath(input.integration, parent=True),
        code=code_digest("hedflow.report"),
    message:
        "Write the page that the report opens with"
    script:
        "../scripts/answer.py"


rule load:
    input:
        # Drawn when all has been trained; pools that trained nothing of it do not change it.
        tables=expand(rules.analyse.output, experiment=EXPERIMENTS),
    output:
        report(
            f"{RESULTS}/report/load.png",
            caption="../workflow/report/load.rst",
            category="Load",
            labels={"figure": "Training over time"},
        ),
    log:
        f"{RESULTS}/logs/load.log",
    conda:
        CONDA
    params:
        code=code_digest("hedflow.figures.load"),
    message:
        "Draw how busy the pools were"
    script:
        "../scripts/load.py"


rule report:
    input:
        answer=rules.answer.output,
        figures=rules.answer.input.figures,
        second_steps=rules.answer.input.second_steps,
        lost_rows=rules.integration_report.output.figure,
        agreement=rules.harmony.output.figure,
        identity=rules.identity_report.output[0],
        load=rules.load.output[0],
    output:
        f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/report.log",
    localrule: True
    conda:
        CONDA
    params:
        # Captions and style by content: absolute paths would make the page anew when the project is moved.
        texts=digest({path.name: path.read_text() for path in sorted(Path(workflow.basedir, "report").glob("*.*"))}),
        code=code_digest("hedflow.report"),
    message:
        "Pack figures, tables and provenance into one page"
    script:
        "../scripts/report.py"
