"""Growth rate inhibition (Hafner et al. 2016, Nat Methods 13:521): response without the confusion of division rate.

    GR(c) = 2^( log2(x(c)/x0) / log2(xctrl/x0) ) - 1

x(c), xctrl: cells at the end, with the drug and without; x0: cells at the start. 1 = no effect, 0 = no growth, -1 = all
dead. The start count is often known only as the number of doublings of the control, n = log2(xctrl/x0).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


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
