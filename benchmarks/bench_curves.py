"""Curves fitted per second: hedflow's batched fitter against scipy.optimize.curve_fit in a loop, on real curves.

    python benchmarks/bench_curves.py --mirror FOLDER [--curves 3000] [--rounds 3]

The curves are CCLE's (6 to 8 dose points), drawn at random; scipy fits each alone, within the same bounds, from one
start (half-way down at 1 uM with slope 1), as the field's scripts do. Both sides run in turn, in one process, on one
core each (BLAS has nothing to do here). Where the two end at different optima, the smaller residual is right: the last
line, JSON, says on how many curves either is worse, and how far the AUCs (10^-10..10^-4 M) are apart there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
from scipy.optimize import curve_fit

from hedflow.curves.fit import BOUNDS, fit_curves
from hedflow.curves.hill import auc_fixed, hill
from hedflow.sources.ccle import read_points

CCLE = "response/CCLE/CCLE_NP24.2009_Drug_data_2015.02.24.csv"
NAMES = ("einf", "ec50", "hs")
WORSE = 1e-6  # relative, of the residual sum of squares: less is rounding


def one_by_one(curves: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """einf, ec50, hs of each curve by scipy; NaN where it gives up."""
    low, high = zip(*(BOUNDS[name] for name in NAMES), strict=True)
    found = np.full((len(curves), 3), np.nan)
    for i, (x, y) in enumerate(curves):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a covariance that cannot be had
            try:
                found[i] = curve_fit(_plain, x, y, p0=(0.5, 6, 1), bounds=(low, high), max_nfev=2000)[0]
            except RuntimeError:
                continue
    return found


def _plain(x: np.ndarray, einf: float, ec50: float, hs: float) -> np.ndarray:
    """The curve as a user writes it for scipy, without hedflow's checks."""
    return einf + (1 - einf) / (1 + 10 ** ((ec50 - x) * hs))


def main() -> None:
    """Time both sides in turn, print each round and the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", default="../shared/data", help="folder with the screens' files")
    parser.add_argument("--curves", type=int, default=3000, help="how many scipy fits; hedflow fits all 11,670")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    points = read_points(Path(given.mirror) / CCLE)
    curve, dose, viability = (points[name].to_numpy() for name in ("curve", "dose", "viability"))
    total = int(curve[-1]) + 1
    drawn = np.sort(np.random.default_rng(0).permutation(total)[: given.curves])
    ends = np.searchsorted(curve, np.arange(total + 1))
    parts = [slice(ends[i], ends[i + 1]) for i in drawn]
    alone = [(-np.log10(dose[part]), np.clip(viability[part], 0, 1)) for part in parts]
    ratios = []
    for number in range(given.rounds):
        begun = time.perf_counter()
        theirs = one_by_one(alone)
        scipy_rate = len(drawn) / (time.perf_counter() - begun)
        begun = time.perf_counter()
        ours = fit_curves(curve, dose, viability)
        our_rate = total / (time.perf_counter() - begun)
        ratios.append(our_rate / scipy_rate)
        print(f"round {number + 1}: hedflow {our_rate:,.0f} curves/s, scipy {scipy_rate:,.0f}, ratio {ratios[-1]:.0f}")
    mine = ours.loc[drawn]
    rss = np.array([((hill(x, *fit) - y) ** 2).sum() for (x, y), fit in zip(alone, theirs, strict=True)])
    slack = WORSE * rss + 1e-9
    apart = np.abs(mine["auc_fixed"].to_numpy() - auc_fixed(*theirs.T))
    ours_worse, theirs_worse = mine["rss"].to_numpy() > rss + slack, mine["rss"].to_numpy() < rss - slack
    same = ~ours_worse & ~theirs_worse & np.isfinite(rss)
    report = {
        "benchmark": "curves",
        "ratio": round(statistics.median(ratios), 1),
        "curves_scipy": len(drawn),
        "curves_hedflow": total,
        "median_absolute_auc_difference": float(np.nanmedian(apart)),
        "hedflow_no_worse": round(float((~ours_worse).mean()), 5),
        "scipy_worse": round(float(theirs_worse.mean()), 5),
        "scipy_gave_up": int(np.isnan(rss).sum()),
        "largest_auc_difference_at_equal_residual": float(apart[same].max()),
        "median_auc_difference_where_scipy_is_worse": float(np.median(apart[theirs_worse]))
        if theirs_worse.any()
        else None,
        "hedflow_not_converged": int((ours["status"] != "converged").sum()),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
