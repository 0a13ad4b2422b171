"""Figures that compare methods: trade-off, changes, AUC ranges, ranks, predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hedflow.errors import LOW_AUC
from hedflow.figures.style import (
    ACCENT,
    FLOOR,
    GREY,
    NAIVE_MARKERS,
    bounds,
    family_styles,
    figure,
    nothing,
    rows_of_names,
    shown,
)
from hedflow.figures.tables import MANY, Tables

LOW, REST = f"true AUC < {LOW_AUC:g}", f"true AUC ≥ {LOW_AUC:g}"
SECOND = "a second measurement"


def draw_tradeoff(tables: Tables, path: Path) -> None:
    """Error on potent pairs against error on the rest; the alphas of a loss joined; lower left is better."""
    overall = tables.overall
    first = overall.iloc[0]
    many = len(tables.families) > MANY
    with figure(path, *((11, 7.5) if many else (9.5, 6))) as drawn:
        if not overall["mae_low"].notna().any() or not overall["mae_rest"].notna().any():
            nothing(drawn, f"All tested pairs have a true AUC {'≥' if first['n_low'] == 0 else '<'} {LOW_AUC:g}.")
            return
        axis = drawn.axes[0]
        for i, name in enumerate(tables.naive):
            _point(axis, overall.loc[[name]], {"color": GREY, "marker": NAIVE_MARKERS[i % len(NAIVE_MARKERS)]}, 7, name)
        _shifted(axis, tables)
        styles = family_styles(list(tables.families))
        for family, methods in tables.families.items():
            _joined(axis, tables, family, methods, styles[family])
        _second_measurement(axis, tables)
        n_low, n = int(first["n_low"]), int(first["n"])
        axis.set(
            xlabel=f"MAE on the rest, {REST} (n = {n - n_low:,})",
            ylabel=f"MAE on potent pairs, {LOW} (n = {n_low:,}, {int(first['n_drugs_low'])} drugs)",
        )
        _zoom(axis, tables)
        _legend(axis, tables)


def _legend(axis: Axes, tables: Tables) -> None:
    """Losses first, then what a second measurement errs, then what needs no model."""
    handles, labels = axis.get_legend_handles_labels()
    naive = {shown(name) for name in tables.naive}
    rank = {i: 2 if name in naive else 1 if name.endswith("a constant") else 0 for i, name in enumerate(labels)}
    order = sorted(rank, key=rank.__getitem__)
    axis.legend(
        [handles[i] for i in order], [labels[i] for i in order], title="numbers: alpha; grey: naive",
        loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=10, title_fontsize=10, markerscale=0.8,
    )  # fmt: skip


def _point(axis: Axes, row: pd.DataFrame, style: dict[str, Any], size: float, label: str | None) -> None:
    """One method with both its intervals, paler than the point."""
    drawn, caps, bars = axis.errorbar(
        row["mae_rest"], row["mae_low"], bounds(row, "mae_low"), bounds(row, "mae_rest"), capsize=2, elinewidth=1,
        markersize=size, **{**style, "linestyle": "none"}, label=shown(label) if label else None,
    )  # fmt: skip
    for part in (*caps, *bars):
        part.set_alpha(0.45)
    drawn.set_alpha(0.9)


def _joined(axis: Axes, tables: Tables, family: str, methods: list[str], style: dict[str, Any]) -> None:
    """The points of one loss in order of alpha, joined and labelled by alpha."""
    rows = tables.overall.loc[methods]
    for name in methods:
        _point(axis, rows.loc[[name]], {**style, "color": tables.colour[name]}, 9, None)
    axis.plot(rows["mae_rest"], rows["mae_low"], markersize=9, label=shown(family), linewidth=1.5, **style)
    for name, x, y in zip(methods, rows["mae_rest"], rows["mae_low"], strict=True):
        alpha = float(tables.axes["alpha"][name])
        if pd.notna(alpha) and np.isfinite([x, y]).all():
            offset, place = (8, 7), "offset points"
            axis.annotate(f"{alpha:g}", (x, y), offset, textcoords=place, fontsize=10, color=style["color"])


def _shifted(axis: Axes, tables: Tables) -> None:
    """What lowering the best naive prediction by a constant buys and costs."""
    curve = tables.table["shift_curve"]
    if len(curve):
        label = f"{shown(str(curve['naive'].iloc[0]))} less a constant"
        axis.plot(curve["mae_rest"], curve["mae_low"], color=GREY, linestyle="--", linewidth=1.2, label=label)


def _second_measurement(axis: Axes, tables: Tables) -> None:
    """The error that a second measurement of the same pairs has: no model is asked to be better than that."""
    floors = second_measurements(tables)
    for marker, row in zip("*P", floors.to_dict("records"), strict=False):
        axis.plot(
            row["second_mae_rest"], row["second_mae_low"], marker, color=FLOOR, markersize=12,
            label=f"{SECOND} ({row['estimate']})", linestyle="none",
        )  # fmt: skip


def second_measurements(tables: Tables) -> pd.DataFrame:
    """Rows of `floors` over all sources whose pairs were measured twice, low and rest."""
    floors = tables.table["floors"]
    return floors[(floors["source"] == "all") & floors["second_mae"].notna()]


def _zoom(axis: Axes, tables: Tables) -> None:
    """Limits that hold every method's interval, not the whole dashed curve."""
    overall = tables.overall
    for column, which in (("mae_rest", axis.set_xlim), ("mae_low", axis.set_ylim)):
        values = overall[[column, f"{column}_lower", f"{column}_upper"]].to_numpy(float)
        floor = second_measurements(tables)[f"second_{column}"].to_numpy(float)
        low, high = np.nanmin([*values.ravel(), *floor]), np.nanmax([*values.ravel(), *floor])
        gap = 0.05 * (high - low) or 0.01
        which(max(0.0, low - gap), high + gap)


