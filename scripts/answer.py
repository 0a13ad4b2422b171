"""Adapter of the rule `answer`."""

from hedflow.files import write_json, write_text
from hedflow.report import make_answer
from hedflow.script import job

with job(snakemake):
    page, numbers = make_answer(
        snakemake.params.results,
        snakemake.params.experiments,
        published=snakemake.input.published,
        left_out=snakemake.params.left_out,
    )
    write_text(snakemake.output.page, page)
    write_json(snakemake.output.numbers, numbers)
