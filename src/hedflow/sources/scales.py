"""Is a screen's table on the scale that it should be on? Judged by medians and spreads: single odd rows are counted.

The limits are wide of the five screens: 95 % of their doses lie below 2 to 8 uM, nine in ten viabilities within
0.1..1.2 to 0.5..1.2, and no AUC outside 0..2.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from hedflow import HedflowError

MANY = 20  # rows from which on a spread says something
ODD_SHARE = 0.05  # of AUCs outside 0..2
FLAT = 0.02  # spread of viabilities, 5 to 95 %
HIGHEST_DOSE = (1e-8, 1e-3)  # mol/l, 95 %


def check_auc(source: str, auc: pd.Series[float]) -> None:
    """A percentage or an area over the curve has its own signature.

    Raises:
        HedflowError: no rows, or AUCs that are not 0..1 with low = potent, or all the same.
    """
    middle = auc.median()
    if len(auc) == 0:
        raise HedflowError(f"source {source}: the file has a header and no rows.")
    if not 0.3 <= middle <= 1.2:
        raise HedflowError(
            f"source {source}: the median AUC is {middle:.3g}, expected 0.3 to 1.2 on a scale of 0..1 with low = "
            "potent (a percentage, or an area above the curve?); check the file's columns."
        )
    known = auc.dropna()
    if len(known) < MANY:
        return
    odd = ~known.between(0, 2)
    if odd.mean() > ODD_SHARE:
        raise HedflowError(
            f"source {source}: {int(odd.sum())} of {len(known)} AUCs are not between 0 and 2 (for example "
            f"{known[odd].iloc[0]:.3g}), expected 0..1 in all rows (some of them a percentage?); check the file."
        )
    if known.min() == known.max():
        raise HedflowError(
            f"source {source}: every AUC is {known.iloc[0]:.6g}, expected measured values; check the file's columns."
        )


def check_points(source: str, path: Path, points: pd.DataFrame) -> None:
    """Dose points (`schemas.POINTS`) in mol/l, viability as a fraction of the control.

    Raises:
        HedflowError: no usable points, or another scale.
    """
    what = f"dose points of {source}"
    usable = points[np.isfinite(points["viability"]) & np.isfinite(points["dose"])]
    if usable.empty:
        raise HedflowError(
            f"{what}: {path} has no point with a dose and a viability ({len(points)} rows of the drugs that are read); "
            "expected the provider's own file."
        )
    low, middle, high = usable["viability"].quantile([0.05, 0.5, 0.95])
    if not (0.2 <= middle <= 1.5 and high <= 1.6):
        raise HedflowError(
            f"{what}: the median viability is {middle:.3g}, expected 0.2 to 1.5 as a fraction of the control, and 95 % "
            f"are below {high:.3g}, expected 1.6 (a percentage, or inhibition?); check the columns of {path}."
        )
    if len(usable) >= MANY and high - low < FLAT:
        raise HedflowError(
            f"{what}: nine in ten viabilities lie within {low:.4g}..{high:.4g}, expected drugs that do something (a "
            f"fraction where a percentage should be?); check the columns of {path}."
        )
    highest = usable["dose"].quantile(0.95)
    if not HIGHEST_DOSE[0] <= highest <= HIGHEST_DOSE[1]:
        raise HedflowError(
            f"{what}: 95 % of the doses are below {highest:.3g} mol/l, expected {HIGHEST_DOSE[0]:g} to "
            f"{HIGHEST_DOSE[1]:g} (nM or mol/l where uM should be, or logarithms?); check the columns of {path}."
        )
