"""What a plan takes before it is run: runs, time at this machine's speed, memory and disk.

A number comes from finished runs of the plan where there are some, else from a measurement on this machine
(`hedflow.speed`), and says which. Runs that are finished are not counted. The time is of the training: files, bundle
and analysis are minutes, whatever the plan.
"""

from __future__ import annotations

import functools
import heapq
import io
import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hedflow.bundle import Bundle
from hedflow.files import read_json
from hedflow.machine import Machine
from hedflow.provenance import versions
from hedflow.speed import Kept, Speed, described, json_bytes, kind_of, measure, specs_of, speed_of_records

# Records read in full for one kind of run: more make the medians no better, and a look slower.
RECORDS_READ = 32
HEAD = 2048
_DIGEST = re.compile(r'"digest": "([0-9a-f]+)"')


@dataclass(frozen=True)
class Span:
    """The least, the likely (if it can be said) and the most."""

    least: float
    most: float
    likely: float | None = None

    def __add__(self, other: Span) -> Span:
        likely = None if self.likely is None or other.likely is None else self.likely + other.likely
        return Span(self.least + other.least, self.most + other.most, likely)


@dataclass(frozen=True)
class Part:
    """Runs of one kind that are not finished.

    seconds: of one run, None where the speed is not known. memory_mb: of one run. bytes: all that one run leaves.
    """

    model: str
    specs: tuple[dict[str, Any], ...]
    speed: Speed | None
    epochs: Span
    seconds: Span | None
    memory_mb: int
    bytes: float

    @property
    def runs(self) -> int:
        """How many they are."""
        return len(self.specs)

    @property
    def threads(self) -> int:
        """Cores of one run."""
        return int(self.specs[0]["training"]["threads"])


@dataclass(frozen=True)
class Estimate:
    """What is left to do of one experiment."""

    experiment: str
    runs: int
    finished: int
    parts: tuple[Part, ...]
    machine: Machine = field(repr=False)

    @property
    def unknown(self) -> tuple[Part, ...]:
        """Parts whose speed is not known."""
        return tuple(part for part in self.parts if part.seconds is None)

    @property
    def at_once(self) -> int:
        """The most runs that go at once."""
        return max((min(part.runs, slots(part, self.machine)) for part in self.parts), default=0)

    @property
    def wall(self) -> Span | None:
        """Seconds until all of them are done; None where a part's speed is not known."""
        if self.unknown:
            return None
        total = Span(0, 0, 0)
        for count in sorted({slots(part, self.machine) for part in self.parts}):
            some = [part for part in self.parts if slots(part, self.machine) == count]
            total += _side_by_side(some, count)
        return total

    @property
    def core_seconds(self) -> Span:
        """Core-seconds of all runs whose speed is known."""
        total = Span(0, 0, 0)
        for part in self.parts:
            if part.seconds is not None:
                total += _times(part.seconds, part.runs * part.threads)
        return total

    @property
    def memory_mb(self) -> int:
        """Of all runs that go at once."""
        return max((min(p.runs, slots(p, self.machine)) * p.memory_mb for p in self.parts), default=0)

    @property
    def bytes(self) -> float:
        """What the runs will have written."""
        return sum(part.runs * part.bytes for part in self.parts)


def run_memory_mb(spec: Mapping[str, Any]) -> int:
    """MB that a run may use: twice its weights, gradients and optimiser state and the activations of a batch, and 1 GB
    for data and packages. Full-width Uno on five sources took 2,400 MB; this gives it 2,700."""
    model, batch = spec["model"], spec["training"]["batch_size"]
    layers = 2 * model["tower_depth"] + model["head_depth"]
    weights = model["width"] * (3000 + model["width"] * layers)
    memory: int = 1000 + round(2 * (24 * weights + 12 * batch * model["width"] * layers) / 1e6)
    return memory


def slots(part: Part, machine: Machine) -> int:
    """How many runs of a part go at once: by cores, and by memory where that is known."""
    by_cores = machine.cores // part.threads
    by_memory = machine.memory_mb // part.memory_mb if machine.memory_mb else by_cores
    return max(1, min(by_cores, by_memory))


def _times(span: Span, factor: float) -> Span:
    return Span(span.least * factor, span.most * factor, None if span.likely is None else span.likely * factor)


def _side_by_side(parts: Sequence[Part], count: int) -> Span:
    """Wall time of runs on `count` equal slots, the longest first."""
    spans = [(part.seconds, part.runs) for part in parts if part.seconds is not None]
    likely = None
    if all(span.likely is not None for span, _ in spans):
        likely = makespan([(span.likely or 0.0, runs) for span, runs in spans], count)
    least, most = (makespan([(getattr(span, end), runs) for span, runs in spans], count) for end in ("least", "most"))
    return Span(least, most, likely)


