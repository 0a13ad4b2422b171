"""The figures of one experiment, from its tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from hedflow.analysis import TABLES
from hedflow.errors import LOW_AUC
from hedflow.figures import FIGURES
from hedflow.figures.style import GREY, colours, figure, shown

MOST_DRUGS = 16
RANKING = {"recall": "recall@{k}", "ndcg": "NDCG@{k}", "spearman": "Spearman"}


class Tables:
    """An experiment's tables, read from its folder, and what all figures need to know."""

    def __init__(self, folder: Path) -> None:
        self.table = {name: pd.read_parquet(folder / f"{name}.parquet") for name in TABLES}
        whole = self.table["methods"].query("source == 'all'")
        self.methods = whole.loc[~whole["naive"], "method"].tolist()
        self.naive = whole.loc[whole["naive"], "method"].tolist()
        self.overall = whole.set_index("method")
        self.reference = str(self.table["comparison"]["reference"].iloc[0])
        self.strongest = str(self.table["comparison"]["strongest"].iloc[0])
        self.top_k = int(self.table["comparison"]["top_k"].iloc[0])
        self.colour: dict[str, Any] = colours(self.methods) | dict.fromkeys(self.naive, GREY)

    @property
    def best_low(self) -> str:
        """The method with the lowest error on potent pairs."""
        errors = self.overall.loc[self.methods, "mae_low"].dropna()
        return str(errors.idxmin()) if len(errors) else self.reference


def draw_all(tables: Path, out: Path) -> None:
    """Draw every figure of `FIGURES` into `out`, from the tables in `tables`."""
    read = Tables(tables)
    for name in FIGURES:
        globals()[f"draw_{name}"](read, out / f"{name}.png")


def _interval(row: pd.Series, name: str) -> np.ndarray:
    """Distances of a row's interval from its estimate, (2, 1), for error bars."""
    low, high = row[f"{name}_lower"], row[f"{name}_upper"]
    return np.array([[row[name] - low], [high - row[name]]])


