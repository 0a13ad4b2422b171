"""An agent: one process a node. It owns the node's slots, runs tasks in them through its runners, and steals.

    python -m snakemake_executor_plugin_worksteal.agent SESSION_FOLDER [--mpi] [--until SECONDS_SINCE_THE_EPOCH]

Started by the executor (module pool). The scheduling itself is in module core; this one connects it to processes, to
the other agents, and, at the first agent, to Snakemake.
"""

from __future__ import annotations

import argparse
import os
import selectors
import signal
import socket
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import processes
from .ahead import Ahead, kind_of, runner_of
from .channel import Channel, ChannelError, connect
from .core import Capacity, Core
from .link import Dialler, Link
from .messages import Give, Impossible, Recall, Report, Save, Send, Start, Withdrawn
from .node import Node, find_node, masks
from .runner import Runner, RunnerDied
from .session import Session, SessionError, read_session, remove_socket, task_environment
from .stages import Stages, as_event
from .staging import Outcome
from .tasks import Back, Kind, Order, Result, Task
from .transport import Alone, Mpi, Transport

ROOT = 0
# An agent that hears from its peers looks again after this many seconds. While nothing comes it doubles that, and from
# BRISK_S on it adds a part to it: a look costs some 0.15 ms, and after two idle seconds there are but 20 a second.
SHORTEST_S = 0.0002
BRISK_S = 0.01
LATER = 1.02
STATISTICS_S = 5.0
# What tasks get between SIGTERM and SIGKILL where nobody waits for them, and at most where this agent was told to end:
# less than Snakemake waits for what a dead pool leaves.
PARTING_S, TOLD_S = 2.0, 8.0
GONE = "Snakemake is gone"
STATUS_S = 0.5
MEETING_S = 30.0  # how long Snakemake is looked for at first
DIALLING_S = 0.1  # how often to see whether Snakemake has been found again
# Forks that wait for a script in advance: two a slot and two more, since half of them are made at a time; at most this.
MOST_SPARES = 8


class Stop(Exception):
    """The pool has to end."""


class Told(Stop):
    """By a signal."""


