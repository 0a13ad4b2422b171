"""What the pool did, as a trace that Perfetto and chrome://tracing open, and as a summary in numbers.

The trace is a JSON array in the Trace Event Format, one event a line, each written as it happens by one system call:
what a killed pool leaves is opened by the viewers as it is, and by `read_trace`. A process is a node, a thread a core.
"""

from __future__ import annotations

import functools
import json
import os
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from .tasks import Result

Given = ParamSpec("Given")
Found = TypeVar("Found")

SUMMARY_VERSION = 2
BINS = 200  # of utilisation over time, at most
BUSY = 0.9  # the share that counts as "all" in ramp-up and tail
POOL = 1  # process of the counters; viewers take 0 for the idle process
NODE_LANE = 1  # thread of a node's own events
_FIRST_NODE, _FIRST_CORE = 2, 2


def node_process(rank: int) -> int:
    """The process number of a node in the trace."""
    return rank + _FIRST_NODE


def core_lane(core: int) -> int:
    """The thread number of a core in the trace."""
    return core + _FIRST_CORE


@dataclass(slots=True)
class _Rule:
    tasks: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    max_rss_mb: float = 0.0


@dataclass(slots=True)
class _Phase:
    times: int = 0
    seconds: float = 0.0
    spans: list[tuple[float, float]] = field(default_factory=list)
    nodes: set[int] = field(default_factory=set)
    numbers: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Intervals:
    """When cores were busy: start and end in seconds since the pool's start, and how many. 20 bytes a task."""

    starts: array[float] = field(default_factory=lambda: array("d"))
    ends: array[float] = field(default_factory=lambda: array("d"))
    cores: array[int] = field(default_factory=lambda: array("I"))

    def add(self, start: float, end: float, cores: int) -> None:
        """One task; an end before its start (a clock that was set back) counts as no time."""
        self.starts.append(start)
        self.ends.append(max(start, end))
        self.cores.append(cores)

    def binned(self, wall: float, bins: int, *, tasks: bool = False) -> list[float]:
        """Mean busy cores, or running tasks, in each of the equal bins of 0..wall; exact, each start and end integrated
        in its bin.
        """
        weights = array("I", [1]) * len(self.cores) if tasks else self.cores
        width = wall / bins
        within, level = [0.0] * bins, [0] * (bins + 1)
        for moments, sign in ((self.starts, 1), (self.ends, -1)):
            for moment, weight in zip(moments, weights, strict=True):
                at = min(max(moment, 0.0), wall)
                which = min(int(at / width), bins - 1)
                within[which] += sign * weight * ((which + 1) * width - at)
                level[which + 1] += sign * weight
        busy, before = [], 0
        for which in range(bins):
            before += level[which]
            busy.append(max(0.0, within[which] / width + before))
        return busy

    def steps(self) -> Iterator[tuple[float, int]]:
        """Moments at which the number of busy cores changes, in order, with the number from then on."""
        begin = iter(sorted(range(len(self.starts)), key=self.starts.__getitem__))
        finish = iter(sorted(range(len(self.ends)), key=self.ends.__getitem__))
        starting, ending, busy = next(begin, None), next(finish, None), 0
        while ending is not None:
            now = self.ends[ending] if starting is None else min(self.starts[starting], self.ends[ending])
            while starting is not None and self.starts[starting] == now:
                busy += self.cores[starting]
                starting = next(begin, None)
            while ending is not None and self.ends[ending] == now:
                busy -= self.cores[ending]
                ending = next(finish, None)
            yield now, busy

    def ramp_up(self) -> float | None:
        """Seconds until BUSY of the largest number of busy cores; None without tasks."""
        most = max((busy for _, busy in self.steps()), default=0)
        return next((max(0.0, now) for now, busy in self.steps() if busy >= BUSY * most), None) if most else None

    def full_until(self, cores: int) -> float | None:
        """The last moment at which at least BUSY of the cores were busy, in seconds; None if they never were."""
        until, before = None, 0
        for now, busy in self.steps():
            if before >= BUSY * cores > busy:
                until = now
            before = busy
        return until


def _alone(method: Callable[Given, Found]) -> Callable[Given, Found]:
    """A method that no other thread is in at the same time."""

    @functools.wraps(method)
    def locked(*given: Given.args, **named: Given.kwargs) -> Found:
        with given[0]._lock:  # type: ignore[attr-defined]
            return method(*given, **named)

    return locked


