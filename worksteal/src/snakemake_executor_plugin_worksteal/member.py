"""One of the pools that are batch jobs: its job, its link, the tasks that it has; and the tasks that no pool has."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .allocation import clock
from .batch import UNKNOWN, Look
from .link import Link
from .pool import tail
from .queue import entry
from .session import FILE, journals
from .start import REFUSED
from .tasks import Task

# submitting: the batch system is being asked. queued: it has the job. up: the agents have said hello. leaving: they are
# to end, or their job is. ending: the job has ended; what the agents have left is looked at. ended: it is over.
State = Literal["submitting", "queued", "up", "leaving", "ending", "ended"]
RECENT_S, RECENT = 1.0, 10_000


@dataclass(slots=True)
class Member:
    """A pool. epoch is its number, slot tells it from those that live at the same time."""

    epoch: int
    slot: int
    folder: Path
    title: str
    submission: Future[str]
    state: State = "submitting"
    number: str = ""
    submitted: float = field(default_factory=time.monotonic)
    link: Link = field(default_factory=Link)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    tasks: dict[int, Task] = field(default_factory=dict)
    look: Look = UNKNOWN
    until: float | None = None  # when its tasks have to end, by the wall clock
    closing: bool = False  # it takes no more
    parting: bool = False  # it has been told to end
    lost_at: float | None = None
    ran_at: float | None = None  # when its job was first seen to run
    ends_at: float | None = None  # when a job that is about to end is taken for one that has
    cancelled: bool = False
    dismissed: bool = False  # its end is no surprise
    orderly: bool = False  # it has ended as it was asked to
    why: str = ""
    give_up_at: float = 0.0
    short: bool = False  # it ends because there is too little time left
    looked_at: float = 0.0
    cancelled_at: float = 0.0
    running: int = 0
    finished: int = 0
    base: int = 0  # what is added to its ranks
    _cores: int = 0  # of its tasks
    _devices: int = 0
    _lately: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))

    @property
    def name(self) -> str:
        """For people."""
        return f"pool {self.epoch} ({self.title} job {self.number})" if self.number else f"pool {self.epoch}"

    @property
    def alive(self) -> bool:
        """Whether it takes tasks, or will."""
        return self.state in ("submitting", "queued", "up") and not self.closing

    @property
    def over(self) -> bool:
        """Whether its job has ended or is about to, by the batch system's word."""
        return self.look.state in ("ends", "ended")

    @property
    def connected(self) -> bool:
        """Whether messages go through at this moment."""
        return self.link.channel is not None

    def takes(self, task: Task, *, alone: bool) -> bool:
        """Whether it can use one more: all if it is alone, else what its nodes can run, and some at hand, the more the
        faster its tasks end.
        """
        if alone:
            return True
        now = time.monotonic()
        while self._lately and self._lately[0] < now - RECENT_S:
            self._lately.popleft()
        at_hand = len(self.nodes) + 2 * len(self._lately)
        cores = sum(int(node["cores"]) for node in self.nodes)
        devices = sum(len(node["devices"]) for node in self.nodes)
        return self._cores < cores + at_hand and (not task.devices or self._devices < devices + at_hand)

    def give(self, tasks: Iterable[Task]) -> None:
        """These are its now."""
        for task in tasks:
            self.tasks[task.id] = task
            self._cores += task.cores
            self._devices += task.devices

    def take(self, number: int, *, ended: bool = False) -> Task | None:
        """A task is its no more; None if it never was."""
        task = self.tasks.pop(number, None)
        if task is not None:
            self._cores -= task.cores
            self._devices -= task.devices
            if ended:
                self.finished += 1
                self._lately.append(time.monotonic())
        return task

    def take_all(self) -> list[Task]:
        """All its tasks."""
        tasks = list(self.tasks.values())
        for task in tasks:
            self.take(task.id)
        return tasks

    def journals(self) -> list[Path]:
        """What its runners have written down."""
        return journals(self.folder)

    def forget_secret(self) -> None:
        """Its agents have read the session's file, or never will."""
        (self.folder / FILE).unlink(missing_ok=True)

    def said(self, work: Path) -> str:
        """The last words of its launcher and its job script."""
        places = (self.folder / "launcher.err", self.folder / "launcher.out", work / f"{self.number}.out")
        words = [text for text in map(tail, places) if text and text != "_PSI_J_LAUNCHER_DONE"]
        return f"; it printed: {words[0]}" if words else ""

    def refusal(self) -> str:
        """Why its job has started no agents, if it knows; "" else."""
        with suppress(OSError):
            return (self.folder / REFUSED).read_text()
        return ""

    def tidy(self) -> None:
        """After an orderly end: what nobody needs any more."""
        for path in (*self.journals(), *self.folder.glob("launcher.*")):
            if path.suffix == ".jsonl" or path.stat().st_size == 0:
                path.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()


class Unassigned:
    """Tasks that no pool has, by the time that must be left for them, each in the order in which they are to begin."""

    def __init__(self) -> None:
        # By the time, and whether they want devices.
        self._heaps: dict[tuple[float, bool], list[tuple[tuple[float, ...], Task]]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, tasks: Iterable[Task]) -> None:
        """Put tasks in line."""
        for task in tasks:
            # A heap has the least first, an entry of the queue is the larger the sooner it begins. Ids differ.
            key = tuple(-float(each) for each in entry(task)[:3])
            heapq.heappush(self._heaps.setdefault(_kind(task), []), (key, task))
            self._size += 1

    def best(self, left_s: float, *, devices: bool = True) -> Task | None:
        """The next task for which that much time is enough, with devices or without; it stays."""
        fitting = [
            heap[0]
            for (needs_s, wants), heap in self._heaps.items()
            if heap and needs_s <= left_s and (devices or not wants)
        ]
        return min(fitting, key=lambda found: found[0])[1] if fitting else None

    def pop(self, task: Task) -> None:
        """Take out what `best` has just told."""
        heapq.heappop(self._heaps[_kind(task)])
        self._size -= 1

    def take_all(self) -> list[Task]:
        """All of them."""
        tasks = [task for heap in self._heaps.values() for _, task in heap]
        self._heaps.clear()
        self._size = 0
        return tasks


def _kind(task: Task) -> tuple[float, bool]:
    return task.needs_s, task.devices > 0


def counted(number: int, noun: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def lasts(seconds: float) -> str:
    """A walltime for people."""
    if seconds < 60:
        return f"{seconds:g} s"
    return f"{clock(seconds)} h" if seconds >= 3600 else f"{seconds / 60:g} min"
