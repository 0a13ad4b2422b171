"""Figures of drugs: high error drugs, every drug's error, distance to the training drugs, driving pairs, z-scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from hedflow.figures.style import ACCENT, GREY, PREDICTED, TRUE, bounds, figure, nothing, plain, short, shown
from hedflow.figures.tables import Tables

MOST_DRUGS = 16
MOST_NAMES = 12
DRIVERS = 8  # drugs of the figure of driving pairs


def own_drugs(tables: Tables) -> pd.DataFrame:
    """The drugs under the reference."""
    return tables.table["drugs"].query("method == @name", local_dict={"name": tables.reference})


def draw_high_error_drugs(tables: Tables, path: Path) -> None:
    """AUC of the high error drugs over the cell lines: true and as the reference predicts it."""
    worst, drugs = tables.table["high_error_drugs"].head(MOST_DRUGS), own_drugs(tables)
    title = f"drugs above the z threshold: {len(tables.table['high_error_drugs'])} of {len(drugs)}"
    if len(tables.table["high_error_drugs"]) > MOST_DRUGS:
        title += f" (the {MOST_DRUGS} worst)"
    if worst.empty:  # none is above the threshold: show the worst ones and say so
        worst = drugs.nlargest(8, "mae")
        title = f"no drug is above the z threshold; the {len(worst)} worst"
    scores = tables.table["scores"]
    rows = scores[(scores["method"] == tables.reference) & scores["drug"].isin(worst["drug"])]
    long = rows.melt(["drug"], ["auc", "auc_pred"], "which", "value").replace({"auc": "true", "auc_pred": "predicted"})
    labels = {
        r["drug"]: plain(f"{short(r['drug_name'])}  (MAE {r['mae']:.2f}{_z(r['mae_z'])}, n {r['n']})")
        for r in worst.to_dict("records")
    }
    long["label"] = long["drug"].map(labels)
    with figure(path, 10, 1.4 + 0.45 * len(worst)) as drawn:
        axis = drawn.axes[0]
        sns.boxplot(
            long, x="value", y="label", hue="which", order=[labels[d] for d in worst["drug"]], ax=axis,
            hue_order=["true", "predicted"], palette=[TRUE, PREDICTED], fliersize=1.5, linewidth=1,
        )  # fmt: skip
        axis.set(xlabel="AUC (low = potent)", ylabel="", xlim=(0, 1))
        axis.set_title(f"{title}; {tables.reference}", fontsize=12)
        axis.legend(title="", frameon=False, loc="lower left", bbox_to_anchor=(1.0, 0.8))


def _z(value: float) -> str:
    return "" if pd.isna(value) else f", z {value:.1f}"


def draw_drug_errors(tables: Tables, path: Path) -> None:
    """Every drug's MAE, sorted, under the reference; the high error drugs by name."""
    drugs = own_drugs(tables).sort_values("mae", ignore_index=True)
    high = drugs["drug"].isin(tables.table["high_error_drugs"]["drug"])
    named = drugs[high].iloc[::-1].head(MOST_NAMES)
    with figure(path, 10, 5) as drawn:
        axis = drawn.axes[0]
        axis.scatter(drugs.index, drugs["mae"], s=10, color=GREY, label="drug")
        if high.any():
            axis.scatter(drugs.index[high], drugs.loc[high, "mae"], s=22, color=ACCENT, label="high error drug")
        # Names in a column left of the points, from the worst down, pushed apart where they would overlap.
        gap, height = 0.045 * drugs["mae"].max(), float("inf")
        for at, name, mae in zip(named.index, named["drug_name"], named["mae"], strict=True):
            height = min(mae, height - gap)
            line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6}
            spot = (0.8 * len(drugs), height)
            axis.annotate(plain(short(name)), (at, mae), spot, ha="right", va="center", fontsize=9, arrowprops=line)
        axis.axhline(drugs["mae"].mean(), color="black", linewidth=1, linestyle=":", label="mean over drugs")
        axis.set(
            xlabel=f"drugs by error (n = {len(drugs)} drugs, {int(drugs['n'].sum()):,} rows)",
            ylabel=f"MAE of the drug ({tables.reference})", ylim=(0, None),
        )  # fmt: skip
        axis.legend(frameon=False, loc="upper left")