class Trace:
    """Writes the trace and gathers the summary. Times are seconds since the epoch. Thread-safe, but for its beginning.

    path None keeps the summary only. A disk that is full or gone ends the trace, not the pool; the summary says so.
    """

    def __init__(self, path: Path | None, started: float) -> None:
        self.started = started
        self.problem = ""
        self._path = path
        self._file = -1
        self._separator = "[\n"
        self._nodes: dict[int, tuple[int, int]] = {}
        self._outcomes = {"done": 0, "failed": 0, "killed": 0, "later": 0}
        self._rules: dict[str, _Rule] = {}
        self._phases: dict[str, _Phase] = {}
        self._events: Counter[str] = Counter()
        self._stolen = 0
        self._lock = threading.RLock()
        self._counted: dict[str, float] = {}
        self._intervals = Intervals()
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            except OSError as error:
                self._give_up(error)
        self._describe("process", POOL, 0, "pool")

    @_alone
    def pool(self, rank: int, host: str, cores: int, devices: int) -> None:
        """A node has joined, or has come back with other slots."""
        self._nodes[rank] = (cores, devices)
        process = node_process(rank)
        numbers = {"rank": rank, "cores": cores, "devices": devices}
        self._describe("process", process, 0, f"node {rank} ({host}: {cores} cores, {devices} devices)", **numbers)
        self._describe("thread", process, NODE_LANE, "node")
        for core in range(cores):
            self._describe("thread", process, core_lane(core), f"core {core}")

    @_alone
    def task(self, name: str, rule: str, result: Result, seconds: float | None = None) -> None:
        """A task has ended; seconds: what all its pieces took together, if there were several."""
        if seconds is None:
            seconds = max(0.0, result.ended - result.started)
        self._outcomes["done" if result.ok else "killed" if result.signal else "failed"] += 1
        numbers = self._rules.setdefault(rule, _Rule())
        numbers.tasks += 1
        numbers.seconds += seconds
        numbers.longest = max(numbers.longest, seconds)
        numbers.max_rss_mb = max(numbers.max_rss_mb, result.max_rss_mb)
        self._show(name, rule, result)

    @_alone
    def piece(self, name: str, rule: str, result: Result) -> None:
        """A task has saved its state and stopped, to go on later."""
        self._events["piece"] += 1
        self._show(name, rule, result)

    @_alone
    def leave(self) -> None:
        """A task that has saved its state goes on in another run."""
        self._outcomes["later"] += 1

    def _show(self, name: str, rule: str, result: Result) -> None:
        seconds = max(0.0, result.ended - result.started)
        start = result.started - self.started
        self._intervals.add(start, start + seconds, len(result.cores))
        details: dict[str, Any] = {
            "rule": rule,
            "id": result.id,
            "rank": result.rank,
            "cores": list(result.cores),
            "devices": list(result.devices),
            "status": result.status,
            "max_rss_mb": round(result.max_rss_mb, 1),
        }
        if result.signal:
            details["signal"] = result.signal
        if result.reason:
            details["reason"] = result.reason
        lane = core_lane(result.cores[0]) if result.cores else NODE_LANE
        span = self._span(result.started, result.started + seconds)
        self._write(name=name, cat="task", ph="X", pid=node_process(result.rank), tid=lane, **span, args=details)

    @_alone
    def instant(self, name: str, rank: int, when: float, /, **args: Any) -> None:
        """Something that takes no time: a steal, a death, a restart."""
        self._events[name] += 1
        self._stolen += args["tasks"] if name == "steal" else 0
        process, (moment, _) = node_process(rank), self._span(when, when).values()
        self._write(name=name, cat="event", ph="i", s="p", pid=process, tid=NODE_LANE, ts=moment, args=args)

    @_alone
    def phase(
        self, name: str, rank: int, started: float, ended: float, numbers: Mapping[str, int] | None = None, **about: str
    ) -> None:
        """Something a node did that is no task, such as staging; numbers are added up in the summary."""
        phase = self._phases.setdefault(name, _Phase())
        phase.times += 1
        phase.seconds += ended - started
        phase.spans = _merged([*phase.spans, (started - self.started, ended - self.started)])
        phase.nodes.add(rank)
        phase.numbers.update(numbers or {})
        span, args = self._span(started, ended), {**about, **(numbers or {})}
        self._write(name=name, cat="phase", ph="X", pid=node_process(rank), tid=NODE_LANE, **span, args=args)

    @_alone
    def counter(self, when: float, /, **values: float) -> None:
        """Numbers over time, such as queued, running and finished; the same numbers again are not written."""
        if values == self._counted:
            return
        self._counted = values
        moment = self._span(when, when)["ts"]
        self._write(name="tasks", ph="C", pid=POOL, tid=0, ts=moment, args=values)

    @_alone
    def write_summary(self, path: Path, statistics: Mapping[str, Any] | None = None) -> None:
        """The summary so far, for jobs that tell of the pool they run in. OSError if it cannot be written."""
        _write_atomically(path, json.dumps(self._summary(time.time(), dict(statistics or {})), indent=1) + "\n")

    @_alone
    def close(
        self, path: Path | None, statistics: Mapping[str, Any] | None = None, ended: float | None = None
    ) -> dict[str, Any]:
        """End the trace; write the summary (path None: not), with the caller's statistics (steals, waits) in it.

        ended defaults to now. Raises OSError if the summary cannot be written.
        """
        if self._file >= 0:
            self._put("\n]\n")
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        summary = self._summary(time.time() if ended is None else ended, dict(statistics or {}))
        if path is not None:
            _write_atomically(path, json.dumps(summary, indent=1) + "\n")
        return summary

    def _summary(self, ended: float, statistics: dict[str, Any]) -> dict[str, Any]:
        wall = max(ended - self.started, 1e-6)
        cores = sum(cores for cores, _ in self._nodes.values())
        tasks = sum(self._outcomes.values())
        busy = self._intervals.binned(wall, BINS)
        running = self._intervals.binned(wall, BINS, tasks=True)
        busy_seconds = sum(busy) * wall / BINS
        full_until = self._intervals.full_until(cores) if cores else None
        return {
            "version": SUMMARY_VERSION,
            "started": self.started,
            "ended": ended,
            "wall_s": wall,
            "nodes": len(self._nodes),
            "cores": cores,
            "devices": sum(devices for _, devices in self._nodes.values()),
            "tasks": {"total": tasks, **self._outcomes},
            "tasks_per_s": (tasks - self._outcomes["later"]) / wall,
            "busy_core_s": busy_seconds,
            "utilisation": busy_seconds / (cores * wall) if cores else 0.0,
            "busy_cores": {"bin_s": wall / BINS, "mean": [round(each, 6) for each in busy]},
            "running_tasks": {"bin_s": wall / BINS, "mean": [round(each, 6) for each in running]},
            "ramp_up_s": self._intervals.ramp_up(),
            "tail_s": None if full_until is None else max(0.0, wall - full_until),
            "rules": {
                rule: {
                    "tasks": numbers.tasks,
                    "mean_s": numbers.seconds / numbers.tasks,
                    "max_s": numbers.longest,
                    "max_rss_mb": numbers.max_rss_mb,
                }
                for rule, numbers in sorted(self._rules.items())
            },
            "phases": {
                name: {
                    "times": phase.times,
                    "nodes": len(phase.nodes),
                    "total_s": phase.seconds,
                    "started_s": phase.spans[0][0],
                    "ended_s": phase.spans[-1][1],
                    "wall_s": sum(end - start for start, end in phase.spans),
                    "spans": [list(span) for span in phase.spans],
                    **phase.numbers,
                }
                for name, phase in self._phases.items()
            },
            "steals": {"times": self._events["steal"], "tasks": self._stolen},
            "events": dict(self._events),
            "statistics": statistics,
            "problem": self.problem,
        }

    def _span(self, started: float, ended: float) -> dict[str, int]:
        # Both ends are rounded, not the duration: tasks that follow one another in a lane must not come to overlap.
        # Clocks of nodes differ a little, and viewers refuse times below 0.
        start, end = (max(0, round((moment - self.started) * 1e6)) for moment in (started, ended))
        return {"ts": start, "dur": max(0, end - start)}

    def _describe(self, what: str, process: int, thread: int, name: str, **more: int) -> None:
        self._write(name=f"{what}_name", ph="M", pid=process, tid=thread, args={"name": name, **more})
        order = process if what == "process" else thread
        self._write(name=f"{what}_sort_index", ph="M", pid=process, tid=thread, args={"sort_index": order})

    def _write(self, **event: Any) -> None:
        # The separator goes before the event: what is in the file lacks a closing bracket and nothing else.
        if self._file >= 0:
            self._put(self._separator + json.dumps(event, separators=(",", ":"), default=str))
            self._separator = ",\n"

    def _put(self, text: str) -> None:
        data = memoryview(text.encode())
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            os.close(self._file)
            self._file = -1
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.problem = f"The trace {self._path} ends early: {error.strerror}."


def read_trace(path: Path) -> list[dict[str, Any]]:
    """All whole events of a trace, also of one that a killed pool left or that was cut off.

    Raises ValueError if the file is no trace.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    if not "[".startswith(text[:1]):
        raise ValueError(f"{path} is no trace: expected a JSON array, it begins with {text[:20]!r}.")
    events: list[dict[str, Any]] = []
    for line in text.split("\n")[1:]:
        try:
            events.append(json.loads(line.removesuffix(",")))
        except ValueError:
            break  # the closing bracket, or a line that was cut off
    return events


def _merged(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans in order, those that overlap as one."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def _write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
