"""Adapter of the rule `identity_report`."""

import pandas as pd

from hedflow.files import write_text
from hedflow.identity.page import make_page
from hedflow.identity.sections import read_annotation
from hedflow.script import job, paths

with job(snakemake):
    cells = pd.read_parquet(snakemake.input.cells)
    drugs = pd.read_parquet(snakemake.input.drugs)
    known = read_annotation(paths(snakemake.input.identity), snakemake.params.stereo)
    write_text(snakemake.output[0], make_page(cells, drugs, known))