class Agent:
    """The event loop of one node."""

    def __init__(
        self,
        session: Session,
        folder: Path,
        transport: Transport,
        runners: dict[str, Runner],
        until: float | None = None,
    ) -> None:
        """until: when the allocation ends, in seconds since the epoch."""
        self.session = session
        self.folder = folder
        self.transport = transport
        self.runners = runners
        self.channel: Channel | Link | None = None
        self.dialler: Dialler | None = None  # while the connection to Snakemake is lost
        self.selector = selectors.DefaultSelector()
        self.host = socket.gethostname()
        self.rank = transport.rank
        self.nodes = self._find_nodes()
        self.node = self.nodes[self.rank]
        capacities = [Capacity(node.cores, len(node.devices), node.mem_mb, node.host) for node in self.nodes]
        self.core = Core(self.rank, capacities, seed=session.epoch)
        self.until = until
        if until is not None:
            self.core.until = time.monotonic() + until - time.time() - session.margin_s
        self.time_is_up = False
        self.slots: dict[int, tuple[tuple[int, ...], tuple[int, ...], Kind | None]] = {}
        self.environment = masks(self.node, ())  # of a task without a device
        self.ahead = Ahead(self.core, runners, self.environment)
        self.stages = Stages(session, folder, transport, [node.host for node in self.nodes], self._log)
        self.ending: bool | None = None  # None: no; else whether tasks are killed
        self.statistics: dict[int, dict[str, Any]] = {}
        self._pause = SHORTEST_S
        self._running_told = -1
        self._told_at = 0.0

    def _find_nodes(self) -> list[Node]:
        """Every agent's part of its machine, by rank."""
        hosts = self.transport.gather(self.host)
        mine = [rank for rank, host in enumerate(hosts) if host == self.host]
        session = self.session
        part = mine.index(self.rank)
        node = find_node(self.host, session.slots, session.devices, session.memory_mb, part=part, parts=len(mine))
        nodes: list[Node] = self.transport.gather(node)
        return nodes

    def connect(self) -> None:
        """At the first agent: meet Snakemake and say what the pool is."""
        if self.session.linked:
            self.channel = Link()
            self._dial(self.channel)
            return
        try:
            channel = connect(self.session.address, bytes.fromhex(self.session.secret), MEETING_S)
        except ChannelError as error:
            raise Stop(f"{GONE}: {error}") from error
        self.channel = channel
        channel.queue(("hello", self.session.epoch, self._described()))
        self.selector.register(channel, selectors.EVENT_READ, self._hear_snakemake)

    def _described(self) -> list[dict[str, Any]]:
        """What Snakemake is told of the nodes."""
        return [
            {"rank": rank, "host": node.host, "cores": node.cores, "devices": list(node.devices), "mem_mb": node.mem_mb}
            for rank, node in enumerate(self.nodes)
        ]

    def _dial(self, link: Link) -> None:
        """Look for Snakemake, beside all else."""
        ends = None if self.until is None else self.until - self.session.margin_s
        hello = ("hello", self.session.epoch, self._described(), link.received, ends)
        secret = bytes.fromhex(self.session.secret)
        patience = self.session.reconnect_s if link.received else max(self.session.reconnect_s, MEETING_S)
        self.dialler = Dialler(self.session.address, secret, hello, patience)
        self.dialler.start()

    def _see_dialler(self) -> None:
        """Go on where the connection was lost, or give up: all agents end in order, and tasks have the grace."""
        assert self.dialler is not None
        assert isinstance(self.channel, Link)
        if self.dialler.failure is not None:
            print(f"worksteal: {GONE}: {self.dialler.failure}", file=sys.stderr, flush=True)
            self.dialler = self.channel = None
            self._part(kill=True)
        elif self.dialler.channel is not None:
            self.channel.attach(self.dialler.channel, self.dialler.received)
            self.selector.register(self.dialler.channel, selectors.EVENT_READ, self._hear_snakemake)
            self.dialler = None
            self._hear_snakemake()  # what came with the welcome shows up at no selector

    def _lost(self, error: ChannelError) -> None:
        """The connection to Snakemake has ended. Over a link what is not finished goes on, and it is looked for."""
        link = self.channel
        if not isinstance(link, Link):
            raise Stop(f"{GONE}: {error}") from error
        if self.dialler is None and link.channel is not None:
            print(f"worksteal: the connection to Snakemake is lost: {error}", file=sys.stderr, flush=True)
            self._hang_up(link)
            self._dial(link)

    def _hang_up(self, link: Link) -> None:
        """Wait no more for what comes over a channel that has ended (its number is gone by then)."""
        for key in list(self.selector.get_map().values()):
            if key.fileobj is link.channel:
                self.selector.unregister(key.fileobj)
        link.detach()

    def run(self) -> None:
        """Work until Snakemake ends the pool or is gone."""
        for runner in self.runners.values():
            self.selector.register(runner, selectors.EVENT_READ, lambda runner=runner: self._hear_runner(runner))
        try:
            if self.rank == ROOT:
                self.connect()
                self._flush()  # Snakemake waits for a word, and staging may take minutes
            self._tell_of_staging(self.stages.software(), self.session.software)
            self.core.tick(time.monotonic())
            self._obey(time.monotonic())
            self._flush()
            while not self._finished():
                self._wait()
                self._hear_agents()
                if self.dialler is not None:
                    self._see_dialler()
                now = time.monotonic()
                if self.core.next_tick is not None and self.core.next_tick <= now:
                    self.core.tick(now)
                self.ahead.recall_late(now)
                if self.rank == ROOT and now >= self.core.until and not self.time_is_up:
                    self._end_in_time(now)
                self._obey(now)
                self._flush()
        except Stop as stop:
            # Snakemake is gone, or this agent was told to end by a signal: nobody waits for an orderly end.
            ignore_signals()
            gone = stop.args[0].startswith(GONE)
            if gone:
                self._tell_the_others_to_end(kill=True)
                self.transport.flush()
            self._end_tasks(min(self.session.grace_s, TOLD_S) if isinstance(stop, Told) else PARTING_S)
            # A pool that this Snakemake starts itself starts again and finds them; a batch job's successor may have
            # other nodes.
            self.stages.end(remove=gone or self.session.linked)
            if gone:
                remove_socket(self.session.address)
                self._await_others(self.session.grace_s + STATISTICS_S)  # they end their tasks, and remove copies
                self.stages.clear()
            self.transport.abort(str(stop))
        self._leave()

    def _end_in_time(self, now: float) -> None:
        """At the first agent: the allocation is about to end. Nothing begins any more, and what runs is told to end."""
        self.time_is_up = True
        self._tell(("time", self.until))
        self.core.withdraw(now, stop=True)

    # Waiting and hearing

    def _wait(self) -> None:
        """Sleep until something happens.

        MPI has no file to wait for, so with peers the sleep is short, and longer the longer it is idle.
        """
        moments = [self.core.next_tick, self.ahead.due()]
        if self.rank == ROOT and not self.time_is_up and self.until is not None:
            moments.append(self.core.until)
        due = min((at for at in moments if at is not None), default=None)
        timeout = None if due is None else max(0.0, due - time.monotonic())
        if self.dialler is not None:
            timeout = DIALLING_S if timeout is None else min(timeout, DIALLING_S)
        if self.transport.idle_s is not None:
            timeout = self._pause if timeout is None else min(timeout, self._pause)
            self._pause = min(self._pause * (2 if self._pause < BRISK_S else LATER), self.transport.idle_s)
        for key, _ in self.selector.select(timeout):
            self._pause = SHORTEST_S
            key.data()

    def _hear_agents(self) -> None:
        for source, message in self.transport.receive():
            self._pause = SHORTEST_S
            if message[0] == "core":
                self.core.message(time.monotonic(), source, message[1])
                if isinstance(message[1], Give):
                    self._event("steal", source=source, tasks=len(message[1].tasks))
            elif message[0] == "stage":
                self._tell_of_staging(self.stages.stage(message[1]), message[1].source)
            elif message[0] == "exit":
                self.ending = message[1]
            elif message[0] == "statistics":
                self.statistics[source] = message[1]
            else:
                self._tell(message)

    def _hear_snakemake(self) -> None:
        assert self.channel is not None
        try:
            messages = self.channel.read()
            # All that came together in one: the core deals many tasks better than a few at a time.
            tasks = [task for message in messages if message[0] == "submit" for task in message[1]]
            self._stage(tasks)
            now = time.monotonic()
            self.core.submit(now, tasks)
            for message in messages:
                if message[0] == "withdraw":
                    self.core.withdraw(now, save=message[1])
                elif message[0] == "bye":
                    self._part(kill=message[1])
        except ChannelError as error:
            self._lost(error)

    def _part(self, *, kill: bool) -> None:
        """At the first agent: end the pool, with `kill` also the tasks that run."""
        self.ending = kill
        self._tell_the_others_to_end(kill=kill)

    def _stage(self, tasks: list[Task]) -> None:
        """At the first agent: have all stage what tasks name, before any of them is given away."""
        for listing in self.stages.due(tasks):
            for rank in range(1, self.transport.size):
                self.transport.send(rank, ("stage", listing))
            self.transport.flush()
            self._tell_of_staging(self.stages.stage(listing), listing.source)

    def _tell_of_staging(self, outcome: Outcome | None, source: str) -> None:
        """For the trace; and what tasks begin with from now on."""
        self.environment.update(self.stages.environment)
        if outcome is not None:
            self._event("staging", **as_event(outcome, self.rank, source))

    def _hear_runner(self, runner: Runner) -> None:
        try:
            for found in runner.read():
                if isinstance(found, str):
                    self._log(f"{self.host}: {found}")
                    continue
                if isinstance(found, Back):
                    self.ahead.back(time.monotonic(), found.ids)
                    continue
                cores, devices, kind = self.slots.pop(found.id)
                found.rank, found.host, found.cores, found.devices = self.rank, self.host, cores, devices
                self.ahead.ended(kind, found.ended - found.started, found.successor)
                if found.successor is not None:
                    self.slots[found.successor] = (cores, devices, kind)
                self.core.finished(time.monotonic(), found.id, found, found.successor)
        except RunnerDied as error:
            processes.kill_leftovers(f"{self.session.pool}:{os.getpid()}:")
            # After MPI has started, a new one cannot safely be forked; the pool is started again instead.
            raise Stop(f"the {runner.kind} runner on {self.host} died: {error}") from error

    # Doing what the core says

    def _obey(self, now: float) -> None:
        while effects := self.core.drain():
            self._obey_each(effects)
        self.ahead.fill(now)
        if self.rank == ROOT and now - self._told_at > STATUS_S and self.core.pool_running != self._running_told:
            self._running_told, self._told_at = self.core.pool_running, now
            self._tell(("status", self._running_told))
        if isinstance(self.channel, Link):
            self.channel.tick()

    def _obey_each(self, effects: list[Any]) -> None:
        for effect in effects:
            if isinstance(effect, Start):
                self._start(effect)
            elif isinstance(effect, Send):
                self.transport.send(effect.to, ("core", effect.message))
            elif isinstance(effect, Report):
                self._tell(("results", [result for _, _, result in effect.items]))
            elif isinstance(effect, Recall):
                self.ahead.recall(effect.ids)
            elif isinstance(effect, Save):
                for runner in self.runners.values():
                    runner.save(all=effect.all)
            elif isinstance(effect, Withdrawn):
                self._tell(("withdrawn", list(effect.ids), effect.late))
            elif isinstance(effect, Impossible):
                self._tell(("impossible", effect.id, effect.why))

    def _start(self, effect: Start) -> None:
        order: Order = effect.task.payload
        if not order.command and order.script is None:
            now = time.time()
            done = Result(effect.task.id, 0, started=now, ended=now, rank=self.rank, host=self.host)
            self.core.finished(time.monotonic(), effect.task.id, done)
            return
        order.environment.update({**self.environment, **masks(self.node, effect.devices)})
        kind = kind_of(effect.task)
        self.slots[effect.task.id] = (effect.cores, effect.devices, kind)
        self.ahead.started(kind)
        self.runners[runner_of(order)].start(effect.task.id, order, effect.cores, effect.devices, kind)

    def _tell(self, message: Any) -> None:
        if self.channel is not None:
            self.channel.queue(message)

    def _pass_on(self, message: Any) -> None:
        """Tell Snakemake, by way of the first agent."""
        if self.rank == ROOT:
            self._tell(message)
        else:
            self.transport.send(ROOT, message)

    def _log(self, text: str) -> None:
        self._pass_on(("log", text))

    def _event(self, name: str, **details: Any) -> None:
        """Something for the trace."""
        self._pass_on(("event", name, self.rank, time.time(), details))

    def _flush(self) -> None:
        """Send what is to be sent, as far as that goes without waiting; where a socket is full, wait for it too."""
        if not self.transport.flush():
            self._pause = SHORTEST_S  # MPI sends the rest only when it is called again
        channel = self.channel.channel if isinstance(self.channel, Link) else self.channel
        for file in (channel, *self.runners.values()):
            if file is None or not file.wants_write:
                continue
            try:
                done = file.flush()
            except ChannelError as error:
                self._lost(error)
                continue
            events = selectors.EVENT_READ if done else selectors.EVENT_READ | selectors.EVENT_WRITE
            key = self.selector.get_key(file)
            if key.events != events:
                self.selector.modify(file, events, key.data)

    # The end

    def _finished(self) -> bool:
        if self.ending is None:
            return False
        if self.ending:
            return True
        return not self.slots and not self.core.queued and not self.ahead.waiting

    def _end_tasks(self, wait_s: float) -> None:
        until = time.monotonic() + wait_s
        for runner in self.runners.values():
            self.selector.unregister(runner)
            runner.begin_close(wait_s)
        for runner in self.runners.values():
            runner.close(max(0.1, until - time.monotonic()))
        self.runners = {}

    def _tell_the_others_to_end(self, *, kill: bool) -> None:
        for rank in range(1, self.transport.size):
            self.transport.send(rank, ("exit", kill))

    def _await_others(self, wait_s: float) -> None:
        """At the first agent: wait until the others have ended their tasks and removed what was staged."""
        deadline = time.monotonic() + wait_s
        while len(self.statistics.keys() - {ROOT}) < self.transport.size - 1 and time.monotonic() < deadline:
            self._hear_agents()
            time.sleep(SHORTEST_S)

    def _leave(self) -> None:
        """End the runners, gather the statistics at the first agent, tell Snakemake, leave MPI."""
        if self.runners:
            self._end_tasks(self.session.grace_s if self.ending else PARTING_S)
        processes.kill_leftovers(f"{self.session.pool}:{os.getpid()}:")
        self.stages.end(remove=True)
        if self.rank != ROOT:
            self.transport.send(ROOT, ("statistics", self.core.statistics()))
        else:
            self.statistics[ROOT] = self.core.statistics()
            self._await_others(STATISTICS_S + self.session.grace_s)
            self.stages.clear()
            self._tell(("ended", self.statistics))
            channel = self.channel.channel if isinstance(self.channel, Link) else self.channel
            if channel is not None:
                with suppress(ChannelError, TimeoutError):
                    channel.finish(STATISTICS_S)
        self.transport.close()


