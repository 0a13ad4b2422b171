"""What the report says of a second step (reStructuredText), and its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from hedflow.analysis import SECOND_STEP_TABLES
from hedflow.analysis.second_step import HIGH, OTHERS
from hedflow.figures.style import shown
from hedflow.report.page import escaped, list_table

SHOWN_DRUGS = 10
CHOSEN = (
    "The drugs were chosen by their error under {first_reference} in the first step. A high error is in part bad luck "
    "with a seed, so on any second look it is lower (regression to the mean), and {first_reference}, by whose errors "
    "they were chosen, looks worse on them than on drugs chosen otherwise. So the control, not the first step, is what "
    "methods are compared with."
)
OTHER_LOSS = (
    "For the same reason another loss that is exactly as good on the whole is better on these drugs, with any seed, "
    "and worse on the others: they are where {first_reference} does worst. So a difference between losses on them has "
    "no p, and says nothing by itself. The honest comparison is its change: the difference to the control now, less "
    "that in the first step, on the same drugs (0: the second step changed nothing between the two). The luck of "
    "{first_reference} in the first step is still in it, and counts against the others."
)
WEIGHED = (
    "Which drugs count more was decided by the errors on all parts, so a test drug's own answers had a say in which "
    "others were chosen (models of the other parts had trained on it). That is one bit a training drug, no label, and "
    "it is the same for every factor but 1; a gain of the size of the change under the control is not to be trusted."
)
REPEATED = (
    "{repeated} of {runs} runs have a seed of the first step, and are its runs over again: the control then carries "
    "the luck by which the drugs were chosen, and any other method looks better than it is. Use other seeds."
)


def second_step_page(folder: Path) -> tuple[list[str], dict[str, Any]]:
    """The lines of the page for an experiment's folder, and the figures it is remembered by."""
    tables = {name: pd.read_parquet(folder / "tables" / f"{name}.parquet") for name in SECOND_STEP_TABLES}
    about = {str(key): value for key, value in tables["second_step_about"].iloc[0].items()}
    errors = tables["second_step"]
    said = [f"* {escaped(sentence)}\n" for sentence in _sentences(errors, about)]
    lines = [_what(about), "", *said, escaped(_ranking(tables)), ""]
    lines += [escaped(CHOSEN.format(**about)), ""]
    if errors["difference_change"].notna().any():
        lines += [escaped(OTHER_LOSS.format(**about)), ""]
    if about["arm"] == "weigh":
        lines += [WEIGHED, ""]
    if about["repeated"]:
        lines += [REPEATED.format(**about), ""]
    lines += list_table(_methods(errors))
    lines += ["", f"**High error drugs of {escaped(about['first'])}, before and after**, the worst {SHOWN_DRUGS}:", ""]
    lines += list_table(_drugs(tables["second_step_drugs"], str(about["reference"])))
    return lines, _numbers(errors, about)


def _what(about: dict[str, Any]) -> str:
    count = f"{about['drugs']} high error drug{'s' if about['drugs'] > 1 else ''} of {escaped(about['first'])}"
    if about["arm"] == "move":
        return f"**Second step: the {count} moved from training and validation to the test set**, and all retrained."
    return f"**Second step: the {count} count more in training**, where they are not held out, and all retrained."


def _sentences(errors: pd.DataFrame, about: dict[str, Any]) -> list[str]:
    whole = errors[errors["part"] == "mae"]
    controls = whole[(whole["method"] == about["reference"]) & (whole["drugs"] == HIGH)].to_dict("records")
    if not controls:
        return ["None of the high error drugs is tested here, so nothing is known of them; test the same folds."]
    control, differs = controls[0], about["differs"]
    again = "" if about["repeated"] else " with other seeds"
    said = [
        f"The control, {shown(about['reference'])} retrained{again}: error on these drugs "
        f"{control['mae_first']:.4f} before, {control['mae']:.4f} now, {_interval(control, 'change')}. "
        + (f"That is chance, and what else is not as it was: {differs}." if differs else "That much is chance.")
    ]
    for row in whole[whole["control"].notna() & (whole["drugs"] == HIGH)].to_dict("records"):
        low = errors[(errors["method"] == row["method"]) & (errors["drugs"] == HIGH) & (errors["part"] == "mae_low")]
        others = whole[(whole["method"] == row["method"]) & (whole["drugs"] == OTHERS)]
        text = f"{shown(row['method'])} against {shown(row['control'])}: high error drugs {_interval(row)}"
        if pd.notna(row["difference_change"]):
            text += f", {_interval(row, 'difference_change')} more than in the first step"
        if len(low) and low["n"].iloc[0]:
            text += f", their potent pairs {_interval(low.iloc[0])}"
        if len(others):
            text += f"; the other {int(others['n_drugs'].iloc[0])} drugs {_interval(others.iloc[0])}"
        said.append(f"{text}.")
    return said


