"""gCSI (Haverty 2016) as served by the GR browser (Hafner 2017). `AUC` is used as it is: mean viability, 0..1.05.

There are no dose points; the R2 of the provider's fit is given.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hedflow.sources.tables import read_table


def read(files: dict[str, Path]) -> pd.DataFrame:
    """`schemas.READING`."""
    (path,) = files.values()
    table = read_table(path, ["Cell_Line", "Small_Molecule", "AUC", "IC_r2"], sep="\t", numbers=["AUC", "IC_r2"])
    return pd.DataFrame(
        {
            "cell_name": table["Cell_Line"],
            "drug_name": table["Small_Molecule"],
            "auc": table["AUC"],
            "auc_rule": "AUC as given",
            "combination": False,
            "repeated": table.duplicated(),
            "r2": table["IC_r2"],
        }
    )
