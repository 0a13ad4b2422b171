"""Figures of cell lines: rankings by source, and the candidates of a few lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from hedflow.figures.style import ACCENT, GREY, bounds, figure, nothing, plain, rows_of_names, short, shown
from hedflow.figures.tables import Tables

RANKING = {"recall": "recall@{k}", "ndcg": "NDCG@{k}", "spearman": "Spearman"}
MOST_METHODS = 12
MOST_LINES = 9


def draw_ranking(tables: Tables, path: Path) -> None:
    """Recall, NDCG and Spearman per cell line by source and method, beside their random expectation."""
    table = tables.table["ranking"]
    sources = sorted(table["source"].unique())
    chosen = tables.few(MOST_METHODS)
    order = [*chosen, *tables.naive]
    width, height = 2.6 + 2.6 * max(1, len(sources)), 0.8 + 0.26 * len(order)
    with figure(path, width, height * len(RANKING), rows=len(RANKING), columns=max(1, len(sources))) as drawn:
        if not sources:
            nothing(drawn, f"No source tested {2 * tables.top_k} drugs or more on a cell line.")
            return
        axes = np.array(drawn.axes).reshape(len(RANKING), len(sources))
        for line, (metric, title) in zip(axes, RANKING.items(), strict=True):
            for axis, source in zip(line, sources, strict=True):
                rows = table[(table["source"] == source) & (table["metric"] == metric)].set_index("method")
                _metric(axis, tables, rows, order)
                rows_of_names(axis, map(shown, order), labelled=axis is line[0])
                axis.set_xlabel(title.format(k=tables.top_k))
                if metric == "recall":
                    about = (
                        f"{int(rows['n_cells'].max())} lines, {int(rows['n_drugs'].max())} drugs" if len(rows) else ""
                    )
                    axis.set_title(f"{source}\n{about}", fontsize=11)
        drawn.suptitle(f"right = better; black tick: a random order{tables.said_few(chosen)}", fontsize=11)


def _metric(axis: Axes, tables: Tables, rows: pd.DataFrame, order: list[str]) -> None:
    for i, name in enumerate(order):
        if name in rows.index:
            row = rows.loc[[name]]
            sides = bounds(row, "estimate", "low", "high")
            axis.errorbar(row["estimate"], [i], xerr=sides, fmt="o", color=tables.colour[name], capsize=2, markersize=5)
            axis.plot([row["random"].iloc[0]] * 2, [i - 0.4, i + 0.4], color="black", linewidth=1.5)


def draw_candidates(tables: Tables, path: Path) -> None:
    """True against predicted AUC of the drugs of a few cell lines, the predicted and the true best marked."""
    lines = tables.table["shown_lines"]
    methods = [name for name in dict.fromkeys([tables.reference, tables.best_low]) if (lines["method"] == name).any()]
    lists = lines[lines["method"].isin(methods)].drop_duplicates(["why", "source", "cell"])
    shown_lists = lists.head(MOST_LINES).to_dict("records")
    panels = [(one, name) for one in shown_lists for name in methods]
    columns = 2 if len(methods) == 2 else min(3, max(1, len(panels)))
    rows = -(-max(1, len(panels)) // columns)
    with figure(path, 5.2 * max(2, columns) + 0.4, 4.6 * rows + 0.8, rows, columns) as drawn:
        if not panels:
            nothing(drawn, f"No cell line has {2 * tables.top_k} tested drugs.")
            return
        for axis in drawn.axes[len(panels) :]:
            axis.set_axis_off()
        for axis, (one, name) in zip(drawn.axes, panels, strict=False):
            inside = (lines["method"] == name) & (lines["source"] == one["source"]) & (lines["cell"] == one["cell"])
            _one_line(axis, lines[inside], tables.top_k, shown(name))
        handles, labels = drawn.axes[0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=10)
        if len(lists) > MOST_LINES:
            said = f"{MOST_LINES} of {len(lists)} lists; the others: explorer, table candidates"
            drawn.suptitle(said, fontsize=11)


def _one_line(axis: Axes, drugs: pd.DataFrame, k: int, method: str) -> None:
    if drugs.empty:  # predicted alike, so that none comes first
        axis.set_axis_off()
        axis.text(0.5, 0.5, plain(f"{method} predicts the same for all drugs"), ha="center", transform=axis.transAxes)
        return
    first = drugs.iloc[0]
    predicted, best = drugs["rank_pred"] <= k, drugs["rank_true"] <= k
    kinds = [
        (~predicted & ~best, GREY, "o", 14, "other drug"),
        (~predicted & best, "#009e73", "D", 34, f"one of the {k} truly best, missed"),
        (predicted & ~best, "#0072b2", "o", 34, f"one of the {k} predicted best, not among the true ones"),
        (predicted & best, ACCENT, "*", 110, "both: a hit"),
    ]
    for chosen, colour, marker, size, label in kinds:
        rows = drugs[chosen]
        axis.scatter(rows["auc"], rows["auc_pred"], s=size, color=colour, marker=marker, label=label, alpha=0.85)
    axis.plot([0, 1], [0, 1], color="black", linewidth=1)
    _name_points(axis, drugs[predicted | best])
    axis.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="true AUC (low = potent)", ylabel="predicted AUC")
    hits = int((predicted & best).sum())
    axis.set_title(
        plain(f"{first['why']}: {short(str(first['cell_name']), 18)} ({first['source']}), {method}\n")
        + f"{hits} of {k} found, {hits / k:.0%}; by chance {k / first['n']:.0%}; n = {first['n']} drugs",
        fontsize=10,
    )


def _name_points(axis: Axes, drugs: pd.DataFrame) -> None:
    """Names of the marked drugs, those that would lie on one another left out: the table has them all."""
    taken: list[tuple[float, float]] = []
    for row in drugs.sort_values("rank_pred").to_dict("records"):
        x, y = float(row["auc"]), float(row["auc_pred"])
        if all(abs(y - other) > 0.035 or abs(x - beside) > 0.45 for beside, other in taken):
            right = x > 0.6  # a name beyond the frame would shrink the panel
            axis.annotate(
                plain(short(str(row["drug_name"]), 20)), (x, y), (-7 if right else 7, -3),
                textcoords="offset points", fontsize=8, ha="right" if right else "left",
            )  # fmt: skip
            taken.append((x, y))