def draw_contrasts(tables: Tables, path: Path) -> None:
    """Forest plot: change of MAE against the reference, on potent pairs and on the rest."""
    table = tables.table["contrasts"].query("against == @reference", local_dict={"reference": tables.reference})
    methods = [name for name in tables.methods if name != tables.reference]
    parts = {"mae_low": f"potent pairs ({LOW})", "mae_rest": f"the rest ({REST})"}
    with figure(path, 11, 2.0 + 0.34 * max(3, len(methods)), columns=2) as drawn:
        if not methods:
            nothing(drawn, "One method: there is nothing to compare it with.")
            return
        for axis, (part, title) in zip(list(drawn.axes), parts.items(), strict=True):
            rows = table[table["part"] == part].set_index("method").loc[methods]
            for i, (name, row) in enumerate(rows.iterrows()):
                sure = row["p_holm"] < 0.05
                axis.errorbar(
                    row["difference"], i, xerr=bounds(rows.loc[[name]], "difference", "lower", "upper"), fmt="o",
                    color=tables.colour[str(name)], capsize=3, markerfacecolor=None if sure else "white",
                )  # fmt: skip
            axis.axvline(0, color="black", linewidth=1)
            rows_of_names(axis, map(shown, methods), labelled=part == "mae_low")
            n, drugs = (int(rows[c].max()) if len(rows) else 0 for c in ("n", "n_drugs"))
            axis.set_title(f"{title}: n = {n:,}, {drugs} drugs", fontsize=12)
            axis.set_xlabel(f"change of MAE against {tables.reference} (left = better)")
            axis.xaxis.set_major_locator(MaxNLocator(6))


