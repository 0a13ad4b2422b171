"""The few lines that `make run` ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hedflow import HedflowError
from hedflow.files import read_json
from hedflow.report.summary import CHOSEN


def headline(results: str | Path) -> str:
    """What `make run` ends with: where the report is, and the three numbers that matter most."""
    results = Path(results)
    lines = [f"The report: {results / 'report.html'}"]
    if not (results / "report" / "answer.json").is_file():
        raise HedflowError(f"{results / 'report' / 'answer.json'}: no such file; run `snakemake` first.")
    for name, found in read_json(results / "report" / "answer.json").items():
        size = f"{found['runs']} runs, {found['rows']:,} test rows, {found['drugs']} drugs"
        lines.append(f"{name} ({found['split']}, {size}):")
        reference, best = found["reference"], found["best_low"]
        if found["split"] == CHOSEN:
            lines += _chosen(found)
            continue
        if found["low"]:
            lines.append(f"  1. error on potent pairs (AUC < 0.5), {best} against {reference}: {_said(found['low'])}")
            lines.append(f"  2. its cost on the rest: {_said(found['rest']) if found['rest'] else 'no such pair'}")
        else:
            own = found["reference_mae_low"]
            lines.append(f"  1. error on potent pairs (AUC < 0.5), {reference}: {'not known' if own is None else own}")
            lines.append(f"  2. high error drugs: {found['high_error_drugs']} of {found['drugs']}")
        against = f"{found['best_overall']} against the strongest naive baseline ({found['strongest_naive']})"
        none = "  3. no model predicts every test row, so none is compared with the naive baselines"
        lines.append(f"  3. {against}: {_said(found['against_naive'])}" if found["against_naive"] else none)
    return "\n".join(lines)


def _chosen(found: dict[str, Any]) -> list[str]:
    """Of drugs chosen by the reference's errors: differences to it are no finding, their change since then is."""
    methods = found.get("second_step", {}).get("high error", {})
    lines = []
    for name, one in methods.items():
        if one["difference_change"] is None:
            continue
        low, high = one["difference_change_lower"], one["difference_change_upper"]
        interval = "no interval" if low is None else f"{low:+.4f} to {high:+.4f}"
        against = f"{name} against {found['reference']}, more than in the first step"
        lines.append(f"  {against}: MAE {one['difference_change']:+.4f} [{interval}]")
    own = methods.get(found["reference"], {}).get("mae")
    return lines or [f"  error on these drugs, {found['reference']}: MAE {'not known' if own is None else own}"]


def _said(contrast: dict[str, Any]) -> str:
    interval = "no interval" if contrast["lower"] is None else f"{contrast['lower']:+.4f} to {contrast['upper']:+.4f}"
    relative = "" if contrast["relative"] is None else f" ({contrast['relative']:+.0%})"
    return f"MAE {contrast['difference']:+.4f} [{interval}]{relative}"
