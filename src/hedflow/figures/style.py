"""One look for all figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

from hedflow.files import atomic

GREY = "#8a8a8a"
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


def shown(method: str) -> str:
    """A method's name for people: naive baselines without underscores, losses as in the configuration."""
    return NAMES.get(method, method)


def colours(methods: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """A colour a method, the same in every figure (they come in the order of the plan)."""
    palette = sns.color_palette("colorblind" if len(methods) <= 10 else "husl", len(methods))
    return dict(zip(methods, palette, strict=True))


@contextmanager
def figure(path: str | Path, width: float, height: float, rows: int = 1, columns: int = 1) -> Iterator[Figure]:
    """A figure of the given size (inches) whose axes are in `.axes`, saved to `path` at the end."""
    with sns.axes_style("ticks", {"axes.grid": True, "grid.color": "#ececec"}), sns.plotting_context("notebook"):
        drawn, _ = plt.subplots(rows, columns, figsize=(width, height), layout="constrained")
        try:
            yield drawn
            for axis in drawn.axes:
                axis.spines[["top", "right"]].set_visible(False)
            with atomic(path) as temporary:
                # No creation date: the same tables draw the same bytes.
                drawn.savefig(temporary, dpi=110, format="png", metadata={"Software": None})
        finally:
            plt.close(drawn)