def draw_tradeoff(tables: Tables, path: Path) -> None:
    """Error on potent pairs (AUC < 0.5) against error on the rest; lower left is better."""
    with figure(path, 8.5, 5.5) as drawn:
        axis = drawn.axes[0]
        for i, (name, row) in enumerate(tables.overall.iterrows()):
            naive = bool(row["naive"])
            x, y = row["mae_rest"], row["mae_low"]
            style = {"color": tables.colour[str(name)], "marker": "Ds^vP*"[i % 6] if naive else "o"}
            axis.errorbar(
                x, y, _interval(row, "mae_low"), _interval(row, "mae_rest"), capsize=2, elinewidth=1,
                alpha=0.8, markersize=7 if naive else 10, linestyle="none", label=shown(str(name)), **style,
            )  # fmt: skip
        curve = tables.table["shift_curve"]
        if len(curve):
            within = curve[curve["mae_rest"] <= 1.05 * tables.overall["mae_rest_upper"].max()]
            label = f"{shown(str(curve['naive'].iloc[0]))} less a constant"
            axis.plot(within["mae_rest"], within["mae_low"], color=GREY, linestyle="--", linewidth=1, label=label)
        n_low, n = int(row["n_low"]), int(row["n"])
        axis.set(
            xlabel=f"MAE on the rest, AUC ≥ 0.5 (n = {n - n_low:,})",
            ylabel=f"MAE on potent pairs, AUC < 0.5 (n = {n_low:,})",
        )
        axis.legend(title="grey: naive baselines", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def draw_contrasts(tables: Tables, path: Path) -> None:
    """Forest plot: change of MAE against the reference, on potent pairs and on the rest."""
    table = tables.table["contrasts"].query("against == @reference", local_dict={"reference": tables.reference})
    methods = [name for name in tables.methods if name != tables.reference]
    parts = {"mae_low": "potent pairs (AUC < 0.5)", "mae_rest": "the rest (AUC ≥ 0.5)"}
    with figure(path, 9, 2.2 + 0.5 * len(methods), columns=2) as drawn:
        for axis, (part, title) in zip(drawn.axes, parts.items(), strict=True):
            rows = table[table["part"] == part].set_index("method")
            for i, name in enumerate(methods):
                row = rows.loc[name]
                error = [[row["difference"] - row["lower"]], [row["upper"] - row["difference"]]]
                axis.errorbar(row["difference"], i, xerr=error, fmt="o", color=tables.colour[name], capsize=3)
            axis.axvline(0, color="black", linewidth=1)
            axis.set(yticks=range(len(methods)), ylim=(len(methods) - 0.5, -0.5))
            axis.set_yticklabels([shown(name) for name in methods])
            axis.set_title(f"{title}, n = {int(rows['n'].max()) if len(rows) else 0:,}", fontsize=12)
            axis.set_xlabel(f"change of MAE against {tables.reference}")
        if not methods:
            axis = drawn.axes[0]
            axis.text(0.5, 0.5, "one method: nothing to compare", transform=axis.transAxes, ha="center")


def draw_ranges2(tables: Tables, path: Path) -> None:
    """MAE of every method in the ranges below and above AUC 0.5."""
    table = tables.table["ranges"].query("ranges == 2")
    order = [*tables.methods, *tables.naive]
    ranges = sorted(table["low"].unique())
    with figure(path, 9.5, 1.6 + 0.38 * len(order), columns=len(ranges)) as drawn:
        for axis, low in zip(drawn.axes, ranges, strict=True):
            rows = table[table["low"] == low].set_index("method").loc[order]
            for i, (name, row) in enumerate(rows.iterrows()):
                error = [[row["mae"] - row["lower"]], [row["upper"] - row["mae"]]]
                axis.errorbar(row["mae"], i, xerr=error, fmt="o", color=tables.colour[str(name)], capsize=3)
            axis.set(yticks=range(len(order)), ylim=(len(order) - 0.5, -0.5), xlabel="MAE")
            axis.set_yticklabels([shown(name) for name in order] if low == ranges[0] else [])
            first = rows.iloc[0]
            title = f"AUC {first['low']:g} to {first['high']:g}: n = {int(first['n']):,}, {int(first['n_drugs'])} drugs"
            axis.set_title(title, fontsize=12)


def draw_ranges10(tables: Tables, path: Path) -> None:
    """MAE in ten AUC ranges, a line a method, with the number of rows in each range."""
    table = tables.table["ranges"].query("ranges == 10 and n > 0")
    lows = sorted(table["low"].unique())
    names = [*tables.methods, tables.strongest]
    with figure(path, 10, 5.5) as drawn:
        axis = drawn.axes[0]
        for i, name in enumerate(names):
            rows = table[table["method"] == name].set_index("low").reindex(lows)
            x = np.arange(len(lows)) + (i - (len(names) - 1) / 2) * 0.11
            error = [rows["mae"] - rows["lower"], rows["upper"] - rows["mae"]]
            label = f"{shown(name)} (strongest naive)" if name == tables.strongest else shown(name)
            axis.errorbar(
                x, rows["mae"], error, fmt="o-", color=tables.colour[name], capsize=2, linewidth=1, label=label
            )
        counts = table[table["method"] == names[0]].set_index("low").reindex(lows)
        ticks = [f"{low:.1f}-{row.high:.1f}\n{int(row.n):,}\n{int(row.n_drugs)}" for low, row in counts.iterrows()]
        axis.set(xticks=range(len(lows)), xlabel="true AUC (low = potent) / rows / drugs", ylabel="MAE", ylim=(0, None))
        axis.set_xticklabels(ticks, fontsize=10)
        axis.legend(frameon=False)


def draw_ranking(tables: Tables, path: Path) -> None:
    """Recall, NDCG and Spearman per cell line by source and method, beside their random expectation."""
    table = tables.table["ranking"]
    sources = sorted(table["source"].unique()) or ["no source with enough drugs"]
    order = [*tables.methods, *tables.naive]
    height = 1.4 + 0.3 * len(order)
    with figure(path, 11, height * len(sources), rows=len(sources), columns=len(RANKING)) as drawn:
        axes = np.array(drawn.axes).reshape(len(sources), len(RANKING))
        for line, source in zip(axes, sources, strict=True):
            for axis, (metric, title) in zip(line, RANKING.items(), strict=True):
                rows = table[(table["source"] == source) & (table["metric"] == metric)].set_index("method")
                for i, name in enumerate(order):
                    if name in rows.index:
                        row = rows.loc[name]
                        error = [[row["estimate"] - row["low"]], [row["high"] - row["estimate"]]]
                        error = np.clip(error, 0, None).tolist()
                        axis.errorbar(row["estimate"], i, xerr=error, fmt="o", color=tables.colour[name], capsize=2)
                        axis.plot([row["random"]] * 2, [i - 0.4, i + 0.4], color="black", linewidth=1.5)
                axis.set(yticks=range(len(order)), ylim=(len(order) - 0.5, -0.5))
                axis.set_yticklabels([shown(name) for name in order] if axis is line[0] else [])
                about = f", {int(rows['n_cells'].max())} lines, {int(rows['n_drugs'].max())} drugs" if len(rows) else ""
                axis.set_title(f"{source}: {title.format(k=tables.top_k)}{about}", fontsize=10)


def draw_high_error_drugs(tables: Tables, path: Path) -> None:
    """AUC of the high error drugs over the cell lines: true and as the reference predicts it."""
    worst = tables.table["high_error_drugs"].head(MOST_DRUGS)
    drugs = tables.table["drugs"].query("method == @name", local_dict={"name": tables.reference})
    title = f"drugs above the z threshold: {len(tables.table['high_error_drugs'])} of {len(drugs)}"
    if worst.empty:  # none is above the threshold: show the worst ones and say so
        worst, title = drugs.nlargest(8, "mae"), "no drug is above the z threshold; the 8 worst"
    scores = tables.table["scores"]
    rows = scores[(scores["method"] == tables.reference) & scores["drug"].isin(worst["drug"])]
    long = rows.melt(["drug"], ["auc", "auc_pred"], "which", "value").replace({"auc": "true", "auc_pred": "predicted"})
    labels = {r.drug: f"{r.drug_name}  (MAE {r.mae:.2f}, z {r.mae_z:.1f}, n {r.n})" for r in worst.itertuples()}
    long["label"] = long["drug"].map(labels)
    with figure(path, 10, 1.4 + 0.45 * len(worst)) as drawn:
        axis = drawn.axes[0]
        sns.boxplot(
            long, x="value", y="label", hue="which", order=[labels[d] for d in worst["drug"]], ax=axis,
            hue_order=["true", "predicted"], palette=["#d55e00", "#56b4e9"], fliersize=1.5, linewidth=1,
        )  # fmt: skip
        axis.set(xlabel="AUC (low = potent)", ylabel="", xlim=(0, 1))
        axis.set_title(f"{title}; {tables.reference}", fontsize=12)
        axis.legend(title="", frameon=False, loc="lower left", bbox_to_anchor=(1.0, 0.8))


def draw_drug_errors(tables: Tables, path: Path) -> None:
    """Every drug's MAE, sorted, under the reference; the high error drugs by name."""
    drugs = tables.table["drugs"].query("method == @name", local_dict={"name": tables.reference})
    drugs = drugs.sort_values("mae", ignore_index=True)
    high = drugs["drug"].isin(tables.table["high_error_drugs"]["drug"])
    named = drugs[high].iloc[::-1].head(12)
    with figure(path, 10, 5) as drawn:
        axis = drawn.axes[0]
        axis.scatter(drugs.index, drugs["mae"], s=10, color=GREY, label="drug")
        axis.scatter(drugs.index[high], drugs.loc[high, "mae"], s=22, color="#d55e00", label="high error drug")
        # Names in a column left of the points, from the worst down, pushed apart where they would overlap.
        gap, height = 0.045 * drugs["mae"].max(), float("inf")
        for at, name, mae in zip(named.index, named["drug_name"], named["mae"], strict=True):
            height = min(mae, height - gap)
            line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6}
            spot = (0.8 * len(drugs), height)
            axis.annotate(name, (at, mae), spot, ha="right", va="center", fontsize=9, arrowprops=line)
        axis.set(xlabel=f"drugs by error (n = {len(drugs)})", ylabel=f"MAE of the drug ({tables.reference})")
        axis.legend(frameon=False, loc="upper left")


