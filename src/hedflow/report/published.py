"""The published figures of the study that this experiment follows, beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hedflow.report.numbers import incomplete

COLUMNS = ["loss", "alpha", "mae_low", "mae_rest", "rows", "rows_low", "source"]


def read_published(path: str | Path) -> pd.DataFrame:
    """Rows of resources/published_hed.csv: the error of each loss below and above AUC 0.5, with its source."""
    return pd.read_csv(path)[COLUMNS]


def beside_ours(published: pd.DataFrame, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The published losses that this experiment has too, ours beside them; empty where it has none of them."""
    runs = tables["runs"].drop_duplicates("method").set_index("method")
    overall = tables["methods"].query("source == 'all'").set_index("method")
    partial = incomplete(tables)
    rows = []
    for theirs in published.to_dict("records"):
        for method in runs.index[_same(runs, theirs["loss"], theirs["alpha"])]:
            own = overall.loc[method]
            rows.append(
                {
                    "loss": f"{method}{'*' if method in partial else ''}",
                    "published, AUC < 0.5": f"{theirs['mae_low']:.4f}",
                    "ours, AUC < 0.5": _number(own["mae_low"]),
                    "published, the rest": f"{theirs['mae_rest']:.4f}",
                    "ours, the rest": _number(own["mae_rest"]),
                }
            )
    return pd.DataFrame(rows)


def _same(runs: pd.DataFrame, loss: str, theirs: float) -> np.ndarray:
    alpha = pd.to_numeric(runs["alpha"], errors="coerce").to_numpy(float)
    equal = np.isnan(alpha) if np.isnan(theirs) else alpha == theirs
    found: np.ndarray = (runs["loss_name"] == loss).to_numpy(bool) & equal
    return found


def _number(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.4f}"


def difference(published: pd.DataFrame, numbers: dict[str, Any]) -> str:
    """What sets the two apart, in words."""
    first = published.iloc[0]
    return (
        f"Published: {first['source']}, {first['rows']} test rows, {first['rows_low']} of them below 0.5. Ours: "
        f"{numbers['rows']:,} rows of {numbers['drugs']} drugs, split {numbers['split']}. Other drugs, other rows and "
        "other training data: only the order of the losses, and which way a lean toward low AUC moves both errors, can "
        "be compared."
    )
