"""Adapter of the rule `explorer`."""

from pathlib import Path

from hedflow.explorer.page import make_page
from hedflow.files import write_text
from hedflow.script import job

with job(snakemake):
    write_text(snakemake.output[0], make_page(Path(snakemake.input.tables[0]).parent, snakemake.wildcards.experiment))