def draw_distance(tables: Tables, path: Path) -> None:
    """Error against the similarity of the nearest training drug: each drug, and bins with intervals."""
    with figure(path, 13, 5.4, columns=2) as drawn:
        left, right = drawn.axes[:2]
        _each_drug(left, tables)
        _by_similarity(right, tables)


def _each_drug(axis: Axes, tables: Tables) -> None:
    drugs = own_drugs(tables)
    high = drugs["drug"].isin(tables.table["high_error_drugs"]["drug"])
    points = axis.scatter(
        drugs["similarity"],
        drugs["mae"],
        c=drugs["low_share"] * 100,
        cmap="viridis_r",
        s=18 + 30 * high,
        edgecolors="#555555",
        linewidths=0.3,
    )
    axis.figure.colorbar(points, ax=axis, label="rows of the drug with AUC < 0.5 (%)")
    named, heights = drugs[high].nlargest(MOST_NAMES, "mae"), [float("inf")]
    for name, x, y in zip(named["drug_name"], named["similarity"], named["mae"], strict=True):
        if heights[-1] - y > 0.03 * drugs["mae"].max():  # else the name would lie on the one above
            axis.annotate(plain(short(name)), (x, y), (5, 3), textcoords="offset points", fontsize=9)
            heights.append(y)
    axis.set(
        xlabel="Tanimoto similarity of the nearest training drug (ECFP)", ylabel=f"MAE of the drug ({tables.reference})"
    )
    axis.set_title(f"{_trend(tables)}{len(drugs)} drugs", fontsize=12)


def _trend(tables: Tables) -> str:
    trend = tables.table["distance_trend"]
    row = trend[(trend["method"] == tables.reference) & (trend["part"] == "mae")]
    if row.empty or pd.isna(row["rho"].iloc[0]):
        return ""
    rho, low, high = row[["rho", "lower", "upper"]].iloc[0]
    return f"Spearman {rho:.2f} [{low:.2f}, {high:.2f}], "


def _by_similarity(axis: Axes, tables: Tables) -> None:
    """MAE in bins of similarity: some methods and the strongest naive baseline."""
    table, chosen = tables.table["distance"], tables.few(4)
    bins = table[table["method"] == tables.reference].sort_values("bin")
    if bins.empty:
        axis.set_axis_off()
        return
    names = [*chosen, tables.strongest]
    for i, name in enumerate(names):
        rows = table[table["method"] == name].set_index("bin").reindex(bins["bin"])
        x = np.arange(len(bins)) + (i - (len(names) - 1) / 2) * 0.1
        style = tables.style[name]
        axis.errorbar(
            x, rows["mae"], bounds(rows, "mae"), color=style["color"], marker=style["marker"], markersize=5,
            capsize=2, linewidth=1, label=f"{shown(name)}{' (strongest naive)' if name == tables.strongest else ''}",
        )  # fmt: skip
    ticks = [
        f"{r['similarity_low']:g}-{r['similarity_high']:g}\n{r['n']:,}\n{r['n_drugs']}" for r in bins.to_dict("records")
    ]
    axis.set_xticks(range(len(bins)), ticks, fontsize=9)
    axis.set(xlabel="similarity of the nearest training drug / rows / drugs", ylabel="MAE", ylim=(0, None))
    axis.set_title(f"by bins, 95 % over drugs{tables.said_few(chosen)}", fontsize=11)
    axis.legend(framealpha=0.75, edgecolor="none", fontsize=9)


