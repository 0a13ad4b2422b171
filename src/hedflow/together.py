"""Runs that are trained at once in one job (`training.runs_per_job`), and are still runs of their own.

One job trains a group of runs into a folder of its own; then each run's job takes its two files from there. A run that
is missing later is trained alone, the others of its group are left as they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from hedflow import HedflowError
from hedflow.files import read_json
from hedflow.models.settings import BASE_MB


def groups_of(plan: pd.DataFrame, networks: Sequence[str]) -> dict[str, list[str]]:
    """Groups of runs that are trained at once, by name; none where `runs_per_job` is 1.

    Args:
        plan: indexed by run. networks: names of models that are networks; others train one by one.
    """
    kinds: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    for row in plan[plan["model"].isin(networks)].itertuples():
        spec = json.loads(str(row.spec))
        key = json.dumps([spec["model"], spec["training"], spec["loss"]], sort_keys=True)
        kinds.setdefault(key, []).append(str(row.Index))
        sizes[key] = int(spec["training"].get("runs_per_job", 1))
    made = [
        runs[first : first + sizes[key]]
        for key, runs in kinds.items()
        if sizes[key] > 1
        for first in range(0, len(runs), sizes[key])
    ]
    return {f"g{number:04d}": runs for number, runs in enumerate(made) if len(runs) > 1}


def memory_mb(one: int, runs: int) -> int:
    """MB that runs may use together, of which one alone may use `one`: what they have in common counts once."""
    return one + (runs - 1) * max(one - BASE_MB, 100)


def unfinished(digests: Mapping[str, str], runs: Path) -> list[str]:
    """Which runs (by name, with their digests) have no finished record in the folder of runs."""
    return [name for name, digest in digests.items() if _digest(runs / name / "run.json") != digest]


def _digest(record: Path) -> str | None:
    try:
        found = read_json(record)["digest"]
    except (OSError, HedflowError, KeyError, TypeError):
        return None
    return str(found)


def take_over(group: str | Path | None, run: str, digest: str, files: Sequence[str | Path]) -> bool:
    """Make a run's files those that its group made of it; False if it made none, or of another digest."""
    made = [] if not group else [Path(group, run, Path(path).name) for path in files]
    if not made or not all(path.is_file() for path in made) or _digest(Path(group or "", run, "run.json")) != digest:
        return False
    for source, target in zip(made, files, strict=True):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).unlink(missing_ok=True)
        os.link(source, target)
    return True
