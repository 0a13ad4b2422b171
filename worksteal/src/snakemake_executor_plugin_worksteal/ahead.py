"""Short tasks at hand of the runners, so that a slot does not wait for the way from runner to agent and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial

from .core import Core
from .runner import Runner
from .tasks import Kind, Order, Task

# Only tasks that take less than this are given ahead, for while one waits at a runner nobody can steal it;
# and one that has not begun after the same time is called back.
SHORT_S = 0.5
# For each that runs so many are at hand as take this long: one or more, and at most the second number.
AT_HAND_S, AT_HAND = 0.02, 8
NEWEST = 0.2  # weight of the newest duration in what a kind of tasks takes


def runner_of(order: Order) -> str:
    """Which of a node's runners carries out an order."""
    return "warm" if order.script is not None or order.benchmark is not None else "plain"


def kind_of(task: Task) -> Kind | None:
    """What a task needs, if another that needs the same can begin in its place; devices have to be dealt with anew."""
    order: Order = task.payload
    if task.devices or not (order.command or order.script):
        return None
    return runner_of(order), task.cores, task.mem_mb


def suits(kind: Kind, task: Task) -> bool:
    """Whether a task is of a kind, and not known to be long."""
    return kind_of(task) == kind and task.expected < SHORT_S


class Ahead:
    """Keeps the runners of one agent supplied: for each short task that runs, one more of its kind, or some more."""

    def __init__(self, core: Core, runners: Mapping[str, Runner], environment: Mapping[str, str]) -> None:
        """environment: what a task without a device gets on this node."""
        self._core = core
        self._runners = runners
        self._environment = environment
        self._running: dict[Kind, int] = {}
        self._seconds: dict[Kind, float] = {}
        self.waiting: dict[int, tuple[float, Kind]] = {}  # what is at hand: when it was given, by task
        self._recalled: set[int] = set()

    def started(self, kind: Kind | None) -> None:
        """A task has begun."""
        if kind is not None:
            self._running[kind] = self._running.get(kind, 0) + 1

    def ended(self, kind: Kind | None, seconds: float, successor: int | None) -> None:
        """A task has ended, and another has begun in its place (or none)."""
        if kind is None:
            return
        self._seconds[kind] = seconds * NEWEST + self._seconds.get(kind, seconds) * (1 - NEWEST)
        if successor is None:
            self._running[kind] -= 1
        else:
            del self.waiting[successor]
            self._recalled.discard(successor)

    def fill(self, now: float) -> None:
        """Give the runners what they lack."""
        if not self._core.queued:
            return
        for kind, running in self._running.items():
            seconds = self._seconds.get(kind, SHORT_S)
            if running and seconds < SHORT_S:
                depth = math.ceil(AT_HAND_S / max(seconds, AT_HAND_S / AT_HAND))
                lacking = depth * running - sum(found == kind for _, found in self.waiting.values())
                for task in self._core.take_ahead(now, partial(suits, kind), lacking):
                    self.waiting[task.id] = (now, kind)
                    task.payload.environment.update(self._environment)
                    self._runners[kind[0]].start_ahead(task.id, task.payload, kind)

    def recall(self, ids: Iterable[int]) -> None:
        """Ask the runners for tasks back."""
        asked: dict[str, list[int]] = {}
        for number in ids:
            if number in self.waiting and number not in self._recalled:
                self._recalled.add(number)
                asked.setdefault(self.waiting[number][1][0], []).append(number)
        for name, numbers in asked.items():
            self._runners[name].recall(numbers)

    def back(self, now: float, ids: list[int]) -> None:
        """They have come back: what they were waiting for was not as short as thought."""
        for number in ids:
            _, kind = self.waiting.pop(number)
            self._recalled.discard(number)
            self._seconds[kind] = SHORT_S
        self._core.put_back(now, ids)

    def due(self) -> float | None:
        """When `recall_late` is to be called, if at all."""
        given = (given for number, (given, _) in self.waiting.items() if number not in self._recalled)
        first = min(given, default=None)
        return None if first is None else first + SHORT_S

    def recall_late(self, now: float) -> None:
        """Call back what has waited too long."""
        self.recall([number for number, (given, _) in self.waiting.items() if given + SHORT_S <= now])
