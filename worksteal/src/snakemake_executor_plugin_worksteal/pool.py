"""Snakemake's side of a pool: starts it, hands it tasks, takes its results, and starts it again when it has died."""

from __future__ import annotations

import itertools
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from .allocation import end_of_allocation
from .channel import Channel, ChannelError, Listener
from .launch import Launch, LaunchError
from .runner import read_journal
from .session import FILE, Session, journals
from .tasks import Result, Task

POLL_S = 0.2
# Tasks in one message.
PART = 64
# With more open tasks than this, results are taken in bursts: each round of Snakemake's scheduler then does more.
MANY, BURST_S = 256, 0.01
# How long to wait for news of nodes when a pool has died for nothing, and how often to ask.
NOTICE_S, ASK_AGAIN_S = 120.0, 10.0
# How long an orderly end may take beyond the tasks' own grace, before the launcher is killed.
END_S = 10.0


class PoolError(Exception):
    """The pool cannot go on."""


class Client(Protocol):
    """Who uses a pool. All but `log` are called from the pool's thread."""

    def started(self, nodes: list[dict[str, Any]], pool: str = "") -> None: ...
    def finished(self, task: Task, result: Result) -> None: ...
    def withdrawn(self, tasks: list[Task], *, begun: bool, late: bool = False) -> None: ...
    def time_up(self, until: float) -> None: ...
    def no_more(self) -> None: ...
    def again(self, tasks: list[Task]) -> list[int]: ...
    def impossible(self, task: Task, why: str) -> None: ...
    def event(self, name: str, rank: int, when: float, details: dict[str, Any]) -> None: ...
    def running(self, running: int) -> None: ...
    def tick(self) -> None: ...
    def broken(self, error: Exception) -> None: ...
    def log(self, text: str, *, warning: bool = False) -> None: ...


