"""What `snakemake -n` says before Snakemake's own table. It reads little, measures nothing, and never fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hedflow import HedflowError
from hedflow.bundle import Bundle, open_bundle
from hedflow.config import Config
from hedflow.estimate import estimate
from hedflow.estimate_words import said, together
from hedflow.machine import this_machine
from hedflow.plan import MADE_FROM, likely_plan, made_from, plan_files, summary
from hedflow.splits import empty_ranges


def estimates(config: Config, asked: Mapping[str, Sequence[Any]], cores: int | None = None) -> str:
    """Some lines for each experiment: of its plan where that is there, else how to get it.

    Args:
        asked: what the plan of each experiment is to be made from: parameters of the rule `plan`.
        cores: those that Snakemake was given.
    """
    results = Path(config.results)
    if not (results / "bundle" / "manifest.json").is_file():
        return "hedflow: no plan yet: `snakemake plans` makes the bundle and the plans, and trains nothing."
    try:
        bundle, machine = open_bundle(results / "bundle"), this_machine(cores)
    except HedflowError as error:
        return f"hedflow: no estimate: {error}"
    lines, found = [], []
    for name in config.experiments:
        try:
            plan, word = current_plan(config, name, asked[name], bundle)
            found.append(estimate(plan, results, machine, bundle))
            lines.append(said(found[-1], summary(plan, empty_ranges(config.experiments[name].split, bundle)) + word))
        except Exception as error:  # a word about the plan must not keep anyone from the dry run itself
            lines.append(f"{name}: no estimate: {error}")
    return "\n".join(lines + ([together(found)] if len(found) > 1 else []))


def current_plan(config: Config, name: str, asked: Sequence[Any], bundle: Bundle) -> tuple[pd.DataFrame, str]:
    """The plan on disk, if it is what the configuration asks for; else the one that would be made, and a word on it."""
    path = Path(config.results) / name / "plan.parquet"
    if path.is_file():
        plan = pd.read_parquet(path)
        earlier = config.experiments[name].earlier
        files = plan_files(config, name, Path(config.results) / earlier / "tables" if earlier else None)
        if plan.attrs.get(MADE_FROM) == made_from(asked, bundle, files):
            return plan, ""
    return likely_plan(config, name, bundle, config.results)
