"""Report: figures of each experiment, and the page the report opens with."""


rule figures:
    message:
        "Draw the figures of '{wildcards.experiment}'"
    input:
        tables=rules.analyse.output,
    output:
        [
            report(
                f"{RESULTS}/{{experiment}}/figures/{name}.png",
                caption=f"../workflow/report/{name}.rst",
                category="{experiment}",
                labels={"figure": title},
            )
            for name, title in FIGURES.items()
        ],
    params:
        code=code_digest("hedflow.figures.experiment"),
    log:
        f"{RESULTS}/logs/{{experiment}}/figures.log",
    script:
        "../scripts/figures.py"


rule answer:
    message:
        "Write the page that the report opens with"
    input:
        manifest=rules.build_bundle.output.manifest,
        integration=rules.integration_report.output.table,
        audits=expand(rules.audit.output[0], experiment=EXPERIMENTS),
        figures=expand(rules.figures.output, experiment=EXPERIMENTS),
    output:
        page=f"{RESULTS}/report/answer.rst",
        numbers=f"{RESULTS}/report/answer.json",
    params:
        experiments=EXPERIMENTS,
        results=RESULTS,
        code=code_digest("hedflow.report"),
    log:
        f"{RESULTS}/logs/answer.log",
    script:
        "../scripts/answer.py"


rule report:
    message:
        "Pack figures, tables and provenance into one page"
    input:
        answer=rules.answer.output,
        figures=rules.answer.input.figures,
        lost_rows=rules.integration_report.output.figure,
        stylesheet=workflow.source_path("../workflow/report/style.css"),
    output:
        f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/report.log",
    localrule: True
    script:
        "../scripts/report.py"
