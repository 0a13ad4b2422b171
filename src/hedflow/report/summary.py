"""The opening paragraph of an experiment: the answer in a few sentences that can be quoted as they are."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hedflow.figures.style import shown
from hedflow.report.numbers import SURE, against, clear

# What a split's models have not seen.
UNSEEN = {
    "cell_blind": "On cell lines",
    "improve_cell_blind": "On cell lines",
    "tissue_blind": "On cell lines of tissues",
    "random_pairs": "On pairs",
    "improve": "On pairs",
    "disjoint": "On drugs and cell lines",
    "leave_source_out": "On a screen",
    "scaffold": "On drugs of scaffolds",
}
# A split that tests the drugs that an earlier experiment's reference did worst on.
CHOSEN = "high_error"
BY_THE_REFERENCE = (
    "The drugs were chosen as those that the reference does worst on: another loss that is exactly as good on the "
    "whole is better on these drugs, so a difference to the reference, or to a naive baseline, is no finding here; "
    "what is one stands above, its change since the first step."
)


def paragraph(tables: dict[str, pd.DataFrame], numbers: dict[str, Any]) -> str:
    """Setting, gain on potent pairs and its price, whether that takes a model, naive baselines, ranking."""
    if numbers["split"] == CHOSEN:
        return f"{_setting(numbers)}, {_own(numbers)}. {BY_THE_REFERENCE}"
    compared = len(against(tables, numbers["reference"], "mae_low"))
    said = [f"{_setting(numbers)}, {_losses(numbers, compared)}"]
    said += _shift(tables["equal_cost"], numbers)
    said += [_naive(tables, numbers), *_ranking(numbers, int(tables["comparison"]["top_k"].iloc[0]))]
    return " ".join(said)


def _setting(numbers: dict[str, Any]) -> str:
    unseen = UNSEEN.get(numbers["split"], "On drugs")
    return (
        f"{unseen} that the models had not seen ({_count(numbers['drugs'], 'drug')}, "
        f"{_count(numbers['rows'], 'measured pair')}, {_count(numbers['runs'], 'training run')})"
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _losses(numbers: dict[str, Any], compared: int) -> str:
    """What the best method on potent pairs gains there against the reference, and loses elsewhere."""
    low, rest = numbers["low"], numbers["rest"]
    if numbers["incomplete"].get(numbers["reference"]) == 0:
        return f"no run of {numbers['reference']}, the reference, made a prediction: nothing can be compared with it."
    if not numbers["rows_low"]:
        return f"no pair was potent (true AUC below 0.5), so nothing is learnt of potent drugs; {_own(numbers)}."
    if low is None:
        others = " No other method predicts every test row." if numbers["methods"] > 1 else ""
        return f"{_own(numbers)}.{others}"
    best, reference, certain = numbers["best_low"], numbers["reference"], clear(_floats(low))
    of = f", the lowest error of the methods that are clearly better there, of {compared}" if compared > 1 else ""
    if certain:
        said = f"{best} errs {_change(low)} than {reference} on potent pairs (true AUC below 0.5){of}"
    else:
        said = f"no method errs clearly less than {reference} on potent pairs (true AUC below 0.5); lowest is {best}"
    said = f"{said}: {_two(numbers, 'mae_low')} ({_interval(low)}{_p(low)})."
    if rest is None:
        return said
    return f"{said} It errs {_change(rest)} on all other pairs: {_two(numbers, 'mae_rest')} ({_interval(rest)})."


def _own(numbers: dict[str, Any]) -> str:
    parts = {"potent pairs (true AUC below 0.5)": "reference_mae_low", "all other pairs": "reference_mae_rest"}
    said = [f"{numbers[key]:.3f} on {part}" for part, key in parts.items() if numbers[key] is not None]
    return f"{numbers['reference']} has a mean absolute error of {' and '.join(said)}"


def _two(numbers: dict[str, Any], part: str) -> str:
    if numbers["reference"] in numbers["incomplete"]:  # its error is of fewer rows
        return f"of the pairs that {numbers['reference']} predicts"
    return f"mean absolute error {numbers[f'best_low_{part}']:.3f} instead of {numbers[f'reference_{part}']:.3f}"


def _change(contrast: dict[str, Any]) -> str:
    size = "" if contrast["relative"] is None else f"{abs(contrast['relative']):.0%} "
    return f"{size}{'less' if contrast['difference'] < 0 else 'more'}"


def _floats(contrast: dict[str, Any]) -> dict[str, float]:
    return {key: float("nan") if value is None else value for key, value in contrast.items()}


def _interval(contrast: dict[str, Any]) -> str:
    if contrast["lower"] is None:
        return "no interval: one drug"
    return f"difference {contrast['lower']:+.3f} to {contrast['upper']:+.3f}, 95 % over drugs"


def _p(contrast: dict[str, Any]) -> str:
    p = contrast["p_holm"]
    return "" if p is None else f"; p {'< 0.001' if p < 0.001 else f'= {p:.2g}'} after Holm"


def _shift(equal_cost: pd.DataFrame, numbers: dict[str, Any]) -> list[str]:
    """Whether the gain is more than what lowering every naive prediction by a constant buys."""
    rows = equal_cost[equal_cost["method"] == numbers["best_low"]]
    if numbers["low"] is None or rows.empty or numbers["low"]["difference"] >= 0:
        return []
    row = rows.iloc[0]
    naive = f"the naive {shown(str(row['naive']))}"
    if pd.isna(row["lower"]):
        return []
    interval = f"difference {row['lower']:+.3f} to {row['upper']:+.3f}"
    if row["upper"] < 0 or row["lower"] > 0:
        verdict = "worse" if row["upper"] < 0 else "even better"
        return [f"Lowering every prediction of {naive} by a constant does {verdict} at that cost ({interval})."]
    return [
        f"That cannot be told from lowering every prediction of {naive} by a constant, at the same cost ({interval})."
    ]


def _naive(tables: dict[str, pd.DataFrame], numbers: dict[str, Any]) -> str:
    naive = numbers["strongest_naive"]
    rows = against(tables, naive, "mae")
    rows = rows[~rows["method"].isin(numbers["incomplete"])]
    beats = [str(row["method"]) for row in rows.to_dict("records") if clear(row) and row["difference"] < 0]
    yardstick = f"the {shown(naive)} (mean absolute error {numbers['strongest_naive_mae']:.3f})"
    if numbers["best_overall"] is None:
        return f"No model predicts every test row, so none is called the best; the strongest naive one is {yardstick}."
    if not beats:
        best = f"the closest is {numbers['best_overall']} with {numbers['best_overall_mae']:.3f}"
        return f"No model clearly beats the strongest naive baseline, {yardstick}; {best}."
    count = (
        f"{len(beats)} of {numbers['methods']} models clearly beat" if numbers["methods"] > 1 else "It clearly beats"
    )
    best = f"best is {numbers['best_overall']} with {numbers['best_overall_mae']:.3f}"
    return f"{count} the strongest naive baseline, {yardstick}; {best}."


def _ranking(numbers: dict[str, Any], k: int) -> list[str]:
    found = numbers["ranking"]
    if found is None:
        return []
    best = ""
    if found["best"] != numbers["reference"] and found["difference"] is not None:
        p = "" if found["p_holm"] is None else _p(found)
        interval = (
            "no interval"
            if found["difference_lower"] is None
            else f"difference {found['difference_lower']:+.0%} to {found['difference_upper']:+.0%}{p}"
        )
        best = f", {found['best_recall']:.0%} with {shown(found['best'])}, the best of {found['of']} ({interval})"
    return [
        f"The {k} drugs that {numbers['reference']} predicts best for a cell line hold {found['recall']:.0%} of its "
        f"{k} truly best ones; {found['random']:.0%} by chance{best} ({found['source']}, {found['lines']} cell lines)."
    ]


CERTAIN = f"A difference is clear where its interval excludes 0 and p after Holm's correction is below {SURE:g}."
