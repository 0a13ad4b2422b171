"""Fit the dose points of a screen and put the results into its readings, in place of the provider's AUC."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hedflow.curves.fit import Options, fit_curves
from hedflow.schemas import CURVE

# Screens whose every curve has its dose points. Only there is the AUC that of the fixed range, which can be compared
# with any other screen's: a screen of which some drugs only can be fitted keeps to its tested doses, as its provider
# does, so that all its drugs are on one scale.
WHOLE = ("CCLE",)
# Of a drug with several dose series the one that counts: GDSC2's Linsitinib, 0.01-10 uM, whose curves agree better with
# the published AUC (r 0.71) than those of L9, 0.0025-2.5 uM (r 0.52). They are never pooled.
SERIES = {("GDSCv2", "Linsitinib"): "L32"}
# Viability, fraction of the control. Blanks are subtracted: a little below 0 is noise. CCLE has four points below -1.
POSSIBLE = (-1.0, 5.0)
FIXED_RULE = "Hill fit, mean viability over 1e-10..1e-4 M"
TESTED_RULE = "Hill fit, mean viability over the tested doses"


def fit_points(source: str, points: pd.DataFrame, options: Options) -> pd.DataFrame:
    """Fit a screen's curves.

    Args:
        points: `schemas.POINTS`.

    Returns:
        One row a curve: source, cell_name, drug_name, series, points_lost (no dose, no viability, or one outside
        `POSSIBLE`), `used` (it goes into the response: named, fitted, and of the series that counts),
        and the columns of `fit_curves`.
    """
    usable = points["viability"].between(*POSSIBLE) & (points["dose"] > 0) & np.isfinite(points["dose"])
    named = points.groupby("curve", sort=True)[["cell_name", "drug_name", "series"]].first()
    lost = (~usable).groupby(points["curve"]).sum()
    good = points[usable]
    fitted = fit_curves(
        good["curve"].to_numpy(), good["dose"].to_numpy(), good["viability"].to_numpy(), options
    ).reindex(named.index)
    fitted["status"] = fitted["status"].fillna("too few doses")
    fitted[["points", "doses"]] = fitted[["points", "doses"]].fillna(0).astype("int32")
    named.insert(0, "source", source)
    named["points_lost"] = lost.reindex(named.index).astype("int32")
    counting = named["drug_name"].map({drug: series for (screen, drug), series in SERIES.items() if screen == source})
    named["used"] = (counting.isna() | (counting == named["series"])) & (fitted["status"] == "converged")
    named["used"] &= (named[["cell_name", "drug_name"]] != "").all(axis=1)
    return named.join(fitted).reset_index(drop=True)


def refit(source: str, reading: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """A screen's readings with the AUC and the parameters of its fitted curves, averaged over the curves of a pair.

    Rows stay the provider's: a curve of a pair that the provider has left out is not put in again. A row of a pair that
    the provider has twice (two screens under one name) keeps the provider's value: which curve is its own is not known.
    """
    used = curves[curves["used"]]
    values = used.groupby(["cell_name", "drug_name"], sort=False)[list(CURVE)].mean()
    pair = pd.MultiIndex.from_frame(reading[["cell_name", "drug_name"]])
    twice = pair.isin(pair[~reading["repeated"]][pair[~reading["repeated"]].duplicated()])
    mine = pd.Series(pair.isin(values.index) & ~twice, index=reading.index)
    found = values.reindex(pair[mine.to_numpy()])
    reading = reading.copy()
    reading.loc[mine, list(CURVE)] = found.to_numpy()
    whole = source in WHOLE
    reading.loc[mine, "auc"] = found["auc_fixed" if whole else "auc_tested"].to_numpy()
    reading.loc[mine, "auc_rule"] = FIXED_RULE if whole else TESTED_RULE
    return reading
