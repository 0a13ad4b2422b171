"""Figures of the runs: the validation metric over the epochs, and whether they converged."""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from hedflow.analysis.convergence import BALANCED, OWN_LOSS
from hedflow.figures.style import figure, nothing, rows_of_names, shown
from hedflow.figures.tables import MANY, Tables

FEW_RUNS = 12  # of a method; above it a band stands for the runs
# Worst first, so that what went wrong stands at the left.
CLASSES = {
    "diverged": "#d55e00",
    "not trained": "#cc78bc",
    "no better than the training mean": "#de8f05",
    "overfitted": "#ece133",
    "still improving": "#56b4e9",
    "converged": "#029e73",
    "one epoch": "#949494",
    "not iterative": "#bbbbbb",
}


def drawn_by(run: dict[Hashable, Any]) -> str:
    """What is drawn of a run: its monitor; the balanced MAE if that is its loss: losses do not share a scale."""
    return BALANCED if run["monitor"] == OWN_LOSS else str(run["monitor"])


def histories(tables: Tables) -> dict[str, list[tuple[np.ndarray, np.ndarray, int]]]:
    """Of each method that is trained in epochs, by run: epochs (from 1), validation metric, kept epoch (from 0)."""
    found: dict[str, list[tuple[np.ndarray, np.ndarray, int]]] = {}
    for run in tables.table["runs"].to_dict("records"):
        history = pd.DataFrame(json.loads(run["history"]))
        if len(history) and pd.notna(run["best_epoch"]):
            line = (history["epoch"].to_numpy() + 1, history[drawn_by(run)].to_numpy(float), int(run["best_epoch"]))
            found.setdefault(str(run["method"]), []).append(line)
    return {name: found[name] for name in tables.methods if name in found}


def draw_training(tables: Tables, path: Path) -> None:
    """The validation error (see `drawn_by`) over the epochs of every run; a band where there are many."""
    lines, runs = histories(tables), tables.table["runs"]
    without = [shown(name) for name in tables.methods if name not in lines]
    whole = {"": list(lines)}
    if len(lines) > MANY:
        whole = {family: [m for m in methods if m in lines] for family, methods in tables.families.items()}
        whole = {family: methods for family, methods in whole.items() if methods}
    columns = min(3, len(whole))
    rows = -(-len(whole) // columns)
    width, height = (10, 5) if len(whole) == 1 else (14, 1 + 3 * rows)
    with figure(path, width, height, rows, columns, sharey=True, sharex=True) as drawn:
        if not lines:
            nothing(drawn, f"No method is trained in epochs: {', '.join(without)}.")
            return
        axes = list(drawn.axes)
        for axis in axes[len(whole) :]:
            axis.set_axis_off()
        for axis, (family, methods) in zip(axes, whole.items(), strict=False):
            for name in methods:
                _curves(axis, lines[name], shown(name), tables.colour[name])
            axis.set_title(shown(family), fontsize=11)
            axis.legend(frameon=False, fontsize=10 if len(whole) == 1 else 8)
        monitor = drawn_by(runs[runs["method"].isin(lines)].to_dict("records")[0])
        drawn.supylabel(monitor.replace("_", " ").replace("mae", "MAE"), fontsize=12)
        said = f"epoch (dot: the weights that are kept); n = {sum(map(len, lines.values()))} runs"
        drawn.supxlabel(said + (f"; without epochs: {', '.join(without)}" if without else ""), fontsize=12)


def _curves(axis: Axes, runs: list[tuple[np.ndarray, np.ndarray, int]], label: str, colour: object) -> None:
    if len(runs) <= FEW_RUNS:
        for i, (epoch, value, best) in enumerate(runs):
            named = label if i == 0 else None
            axis.plot(epoch, value, color=colour, linewidth=1, alpha=0.7, label=named)
            kept = min(best, len(value) - 1)
            axis.plot(epoch[kept], value[kept], "o", color=colour, markersize=4)
        return
    # Runs that stop early keep their last value, so that the band is of all runs at every epoch.
    longest = max(len(value) for _, value, _ in runs)
    table = np.array([np.pad(value, (0, longest - len(value)), mode="edge") for _, value, _ in runs])
    low, middle, high = np.nanpercentile(table, [10, 50, 90], axis=0)
    epoch = np.arange(1, longest + 1)
    axis.fill_between(epoch, low, high, color=colour, alpha=0.2, linewidth=0)
    axis.plot(epoch, middle, color=colour, linewidth=1.5, label=f"{label}: median, 80 % of {len(runs)} runs")
    values = [value[min(best, len(value) - 1)] for _, value, best in runs]
    axis.plot(np.median([best + 1 for _, _, best in runs]), np.median(values), "o", color=colour, markersize=6)


def draw_convergence(tables: Tables, path: Path) -> None:
    """How many runs of each method ended how."""
    table = tables.table["convergence"]
    counts = pd.crosstab(table["method"], table["class"]).reindex(tables.methods).fillna(0)
    shares = counts.div(counts.sum(axis=1), axis=0) * 100
    others = [name for name in counts if name not in CLASSES]
    palette = CLASSES | dict(zip(others, sns.color_palette("husl", len(others)), strict=True))
    with figure(path, 10, 1.8 + 0.34 * len(counts)) as drawn:
        axis = drawn.axes[0]
        left = np.zeros(len(counts))
        for name in [name for name in palette if name in counts]:
            axis.barh(range(len(counts)), shares[name], left=left, color=palette[name], label=name, height=0.75)
            for i, (start, width, n) in enumerate(zip(left, shares[name], counts[name], strict=True)):
                if width > 4:
                    axis.text(start + width / 2, i, f"{int(n)}", ha="center", va="center", fontsize=9)
            left += shares[name].to_numpy()
        rows_of_names(axis, map(shown, counts.index))
        axis.set(xlim=(0, 100), xlabel=f"runs (%); numbers: runs, {len(table)} in all")
        drawn.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False, fontsize=10)
