"""The figures of one experiment, from its tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hedflow.figures import FIGURES, drugs, losses, parts, ranking, training
from hedflow.figures.tables import Tables

MODULES = (losses, ranking, drugs, parts, training)


def draw_all(tables: Path, out: Path, names: Iterable[str] = FIGURES) -> None:
    """Draw the figures of `FIGURES` that are named, or all of them, into `out`, from the tables in `tables`."""
    read = Tables(tables)
    for name in names:
        draw = next(getattr(module, f"draw_{name}") for module in MODULES if hasattr(module, f"draw_{name}"))
        draw(read, out / f"{name}.png")