def draw_pairs(tables: Tables, path: Path) -> None:
    """Which (drug, cell line) pairs drive the error of the worst drugs."""
    pairs = tables.table["pairs"].query("method == @name", local_dict={"name": tables.reference})
    worst = own_drugs(tables).nlargest(DRIVERS, "mae")
    found = [d for d in worst["drug"] if (pairs["drug"] == d).any()]
    columns = min(4, max(1, len(found)))
    rows = -(-max(1, len(found)) // columns)
    with figure(path, 3.5 * columns + 0.5, 0.9 + 3.6 * rows, rows=rows, columns=columns) as drawn:
        axes = list(drawn.axes)
        if not found:
            nothing(drawn, "No drug has driving pairs.")
            return
        for axis in axes[len(found) :]:
            axis.set_axis_off()
        for i, (axis, drug) in enumerate(zip(axes, found, strict=False)):
            own = pairs[pairs["drug"] == drug].sort_values("place")
            _drivers(axis, tables, drug, own)
            axis.set(ylabel="predicted AUC" if i % columns == 0 else "", xlabel="true AUC (low = potent)")
        handles, labels = axes[0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=10)


def _drivers(axis: Axes, tables: Tables, drug: int, own: pd.DataFrame) -> None:
    """One drug: all its pairs, the driving ones marked, and those that another measurement contradicts."""
    scores = tables.table["scores"]
    rows = scores[(scores["method"] == tables.reference) & (scores["drug"] == drug)]
    kept = rows.iloc[np.linspace(0, len(rows) - 1, min(len(rows), 1500)).astype(int)]
    axis.plot([0, 1], [0, 1], color="black", linewidth=1)
    axis.scatter(kept["auc"], kept["auc_pred"], s=5, color=GREY, alpha=0.5, label="pair", rasterized=True)
    axis.scatter(own["auc"], own["auc_pred"], s=22, color=ACCENT, label="driving pair (of at most 20)")
    odd = own[own["disagrees"].fillna(value=False).astype(bool)]
    label = "its second measurement differs by > 0.2"
    axis.scatter(odd["auc"], odd["auc_pred"], s=70, facecolors="none", edgecolors="black", linewidths=1.2, label=label)
    worst = own.iloc[0]
    right = worst["auc"] > 0.5
    axis.annotate(
        plain(short(str(worst["cell_name"]), 14)), (worst["auc"], worst["auc_pred"]), (-5 if right else 5, 5),
        textcoords="offset points", fontsize=8, ha="right" if right else "left",
    )  # fmt: skip
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    half = tables.table["concentration"]
    half = half[(half["method"] == tables.reference) & (half["drug"] == drug)]
    said = f"; half in {int(half['n_half'].iloc[0]):,}" if len(half) else ""
    name = plain(short(str(own["drug_name"].iloc[0]), 24))
    axis.set_title(
        f"{name}\n{len(own)} of {len(rows):,} pairs: {own['share'].sum():.0%} of the error{said}", fontsize=10
    )


def draw_z_scores(tables: Tables, path: Path) -> None:
    """Distributions of the four z-scores, classic (mean, SD) and robust (median, MAD)."""
    scores = tables.table["scores"].query("method == @name", local_dict={"name": tables.reference})
    drugs = own_drugs(tables)
    panels = [
        ("residual_z", "residual (prediction - truth), rows", scores),
        ("mae_z", "mean absolute error of a drug, drugs", drugs),
        ("auc_z_drug", "true AUC within its drug, rows", scores),
        ("auc_z_cell", "true AUC within its cell line, rows", scores),
    ]
    with figure(path, 10, 6.5, rows=2, columns=2) as drawn:
        for axis, (column, title, table) in zip(list(drawn.axes), panels, strict=True):
            bins = np.linspace(-6, 6, 61 if len(table) > 1000 else 25).tolist()
            classic, robust = (table[name].dropna().clip(-6, 6) for name in (column, f"{column}_robust"))
            axis.hist(classic, bins, histtype="stepfilled", color="#0072b2", alpha=0.6, label="classic")
            axis.hist(robust, bins, histtype="step", color=ACCENT, alpha=1, label="robust")
            axis.set_title(f"z of {title}: n = {len(table):,}", fontsize=11)
            axis.set_xlabel("z (beyond ±6 in the last bin)")
            if len(classic) or len(robust):  # one drug has no z
                axis.set_yscale("log")
        drawn.axes[0].legend(frameon=False)