def draw_distance(tables: Tables, path: Path) -> None:
    """A drug's MAE against the Tanimoto similarity of its nearest training drug."""
    drugs = tables.table["drugs"].query("method == @name", local_dict={"name": tables.reference})
    high = drugs["drug"].isin(tables.table["high_error_drugs"]["drug"])
    varies = drugs["similarity"].min() < drugs["similarity"].max()
    rho = drugs["similarity"].corr(drugs["mae"], method="spearman") if varies else np.nan
    with figure(path, 8, 5) as drawn:
        axis = drawn.axes[0]
        points = axis.scatter(
            drugs["similarity"], drugs["mae"], c=drugs["low_share"] * 100, cmap="viridis_r", s=18 + 30 * high
        )
        drawn.colorbar(points, label="rows of the drug with AUC < 0.5 (%)")
        named, heights = drugs[high].nlargest(12, "mae"), [float("inf")]
        for name, x, y in zip(named["drug_name"], named["similarity"], named["mae"], strict=True):
            if heights[-1] - y > 0.03 * drugs["mae"].max():  # else the name would lie on the one above
                axis.annotate(name, (x, y), (5, 3), textcoords="offset points", fontsize=9)
                heights.append(y)
        axis.set(xlabel="Tanimoto similarity of the nearest training drug (ECFP)", ylabel=f"MAE ({tables.reference})")
        said = "" if np.isnan(rho) else f"Spearman {rho:.2f}, "
        axis.set_title(f"{said}{len(drugs)} drugs", fontsize=12)


