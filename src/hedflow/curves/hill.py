"""The Hill function and what is read off a fitted curve: areas in closed form, IC50, DSS. All functions broadcast.

    y(x) = einf + (e0 - einf) / (1 + 10^((ec50 - x) hs)),    x = -log10 M

`e0` is the viability without drug (1 in the three-parameter form), `einf` that of an endless dose, `ec50` (-log10 M)
the dose half-way between them, `hs` >= 0 the slope. Source of the form and of the fixed range: IMPROVE's curve fitting
(Partin et al. 2025, arXiv 2503.14356); any area here is tested against numerical quadrature.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

LN10 = float(np.log(10))
# The fixed range of the AUC, in -log10 M: 10^-4 to 10^-10 M, whatever a screen has tested.
FIXED = (4.0, 10.0)
# DSS counts inhibition above this (Yadav et al. 2014, Sci Rep 4:5193: 10 %).
ACTIVE = 0.1


def hill(x: ArrayLike, einf: ArrayLike, ec50: ArrayLike, hs: ArrayLike, e0: ArrayLike = 1.0) -> np.ndarray:
    """Viability (fraction of control) at x (-log10 M)."""
    x, einf, ec50, hs, e0 = _together(x, einf, ec50, hs, e0)
    viability: np.ndarray = einf + (e0 - einf) * _share(x, ec50, hs)
    return viability


def mean_viability(
    low: ArrayLike, high: ArrayLike, einf: ArrayLike, ec50: ArrayLike, hs: ArrayLike, e0: ArrayLike = 1.0
) -> np.ndarray:
    """AUC: the curve's integral from `low` to `high` (-log10 M) divided by their distance; a fraction, low = potent.

    The antiderivative of 1/(1 + 10^((ec50 - x) hs)) is log10(1 + 10^((x - ec50) hs)) / hs. NaN where low = high.
    """
    low, high, einf, ec50, hs, e0 = np.broadcast_arrays(
        *(np.asarray(v, float) for v in (low, high, einf, ec50, hs, e0))
    )
    width = high - low
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        steep = (_softplus((high - ec50) * hs) - _softplus((low - ec50) * hs)) / (hs * width)
        # Nearly flat, the difference of logarithms loses its digits; two terms of the series are exact to 1e-13 there.
        flat = 0.5 + LN10 * hs * ((high + low) / 2 - ec50) / 4
        reach = hs * np.maximum(np.abs(high - ec50), np.abs(low - ec50))
        share = np.where(width > 0, np.where(reach < 1e-5, flat, steep), np.nan)
    mean: np.ndarray = einf + (e0 - einf) * share
    return mean


def auc_fixed(einf: ArrayLike, ec50: ArrayLike, hs: ArrayLike, e0: ArrayLike = 1.0) -> np.ndarray:
    """AUC over the fixed range 10^-10..10^-4 M: 1 = no effect, 0 = dead at any dose. AAC is 1 minus it."""
    return mean_viability(*FIXED, einf, ec50, hs, e0)


def dose_reaching(level: float, einf: ArrayLike, ec50: ArrayLike, hs: ArrayLike, e0: ArrayLike = 1.0) -> np.ndarray:
    """x (-log10 M) where the viability is `level` (0..1); NaN where the curve never is there.

    `dose_reaching(0.5, ...)` is the IC50, absolute: half of the control's viability, not half of the drug's effect.
    It may lie outside the tested doses.
    """
    einf, ec50, hs, e0 = _together(einf, ec50, hs, e0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        at = ec50 - np.log10((e0 - level) / (level - einf)) / hs
        found: np.ndarray = np.where((einf < level) & (level < e0) & (hs > 0), at, np.nan)
    return found


def dss1(
    low: ArrayLike, high: ArrayLike, einf: ArrayLike, ec50: ArrayLike, hs: ArrayLike, e0: ArrayLike = 1.0
) -> np.ndarray:
    """Drug sensitivity score DSS1 over the tested doses `low`..`high` (-log10 M): 0 = inactive, up to 1, high = potent.

    The area of inhibition (1 - viability) above 10 %, over that part of the tested range where it is above 10 %,
    divided by its largest possible value, 0.9 x the range. Yadav et al. 2014 give it times 100. A curve that rises with
    the dose (einf > e0) inhibits nothing: 0.
    """
    low, high, einf, ec50, hs, e0 = np.broadcast_arrays(
        *(np.asarray(v, float) for v in (low, high, einf, ec50, hs, e0))
    )
    begins = dose_reaching(1 - ACTIVE, einf, ec50, hs, e0)
    # Below 90 % from no dose on (e0 < 0.9), or everywhere because the curve is flat: active over the whole range.
    always = (e0 <= 1 - ACTIVE) | ((hs == 0) & ((e0 + einf) / 2 < 1 - ACTIVE))
    begins = np.where(always, high, np.minimum(begins, high))
    active = (begins > low) & (einf <= e0)
    top = np.where(active, begins, high)
    area = (1 - ACTIVE - mean_viability(low, top, einf, ec50, hs, e0)) * (top - low)
    score: np.ndarray = np.where(active, area, 0.0) / ((1 - ACTIVE) * (high - low))
    return np.where(np.isnan(einf), np.nan, score)


def _together(*values: ArrayLike) -> tuple[np.ndarray, ...]:
    return np.broadcast_arrays(*(np.asarray(value, float) for value in values))


def _softplus(exponent: np.ndarray) -> np.ndarray:
    """log10(1 + 10^exponent) without overflow."""
    result: np.ndarray = np.logaddexp(0, exponent * LN10) / LN10
    return result


def _share(x: np.ndarray, ec50: np.ndarray, hs: np.ndarray) -> np.ndarray:
    """1 / (1 + 10^((ec50 - x) hs)) without overflow: the share of the effect that is not yet there."""
    result: np.ndarray = 0.5 * (1 + np.tanh((x - ec50) * hs * (LN10 / 2)))
    return result