def start_runners(session: Session, folder: Path) -> dict[str, Runner]:
    """The node's runners; to be called before MPI is started, since they are forks."""
    environment = task_environment(os.environ, session.environment, same_machine=session.host == socket.gethostname())
    name = f"{socket.gethostname()}-{os.getpid()}"
    # As snakemake.shell does from the resource tmpdir, whose default is this.
    environment.update(dict.fromkeys(("TMPDIR", "TMP", "TEMPDIR", "TEMP"), tempfile.gettempdir()))
    environment["WORKSTEAL_FOLDER"] = session.run or str(folder)
    environment["WORKSTEAL_POOL"] = f"{session.pool}:{os.getpid()}"
    return {
        kind: Runner(
            kind,
            rank=0,
            workdir=session.workdir,
            environment=environment,
            preload=session.preload if kind == "warm" else (),
            journal=folder / f"journal-{session.epoch}-{name}-{kind}.jsonl",
            spares=min(MOST_SPARES, 2 + 2 * (session.slots or len(os.sched_getaffinity(0)))),
            grace_s=session.grace_s,
            reuse=session.reuse,
        )
        for kind in ("plain", "warm")
    }


def main(arguments: list[str] | None = None) -> int:
    """Run one agent."""
    parser = argparse.ArgumentParser(prog="worksteal agent", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mpi", action="store_true", help="the agents are the ranks of an MPI launch")
    parser.add_argument("--until", type=float, help="when the allocation ends, in seconds since the epoch")
    given = parser.parse_args(arguments)
    try:
        session = read_session(given.folder)
    except SessionError as error:
        sys.exit(f"worksteal: {error}")
    processes.become_subreaper()
    runners = start_runners(session, given.folder)
    transport: Transport = Mpi() if given.mpi else Alone()

    def stop(number: int, frame: Any) -> None:
        raise Told(f"signal {signal.Signals(number).name}")

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        Agent(session, given.folder, transport, runners, given.until).run()
    except BaseException as error:
        # An agent that ended by itself would leave the others waiting for it in MPI for ever.
        ignore_signals()
        if not isinstance(error, (Stop, SystemExit)):
            traceback.print_exc()
        transport.abort(str(error))
    return 0


def ignore_signals() -> None:
    """The end has begun; nothing is to interrupt it."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
