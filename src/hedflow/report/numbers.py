"""The figures that an experiment is remembered by, as plain JSON: answer.json and the opening paragraph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from hedflow.figures.style import shown

SURE = 0.05  # of a p-value after Holm's correction
CONTRAST = ("difference", "lower", "upper", "relative", "p", "p_holm", "n", "n_drugs")


def plain(value: Any) -> float | int | None:
    """A number as JSON has it; None where there is none."""
    if pd.isna(value):
        return None
    return int(value) if float(value).is_integer() and abs(value) >= 1 else round(float(value), 6)


def clear(row: Any) -> bool:
    """Whether a difference is told from none: its interval excludes 0, and so does its p-value after Holm."""
    return bool((row["upper"] < 0 or row["lower"] > 0) and row["p_holm"] < SURE)


def against(tables: dict[str, pd.DataFrame], other: str, part: str) -> pd.DataFrame:
    """The models' differences to one method on one part of the rows, the lowest first."""
    rows = tables["contrasts"]
    rows = rows[(rows["against"] == other) & (rows["part"] == part)].dropna(subset="difference")
    return rows.sort_values("difference", ignore_index=True)


def incomplete(tables: dict[str, pd.DataFrame]) -> dict[str, float]:
    """Methods whose runs failed in part, or all: the share of the test rows that each predicts.

    Their errors are of other rows than the others': they are shown, marked, and never called the best.
    """
    overall = tables["methods"].query("source == 'all' and coverage < 1")
    return {str(row["method"]): float(row["coverage"]) for row in overall.to_dict("records")}


def marked(method: str, partial: Mapping[str, float]) -> str:
    """A method's name as it is shown; with a star where it lacks predictions."""
    return f"{shown(method)}{'*' if method in partial else ''}"


def experiment_numbers(tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """None stands where there is no such number: one method only, no potent pair, one drug, failed runs."""
    comparison = tables["comparison"].iloc[0]
    reference, strongest = str(comparison["reference"]), str(comparison["strongest"])
    overall = tables["methods"].query("source == 'all'").set_index("method")
    partial = incomplete(tables)
    low = against(tables, reference, "mae_low")
    low = low[~low["method"].isin(partial)]
    # One that is clearly better before one that only has a lower error.
    sure = low[[clear(row) and row["difference"] < 0 for row in low.to_dict("records")]] if len(low) else low
    best = str((sure if len(sure) else low)["method"].iloc[0]) if len(low) else None
    whole = overall.loc[~overall["naive"] & ~overall.index.isin(partial), "mae"]
    closest = str(whole.idxmin()) if len(whole) else None

    def contrast(method: str | None, part: str, other: str) -> dict[str, Any] | None:
        rows = against(tables, other, part).query("method == @method", local_dict={"method": method})
        return {key: plain(rows.iloc[0][key]) for key in CONTRAST} if len(rows) else None

    def error(method: str | None, part: str) -> float | int | None:
        return plain(overall.loc[method, part]) if method else None

    return {
        "split": str(comparison["split_kind"]),
        "runs": len(tables["runs"]),
        "methods": int((~overall["naive"]).sum()),
        "rows": int(overall["n"].loc[reference]),
        "rows_low": int(overall["n_low"].loc[reference]),
        "drugs": int(overall["n_drugs"].loc[reference]),
        "incomplete": {name: round(coverage, 6) for name, coverage in partial.items()},
        "reference": reference,
        "reference_mae_low": error(reference, "mae_low"),
        "reference_mae_rest": error(reference, "mae_rest"),
        "best_low": best,
        "best_low_mae_low": error(best, "mae_low"),
        "best_low_mae_rest": error(best, "mae_rest"),
        "low": contrast(best, "mae_low", reference),
        "rest": contrast(best, "mae_rest", reference),
        "strongest_naive": strongest,
        "strongest_naive_mae": error(strongest, "mae"),
        "best_overall": closest,
        "best_overall_mae": error(closest, "mae"),
        "against_naive": contrast(closest, "mae", strongest),
        "r2_normalised": error(closest, "r2_normalised"),
        "ranking": _ranking(tables["ranking"], tables["ranking_differences"], reference),
        "high_error_drugs": len(tables["high_error_drugs"]),
    }


def _ranking(table: pd.DataFrame, differences: pd.DataFrame, reference: str) -> dict[str, Any] | None:
    """Recall in the source with the most ranked cell lines, and the best method's difference to the reference there."""
    table = table[table["metric"] == "recall"]
    if table.empty:
        return None
    source = str(table.sort_values(["n_cells", "source"], ascending=[False, True])["source"].iloc[0])
    rows = table[table["source"] == source].set_index("method")
    best = str(rows["estimate"].idxmax())
    own = rows.loc[reference].to_dict()
    of = differences.query("metric == 'recall' and source == @source and method == @best").to_dict("records")
    keys = {"difference": "difference", "low": "difference_lower", "high": "difference_upper", "p_holm": "p_holm"}
    contrast = {name: plain(of[0][key]) if of else None for key, name in keys.items()}
    return {
        "source": source,
        "lines": int(own["n_cells"]),
        "recall": plain(own["estimate"]),
        "lower": plain(own["low"]),
        "upper": plain(own["high"]),
        "random": plain(own["random"]),
        "best": best,
        "best_recall": plain(rows.loc[best, "estimate"]),
        "of": len(rows),
        **contrast,
    }
