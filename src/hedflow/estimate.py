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

from hedflow import together
from hedflow.bundle import Bundle
from hedflow.config import parse_model
from hedflow.files import read_json
from hedflow.loss_kinds import cost_of, loss_mb
from hedflow.machine import Machine
from hedflow.models import sizes
from hedflow.provenance import versions
from hedflow.speed import Kept, Speed, described, has_epochs, json_bytes, kind_of, measure, specs_of, speed_of_records

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

    def times(self, factor: float) -> Span:
        """Each of them times a factor."""
        return Span(self.least * factor, self.most * factor, None if self.likely is None else self.likely * factor)


@dataclass(frozen=True)
class Part:
    """Runs of one kind that are not finished.

    seconds: of one run (of its share, where several are trained together), None where the speed is not known.
    memory_mb: of one run alone. lasting: bytes that one run leaves; passing: bytes of its checkpoints while it goes.
    """

    model: str
    specs: tuple[dict[str, Any], ...]
    speed: Speed | None
    epochs: Span
    seconds: Span | None
    memory_mb: int
    lasting: float
    passing: float = 0.0

    @property
    def runs(self) -> int:
        """How many they are."""
        return len(self.specs)

    @property
    def together(self) -> int:
        """How many of them one job trains."""
        return min(self.runs, int(self.specs[0]["training"]["runs_per_job"])) if has_epochs(self.specs[0]) else 1

    @property
    def jobs(self) -> int:
        """How many jobs they are."""
        return -(-self.runs // self.together)

    @property
    def job_mb(self) -> int:
        """Memory of one job."""
        return together.memory_mb(self.memory_mb, self.together)

    @property
    def threads(self) -> int:
        """Cores of one job."""
        return int(self.specs[0]["training"]["threads"])

    @property
    def on_device(self) -> bool:
        """Whether its jobs train on a GPU or the like, and not on cores."""
        return self.speed is not None and has_epochs(self.specs[0]) and self.speed.device != "cpu"

    def at_once(self, machine: Machine) -> int:
        """How many of its jobs go at once."""
        return min(self.jobs, slots(self, machine))


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
        """The most jobs that go at once."""
        return max((part.at_once(self.machine) for part in self.parts), default=0)

    @property
    def wall(self) -> Span | None:
        """Seconds until all of them are done, as far as their speed is known; None where it is of none."""
        known = [part for part in self.parts if part.seconds is not None]
        if self.parts and not known:
            return None
        total = Span(0, 0, 0)
        for count in sorted({slots(part, self.machine) for part in known}):
            total += _side_by_side([part for part in known if slots(part, self.machine) == count], count)
        return total

    @property
    def core_seconds(self) -> Span:
        """Core-seconds of all runs on cores whose speed is known."""
        return _sum_of(part.seconds.times(part.runs * part.threads) for part in self._timed(on_device=False))

    @property
    def device_seconds(self) -> Span:
        """Seconds of a device, of all runs on one whose speed is known."""
        return _sum_of(part.seconds.times(part.runs) for part in self._timed(on_device=True))

    def _timed(self, on_device: bool) -> list[Any]:
        return [part for part in self.parts if part.seconds is not None and part.on_device == on_device]

    @property
    def memory_mb(self) -> int:
        """Of all jobs that go at once."""
        return max((part.at_once(self.machine) * part.job_mb for part in self.parts), default=0)

    @property
    def lasting(self) -> float:
        """Bytes that the runs will have written."""
        return sum(part.runs * part.lasting for part in self.parts)

    @property
    def passing(self) -> float:
        """Bytes of checkpoints while the runs go."""
        return max((part.at_once(self.machine) * part.together * part.passing for part in self.parts), default=0.0)


def _sum_of(spans: Iterable[Span]) -> Span:
    return functools.reduce(Span.__add__, spans, Span(0, 0, 0))


def slots(part: Part, machine: Machine) -> int:
    """For how many jobs of a part there is room at once: by cores, by devices, and by memory where that is known."""
    by_cores = machine.cores // part.threads
    if part.on_device:  # jobs on one device take turns; its speed is that of one alone
        by_cores = min(by_cores, max(1, machine.devices))
    by_memory = machine.memory_mb // part.job_mb if machine.memory_mb else by_cores
    return max(1, min(by_cores, by_memory))


def _side_by_side(parts: Sequence[Part], count: int) -> Span:
    """Wall time of jobs on `count` equal slots, the longest first."""
    spans = [(part.seconds.times(part.runs / part.jobs), part.jobs) for part in parts if part.seconds is not None]
    likely = None
    if all(span.likely is not None for span, _ in spans):
        likely = makespan([(span.likely or 0.0, jobs) for span, jobs in spans], count)
    least, most = (makespan([(getattr(span, end), jobs) for span, jobs in spans], count) for end in ("least", "most"))
    return Span(least, most, likely)


def makespan(durations: Iterable[tuple[float, int]], count: int) -> float:
    """When the last of the tasks ends on `count` slots, begun longest first; (seconds, how many of them)."""
    free = [0.0] * count
    for seconds, tasks in sorted(durations, reverse=True):
        for _ in range(tasks):
            heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def epochs_of(spec: dict[str, Any], had: Sequence[int] = ()) -> Span:
    """Epochs of a run: at least those that patience asks for, at most the limit; `had`: of finished runs like it.

    The range about the mean of finished runs narrows with the square root of their number. A model that trains itself
    passes once.
    """
    if not has_epochs(spec):
        return Span(1, 1, 1)
    training = spec["training"]
    most = int(training["epochs"])
    least = min(most, min(int(training["warmup_epochs"]), most - 1) + int(training["patience"]) + 1, *had)
    if not had:
        return Span(least, most)
    mean, narrow = min(float(np.mean(had)), most), math.sqrt(len(had))
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
    kept = Kept(results, machine, bundle.digest)
    found = look(plan, results, machine, bundle.manifest, kept.read())
    unknown = {kind_of(part.specs[0]): part for part in found.unknown} if measuring else {}
    for kind, part in unknown.items():
        if has_epochs(part.specs[0]):
            print(f"measuring {part.model}: {described(part.specs[0])} ...", file=sys.stderr)
            kept.add(kind, measure(bundle, part.specs))
    return look(plan, results, machine, bundle.manifest, kept.read()) if unknown else found


def look(
    plan: pd.DataFrame,
    results: str | Path,
    machine: Machine,
    manifest: Mapping[str, Any],
    kept: Mapping[str, Speed],
) -> Estimate:
    """What is left of a plan.

    Args:
        manifest: of the bundle. kept: measured speeds by kind of run.
    """
    experiment = str(plan["experiment"].iloc[0])
    runs = Path(results) / experiment / "runs"
    done, specs = finished_runs(plan, runs), specs_of(plan)
    kinds = pd.Series([kind_of(spec) for spec in specs], index=plan.index)
    records = {kind: _records(plan[done & (kinds == kind)], runs) for kind in set(kinds)}
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for kind, model, spec, is_done in zip(kinds, plan["model"], specs, done, strict=True):
        if not is_done:
            # Only runs of one loss are trained together; some losses take memory of their own.
            loss = spec["loss"] if spec["training"]["runs_per_job"] > 1 else cost_of(spec["loss"])
            groups[kind, model, json.dumps([spec["training"], loss], sort_keys=True)].append(spec)
    parts = []
    for (kind, model, _), alike in groups.items():
        here = [record for record in records[kind] if record["host"] == machine.host]
        speed = speed_of_records(here) or kept.get(kind)
        parts.append(_part(model, tuple(alike), records[kind], speed, manifest))
    return Estimate(experiment, len(plan), int(done.sum()), tuple(parts), machine)


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
    speed: Speed | None,
    manifest: Mapping[str, Any],
) -> Part:
    spec = specs[0]
    settings = parse_model(spec["model"])
    batch = spec["training"]["batch_size"]
    memory_mb = settings.memory_mb(sizes(manifest, settings, batch)) + loss_mb(spec["loss"], batch)
    alike = [r for r in records if r["status"] == "trained" and r["spec"]["training"] == spec["training"]]
    epochs = epochs_of(spec, [len(record["history"]) for record in alike])
    if speed is None:
        return Part(model, specs, None, epochs, None, memory_mb, 0.0)
    least, most = speed.seconds(spec, epochs.least) / speed.busy, speed.seconds(spec, epochs.most)
    seconds = Span(least, most, None if epochs.likely is None else speed.seconds(spec, epochs.likely))
    if records:
        files = float(np.mean([record["bytes"] for record in records]))
    else:
        record = json_bytes([spec, versions()]) + epochs.most * speed.epoch_bytes
        files = prediction_bytes(round(speed.test)) + record
    passing, lasting = checkpoint_bytes(spec, speed, seconds) if has_epochs(spec) else (0.0, 0.0)
    return Part(model, specs, speed, epochs, seconds, memory_mb, files + lasting, passing)


def checkpoint_bytes(spec: Mapping[str, Any], speed: Speed, seconds: Span) -> tuple[float, float]:
    """Size of a run's checkpoints while it goes, and of what is kept of them afterwards.

    A checkpoint holds weights, Adam's two moments and the best weights, float32; the best one is kept besides the last
    ones. A run that is shorter than the time between two of them writes none.
    """
    settings = spec["training"]["checkpoints"]
    weights = 4.0 * speed.parameters
    if settings["restart"] == "off":
        return 0.0, 0.0
    passing = 0.0 if seconds.most < 60 * settings["minutes"] else (settings["keep"] + 1) * 4 * weights
    lasting = {"delete": 0.0, "best": weights, "keep": passing + weights}[settings["when_done"]]
    return passing, lasting


@functools.lru_cache
def prediction_bytes(rows: int) -> float:
    """Size of a file of predictions of so many rows: one is made in memory."""
    random = np.random.default_rng(0)
    row = np.cumsum(random.integers(1, 9, rows), dtype=np.int32)
    table = pd.DataFrame({"row": row, "auc_pred": random.random(rows, dtype=np.float32)})
    file = io.BytesIO()
    table.to_parquet(file, index=False, compression="zstd")
    return float(file.getbuffer().nbytes)
