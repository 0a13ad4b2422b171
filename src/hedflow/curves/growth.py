"""Growth rate inhibition (Hafner et al. 2016, Nat Methods 13:521): response without the confusion of division rate.

    GR(c) = 2^( log2(x(c)/x0) / log2(xctrl/x0) ) - 1

x(c), xctrl: cells at the end, with the drug and without; x0: cells at the start. 1 = no effect, 0 = no growth, -1 = all
dead. The start count is often known only as the number of doublings of the control, n = log2(xctrl/x0).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from hedflow.curves.fit import Options, fit_curves
from hedflow.curves.hill import dose_reaching


def growth_rate(viability: ArrayLike, doublings: ArrayLike) -> np.ndarray:
    """GR value(s), -1..1 and a little above with noise; NaN where the control did not grow or nothing is known of it.

    Args:
        viability: x(c)/xctrl, a fraction of the control at the end; below 0 counts as 0.
        doublings: of the control during the assay, n = log2(xctrl/x0): assay time / doubling time.
    """
    viability, doublings = np.broadcast_arrays(np.asarray(viability, float), np.asarray(doublings, float))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = 2 ** ((np.log2(np.clip(viability, 0, None)) + doublings) / doublings) - 1
        rate: np.ndarray = np.where(doublings > 0, value, np.nan)
    return rate


def doublings_from_counts(start: ArrayLike, control: ArrayLike) -> np.ndarray:
    """Doublings of the control from its cell counts (or signals) at the start and at the end."""
    start, control = np.asarray(start, float), np.asarray(control, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        counted: np.ndarray = np.log2(control / start)
    return counted


def fit_growth(
    curve: np.ndarray,
    dose: np.ndarray,
    viability: np.ndarray,
    doublings: np.ndarray,
    options: Options | None = None,
) -> pd.DataFrame:
    """Fit curves of growth rates where the control's doublings are known; arguments as `fit_curves`, one value a point.

    Returns:
        One row a curve: points, doses, x_low, x_high, status; gr_inf (-1..1, growth rate at an endless dose), gec50
        (-log10 M, half-way to it), gr_hs (slope), gr_r2, gr50 (-log10 M where GR is 0.5, only if reached within the
        tested doses), gr_aoc (1 - mean GR over the tested doses; high = potent). Points without a growth rate are left
        out; a curve with too few of the others has the status `too few doses`.
    """
    options = options or Options()
    bounds = {**options.bounds, "einf": (-1.0, 1.0)}
    rates = growth_rate(viability, doublings)
    fitted = fit_curves(curve, dose, rates, replace(options, bounds=bounds, clip=False))
    gr50 = dose_reaching(0.5, fitted["einf"], fitted["ec50"], fitted["hs"], fitted["e0"])
    return fitted[["points", "doses", "x_low", "x_high", "status"]].assign(
        gr_inf=fitted["einf"],
        gec50=fitted["ec50"],
        gr_hs=fitted["hs"],
        gr_r2=fitted["r2"],
        gr50=np.where(gr50 >= fitted["x_low"], gr50, np.nan),
        gr_aoc=1 - fitted["auc_tested"],
    )