def makespan(durations: Iterable[tuple[float, int]], count: int) -> float:
    """When the last of the tasks ends on `count` slots, begun longest first; (seconds, how many of them)."""
    free = [0.0] * count
    for seconds, tasks in sorted(durations, reverse=True):
        for _ in range(tasks):
            heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def epochs_of(training: Mapping[str, Any], had: Sequence[int] = ()) -> Span:
    """Epochs of a run: at least those that patience asks for, at most the limit; `had`: of finished runs like it.

    The range about the mean of finished runs narrows with the square root of their number.
    """
    most = int(training["epochs"])
    least = min(most, min(int(training["warmup_epochs"]), most - 1) + int(training["patience"]) + 1)
    if not had:
        return Span(least, most)
    mean = min(max(float(np.mean(had)), min(least, *had)), most)
    least = min(least, *had)
    narrow = math.sqrt(len(had))
    return Span(mean - (mean - least) / narrow, mean + (most - mean) / narrow, mean)


def finished_runs(plan: pd.DataFrame, runs: Path) -> pd.Series:
    """Which runs of a plan need not be run again: their record is of this very row, and their predictions are there."""
    found = [
        _digest_of(runs / run / "run.json") == wanted and (runs / run / "predictions.parquet").is_file()
        for run, wanted in zip(plan["run"], plan["digest"], strict=True)
    ]
    return pd.Series(found, index=plan.index, dtype=bool)


def _digest_of(record: Path) -> str | None:
    """The digest in a record; only its first lines are read, since a plan may have thousands of runs."""
    try:
        with record.open("rb") as f:
            head = f.read(HEAD).decode("utf-8", errors="replace")
    except OSError:
        return None
    found = _DIGEST.search(head)
    return found.group(1) if found else None


def estimate(
    plan: pd.DataFrame, results: str | Path, machine: Machine, bundle: Bundle, measuring: bool = False
) -> Estimate:
    """What is left of a plan, by finished runs and by what was measured before.

    Args:
        measuring: measure what neither of them knows, which takes some seconds for each kind of run, and keep it.
    """
    runs = Path(results) / str(plan["experiment"].iloc[0]) / "runs"
    kept = Kept(results, machine, bundle.digest)
    found = look(plan, runs, machine, kept.read())
    if not (measuring and found.unknown):
        return found
    for part in {kind_of(part.specs[0]): part for part in found.unknown}.values():
        print(f"measuring {part.model}: {described(part.specs[0])} ...", file=sys.stderr)
        kept.add(kind_of(part.specs[0]), measure(bundle, part.specs))
    return look(plan, runs, machine, kept.read())


def look(
    plan: pd.DataFrame,
    runs: Path,
    machine: Machine,
    kept: Mapping[str, Speed],
) -> Estimate:
    """What is left of a plan.

    Args:
        runs: folder of the experiment's runs.
        kept: measured speeds by kind of run.
    """
    done = finished_runs(plan, runs)
    specs = specs_of(plan)
    kinds = [kind_of(spec) for spec in specs]
    records = {kind: _records(plan[done & (pd.Series(kinds, index=plan.index) == kind)], runs) for kind in set(kinds)}
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for kind, model, spec, is_done in zip(kinds, plan["model"], specs, done, strict=True):
        if not is_done:
            groups[kind, model, json.dumps(spec["training"], sort_keys=True)].append(spec)
    parts = tuple(
        _part(model, tuple(alike), records[kind], kept.get(kind), machine) for (kind, model, _), alike in groups.items()
    )
    return Estimate(str(plan["experiment"].iloc[0]), len(plan), int(done.sum()), parts, machine)


def _records(done: pd.DataFrame, runs: Path) -> list[dict[str, Any]]:
    """Records of finished runs, some of them where there are many."""
    some = done["run"].iloc[:: max(1, len(done) // RECORDS_READ)][:RECORDS_READ]
    return [{**read_json(runs / run / "run.json"), "bytes": _size(runs / run)} for run in some]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _part(
    model: str,
    specs: tuple[dict[str, Any], ...],
    records: list[dict[str, Any]],
    kept: Speed | None,
    machine: Machine,
) -> Part:
    spec = specs[0]
    here = [record for record in records if record["host"] == machine.host]
    speed = speed_of_records(here) or kept
    alike = [r for r in records if r["spec"]["training"] == spec["training"]]
    epochs = epochs_of(spec["training"], [len(record["history"]) for record in alike])
    seconds = None
    if speed is not None:
        least, most = (speed.seconds(spec["training"], n) for n in (epochs.least, epochs.most))
        seconds = Span(least, most, None if epochs.likely is None else speed.seconds(spec["training"], epochs.likely))
    if records:
        size = float(np.mean([record["bytes"] for record in records]))
    else:
        size = 0.0 if speed is None else _bytes(spec, speed, epochs.most)
    return Part(model, specs, speed, epochs, seconds, run_memory_mb(spec), size)


def _bytes(spec: dict[str, Any], speed: Speed, epochs: float) -> float:
    """What a run leaves: its predictions and its record."""
    return prediction_bytes(round(speed.test)) + json_bytes([spec, versions()]) + epochs * speed.epoch_bytes


@functools.lru_cache
def prediction_bytes(rows: int) -> float:
    """Size of a file of predictions of so many rows: one is made in memory."""
    random = np.random.default_rng(0)
    row = np.cumsum(random.integers(1, 9, rows), dtype=np.int32)
    table = pd.DataFrame({"row": row, "auc_pred": random.random(rows, dtype=np.float32)})
    file = io.BytesIO()
    table.to_parquet(file, index=False, compression="zstd")
    return float(file.getbuffer().nbytes)
