"""Mutations of a cell line: one column a gene symbol, 1 where DepMap calls a mutation in it, else 0."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hedflow import HedflowError
from hedflow.identity.cells import read_depmap


def read(files: dict[str, Path]) -> pd.DataFrame:
    """DepMap's `mutation` frame of CCLE.RData (booleans `<GENE>_Mut`), one row a ModelID."""
    if "CCLE.RData" not in files:
        raise HedflowError("bundle: mutation calls come with DepMap's CCLE.RData, which is not among the files.")
    frames = read_depmap(files["CCLE.RData"])
    if "mutation" not in frames:
        raise HedflowError(
            f"{files['CCLE.RData']}: expected an R data frame 'mutation'; found {', '.join(frames)}. Get the file "
            "anew, or leave mutations out of features.views."
        )
    table = frames["mutation"].set_index("ModelID")
    table.columns = table.columns.str.removesuffix("_Mut")
    return table
