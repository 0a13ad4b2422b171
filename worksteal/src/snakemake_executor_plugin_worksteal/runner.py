"""A runner: a process that an agent forks before MPI is started, and that starts, watches and ends tasks for it.

Two kinds: plain (small, runs commands) and warm (has imported what scripts need, and forks for `script:` and
`benchmark:`). This module is the agent's side; `tending` is the process's inside.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal, NoReturn

from . import processes, tending, warm
from .tasks import Back, Kind, Order, Result
from .wire import Wire


class RunnerDied(RuntimeError):
    """The runner's process has ended; what had finished is in its journal."""


class Runner:
    """The agent's handle: no threads, no waiting but in `close`. To be made before threads and before MPI."""

    def __init__(
        self,
        kind: Literal["plain", "warm"],
        *,
        rank: int,
        workdir: str,
        environment: dict[str, str],
        preload: Sequence[str] = (),
        journal: Path,
        spares: int = 2,
        grace_s: float = 10.0,
        patience: float = 0.5,
        reuse: int = 1,
    ) -> None:
        """Fork the runner and return at once; it serves once it has imported what it needs.

        rank goes into results and markers. environment is all that tasks see, and names the pool in WORKSTEAL_POOL.
        preload are modules for the warm kind, spares the forks that it keeps waiting. grace_s are the seconds from
        SIGTERM to SIGKILL, patience those between two looks at the memory of a task with a limit. reuse is how many
        scripts of one text and config a fork may run, one after the other.

        Raises:
            ValueError: environment has no WORKSTEAL_POOL.
            OSError: the journal cannot be created, or the process not be forked.
        """
        if not environment.get("WORKSTEAL_POOL"):
            raise ValueError(
                "A runner's environment has no WORKSTEAL_POOL: set it to the pool's name, which marks its tasks."
            )
        self.kind = kind
        self.running: set[int] = set()
        self._marker = f"{environment['WORKSTEAL_POOL']}:{rank}"
        self._sent: set[bytes] = set()
        self._kept: list[Result | Back | str] = []
        self._ended = ""
        self._closing = False
        settings = tending.Settings(kind, rank, environment["WORKSTEAL_POOL"], spares, grace_s, patience, reuse)
        file = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        mine, its = socket.socketpair()
        try:
            self.pid = os.fork()
            if self.pid == 0:
                _live(its, file, settings, workdir, environment, preload)
        finally:
            its.close()
            os.close(file)
        self._wire = Wire(mine)

    def fileno(self) -> int:
        """The descriptor that becomes readable when `read` has something."""
        return self._wire.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether orders wait for `flush`, because the runner is busy or still importing."""
        return self._wire.wants_write

    def flush(self) -> bool:
        """Write what can be written without waiting; True if nothing is left."""
        return self._wire.flush()

    def start(
        self,
        id: int,
        order: Order,
        cores: tuple[int, ...],
        devices: tuple[int, ...],
        kind: Kind | None = None,
    ) -> None:
        """Ask for a task. Its Result follows from `read`, whatever becomes of it; a script's text is sent once."""
        order, key = self._shared(order)
        self.running.add(id)
        self._wire.send(("start", id, order, key, cores, devices, kind))
        self._wire.flush()

    def start_ahead(self, id: int, order: Order, kind: Kind) -> None:
        """Ask, with the next `flush`, for a task as soon as one of its kind ends: it is the `successor` of that one's
        Result, or comes Back.
        """
        order, key = self._shared(order)
        self._wire.send(("ahead", id, order, key, kind))

    def recall(self, ids: Iterable[int]) -> None:
        """Ask for tasks back that were to begin when others end; those that have begun do not come."""
        self._wire.send(("recall", list(ids)))
        self._wire.flush()

    def _shared(self, order: Order) -> tuple[Order, bytes]:
        """An order without what all orders of its script share, which is sent once, and the name of that."""
        key = b""
        script = order.script
        if script is not None:
            key = script.key or hashlib.blake2b(f"{script.path}\0{script.source}".encode() + script.config).digest()
            if key not in self._sent:
                self._wire.send(("source", key, script.path, script.source, script.config))
                self._sent.add(key)
            order = replace(order, script=replace(script, path="", source="", config=b""))
        return order, key

    def stop(self, id: int, reason: str, sign: int = signal.SIGTERM) -> None:
        """Signal all processes of a task, SIGKILL after the grace. reason goes into its Result, unless it has ended."""
        self._wire.send(("stop", id, reason, int(sign)))
        self._wire.flush()

    def save(self, *, all: bool = False) -> None:
        """Send SIGTERM to tasks that can go on another time (`Order.resume`), or to all; SIGKILL after the grace."""
        self._wire.send(("save", all))
        self._wire.flush()

    def read(self) -> list[Result | Back | str]:
        """What has arrived, without waiting: results, tasks that come back, warnings to log.

        Raises RunnerDied once the process is gone.
        """
        found, self._kept = self._kept, []
        if not self._ended:
            found += self._receive()
        if not found and self._ended:
            self._wire.close()  # not before: who waits on it has to come here once more
            raise RunnerDied(self._ended)
        return found

    def begin_close(self, wait_s: float) -> None:
        """Tell all tasks to end, and do not wait; `close` does."""
        if not self._closing:
            self._closing = True
            self._wire.send(("close", wait_s * 0.8))
            self._wire.flush()

    def close(self, wait_s: float) -> None:
        """End all tasks, then the runner, within `wait_s` seconds by force. `read` still has what arrived meanwhile."""
        until = time.monotonic() + wait_s
        self.begin_close(wait_s)
        poll = select.poll()
        while not self._ended and (left := until - time.monotonic()) > 0:
            self._wire.flush()
            poll.register(self._wire, select.POLLIN | (select.POLLOUT if self._wire.wants_write else 0))
            if poll.poll(left * 1000):
                self._kept += self._receive()
        if not self._ended:
            os.kill(self.pid, signal.SIGKILL)
            self._bury()
            for id in sorted(self.running):
                processes.kill_leftovers(f"{self._marker}:{id}")
        self._wire.close()

    def _receive(self) -> list[Result | Back | str]:
        found: list[Result | Back | str] = self._wire.receive()
        for message in found:
            if isinstance(message, Result):
                self.running.discard(message.id)
                if message.successor is not None:
                    self.running.add(message.successor)
        if self._wire.ended:
            self._bury()
        return found

    def _bury(self) -> None:
        how = "in a way that is not known"
        with suppress(ChildProcessError):  # somebody has waited for it before
            code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            how = f"with status {code}" if code >= 0 else f"by signal {-code}"
        tasks = ", ".join(map(str, sorted(self.running))) or "none"
        self._ended = f"The {self.kind} runner (process {self.pid}) has ended {how}; its unfinished tasks: {tasks}."