class Pool:
    """A pool of agents. Thread-safe; a thread of its own listens to the agents.

    Tasks are kept until their result is here, so whatever happens to the agents, a task is handed out again unless it
    is known to have finished.
    """

    def __init__(
        self,
        launch: Launch,
        session: Session,
        folder: Path,
        listener: Listener,
        client: Client,
        *,
        relaunch: Callable[[], Launch] | None = None,
        restarts: int = 3,
        walltime_s: float | None = None,
    ) -> None:
        """relaunch: chooses the launch when the pool has died (default: the same one); it may raise LaunchError.
        walltime_s: how much time there is if no batch system says so.
        """
        self.launch = launch
        self.relaunch = relaunch or (lambda: launch)
        self.session = session
        self.folder = folder
        self.client = client
        self.restarts = restarts
        self.walltime_s = walltime_s
        self.until: float | None = None  # when the allocation ends
        self.statistics: dict[str, Any] = {}
        self.deaths = 0
        self._was_up = self._time_is_up = False
        self._listener = listener
        self._lock = threading.Lock()
        self._open: dict[int, Task] = {}
        self._channel: Channel | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._draining = False
        self._kill = False
        self._thread = threading.Thread(target=self._main, name="worksteal-pool", daemon=True)

    def start(self) -> None:
        """Start the agents; returns at once."""
        self._thread.start()

    def submit(self, tasks: Iterable[Task]) -> None:
        """Hand over tasks; those submitted before the agents are up wait for them."""
        tasks = list(tasks)
        with self._lock:
            self._open.update((task.id, task) for task in tasks)
            self._send(("submit", tasks))

    def withdraw(self, *, save: bool = False) -> None:
        """Take back what has not begun; `Client.withdrawn` says which tasks that is.

        save: have tasks that run and can go on another time (`Order.resume`) save their state and end.
        """
        with self._lock:
            self._draining = True
            if self._channel is not None:
                self._send(("withdraw", save))
                return
            tasks = list(self._open.values())
            self._open.clear()
        if tasks:
            self.client.withdrawn(tasks, begun=self._may_have_begun)

    @property
    def _may_have_begun(self) -> bool:
        """Whether tasks that are open may have begun in a pool that has died since."""
        return self.deaths > 0

    def stop(self, *, kill: bool) -> list[Task]:
        """End the pool, with `kill` also the tasks that run, and wait for it.

        Returns the tasks that have not finished.
        """
        self._kill = kill
        self._stopping = True
        try:
            if kill and self._open:
                self.client.log(
                    f"worksteal: running jobs are told to end and have {self.session.grace_s:g} s; "
                    "Ctrl-C again kills them"
                )
            with self._lock:
                self._send(("bye", kill))
            self._thread.join(self.session.grace_s + END_S)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the rest takes a few seconds at most
            self.client.log("worksteal: running jobs are killed")
        orderly = not self._thread.is_alive()
        self._end_launch(wait_s=END_S if orderly else 0.0)
        self._listener.close()
        if kill:
            self._take_saved()
        if orderly and not self._open:
            for path in (*journals(self.folder), *self.folder.glob("launcher-*.log")):
                if path.suffix == ".jsonl" or path.stat().st_size == 0:
                    path.unlink()
        return list(self._open.values())

    # The pool's thread

    def _main(self) -> None:
        fruitless = 0
        try:
            self.until = end_of_allocation(walltime_s=self.walltime_s)
            while not self._stopping:
                before = len(self._open)
                error = self._one_launch()
                if error is None:
                    return
                self.deaths += 1
                self.client.event("pool died", 0, time.time(), {"error": str(error)})
                self._end_launch(wait_s=0.0)
                self._read_journals()
                if self._draining:  # nothing more is to begin, nor again
                    self.withdraw()
                    return
                if not self._stopping:
                    self._prepare_again()
                fruitless = 0 if len(self._open) < before else fruitless + 1
                if fruitless > self.restarts:
                    raise PoolError(
                        f"the pool died {fruitless} times with no job finished in between; the last time: {error}"
                    )
                if not self._stopping:
                    self.client.log(
                        f"worksteal: the pool died ({error}); it is started again, and {len(self._open)} unfinished "
                        "jobs are handed out again",
                        warning=True,
                    )
                    self._choose_again(wait=self._was_up and fruitless > 1)
                if self._draining:
                    self.withdraw()
                    return
        except Exception as error:
            if not self._stopping:
                self.client.broken(error)

    def _one_launch(self) -> Exception | None:
        """One life of the agents. None: it ended as asked. Raises LaunchError where another try would not help."""
        self.session = replace(self.session, epoch=self.session.epoch + 1, nodes=self.launch.nodes)
        self.session.write(self.folder)
        log = self.folder / f"launcher-{self.session.epoch}.log"
        with log.open("wb") as output:
            # A session of its own: Ctrl-C in the terminal reaches Snakemake, which decides.
            self._process = subprocess.Popen(
                self.launch.command(self.folder, self.until),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.launch.environment},
                start_new_session=True,
            )
        try:
            channel = self._connection(log)
            if channel is None:
                return None
            return self._serve(channel)
        except ChannelError as error:
            said = tail(log)
            return PoolError(f"{error}{f'; it printed: {said}' if said else ''}")
        finally:
            with self._lock:
                if self._channel is not None:
                    self._channel.close()
                self._channel = None

    def _choose_again(self, *, wait: bool) -> None:
        """The next launch. wait: until Slurm has noticed that a node is gone, if it does; that can take minutes."""
        before, deadline, ask_at = self.launch.gone, time.monotonic() + NOTICE_S, 0.0
        while not (self._stopping or self._draining):
            if time.monotonic() >= ask_at:
                with suppress(LaunchError):  # what was found before is as good
                    self.launch = self.relaunch()
                ask_at = time.monotonic() + ASK_AGAIN_S
            if self.launch.gone != before:
                self.client.log(f"worksteal: {without(self.launch)}", warning=True)
            if not wait or not self.launch.in_slurm or self.launch.gone != before or time.monotonic() > deadline:
                return
            time.sleep(POLL_S)
            self.client.tick()

    def _connection(self, log: Path) -> Channel | None:
        """The channel to the first agent of this life, or None if the pool is stopped first."""
        assert self._process is not None
        look_at = time.monotonic() + ASK_AGAIN_S
        while not self._stopping:
            channel = self._listener.accept(POLL_S)
            self.client.tick()
            if self.deaths and self.launch.in_slurm and time.monotonic() >= look_at:
                self._see_nodes()
                look_at = time.monotonic() + ASK_AGAIN_S
            if channel is not None:
                hello = self._hello(channel)
                if hello is not None:
                    # Every agent has read it; the secret need not lie there any longer.
                    (self.folder / FILE).unlink(missing_ok=True)
                    self._check_world(hello)
                    self._was_up = True
                    self.client.started(hello)
                    return channel
            status = self._process.poll()
            if status is not None:
                raise ChannelError(f"the launcher {self.launch.name} ended with status {status} before the pool was up")
        return None

    def _see_nodes(self) -> None:
        """A launcher may wait long for a node that is gone. ChannelError if Slurm has noticed by now."""
        with suppress(LaunchError):
            if (found := self.relaunch()).gone != self.launch.gone:
                raise ChannelError(f"it cannot come up, {without(found)}")

    def _hello(self, channel: Channel) -> list[dict[str, Any]] | None:
        """The nodes of the pool that was started; None, with a line in the log, for anybody else."""
        try:
            message = channel.recv(timeout=END_S)
        except (ChannelError, TimeoutError) as error:
            self._refuse(channel, f"knows the secret, but said no hello: {error}")
            return None
        match message:
            case ("hello", int(epoch), [*nodes]) if all(isinstance(node, dict) for node in nodes):
                if epoch == self.session.epoch:
                    return nodes
                why = f"is the pool of launch {epoch}, which was given up: this is launch {self.session.epoch}."
            case _:
                why = "knows the secret, but its first message is no hello of a pool."
        self._refuse(channel, why)
        return None

    def _refuse(self, channel: Channel, why: str) -> None:
        """Turn away a peer that knows the secret."""
        channel.close()
        self.client.log(
            f"worksteal: Refused a connection to {self._listener.address}: {channel.peer} {why}", warning=True
        )

    def _check_world(self, nodes: list[dict[str, Any]]) -> None:
        if len(nodes) != self.launch.nodes:
            raise LaunchError(
                f"{self.launch.name} was asked for {self.launch.nodes} agents, and they found themselves in MPI worlds "
                f"of {len(nodes)}: mpi4py uses another MPI than the launcher. Use the launcher of mpi4py's MPI, or "
                "point mpi4py to the launcher's (variables MPI4PY_MPIABI and MPI4PY_LIBMPI)"
            )

    def _serve(self, channel: Channel) -> Exception | None:
        with self._lock:
            self._channel = channel
            # In parts: one message of all tasks could be larger than the channel takes.
            for part in batched(self._open.values(), PART):
                self._send(("submit", part))
            if self._stopping:
                self._send(("bye", self._kill))
        look_at = 0.0
        while True:
            if select.select([channel], [], [], POLL_S)[0]:
                try:
                    for message in channel.read():
                        if message[0] == "ended":
                            self.statistics = message[1]
                            return None
                        self._handle(*message)
                except ChannelError as error:
                    return None if self._stopping and self._kill else error
            if time.monotonic() >= look_at:
                # Strangers are turned away; one who knows the secret is most likely a pool that was given up.
                second = self._listener.accept(0)
                if second is not None:
                    self._refuse(second, "knows the secret, but the pool is up already.")
                self.client.tick()
                look_at = time.monotonic() + POLL_S
            elif len(self._open) > MANY:
                time.sleep(BURST_S)

    def _handle(self, kind: str, *content: Any) -> None:
        if kind == "results":
            for result in content[0]:
                self._finish(result)
        elif kind == "status":
            self.client.running(content[0])
        elif kind == "withdrawn":
            with self._lock:
                tasks = [self._open.pop(number) for number in content[0] if number in self._open]
            self.client.withdrawn(tasks, begun=self._may_have_begun, late=content[1])
        elif kind == "time":
            self._time_is_up = True
            self.client.time_up(content[0])
        elif kind == "impossible":
            with self._lock:
                task = self._open.pop(content[0], None)
            if task is not None:
                self.client.impossible(task, content[1])
        elif kind == "event":
            self.client.event(*content)
        elif kind == "log":
            self.client.log(content[0], warning=True)

    def _finish(self, result: Result) -> None:
        with self._lock:
            task = self._open.pop(result.id, None)
        if result.told and result.status is None and not (self._draining or self._stopping or self._time_is_up):
            # Nobody has told it to end, nor does anybody end the pool: it has failed like any other.
            result.told, result.signal = False, result.signal or signal.SIGTERM
            result.reason = result.reason or "was ended by a SIGTERM that the pool did not send"
        if task is not None:  # else it has been reported before, by an agent that died since
            self.client.finished(task, result)

    def _prepare_again(self) -> None:
        """Have the unfinished tasks prepared once more: what had begun may have left half of its output."""
        with self._lock:
            tasks = list(self._open.values())
        lost = {task.id for task in tasks}.difference(self.client.again(tasks))
        with self._lock:  # others may have come meanwhile
            for number in lost:
                self._open.pop(number, None)

    def _send(self, message: Any) -> None:
        """Send if there is a channel (the lock is held); a broken one is noticed by the thread that reads."""
        if self._channel is not None:
            try:
                self._channel.send(message)
            except ChannelError:
                self._channel.close()

    def _end_launch(self, wait_s: float) -> None:
        """Wait for the launcher to end, then end it and its process group."""
        process = self._process
        if process is None:
            return
        for sign, patience in ((None, wait_s), (signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)):
            if sign is not None and process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience)
                return

    def _take_saved(self) -> None:
        """When all has been told to end: what has saved its state is to go on later, the rest has not finished."""
        for path in self._journals():
            for result in read_journal(path)[0]:
                if result.later:
                    self._finish(result)

    def _journals(self) -> list[Path]:
        """Those of the launch that is, or was last."""
        return [path for path in journals(self.folder) if path.name.startswith(f"journal-{self.session.epoch}-")]

    def _read_journals(self) -> None:
        """Take over what had finished before the pool died; waits until the runners have ended their tasks."""
        mine = self._journals()
        deadline = time.monotonic() + END_S
        for path in mine:
            results, closed = read_journal(path)
            while not closed and time.monotonic() < deadline:
                time.sleep(0.05)
                results, closed = read_journal(path)
            for result in results:
                # A task that a signal ended may have been ended by the pool's death: it is run again.
                if result.status is not None:
                    self._finish(result)
        if not all(read_journal(path)[1] for path in mine):
            self.client.log(
                "worksteal: not every node has said that its tasks are ended; a task may still run there for a moment",
                warning=True,
            )


def without(launch: Launch) -> str:
    """Which nodes are left out, for people."""
    gone = launch.gone
    named = ", ".join(gone[:4]) + (f" and {len(gone) - 4} more" if len(gone) > 4 else "")
    return f"without {named}, which Slurm says {'is' if len(gone) == 1 else 'are'} gone" if gone else "with all nodes"


def batched(items: Iterable[Task], size: int) -> Iterator[list[Task]]:
    """Lists of at most `size` items."""
    rest = iter(items)
    while part := list(itertools.islice(rest, size)):
        yield part


def tail(path: Path, size: int = 2000) -> str:
    """The end of a text file, on one line; empty where there is none."""
    try:
        data = path.read_bytes()[-size:]
    except OSError:
        return ""
    return " / ".join(line for line in data.decode(errors="replace").splitlines() if line.strip())
