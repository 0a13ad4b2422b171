"""The figure of a second step: every high error drug before and after, and all methods against their control."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from hedflow.analysis.second_step import HIGH, OTHERS
from hedflow.figures.style import GREY, family_styles, figure, nothing, shown

MOST_DRUGS = 24
MOST_METHODS = 3


def draw_second_step(tables: Path, path: Path) -> None:
    """Draw `path` from the tables of `analysis.second_step` in the folder `tables`."""
    errors = pd.read_parquet(tables / "second_step.parquet")
    drugs = pd.read_parquet(tables / "second_step_drugs.parquet").query("high_error")
    reference = str(pd.read_parquet(tables / "comparison.parquet")["reference"].iloc[0])
    if HIGH not in set(errors["drugs"]):
        with figure(path, 8, 3) as drawn:
            nothing(drawn, "None of the high error drugs is tested here.")
        return
    compared = errors[errors["control"].notna() & (errors["part"] == "mae")]
    colour = {name: style["color"] for name, style in family_styles(list(compared["method"].unique())).items()}
    height = 1.8 + 0.32 * max(min(MOST_DRUGS, drugs["drug"].nunique()), compared["method"].nunique())
    with figure(path, 13, height, columns=2) as drawn:
        _dumbbells(drawn.axes[0], drugs, _best(compared), reference, colour)
        _forest(drawn.axes[1], compared, colour)


def _best(compared: pd.DataFrame) -> list[str]:
    """The methods with the lowest error on the high error drugs."""
    high = compared[compared["drugs"] == HIGH].sort_values("mae")
    return [str(name) for name in high["method"].head(MOST_METHODS)]


def _dumbbells(axis: Axes, drugs: pd.DataFrame, best: list[str], reference: str, colour: dict[str, str]) -> None:
    own = drugs[drugs["method"] == reference].sort_values("z_first", ascending=False).head(MOST_DRUGS)
    for place, row in enumerate(own.to_dict("records")):
        now = drugs[(drugs["drug"] == row["drug"]) & drugs["method"].isin(best)].set_index("method")["mae"]
        ends = [row["mae_first"], row["mae"], *now]
        axis.plot([min(ends), max(ends)], [place, place], color=GREY, linewidth=1, zorder=1)
        axis.scatter(row["mae_first"], place, s=46, facecolors="white", edgecolors="black", zorder=2)
        axis.scatter(row["mae"], place, s=46, color="black", zorder=3)
        for name, mae in now.items():
            axis.scatter(mae, place, s=30, color=colour[str(name)], zorder=4)
    # Empty ones for the legend
    axis.scatter([], [], facecolors="white", edgecolors="black", label=f"{own['earlier'].iloc[0]}, first step")
    axis.scatter([], [], color="black", label=f"{reference}, retrained")
    for name in best:
        axis.scatter([], [], color=colour[name], label=shown(name))
    axis.set(yticks=range(len(own)), ylim=(len(own) - 0.5, -0.5), xlabel="MAE of the drug")
    axis.set_yticklabels([f"{row.drug_name} (z {row.z_first:.1f}, n {row.n:,})" for row in own.itertuples()])
    total = drugs["drug"].nunique()
    axis.set_title(f"the {len(own)} worst of {total} high error drugs" if total > len(own) else f"{total} drugs")
    axis.legend(frameon=False, fontsize=9)


def _forest(axis: Axes, compared: pd.DataFrame, colour: dict[str, str]) -> None:
    methods = list(dict.fromkeys(compared["method"]))
    groups = [group for group in (HIGH, OTHERS) if group in set(compared["drugs"])]
    for group, marker in zip(groups, "os", strict=False):
        rows = compared[compared["drugs"] == group].set_index("method")
        for place, name in enumerate(methods):
            row = rows.loc[name]
            ends = [[row["difference"] - row["difference_lower"]], [row["difference_upper"] - row["difference"]]]
            at = place + (0.16 if group == OTHERS else -0.16) * (len(groups) - 1)
            error = np.nan_to_num(np.clip(ends, 0, None))
            axis.errorbar(
                row["difference"], at, xerr=error.tolist(), fmt=marker, color=colour[name], capsize=3,
                fillstyle="full" if group == HIGH else "none",
            )  # fmt: skip
        name = "high error drugs" if group == HIGH else "other drugs"
        label = f"{name} ({int(rows['n_drugs'].max()) if len(rows) else 0})"
        axis.plot([], [], marker, color="black", fillstyle="full" if group == HIGH else "none", label=label)
    axis.axvline(0, color="black", linewidth=1)
    axis.set(yticks=range(len(methods)), ylim=(max(len(methods), 1) - 0.5, -0.5))
    control = compared.drop_duplicates("method").set_index("method")["control"]
    axis.set_yticklabels([f"{shown(name)} - {control[name]}" for name in methods])
    axis.set_xlabel("change of MAE against the control")
    if methods:
        axis.legend(frameon=False, fontsize=9)
    else:
        axis.text(0.5, 0.5, "one method: nothing to compare", transform=axis.transAxes, ha="center")