def draw_ranges2(tables: Tables, path: Path) -> None:
    """MAE of every method below and above AUC 0.5."""
    table = tables.table["ranges"].query("ranges == 2")
    order = [*tables.methods, *tables.naive]
    ranges = sorted(table["low"].unique())
    floors = second_measurements(tables)
    with figure(path, 11, 2.2 + 0.34 * len(order), columns=len(ranges)) as drawn:
        for axis, low in zip(list(drawn.axes), ranges, strict=True):
            rows = table[table["low"] == low].set_index("method").loc[order]
            sides = bounds(rows, "mae", "lower", "upper")
            for i, name in enumerate(order):
                axis.errorbar(
                    rows["mae"].iloc[i], i, xerr=sides[:, [i]], fmt="o", color=tables.colour[name], capsize=3
                )  # fmt: skip
            column = "second_mae_low" if low < LOW_AUC else "second_mae_rest"
            for style, floor in zip((":", "-."), floors.to_dict("records"), strict=False):
                label = f"{SECOND} ({floor['estimate']})"
                axis.axvline(floor[column], color=FLOOR, linestyle=style, linewidth=1.3, label=label)
            rows_of_names(axis, map(shown, order), labelled=low == ranges[0])
            first = rows.iloc[0]
            axis.set_title(
                f"true AUC {first['low']:g} to {first['high']:g}{' (potent)' if low == 0 else ''}", fontsize=12
            )
            axis.set_xlabel(f"MAE\nn = {int(first['n']):,} rows, {int(first['n_drugs'])} drugs")
        if len(floors):
            drawn.legend(
                *drawn.axes[0].get_legend_handles_labels(), loc="outside lower right", fontsize=10, frameon=False
            )