def _interval(row: Any, name: str = "difference") -> str:
    if pd.isna(row[name]):
        return "not known"
    if pd.isna(row[f"{name}_lower"]):
        return f"{row[name]:+.4f} (no interval: one drug)"
    return f"{row[name]:+.4f} [{row[f'{name}_lower']:+.4f} to {row[f'{name}_upper']:+.4f}]"


def _ranking(tables: dict[str, pd.DataFrame]) -> str:
    table = tables["second_step_ranking"].query("metric == 'recall'")
    if table.empty:
        return "Ranking: no source has cell lines with enough of these drugs to rank them among themselves."
    said = []
    for source, rows in table.groupby("source"):
        best = rows.sort_values("estimate").iloc[-1]
        each = [
            f"{shown(str(row['method']))} {row['estimate']:.1%} [{row['low']:.1%}, {row['high']:.1%}]"
            for row in rows.to_dict("records")
            if "first step" in str(row["method"]) or pd.isna(row["difference"]) or row["method"] == best["method"]
        ]
        said.append(f"{source} ({int(best['n_drugs'])} drugs, random {best['random']:.1%}): {', '.join(each)}")
    return f"Ranking of these drugs among themselves, recall by cell line: {'; '.join(said)}."


def _methods(errors: pd.DataFrame) -> pd.DataFrame:
    whole, low = (errors[errors["part"] == part].to_dict("records") for part in ("mae", "mae_low"))
    rows = []
    for row, potent in zip(whole, low, strict=True):
        rows.append(
            {
                "drugs": f"{row['drugs']} ({int(row['n_drugs'])})",
                "method": shown(str(row["method"])),
                "MAE, first step": f"{row['mae_first']:.4f}",
                "MAE": f"{row['mae']:.4f} [{row['mae_lower']:.4f}, {row['mae_upper']:.4f}]",
                "MAE, AUC < 0.5": f"{potent['mae']:.4f}" if potent["n"] else "no such pair",
                "change since the first step": _interval(row, "change"),
                "against the control": _interval(row) if pd.notna(row["control"]) else "is the control",
                "more than in the first step": _interval(row, "difference_change")
                if pd.notna(row["difference_change"])
                else "",
                "p, Holm": f"{row['p_holm']:.3f}" if pd.notna(row["p_holm"]) else "",
            }
        )
    return pd.DataFrame(rows)


def _drugs(table: pd.DataFrame, reference: str) -> pd.DataFrame:
    high = table[table["high_error"]]
    own = high[high["method"] == reference].sort_values("z_first", ascending=False).head(SHOWN_DRUGS)
    shown_drugs = {
        "drug": own["drug_name"].tolist(),
        "z, first step": [f"{z:.1f}" for z in own["z_first"]],
        "rows": [f"{n:,}" for n in own["n"]],
        "MAE, first step": [f"{mae:.3f}" for mae in own["mae_first"]],
    }
    for method in dict.fromkeys(high["method"]):
        mae = high[high["method"] == method].set_index("drug")["mae"]
        shown_drugs[shown(str(method))] = [f"{mae[drug]:.3f}" for drug in own["drug"]]
    return pd.DataFrame(shown_drugs)


def _numbers(errors: pd.DataFrame, about: dict[str, Any]) -> dict[str, Any]:
    whole = errors[errors["part"] == "mae"]
    keys = ["mae", "mae_first", "difference", "difference_lower", "difference_upper", "change", "n", "n_drugs"]
    keys += [f"difference_change{end}" for end in ("", "_lower", "_upper")]
    found: dict[str, Any] = {key: about[key] for key in ("first", "arm", "reference")}
    found |= {key: int(about[key]) for key in ("drugs", "repeated")}
    for group, rows in whole.groupby("drugs"):
        found[str(group)] = {
            str(row["method"]): {key: None if pd.isna(row[key]) else round(float(row[key]), 6) for key in keys}
            for row in rows.to_dict("records")
        }
    return found
