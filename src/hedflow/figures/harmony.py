"""The figure of the sources' agreement on the pairs they share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns

from hedflow.figures.style import figure


def draw_agreement(agreed: pd.DataFrame, path: str | Path) -> None:
    """Pearson r of each two sources (left) and the spread of r over the drugs they share (right).

    Args:
        agreed: from `harmony.agreement`.
    """
    whole = agreed[agreed["drug_id"] == ""]
    drugs = agreed[(agreed["drug_id"] != "") & (agreed["n"] >= 30)].dropna(subset="pearson")
    names = list(dict.fromkeys([*whole["source"], *whole["other"]]))
    with figure(path, 12, 1.8 + 0.55 * max(4, len(whole)), columns=2) as drawn:
        left, right = drawn.axes
        matrix = pd.DataFrame(np.nan, index=names, columns=names)
        text = pd.DataFrame("", index=names, columns=names)
        for row in whole.to_dict("records"):
            matrix.loc[row["source"], row["other"]] = matrix.loc[row["other"], row["source"]] = row["pearson"]
            said = f"{row['pearson']:.2f}\n{row['n']:,}"
            text.loc[row["source"], row["other"]] = text.loc[row["other"], row["source"]] = said
        if len(whole):
            sns.heatmap(
                matrix, vmin=0, vmax=1, cmap="mako_r", annot=text, fmt="", ax=left, square=True,
                cbar_kws={"label": "Pearson r", "shrink": 0.6}, annot_kws={"fontsize": 9},
            )  # fmt: skip
        left.grid(visible=False)
        left.set(title="AUC of shared pairs: r, pairs", xlabel="", ylabel="")
        label = drugs["source"] + " - " + drugs["other"]
        if len(drugs):
            order = list(dict.fromkeys(label))
            sns.boxplot(x=drugs["pearson"], y=label, order=order, ax=right, color="#9ecae1", fliersize=0, width=0.6)
            sns.stripplot(
                x=drugs["pearson"], y=label, order=order, ax=right, color="#08306b", size=3, alpha=0.6, jitter=False
            )
        right.set(title="r over cell lines, one point a drug (30 lines or more)", xlabel="Pearson r", ylabel="")