def _live(
    end: socket.socket,
    journal: int,
    settings: tending.Settings,
    workdir: str,
    environment: dict[str, str],
    preload: Sequence[str],
) -> NoReturn:
    """The runner's life, in the fork; never returns."""
    status = 70
    try:
        gc.freeze()  # else a collection might close, as files of the agent, numbers that are this process's by then
        processes.close_descriptors({0, 1, 2, end.fileno(), journal})
        os.setsid()
        warm.forget_the_agent()
        warm.open_streams()
        os.chdir(workdir)
        os.environ.clear()
        own = f"{environment['WORKSTEAL_POOL']}:{settings.rank}:{settings.kind}:{os.getpid()}"
        os.environ.update(environment, **{processes.RUNNER: own})
        tempfile.tempdir = None
        processes.become_subreaper()
        complaints: list[str] = []
        if settings.kind == "warm":
            complaints = warm.load(preload)
        tender = tending.Tender(end, journal, settings)
        for complaint in complaints:
            tender.wire.send(complaint)
        tender.serve()
        status = 0
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(status)


def read_journal(path: Path) -> tuple[list[Result], bool]:
    """Results in a runner's journal, and whether the runner has ended all its tasks and closed it.

    A torn line, which a crash can leave at the end, is passed over. OSError if the file cannot be read.
    """
    results: list[Result] = []
    closed = False
    for line in path.read_bytes().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        closed = entry == {"closed": True}
        if "id" in entry:
            results.append(Result(**{**entry, "cores": tuple(entry["cores"]), "devices": tuple(entry["devices"])}))
    return results, closed
