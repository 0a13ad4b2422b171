"""The figure of rows kept and lost, from the screens' files to the bundle."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import seaborn as sns

from hedflow.figures.style import GREY, figure

KEPT = "in the bundle"


def draw_lost_rows(losses: pd.DataFrame, path: str | Path) -> None:
    """One bar a source: the share of its rows that reach the bundle, and why the others do not.

    Args:
        losses: `schemas.LOSSES` of integrate and bundle together.
    """
    start = losses.groupby("source", sort=False)["rows_before"].max()
    lost = losses.pivot_table(index="source", columns="reason", values="rows_lost", aggfunc="sum", sort=False)
    lost = lost.loc[start.index, [reason for reason in lost if lost[reason].sum() > 0]]
    shares = lost.div(start, axis=0) * 100
    shares.insert(0, KEPT, 100 - shares.sum(axis=1))
    palette = [GREY, *sns.color_palette("colorblind", len(lost.columns))]
    with figure(path, 10, 1.6 + 0.6 * len(start)) as drawn:
        axis = drawn.axes[0]
        left = pd.Series(0.0, index=start.index)
        for reason, colour in zip(shares, palette, strict=True):
            axis.barh(start.index, shares[reason], left=left, color=colour, label=reason, height=0.7)
            left += shares[reason]
        for i, source in enumerate(start.index):
            kept = start[source] - int(lost.loc[source].sum())
            axis.text(1, i, f"{kept:,} of {start[source]:,}", va="center", color="white", fontsize=11)
        axis.set(xlabel="rows of the screen's file (%)", xlim=(0, 100))
        axis.invert_yaxis()
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, frameon=False, fontsize=10)
