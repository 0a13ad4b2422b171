"""The explorer's charts as Vega-Lite, made with altair; the page fills in the data."""

from __future__ import annotations

from typing import Any

import altair as alt

from hedflow.errors import LOW_AUC
from hedflow.figures.style import ACCENT, GREY, PALETTE

FONT = "system-ui, 'DejaVu Sans', sans-serif"
BAND = [0, 1]
BELOW = alt.Legend(orient="bottom", title=None, columns=3)
# What a drug's error can be drawn against: the key is a column of the page's rows.
AXES = {
    "auc_mean": ("mean true AUC of the drug (low = potent)", BAND),
    "similarity": ("Tanimoto similarity of the nearest training drug", BAND),
    "mae_z": ("z-score of its error (over the drugs)", None),
    "low_share": ("share of its pairs with a true AUC below 0.5", BAND),
    "n": ("number of tested pairs", None),
}
AXIS_NAMES = {
    "auc_mean": "mean AUC",
    "similarity": "similarity to training",
    "mae_z": "z-score",
    "low_share": "share of potent pairs",
    "n": "number of pairs",
}
COLOURS = {"group": "mechanism", "origin": "source", "kind": "high error drug"}


def charts() -> dict[str, Any]:
    """Every chart and channel of the page, as JSON: scatter, x, colour, cells, line."""
    return {
        "scatter": _plain(scatter()),
        "x": {name: _axis(name).to_dict() for name in AXES},
        "axis_names": AXIS_NAMES,
        "colour": {name: _colour(name).to_dict() for name in COLOURS},
        "colour_names": COLOURS,
        "cells": _plain(cells()),
        "line": _plain(line()),
    }


def _plain(chart: alt.LayerChart | alt.FacetChart) -> dict[str, Any]:
    found: dict[str, Any] = (
        chart.configure(font=FONT)
        .configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", gridColor="#ececec")
        .configure_legend(labelFontSize=11, titleFontSize=11, titleFontWeight="normal", labelLimit=190)
        .configure_view(stroke=None)
        .to_dict()
    )
    return found


def _axis(name: str) -> alt.X:
    title, domain = AXES[name]
    scale = alt.Scale(domain=domain, nice=False) if domain else alt.Scale(zero=False)
    return alt.X(f"{name}:Q", title=title, scale=scale)


def _colour(name: str) -> alt.Color:
    """Named groups in the order that the page gives them (`domain`); the last two are `other` and `unknown`."""
    return alt.Color(f"{name}:N", title=COLOURS[name], scale=alt.Scale(range=[*PALETTE, GREY, "#c9c9c9"]))


def scatter() -> alt.LayerChart | alt.FacetChart:
    """A point a drug: its error against one of `AXES`; the chosen one is ringed, what is not searched for is pale."""
    chosen, query = alt.param(name="chosen", value=-1), alt.param(name="query", value="")
    found = "query == '' || indexof(lower(datum.name), query) >= 0"
    base = alt.Chart(alt.NamedData("drugs")).encode(x=_axis("auc_mean"), y=alt.Y("mae:Q", title="MAE of the drug"))
    points = base.mark_point(filled=True, cursor="pointer", strokeWidth=0).encode(
        color=_colour("group"),
        size=alt.condition("datum.high", alt.value(110), alt.value(45)),
        opacity=alt.condition(found, alt.value(0.85), alt.value(0.08)),
        tooltip=[
            alt.Tooltip("name:N", title="drug"),
            alt.Tooltip("n:Q", title="pairs", format=","),
            alt.Tooltip("mae:Q", title="MAE", format=".3f"),
            alt.Tooltip("mae_z:Q", title="z", format=".1f"),
            alt.Tooltip("bias:Q", title="bias", format="+.3f"),
            alt.Tooltip("auc_mean:Q", title="mean AUC", format=".2f"),
            alt.Tooltip("near:N", title="nearest training drug"),
            alt.Tooltip("mechanism:N", title="mechanism"),
            alt.Tooltip("sources:N", title="sources"),
        ],
    )
    mine = base.transform_filter("datum.drug == chosen")
    ring = mine.mark_point(size=260, stroke="black", strokeWidth=2, filled=False)
    label = mine.mark_text(align="left", dx=12, dy=-8, fontSize=13, fontWeight="bold").encode(text="name:N")
    return alt.layer(points, ring, label).add_params(chosen, query).properties(width="container", height=380)


def _diagonal() -> alt.Chart:
    ends = alt.InlineData(values=[{"at": 0}, {"at": 1}])
    made: alt.Chart = alt.Chart(ends).mark_line(color="black", strokeWidth=1).encode(x="at:Q", y="at:Q")
    return made


def _potent() -> alt.Chart:
    edge = alt.InlineData(values=[{"at": LOW_AUC}])
    made: alt.Chart = alt.Chart(edge).mark_rule(color=ACCENT, strokeDash=[2, 3]).encode(x="at:Q")
    return made


def _true_against_predicted(name: str) -> alt.Chart:
    band = alt.Scale(domain=BAND, nice=False, clamp=True)
    return alt.Chart(alt.NamedData(name)).encode(
        x=alt.X("auc:Q", title="true AUC (low = potent)", scale=band),
        y=alt.Y("auc_pred:Q", title="predicted AUC", scale=band),
    )


def cells() -> alt.LayerChart | alt.FacetChart:
    """True against predicted AUC of one drug's cell lines."""
    points = (
        _true_against_predicted("cells")
        .mark_point(filled=True, size=35, opacity=0.7, strokeWidth=0)
        .encode(
            color=alt.Color("source:N", title=None, scale=alt.Scale(range=list(PALETTE)), legend=BELOW),
            tooltip=[
                alt.Tooltip("cell:N", title="cell line"),
                alt.Tooltip("source:N", title="source"),
                alt.Tooltip("auc:Q", title="true AUC", format=".3f"),
                alt.Tooltip("auc_pred:Q", title="predicted", format=".3f"),
            ],
        )
    )
    return alt.layer(_diagonal(), _potent(), points).properties(width=340, height=340)


KINDS = {"hit": "both: a hit", "miss": "predicted best only", "missed": "truly best only"}


def line() -> alt.LayerChart | alt.FacetChart:
    """True against predicted AUC of one cell line's candidates."""
    domain = list(KINDS.values())
    points = (
        _true_against_predicted("line")
        .mark_point(filled=True, size=90, opacity=0.9, cursor="pointer")
        .encode(
            color=alt.Color(
                "kind:N", scale=alt.Scale(domain=domain, range=[ACCENT, "#0072b2", "#009e73"]), legend=BELOW
            ),
            shape=alt.Shape(
                "kind:N", scale=alt.Scale(domain=domain, range=["circle", "square", "diamond"]), legend=BELOW
            ),
            tooltip=[
                alt.Tooltip("name:N", title="drug"),
                alt.Tooltip("auc_pred:Q", title="predicted AUC", format=".3f"),
                alt.Tooltip("rank_pred:Q", title="predicted place"),
                alt.Tooltip("auc:Q", title="true AUC", format=".3f"),
                alt.Tooltip("rank_true:Q", title="true place"),
            ],
        )
    )
    return alt.layer(_diagonal(), _potent(), points).properties(width=340, height=340)
