"""What agents say to each other (class names ending in a verb) and what the core asks of its driver (effects)."""

from __future__ import annotations

from typing import Any, NamedTuple

from .tasks import Task


class Room(NamedTuple):
    """An amount of a node: cores, devices, memory in MB (below 0: not limited)."""

    cores: int
    devices: int = 0
    mem_mb: int = 0

    def holds(self, cores: int, devices: int, mem_mb: int) -> bool:
        """Whether that much fits."""
        return cores <= self.cores and devices <= self.devices and (mem_mb <= self.mem_mb or self.mem_mb < 0)

    def times(self, cores: int, devices: int, mem_mb: int) -> int:
        """How often that much fits."""
        fits = self.cores // max(1, cores)
        if devices:
            fits = min(fits, self.devices // devices)
        if mem_mb and self.mem_mb >= 0:
            fits = min(fits, self.mem_mb // mem_mb)
        return fits

    def without(self, cores: int, devices: int, mem_mb: int) -> Room:
        """What is left when that much is kept; where less is there than that, nothing."""
        left_mb = self.mem_mb if self.mem_mb < 0 else max(0, self.mem_mb - mem_mb)
        return Room(max(0, self.cores - cores), max(0, self.devices - devices), left_mb)


# Between agents


class Steal(NamedTuple):
    """Give me work that fits into `room`. As a lifeline (to the root) the request stays until there is some."""

    room: Room
    lifeline: bool


class Give(NamedTuple):
    """Tasks for you; they stay mine until you acknowledge `transfer`.

    `answer`: to your Steal that is no lifeline; else your lifeline, if you have one, is used up. `epoch` is the last
    census that I have answered.
    """

    transfer: int
    tasks: tuple[Task, ...]
    answer: bool
    epoch: int


class Nothing(NamedTuple):
    """I have no work for you."""


class Idle(NamedTuple):
    """Root to an agent that has work: this one looks for some. Back to the root: I have none that fits."""

    rank: int
    room: Room


class Want(NamedTuple):
    """There is work that fits your node but not what was free of it: ask again when one of `rooms` is free."""

    rooms: tuple[Room, ...]


class Acknowledge(NamedTuple):
    """The tasks of a transfer are mine. `epoch` is the last census that I have answered."""

    transfer: int
    epoch: int


class Done(NamedTuple):
    """Results, how many tasks run here now, and what the least demanding tasks need that wait here."""

    items: tuple[tuple[int, Any], ...]
    running: int
    needs: tuple[Room, ...]


class Status(NamedTuple):
    """How many tasks run here now, and what the least demanding tasks need that wait here."""

    running: int
    needs: tuple[Room, ...]


class Withdraw(NamedTuple):
    """Give up every task up to this number that has not begun; `save`: and have those that run go on another time;
    `stop`: and have all that run end.
    """

    upto: int
    save: bool = False
    stop: bool = False


class Withdrew(NamedTuple):
    """These had not begun and never will; late: because too little time is left for them."""

    ids: tuple[int, ...]
    late: bool = False


class Census(NamedTuple):
    """Agents have died: tell me which tasks you hold."""

    epoch: int
    dead: tuple[int, ...]


class Held(NamedTuple):
    """The tasks that I hold in any form."""

    epoch: int
    ids: tuple[int, ...]


def uncovered(needs: tuple[Room, ...], told: tuple[Room, ...]) -> bool:
    """Whether one of `needs` could be met where none of those that were told can."""
    return any(not any(need.holds(*other) for other in told) for need in needs)


# Effects


class Send(NamedTuple):
    """Send a message to another agent."""

    to: int
    message: Any


class Start(NamedTuple):
    """Start a task on these cores and devices (numbers of this node)."""

    task: Task
    cores: tuple[int, ...]
    devices: tuple[int, ...]


class Report(NamedTuple):
    """At the root: (task id, rank, result) of tasks that have ended; each id once."""

    items: list[tuple[int, int, Any]]


class Withdrawn(NamedTuple):
    """At the root: tasks that never began and never will; late: because too little time is left for them."""

    ids: list[int]
    late: bool = False


class Recall(NamedTuple):
    """Bring back those of these tasks, taken ahead, that have not begun (`Core.put_back`)."""

    ids: list[int]


class Save(NamedTuple):
    """Tell the tasks that run here, and can, to save their state and end; `all`: tell all to end."""

    all: bool = False


class Impossible(NamedTuple):
    """At the root: no living agent could ever run this task, and why."""

    id: int
    why: str
