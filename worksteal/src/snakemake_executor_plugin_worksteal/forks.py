"""The forks of a warm runner, as the runner sees them: those that wait for work, and those that are leaving."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from . import processes
from .tasks import Order
from .tended import NEVER

USAGE = struct.Struct("dd")  # what a fork says when its script has ended well: peak memory in MB, CPU seconds


@dataclass(slots=True)
class Fork:
    """A process that hears its orders over a channel (-1 once closed).

    outputs are the files of its stdout and stderr, which it uses in turn: what a script has written is read while the
    next one runs. key names the script that it has run, `runs` times, the last as the task of this marker. its_end is
    the fork's end of the channel if it may stay: from there an order can be had back that it has not heard yet.
    following is an order that it has been told while a script runs, with its task.
    """

    pid: int
    channel: int
    outputs: tuple[int, ...]
    its_end: socket.socket | None = None
    key: bytes = b""
    runs: int = 0
    marker: str = ""
    kill_at: float = NEVER
    following: tuple[int, Order, bytes] | None = None
    dead: bool = False

    def hang_up(self) -> None:
        """Close the channel: a fork that waits there exits, one that does not waits no more when it has run."""
        if self.channel >= 0:
            os.close(self.channel)
            self.channel = -1
        self.keep_what_it_is_told()

    def keep_what_it_is_told(self) -> None:
        """From now on no order can be had back, and to tell a dead fork is an error."""
        if self.its_end is not None:
            self.its_end.close()
            self.its_end = None

    def close_outputs(self) -> None:
        """Close the files of its output."""
        for output in self.outputs:
            os.close(output)
        self.outputs = ()

    @property
    def output(self) -> int:
        """The file of the script that runs."""
        return self.outputs[(self.runs - 1) % len(self.outputs)]

    def descriptors(self) -> set[int]:
        """What this process holds open for it."""
        ends = {self.channel, *self.outputs}
        return ends if self.its_end is None else ends | {self.its_end.fileno()}

    def has_heard(self) -> bool:
        """Whether it has heard all that it has been told."""
        return self._look_into_its_end(socket.MSG_PEEK) is False

    def take_back(self) -> bool:
        """Take back what it has been told last; False if it has heard that."""
        return self._look_into_its_end(0) is True

    def _look_into_its_end(self, flags: int) -> bool | None:
        """Whether there is a packet (a part of one is enough to take all of it); None if that cannot be seen."""
        if self.its_end is None:
            return None
        try:
            return bool(self.its_end.recv(1, flags | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False

    def has_spoken(self) -> bool:
        """Whether it has said something that has not been read, or closed the channel."""
        poll = select.poll()
        poll.register(self.channel, select.POLLIN)
        return bool(poll.poll(0))

    def usage(self) -> tuple[float, float] | None:
        """What it says of the script that has ended; None if it says nothing, and is going to exit or has done so."""
        try:
            said = os.read(self.channel, 4096)
        except ConnectionResetError:
            return None
        return USAGE.unpack(said) if len(said) == USAGE.size else None


class Forks:
    """Spares, which have run nothing yet; idle ones, which have; and leaving ones, which run what is to run at exit."""

    def __init__(self, most_idle: int, grace_s: float) -> None:
        self.spares: deque[Fork] = deque()
        self.idle: list[Fork] = []
        self.leaving: dict[int, Fork] = {}
        self.most_idle = most_idle
        self.grace_s = grace_s

    def __iter__(self) -> Iterator[Fork]:
        """All of them."""
        yield from self.spares
        yield from self.idle
        yield from self.leaving.values()

    def descriptors(self) -> set[int]:
        """What this process holds open for them."""
        return {number for fork in (*self.spares, *self.idle) for number in fork.descriptors()}

    def take(self, key: bytes) -> Fork | None:
        """The fork that ran a script of this key last, for it has most of it in the caches."""
        for fork in reversed(self.idle):
            if fork.key == key and not fork.dead:
                self.idle.remove(fork)
                return fork
        return None

    def keep(self, fork: Fork) -> None:
        """Let it wait for another script; if too many wait, the one that has waited longest goes."""
        self.idle.append(fork)
        if len(self.idle) > self.most_idle:
            self.let_go(self.idle.pop(0))

    def let_go(self, fork: Fork, grace_s: float | None = None) -> None:
        """Let an idle fork exit; it is killed if it takes longer than the grace."""
        self.send_off(fork, grace_s)
        fork.close_outputs()

    def send_off(self, fork: Fork, grace_s: float | None = None) -> None:
        """As `let_go`, for a fork whose output is a task's that is yet to be reported."""
        fork.hang_up()
        fork.kill_at = time.monotonic() + (self.grace_s if grace_s is None else min(grace_s, self.grace_s))
        self.leaving[fork.pid] = fork

    def let_all_go(self, grace_s: float) -> None:
        """No script will come any more."""
        for fork in self.idle:
            self.let_go(fork, grace_s)
        self.idle.clear()

    def next_at(self) -> float:
        """When the next fork that is leaving has to be gone."""
        return min((fork.kill_at for fork in self.leaving.values()), default=NEVER)

    def kill_late(self, now: float) -> None:
        """SIGKILL those that do not leave."""
        late = [fork for fork in self.leaving.values() if fork.kill_at <= now]
        processes.send((fork.pid for fork in late), signal.SIGKILL)
        for fork in late:
            fork.kill_at = NEVER

    def ended(self, pid: int) -> None:
        """A child has ended; if it was one of these, forget it, and kill what it has started on its way out."""
        fork = next((fork for fork in self if fork.pid == pid), None)
        if fork is None:
            return
        if self.leaving.pop(pid, None) is None:
            (self.idle if fork in self.idle else self.spares).remove(fork)
            fork.hang_up()
            fork.close_outputs()
        if fork.runs:
            for child in processes.children(os.getpid()):
                if processes.session(child) == pid or processes.variable(child, processes.TASK) == fork.marker:
                    processes.send([child], signal.SIGKILL)
