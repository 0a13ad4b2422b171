"""What travels through the pool: a task as the core sees it, what a runner is asked to do, what came of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, NamedTuple

# The exit status of a task that has saved its state and is to be run again (75, "temporary failure" of sysexits.h).
LATER = os.EX_TEMPFAIL


class Packed:
    """A dataclass that is pickled as the call that makes it: a third of the time that its own way takes, which goes
    through the fields one by one.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        kind: Any = type(self)
        values = _values.get(kind)
        if values is None:
            values = _values[kind] = attrgetter(*(each.name for each in fields(kind)))
        return kind, values(self)


_values: dict[type, attrgetter[tuple[Any, ...]]] = {}


@dataclass(slots=True, frozen=True)
class Task(Packed):
    """One unit of work as the scheduling core sees it.

    cores and devices are of one node. expected is the duration in seconds that is expected (0: unknown). Tasks of one
    affinity key prefer one node. needs_s is the time in seconds that must be left for it to begin (0: any). pieces is
    how often it has saved its state and stopped: one that goes on is a task of its own, with a new id. The payload is
    opaque to the core (an `Order` in the real pool).
    """

    id: int
    name: str = ""
    cores: int = 1
    devices: int = 0
    mem_mb: int = 0
    priority: int = 0
    expected: float = 0.0
    affinity: str = ""
    needs_s: float = 0.0
    pieces: int = 0
    payload: Any = None


@dataclass(slots=True, frozen=True)
class Benchmark:
    """What Snakemake's `benchmark:` asks for: file, repeats, and what the extended format shows of the job."""

    path: str
    repeats: int = 1
    extended: bool = False
    job: bytes = b""  # pickled dict: jobid, rule_name, wildcards, params, resources, input, threads


@dataclass(slots=True, frozen=True)
class Script(Packed):
    """A Python `script:` for a fork of the warm process.

    source is the script's text, path its own path (`__file__`), search_paths what Snakemake appends to sys.path,
    snakemake the pickled `snakemake` object without its config, which is pickled apart: it can be large, is the same
    for all jobs, and so is sent to a runner once for each `key`, which names path, source and config.
    """

    path: str
    source: str
    search_paths: tuple[str, ...]
    snakemake: bytes
    shell_exec: str | None = None
    config: bytes = b""
    key: bytes = b""


@dataclass(slots=True, frozen=True)
class Order(Packed):
    """What a runner is asked to start.

    Either `command` (run by `shell -c`) or `script`; an agent takes an order with neither for done at once. threads
    sets the usual thread-count variables; environment is laid over the pool's. limit_s (seconds) and limit_mb end the
    task; 0 means no limit. log is where output is kept if there is any, and
    remove names old output that is removed first; a name that ends with a slash is a folder and all that is in it.
    resume is the file or folder where the task keeps what it can go on from: it is told when the pool is to end.
    stage are files and folders, absolute, that are copied to a node's own disk before the task begins there.
    """

    command: str = ""
    script: Script | None = None
    shell: str = "/bin/bash"
    threads: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    limit_s: float = 0.0
    limit_mb: int = 0
    log: str = ""
    benchmark: Benchmark | None = None
    remove: tuple[str, ...] = ()
    resume: str = ""
    stage: tuple[str, ...] = ()


# What tasks need, if they need just the same: runner, cores, memory. One that ends makes room for one that begins.
Kind = tuple[str, int, int]


class Back(NamedTuple):
    """A runner gives back tasks that were to begin when others end."""

    ids: list[int]


@dataclass(slots=True)
class Result(Packed):
    """What came of a task.

    status is the exit status (None if a signal ended it), signal the signal's number (0 if none), reason one sentence
    where the pool ended the task or knows more than the status says. told is whether it was told to end because the
    pool does: then nothing but success and LATER counts as its outcome, and for all else the status is None. progress
    is whether anything has changed in `Order.resume` (looked at only if it is to go on). Times are seconds since the
    epoch on the node's clock, max_rss_mb the peak resident memory of the largest process, cpu_s user plus system time.
    tail is the end of its output, log the file that holds all of it ("" if there was none).
    """

    id: int
    status: int | None
    signal: int = 0
    reason: str = ""
    told: bool = False
    progress: bool = False
    started: float = 0.0
    ended: float = 0.0
    max_rss_mb: float = 0.0
    cpu_s: float = 0.0
    tail: str = ""
    log: str = ""
    rank: int = 0
    host: str = ""
    cores: tuple[int, ...] = ()
    devices: tuple[int, ...] = ()
    successor: int | None = None  # the task that the runner has begun in its place

    @property
    def ok(self) -> bool:
        """Whether the task ended with status 0, and not because it was told to end (a limit, a stop)."""
        return self.status == 0 and not self.reason

    @property
    def later(self) -> bool:
        """Whether the task has saved its state, and is to be run again to go on."""
        return self.status == LATER

    def as_dict(self) -> dict[str, Any]:
        """For the journal and the trace (JSON)."""
        return {name: getattr(self, name) for name in RESULT_FIELDS}


RESULT_FIELDS = tuple(each.name for each in fields(Result))
