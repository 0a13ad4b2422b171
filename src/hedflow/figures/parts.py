"""Figures of parts of the test rows: slices by source, tissue, mechanism and scaffold, and conformal intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from hedflow.figures.style import ACCENT, bounds, figure, nothing, rows_of_names, short, shown
from hedflow.figures.tables import Tables

MOST_SLICES = 18
AXES = {
    "source": "source",
    "scaffold": "drug's scaffold",
    "mechanism": "drug's mechanism",
    "tissue": "cell line's tissue",
}
WIDTHS = {"constant": "constant width", "by prediction": "width by prediction"}


def draw_slices(tables: Tables, path: Path) -> None:
    """Forest plots: the reference's MAE in slices of the test rows, and its difference to the strongest naive one."""
    table = tables.table["slices"].query("method == @name", local_dict={"name": tables.reference})
    panels = {axis: _largest(table[table["axis"] == axis]) for axis in AXES}
    panels = {axis: rows for axis, rows in panels.items() if len(rows) > 1}
    heights = [0.75 + 0.25 * len(rows) for rows in panels.values()] or [3]
    ratios = {"height_ratios": heights}
    with figure(path, 12, 0.6 + sum(heights), rows=max(1, len(panels)), columns=2, gridspec_kw=ratios) as drawn:
        if not panels:
            nothing(drawn, "The test rows are of one source, tissue, mechanism and scaffold kind: there are no slices.")
            return
        pairs = np.array(drawn.axes).reshape(len(panels), 2)
        for (left, right), (axis, rows) in zip(pairs, panels.items(), strict=True):
            names = [f"{short(r['value'], 30)}  ({r['n']:,} / {r['n_drugs']})" for r in rows.to_dict("records")]
            _forest(left, rows, "mae", tables.colour[tables.reference])
            _forest(right, rows, "difference", tables.colour[tables.reference])
            rows_of_names(left, names)
            rows_of_names(right, names, labelled=False)
            right.axvline(0, color="black", linewidth=1)
            left.axvline(tables.overall["mae"][tables.reference], color="black", linewidth=1, linestyle=":")
            left.set_title(f"by {AXES[axis]} (rows / drugs)", fontsize=11)
        pairs[-1, 0].set_xlabel(f"MAE of {tables.reference} (dotted: over all rows)")
        pairs[0, 1].set_title(f"against the {shown(tables.strongest)}", fontsize=11)
        pairs[-1, 1].set_xlabel("difference of MAE (left = better than naive)")


def _largest(rows: pd.DataFrame) -> pd.DataFrame:
    """The slices with most rows, worst first."""
    return rows.nlargest(MOST_SLICES, "n").sort_values("mae", ascending=False)


def _forest(axis: Axes, rows: pd.DataFrame, value: str, colour: object) -> None:
    """Points with intervals; hollow where a slice has few drugs."""
    sides = bounds(rows, value)
    for i, row in enumerate(rows.itertuples()):
        fill = "white" if row.few else colour
        axis.errorbar(
            [getattr(row, value)], [i], xerr=sides[:, [i]], fmt="o", color=colour, markerfacecolor=fill, capsize=2,
            markersize=5, elinewidth=1,
        )  # fmt: skip


def draw_conformal(tables: Tables, path: Path) -> None:
    """Coverage of conformal intervals by range of the true AUC beside what they promise, and their width."""
    table = tables.table["conformal"]
    why = str(tables.table["comparison"]["conformal"].iloc[0])
    names = [n for n in dict.fromkeys([tables.reference, tables.best_low]) if (table["method"] == n).any()]
    with figure(path, 13, 5.2, columns=2) as drawn:
        if not names:
            nothing(drawn, f"No conformal intervals: {why or 'too few drugs'}.")
            return
        left, right = drawn.axes
        level = 0.9 if (table["level"] == 0.9).any() else float(table["level"].max())
        table = table[(table["level"] == level) & (table["grouping"] == "10 ranges") & (table["n"] > 0)]
        lows = sorted(table["low"].unique())
        drawings = [(name, width) for name in names for width in WIDTHS if (table["width_kind"] == width).any()]
        for i, (name, width) in enumerate(drawings):
            rows = table[(table["method"] == name) & (table["width_kind"] == width)].set_index("low").reindex(lows)
            x = np.arange(len(lows)) + (i - (len(drawings) - 1) / 2) * 0.1
            style = {"color": tables.colour[name], "linestyle": "-" if width == "constant" else "--", "capsize": 2}
            label = f"{shown(name)}, {WIDTHS[width]}"
            left.errorbar(x, rows["coverage"] * 100, bounds(rows, "coverage") * 100, marker="o", label=label, **style)
            right.errorbar(x, rows["width"], marker="o", label=label, **style)
        left.axhline(level * 100, color=ACCENT, linewidth=1.5, linestyle=":", label=f"promised: {level:.0%}")
        counts = table.drop_duplicates("low").set_index("low").reindex(lows)
        ticks = [f"{low:.1f}-{r['high']:.1f}\n{int(r['n']):,}\n{int(r['n_drugs'])}" for low, r in counts.iterrows()]
        for axis in (left, right):
            axis.set_xticks(range(len(lows)), ticks, fontsize=9)
            axis.set_xlabel("true AUC (low = potent) / rows / drugs")
        left.set(ylabel="true AUC inside the interval (% of rows)", ylim=(0, 102))
        right.set(ylabel="width of the interval (AUC)", ylim=(0, None))
        left.legend(frameon=False, fontsize=10, loc="lower right")
