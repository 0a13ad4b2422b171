"""One look for all figures: colours, markers, intervals, names for people."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from hedflow.files import atomic

GREY = "#8a8a8a"
FLOOR = "#5b3a8c"
TRUE, PREDICTED, ACCENT = "#d55e00", "#56b4e9", "#d55e00"
# Told apart with any colour vision: seaborn's `colorblind` without grey, which is for naive baselines, and pale pink.
PALETTE = ("#0173b2", "#de8f05", "#029e73", "#cc78bc", "#d55e00", "#56b4e9", "#ca9161", "#882255", "#b3a100")
MARKERS = "os^DvPX<>*"
NAIVE_MARKERS = "Ds^vP*X<>"
NAMES = {
    "global_mean": "global mean",
    "global_median": "global median",
    "drug_mean": "drug mean",
    "drug_median": "drug median",
    "cell_mean": "cell mean",
    "cell_median": "cell median",
    "tissue_mean": "tissue mean",
    "mean_effects": "mean effects",
    "tanimoto_knn": "Tanimoto kNN",
}

Colour = tuple[float, float, float]


def shown(method: str) -> str:
    """A method's name for people: naive baselines without underscores, losses as in the configuration."""
    return NAMES.get(method, method)


def short(text: str, most: int = 28) -> str:
    """`text`, cut where it is longer than a label may be."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def plain(text: str) -> str:
    """Text that Matplotlib does not take for mathematics: names come from files."""
    return text.replace("$", r"\$")


def family_styles(families: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and line of each family of methods (a model and a loss), the same in every figure."""
    return {
        name: {
            "color": PALETTE[i % len(PALETTE)],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": "-" if i < len(PALETTE) else "--",
        }
        for i, name in enumerate(dict.fromkeys(families))
    }


def shades(colour: str, count: int) -> list[Colour]:
    """`count` shades of a colour, light to dark: the alphas of one loss."""
    if count == 1:
        return [to_rgb(colour)]
    hue, _, saturation = colorsys.rgb_to_hls(*to_rgb(colour))
    return [colorsys.hls_to_rgb(hue, lightness, saturation) for lightness in np.linspace(0.72, 0.26, count)]


@contextmanager
def figure(
    path: str | Path, width: float, height: float, rows: int = 1, columns: int = 1, **more: Any
) -> Iterator[Figure]:
    """A figure of the given size (inches) whose axes are in `.axes`, saved to `path` at the end.

    Args:
        more: keywords of `plt.subplots`, for example `sharex`.
    """
    with sns.axes_style("ticks", {"axes.grid": True, "grid.color": "#ececec"}), sns.plotting_context("notebook"):
        drawn, _ = plt.subplots(rows, columns, figsize=(width, height), layout="constrained", **more)
        try:
            yield drawn
            for axis in drawn.axes:
                axis.spines[["top", "right"]].set_visible(False)
            with atomic(path) as temporary:
                # No creation date: the same tables draw the same bytes.
                drawn.savefig(temporary, dpi=110, format="png", metadata={"Software": None})
        finally:
            plt.close(drawn)


def bounds(rows: pd.DataFrame, value: str, low: str | None = None, high: str | None = None) -> np.ndarray:
    """Distances of the intervals from their estimates, (2, n), for error bars; 0 where there is no interval."""
    lower, upper = rows[low or f"{value}_lower"], rows[high or f"{value}_upper"]
    sides = np.array([rows[value] - lower, upper - rows[value]], dtype=float)
    distances: np.ndarray = np.clip(np.nan_to_num(sides), 0, None)
    return distances


def nothing(drawn: Figure, why: str) -> None:
    """A figure that says why there is nothing to see."""
    for axis in drawn.axes:
        axis.set_axis_off()
    drawn.text(0.5, 0.5, why, ha="center", va="center", fontsize=13, color="#444444", wrap=True)


def rows_of_names(axis: Axes, names: Iterable[str], labelled: bool = True) -> None:
    """One row a name, the first on top; names only where `labelled`."""
    listed = list(names)
    axis.set(yticks=range(len(listed)), ylim=(len(listed) - 0.4, -0.6))
    axis.set_yticklabels([plain(name) for name in listed] if labelled else [], fontsize=11)
    axis.grid(axis="y", visible=False)
