"""The results of an experiment as a Markdown table, for a paper or a README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from hedflow import HedflowError
from hedflow.analysis.experiment import ALL
from hedflow.report.details import interval, missing
from hedflow.report.numbers import incomplete

NEEDED = ("methods", "ranking", "contrasts", "comparison")


def results_table(folder: Path, source: str = ALL, lists: str | None = None) -> str:
    """R2, MAE, MAE of potent pairs and recall at k of every method, each with its interval over drugs.

    Args:
        folder: of the experiment, with its tables/.
        source: whose rows are scored; all of them.
        lists: source whose drugs are ranked, line by line; None: `source`, or the one with the most ranked lines.

    Raises:
        HedflowError: the experiment has not been analysed; no such source, or none with lists of that name.
    """
    for name in NEEDED:
        if not (folder / "tables" / f"{name}.parquet").is_file():
            raise HedflowError(f"{folder / 'tables' / name}.parquet: no such file; run `snakemake` first.")
    tables = {name: pd.read_parquet(folder / "tables" / f"{name}.parquet") for name in NEEDED}
    methods = tables["methods"]
    if source not in set(methods["source"]):
        raise HedflowError(f"no rows of '{source}' were tested; there are {', '.join(methods['source'].unique())}.")
    rows = methods[methods["source"] == source].assign(partial=methods["coverage"] < 1)
    rows = rows.sort_values(["naive", "partial", "r2"], ascending=[False, True, False])
    ranked = sorted(tables["ranking"]["source"].unique())
    if lists is not None and lists not in ranked:
        raise HedflowError(f"'{lists}' has no lists of drugs that are ranked; there are {', '.join(ranked) or 'none'}.")
    recall = _recall(tables["ranking"], lists or (source if source != ALL else None))
    k = int(tables["comparison"]["top_k"].iloc[0])
    title = f"recall@{k}, {recall['source'].iloc[0]}" if len(recall) else f"recall@{k}"
    header = ["method", "R²", "MAE", "MAE, AUC < 0.5", title]
    lines, star = [header, ["---", *["---:"] * 4]], r"\*"
    for row in rows.to_dict("records"):
        name = f"*{row['method']}* (naive)" if row["naive"] else f"{row['method']}{star if row['partial'] else ''}"
        scores = [interval(row, part, 3) for part in ("r2", "mae", "mae_low")]
        lines.append([name, *scores, _ranked(recall, row["method"])])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    reference = str(tables["comparison"]["reference"].iloc[0])
    notes = [line.replace("*", star) for line in missing(methods, reference)]
    return "\n\n".join([text, *notes, _said(tables, rows, recall, k)]) + "\n"


def _recall(ranking: pd.DataFrame, source: str | None) -> pd.DataFrame:
    table = ranking[ranking["metric"] == "recall"]
    if source is None and len(table):
        source = str(table.sort_values(["n_cells", "source"], ascending=[False, True])["source"].iloc[0])
    return table[table["source"] == source].set_index("method")


def _ranked(recall: pd.DataFrame, method: Any) -> str:
    if method not in recall.index:
        return "-"
    row = recall.loc[method]
    found = {"r": row["estimate"], "r_lower": row["low"], "r_upper": row["high"]}
    return interval(found, "r", 3)


def _said(tables: dict[str, pd.DataFrame], rows: pd.DataFrame, recall: pd.DataFrame, k: int) -> str:
    """What the rows are, and plainly which models beat the naive ones."""
    best, squared = (str(tables["comparison"][name].iloc[0]) for name in ("strongest", "strongest_squared"))
    models = rows[~rows["naive"] & ~rows["partial"]]
    less = tables["contrasts"].query("against == @best and part == 'mae' and upper < 0")["method"]
    less = less[~less.isin(incomplete(tables))]
    said = [
        f"{int(rows['n'].iloc[0]):,} pairs of {int(rows['n_drugs'].iloc[0])} drugs; 95 % intervals over drugs.",
        f"A lower squared error than the best naive baseline ({squared}): "
        f"{_names(models.loc[models['r2_normalised_lower'] > 0, 'method'])}.",
    ]
    if rows["source"].iloc[0] == ALL:
        said.append(f"A lower absolute error than the best naive baseline ({best}): {_names(less)}.")
    if len(recall):
        said.append(
            f"recall@{k}: {int(recall['n_cells'].max())} cell lines with their {int(recall['n_drugs'].max())} tested "
            f"drugs; at random {recall['random'].mean():.3f}."
        )
    return " ".join(said)


def _names(methods: pd.Series[str]) -> str:
    """The methods, or that there is none: an interval that holds 0 is no difference."""
    return ", ".join(methods) if len(methods) else "none"
