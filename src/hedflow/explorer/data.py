"""The data of the explorer: an experiment's tables as compact JSON.

Numbers are whole: errors, AUCs and similarities in `SCALE`ths, as many places as are shown (null where there is none),
so that a page of hundreds of drugs and a dozen methods stays small.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hedflow.errors import LOW_AUC
from hedflow.figures.style import shown
from hedflow.figures.tables import Tables

SCALE = 1_000
MOST_METHODS = 12  # whose single predictions are in the page; every method's errors are
NUMBERS = 1_200_000  # of single predictions, at most
POINTS = (20, 120)  # pairs of a drug that are shown: fewest, most
FACTS = ("drug_id", "drug_name", "target", "mechanism", "nearest")
UNKNOWN = "unknown"


def explorer_data(tables: Path) -> dict[str, Any]:
    """What the page shows, from the tables in `tables`; JSON without NaN."""
    read = Tables(tables)
    methods = read.few(MOST_METHODS)
    drugs = read.table["drugs"].query("method == @name", local_dict={"name": read.reference})
    drugs = drugs.sort_values("drug", ignore_index=True)
    order = {drug: i for i, drug in enumerate(drugs["drug"])}
    scores = pd.read_parquet(
        tables / "scores.parquet",
        columns=["method", "row", "cell", "drug", "source", "auc", "auc_pred"],
        filters=[("method", "in", methods)],
    )
    cells = read.table["cells"].drop_duplicates("cell").set_index("cell")["cell_name"]
    lines = read.table["candidates"]
    used = sorted({*scores["cell"], *lines["cell"]})
    names = [*read.methods, *read.naive]
    return {
        "reference": read.reference,
        "split": str(read.table["comparison"]["split_kind"].iloc[0]),
        "top_k": read.top_k,
        "low_auc": LOW_AUC,
        "scale": SCALE,
        "high_error": [order[d] for d in read.table["high_error_drugs"]["drug"] if d in order],
        "methods": [{"name": n, "shown": shown(n), "naive": n in read.naive, "pairs": n in methods} for n in names],
        "left_out": len(read.methods) - len(methods),
        "drugs": _drugs(drugs, scores),
        "errors": {name: _errors(read.table["drugs"], name, order) for name in names},
        "cells": [str(cells[cell]) for cell in used],
        "pairs": _pairs(scores, methods, order, {cell: i for i, cell in enumerate(used)}),
        "lists": _lists(lines, [*methods, *read.naive], order, {cell: i for i, cell in enumerate(used)}),
        "shown": _shown(read.table["shown_lines"], {cell: i for i, cell in enumerate(used)}),
    }


def _scaled(values: Any) -> list[int | None]:
    """Numbers in `SCALE`ths."""
    return [None if not np.isfinite(v) else round(float(v) * SCALE) for v in np.asarray(values, dtype=float)]


def _text(table: pd.DataFrame, column: str) -> list[str]:
    """A column of text; the empty one where a table has none or a value is missing."""
    if column not in table:
        return [""] * len(table)
    return [str(value) for value in table[column].astype(object).where(table[column].notna(), "")]


def _drugs(drugs: pd.DataFrame, scores: pd.DataFrame) -> dict[str, Any]:
    """A list a column, in the order of the drugs' numbers: what does not depend on the method."""
    tested = scores.drop_duplicates(["drug", "source"]).groupby("drug")["source"]
    sources = tested.agg(lambda names: ", ".join(sorted(map(str, names))))
    found: dict[str, Any] = {name: _text(drugs, name) for name in FACTS}
    found["mechanism"] = [name or UNKNOWN for name in found["mechanism"]]
    found["sources"] = [str(sources.get(drug, "")) for drug in drugs["drug"]]
    found |= {name: drugs[name].astype(int).tolist() for name in ("n", "n_cells")}
    return found | {name: _scaled(drugs[name]) for name in ("similarity", "auc_mean", "auc_sd", "low_share")}


def _errors(drugs: pd.DataFrame, method: str, order: dict[int, int]) -> dict[str, Any]:
    """Errors of every drug under one method."""
    rows = drugs[drugs["method"] == method].set_index("drug").reindex(list(order))
    return {name: _scaled(rows[name]) for name in ("mae", "bias", "mae_z")}


def _pairs(scores: pd.DataFrame, methods: list[str], order: dict[int, int], place: dict[int, int]) -> dict[str, Any]:
    """True and predicted AUC of some pairs of each drug, evenly by true AUC and the same for all methods."""
    most = int(np.clip(NUMBERS / (len(order) * (len(methods) + 3)), *POINTS))
    first = scores[scores["method"] == methods[0]].sort_values(["drug", "auc", "row"], kind="stable")
    kept = [rows.iloc[_even(len(rows), most)] for _, rows in first.groupby("drug", sort=True)]
    rows = pd.concat(kept)
    wide = scores.pivot(index="row", columns="method", values="auc_pred").reindex(rows["row"])
    sources = sorted(rows["source"].astype(str).unique())
    return {
        "count": [int(n) for n in rows.groupby("drug").size().reindex(list(order)).fillna(0)],
        "sources": sources,
        "cell": [place[cell] for cell in rows["cell"]],
        "source": [sources.index(name) for name in rows["source"].astype(str)],
        "auc": _scaled(rows["auc"]),
        "auc_pred": {name: _scaled(wide[name]) for name in methods},
    }


def _even(count: int, most: int) -> np.ndarray:
    """At most `most` places, evenly over 0..count - 1, both ends among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _lists(lines: pd.DataFrame, methods: list[str], order: dict[int, int], place: dict[int, int]) -> dict[str, Any]:
    """The candidates by list (a cell line in a source): what is true of a drug once, its ranks by method beside."""
    lines = lines[lines["method"].isin(methods)]
    names = [name for name in methods if (lines["method"] == name).any()]
    keys = ["source", "cell", "drug"]
    once = lines.drop_duplicates(keys).sort_values(keys, ignore_index=True)
    starts = once.drop_duplicates(["source", "cell"])
    by = {name: rows.set_index(keys) for name, rows in lines.groupby("method", sort=False)}
    index = pd.MultiIndex.from_frame(once[keys])
    ranks = {name: by[name].reindex(index) for name in names}
    return {
        "source": starts["source"].astype(str).tolist(),
        "cell": [place[cell] for cell in starts["cell"]],
        "n": starts["n"].astype(int).tolist(),
        "count": once.groupby(["source", "cell"], sort=True).size().tolist(),
        "drug": [order[drug] for drug in once["drug"]],
        "auc": _scaled(once["auc"]),
        "rank_true": once["rank_true"].astype(int).tolist(),
        "by": {
            name: {
                "auc_pred": _scaled(rows["auc_pred"]),
                "rank_pred": [None if pd.isna(rank) else int(rank) for rank in rows["rank_pred"]],
            }
            for name, rows in ranks.items()
        },
    }


def _shown(lines: pd.DataFrame, place: dict[int, int]) -> list[dict[str, Any]]:
    """The lists that the report shows as figures; the explorer begins with the first."""
    once = lines.drop_duplicates(["why", "source", "cell"])
    return [{"why": row["why"], "source": row["source"], "cell": place[row["cell"]]} for row in once.to_dict("records")]