def draw_ranges10(tables: Tables, path: Path) -> None:
    """MAE in ten AUC ranges: a line a method; a panel a loss where there are many methods."""
    table = tables.table["ranges"].query("ranges == 10 and n > 0")
    lows = sorted(table["low"].unique())
    whole = {"": tables.methods} if len(tables.methods) <= MANY else tables.families
    columns = min(3, len(whole))
    rows = -(-len(whole) // columns)
    width, height = (10.5, 5.8) if len(whole) == 1 else (14, 1.2 + 3.1 * rows)
    with figure(path, width, height, rows, columns, sharex=True, sharey=True) as drawn:
        axes = list(drawn.axes)
        for axis in axes[len(whole) :]:
            axis.set_axis_off()
        for i, (axis, (family, methods)) in enumerate(zip(axes, whole.items(), strict=False)):
            _lines(axis, tables, table, lows, methods)
            axis.set_ylabel("MAE" if i % columns == 0 else "")
            axis.set_title(shown(family), fontsize=12)
            axis.tick_params(labelbottom=i + columns >= len(whole))
            _range_ticks(axis, table, lows, tables.strongest, small=len(whole) > 1)
            axis.legend(frameon=False, fontsize=10 if len(whole) == 1 else 8)
        axes[0].set_ylim(0, None)
        drawn.supxlabel(f"true AUC{' from' if len(whole) > 1 else ''} (low = potent) / rows / drugs", fontsize=12)


def _lines(axis: Axes, tables: Tables, table: pd.DataFrame, lows: list[float], methods: list[str]) -> None:
    names = [*methods, tables.strongest]
    width = min(0.11, 0.8 / len(names))
    for i, name in enumerate(names):
        rows = table[table["method"] == name].set_index("low").reindex(lows)
        x = np.arange(len(lows)) + (i - (len(names) - 1) / 2) * width
        label = f"{shown(name)} (strongest naive)" if name == tables.strongest else shown(name)
        style = tables.style[name]
        axis.errorbar(
            x, rows["mae"], bounds(rows, "mae", "lower", "upper"), color=style["color"], marker=style["marker"],
            markersize=5, capsize=2, linewidth=1, elinewidth=1, label=label,
        )  # fmt: skip


def _range_ticks(axis: Axes, table: pd.DataFrame, lows: list[float], method: str, small: bool) -> None:
    """Below each range its rows and drugs."""
    counts = table[table["method"] == method].set_index("low").reindex(lows)
    ticks = []
    for low, row in counts.iterrows():
        named = f"{low:.1f}" if small else f"{low:.1f}-{row['high']:.1f}"
        ticks.append(f"{named}\n{_brief(row['n']) if small else format(int(row['n']), ',')}\n{int(row['n_drugs'])}")
    axis.set_xticks(range(len(lows)), ticks, fontsize=8 if small else 10)


def _brief(n: float) -> str:
    return f"{n / 1000:.0f}k" if n >= 10_000 else f"{n / 1000:.1f}k" if n >= 1000 else f"{n:.0f}"


def draw_ranks(tables: Tables, path: Path) -> None:
    """Critical-difference diagram: mean rank of the methods over the drugs; a bar joins those not told apart."""
    ranks = tables.table["ranks"]
    parts = {"mae_low": f"potent pairs ({LOW})", "mae_rest": f"the rest ({REST})", "mae": "all pairs"}
    found = {part: title for part, title in parts.items() if (ranks["part"] == part).any()}
    rows = [len(ranks[ranks["part"] == part]) for part in found] or [4]
    with figure(path, 10, 0.8 + sum(1.3 + 0.24 * n for n in rows), rows=max(1, len(found))) as drawn:
        if not found:
            nothing(drawn, "Too few drugs or methods for ranks.")
            return
        for axis, (part, title) in zip(list(drawn.axes), found.items(), strict=True):
            _critical_difference(axis, ranks[ranks["part"] == part].sort_values("mean_rank"), title, tables)


def _critical_difference(axis: Axes, rows: pd.DataFrame, title: str, tables: Tables) -> None:
    first = rows.iloc[0]
    width = float(first["critical_difference"])
    places = rows["mean_rank"].to_numpy()
    for i, (place, name) in enumerate(zip(places, rows["method"], strict=True)):
        axis.plot(place, i, "o", color=tables.colour[name], markersize=7)
    rows_of_names(axis, [shown(str(name)) for name in rows["method"]])
    # Right of the points, a bar for each group of neighbours that the critical difference does not tell apart.
    last, room = -1, 0.03 * max(float(np.ptp(places)), width)
    at = places[-1] + 2 * room
    for i, place in enumerate(places):
        end = int(np.flatnonzero(places <= place + width)[-1])
        if end > max(i, last):
            axis.plot([at, at], [i - 0.2, end + 0.2], color="#333333", linewidth=3, solid_capstyle="butt")
            last, at = end, at + room
    p = first["p_iman_davenport"] if "p_iman_davenport" in rows else first["p"]
    said = "" if pd.isna(p) else f", p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"
    axis.set_title(f"{title}: {int(first['n_drugs'])} drugs, critical difference {width:.2f}{said}", fontsize=12)
    axis.set_xlabel("mean rank of the error over the drugs (left = lower error)")


def draw_predicted(tables: Tables, path: Path) -> None:
    """Predicted against true AUC: the reference, and the method with the lowest error on potent pairs."""
    scores = tables.table["scores"].dropna(subset="auc_pred")
    predicted = set(scores["method"])
    names = [name for name in dict.fromkeys([tables.reference, tables.best_low]) if name in predicted]
    if not names:
        with figure(path, 5.4, 4.6) as drawn:
            nothing(drawn, f"No run of {tables.reference} made a prediction.")
        return
    with figure(path, 5.4 * len(names), 4.6, columns=len(names)) as drawn:
        for axis, name in zip(list(drawn.axes), names, strict=True):
            rows = scores[scores["method"] == name]
            found = axis.hexbin(
                rows["auc"], rows["auc_pred"], gridsize=40, extent=(0, 1, 0, 1), bins="log", cmap="viridis", mincnt=1
            )
            axis.plot([0, 1], [0, 1], color="black", linewidth=1)
            axis.axvline(LOW_AUC, color=ACCENT, linewidth=1.5, linestyle=":")
            axis.set(xlabel="true AUC (low = potent)", ylabel="predicted AUC", xlim=(0, 1), ylim=(0, 1), aspect="equal")
            axis.set_title(f"{name}: R² {tables.overall['r2'][name]:.3f}, n = {len(rows):,}", fontsize=11)
            plt.colorbar(found, ax=axis, label="rows")