def draw_z_scores(tables: Tables, path: Path) -> None:
    """Distributions of the four z-scores, classic (mean, SD) and robust (median, MAD)."""
    scores = tables.table["scores"].query("method == @name", local_dict={"name": tables.reference})
    drugs = tables.table["drugs"].query("method == @name", local_dict={"name": tables.reference})
    panels = [
        ("residual_z", "residual (prediction - truth), rows", scores),
        ("mae_z", "mean absolute error of a drug, drugs", drugs),
        ("auc_z_drug", "true AUC within its drug, rows", scores),
        ("auc_z_cell", "true AUC within its cell line, rows", scores),
    ]
    with figure(path, 10, 6.5, rows=2, columns=2) as drawn:
        for axis, (column, title, table) in zip(drawn.axes, panels, strict=True):
            bins = np.linspace(-6, 6, 61 if len(table) > 1000 else 25).tolist()
            classic, robust = (table[name].dropna().clip(-6, 6) for name in (column, f"{column}_robust"))
            axis.hist(classic, bins, histtype="stepfilled", color="#0072b2", alpha=0.6, label="classic")
            axis.hist(robust, bins, histtype="step", color="#d55e00", alpha=1, label="robust")
            axis.set_title(f"z of {title}: n = {len(table):,}", fontsize=11)
            axis.set(xlabel="z (beyond ±6 in the last bin)", yscale="log")
        drawn.axes[0].legend(frameon=False)


def draw_predicted(tables: Tables, path: Path) -> None:
    """Predicted against true AUC: the reference, and the method with the lowest error on potent pairs."""
    names = list(dict.fromkeys([tables.reference, tables.best_low]))
    scores = tables.table["scores"]
    with figure(path, 5.4 * len(names), 4.6, columns=len(names)) as drawn:
        for axis, name in zip(list(drawn.axes), names, strict=True):
            rows = scores[scores["method"] == name]
            found = axis.hexbin(
                rows["auc"], rows["auc_pred"], gridsize=50, extent=(0, 1, 0, 1), bins="log", cmap="viridis", mincnt=1
            )
            axis.plot([0, 1], [0, 1], color="black", linewidth=1)
            axis.axvline(LOW_AUC, color="#d55e00", linewidth=1, linestyle=":")
            axis.set(xlabel="true AUC (low = potent)", ylabel="predicted AUC", xlim=(0, 1), ylim=(0, 1), aspect="equal")
            r2, n = tables.overall["r2"][name], int(tables.overall["n"][name])
            axis.set_title(f"{name}: R² {r2:.3f}, n = {n:,}", fontsize=11)
            plt.colorbar(found, ax=axis, label="rows")


def draw_training(tables: Tables, path: Path) -> None:
    """The validation metric that picks the weights, over the epochs of every run."""
    runs = tables.table["runs"].query("epochs > 0")  # only networks have some
    if runs.empty:
        with figure(path, 9, 2) as drawn:
            drawn.axes[0].text(0.5, 0.5, "no method is trained in epochs", ha="center")
        return
    monitor = str(runs["monitor"].iloc[0])
    with figure(path, 9, 4.5) as drawn:
        axis = drawn.axes[0]
        for name in tables.methods:
            for i, run in enumerate(runs[runs["method"] == name].itertuples()):
                history = pd.DataFrame(json.loads(run.history))
                axis.plot(
                    history["epoch"] + 1, history[monitor], color=tables.colour[name], linewidth=1, alpha=0.7,
                    label=shown(name) if i == 0 else None,
                )  # fmt: skip
                best = history.iloc[int(run.best_epoch)]
                axis.plot(best["epoch"] + 1, best[monitor], "o", color=tables.colour[name], markersize=4)
        axis.set(
            xlabel="epoch (dot: the weights that are kept)", ylabel=monitor.replace("_", " ").replace("mae", "MAE")
        )
        axis.legend(frameon=False, title=f"{len(runs)} runs")
