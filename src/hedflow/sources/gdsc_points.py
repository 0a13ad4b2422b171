"""Dose points of GDSC: the wells of a part of GDSC2, and the viabilities of an early release of GDSC1.

The wells (Feb-Dec 2015, six drugs) are raw intensities; viability is taken from each plate's own controls as GDSC's
own R package gdscIC50 does: (I - B) / (NC1 - B), means of the blank and of the DMSO wells of the plate.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from hedflow.sources.tables import read_table

# GDSC2's drugs in the wells, by DRUG_ID; 1862 is the positive control.
WELL_DRUGS = {
    "1003": "Camptothecin",
    "1032": "Afatinib",
    "1036": "PLX-4720",
    "1060": "PD0325901",
    "1268": "XAV939",
    "1510": "Linsitinib",
}
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


def read_wells(path: Path) -> pd.DataFrame:
    """`schemas.POINTS`: one curve a plate and dose series. `series` is the library tag (L9, L32, ...).

    Linsitinib has two series. A plate without both controls, or whose DMSO wells are no brighter than its blanks, gives
    missing viabilities; so does a well that is there a second time, and one without its plate.
    """
    text = ["BARCODE", "POSITION", "CELL_LINE_NAME", "TAG", "DRUG_ID"]
    table = read_table(path, [*text, "CONC", "INTENSITY"], numbers=["CONC", "INTENSITY"])
    table[text] = table[text].fillna("")
    table.loc[table.duplicated() | (table["BARCODE"] == ""), "INTENSITY"] = np.nan
    means = table.groupby(["TAG", "BARCODE"])["INTENSITY"].mean()
    wells = table[table["DRUG_ID"].str.removesuffix(".0").isin(list(WELL_DRUGS)) & table["TAG"].str.endswith("-S")]
    blank, untreated = (
        means.reindex(pd.MultiIndex.from_product([[tag], wells["BARCODE"]])).to_numpy(float) for tag in ("B", "NC-1")
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        viability = (wells["INTENSITY"].to_numpy() - blank) / np.where(untreated > blank, untreated - blank, np.nan)
    series = wells["TAG"].str.split("-").str[0].astype("str")
    return pd.DataFrame(
        {
            "cell_name": wells["CELL_LINE_NAME"],
            "drug_name": wells["DRUG_ID"].str.removesuffix(".0").map(WELL_DRUGS),
            "curve": (wells["BARCODE"] + " " + series + " " + wells["DRUG_ID"]).factorize(sort=True)[0],
            "series": series,
            "dose": wells["CONC"] * 1e-6,
            "viability": viability,
        }
    ).reset_index(drop=True)


def read_release(path: Path) -> pd.DataFrame:
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
