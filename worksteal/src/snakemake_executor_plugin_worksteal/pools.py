"""Pools that are batch jobs, one after the other or several at once: seen from Snakemake they are one `Pool`.

Tasks wait here until a pool can use them. Each is in one pool at a time, and is kept until its result is here: of a
pool that ends, for whatever reason, all are handed out again that are not known to have finished. One thread does all
of it; what asks the batch system, which may take its time, is done by another.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .batch import BatchError, BatchSystem, Look, Wish
from .channel import Channel, ChannelError, Listener
from .guard import Guard
from .link import UNWANTED, WELCOME
from .member import Member, Unassigned, counted, lasts
from .pool import END_S, PART, POLL_S, Client, PoolError
from .runner import read_journal
from .session import FILE, Session
from .tasks import Result, Task

# How often the batch system is asked: at first, and at most; and while something is about to end.
LOOK_S, RARELY_S, OFTEN_S = 1.0, 15.0, 0.5
GROWTH = 1.5
SILENT_S = 90.0  # how long a job may run until its agents connect, before that is said
HELLO_S = 10.0  # how long a pool that has connected may take to say hello
# How much longer than a pool looks for Snakemake it is waited for, and a job that was cancelled.
LONGER_S, CANCEL_S = 15.0, 60.0
CANCEL_AGAIN_S = 5.0  # so often a job is cancelled until it ends
REFUSED_S = 60.0  # after a job that was refused, until another is submitted, if no pool ends before


@dataclass(frozen=True, slots=True)
class Policy:
    """pools: how many at once; follow_ups: how many jobs more may be submitted; restarts: how many pools in a row may
    end with nothing finished; queue_wait_s: how long a job may wait until it begins (None: for ever).
    """

    pools: int = 1
    follow_ups: int = 10
    restarts: int = 3
    queue_wait_s: float | None = None


class Pools:
    """Has the methods of `Pool` that the executor uses. Thread-safe."""

    def __init__(
        self,
        system: BatchSystem,
        wish: Wish,
        policy: Policy,
        session: Session,
        folder: Path,
        listener: Listener,
        client: Client,
    ) -> None:
        self.system, self.wish, self.policy = system, wish, policy
        self.session, self.folder, self.client = session, folder, client
        self.statistics: dict[str, Any] = {}
        self.deaths = 0
        self._listener = listener
        self._lock = threading.Lock()
        self._open: dict[int, Task] = {}
        self._unassigned = Unassigned()
        self._begun: set[int] = set()  # may have begun in a pool that has ended since
        self._cut: dict[int, int] = {}  # how often the end of a pool has ended a task
        self._members: list[Member] = []
        self._greeting: list[tuple[Channel, float]] = []
        self._commands: deque[Callable[[], None]] = deque()
        self._bell, self._ring = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="worksteal-batch")
        self._looking: Future[dict[str, Look]] | None = None
        self._look_at, self._look_s = 0.0, LOOK_S
        self._submit_at = 0.0
        self._fruitless = 0
        self._last_words = ""
        self._stopping = self._kill = self._draining = self._hurry = self._broken = self._closed = False
        self._tick_at = 0.0
        self._guard: Guard | None = None
        self._thread = threading.Thread(target=self._main, name="worksteal-pools", daemon=True)

    def start(self) -> None:
        """Begin; the first job is submitted when there are tasks."""
        self._guard = Guard(self.system.cancel_command)
        self._thread.start()

    def submit(self, tasks: Iterable[Task]) -> None:
        """Hand over tasks."""
        tasks = list(tasks)
        with self._lock:
            self._open.update((task.id, task) for task in tasks)
        self._command(lambda: self._line_up(tasks))

    def withdraw(self, *, save: bool = False) -> None:
        """Take back what has not begun; save: have tasks that can go on another time save their state and end."""
        self._command(lambda: self._withdraw(save))

    def stop(self, *, kill: bool) -> list[Task]:
        """End the pools and their batch jobs, with `kill` also the tasks that run, and wait for it.

        Returns the tasks that have not finished.
        """
        grace = self.session.grace_s if kill else 0.0
        try:
            if kill and self._open:
                self.client.log(
                    f"worksteal: running jobs are told to end and have {grace:g} s; Ctrl-C again kills them"
                )
            self._command(lambda: self._begin_stop(kill))
            self._thread.join(grace + 2 * END_S)
        except KeyboardInterrupt:
            self.client.log("worksteal: running jobs are killed")
        if self._thread.is_alive() and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._hurry = True
        self._command(lambda: None)
        self._thread.join(CANCEL_S)
        self._closed = True
        self._close()
        return list(self._open.values())

    def _close(self) -> None:
        self._listener.close()
        for member in self._members:
            member.forget_secret()
            if member.orderly and not self._open:
                with suppress(OSError):
                    member.tidy()
        if not self._open and all(member.orderly for member in self._members):
            shutil.rmtree(self.folder / "batch", ignore_errors=True)
        if self._guard is not None:
            self._guard.close()  # cancels what has not ended, if anything
        for member in self._members:
            if member.number and not member.over:
                self.client.log(f"worksteal: {member.name} was cancelled, and has not ended yet", warning=True)
        self._worker.shutdown(wait=False)

    def _command(self, what: Callable[[], None]) -> None:
        self._commands.append(what)
        with suppress(BlockingIOError):
            os.write(self._ring, b"!")

    # The thread

    def _main(self) -> None:
        while not self._closed and not (self._stopping and all(each.state == "ended" for each in self._members)):
            try:
                self._turn()
            except Exception as error:
                if not (self._stopping or self._broken):
                    self._broken = True
                    self._dismiss(self._members)
                    self.client.broken(error)

    def _turn(self) -> None:
        self._wait()
        while self._commands:
            self._commands.popleft()()
        self._welcome()
        for member in self._members:
            if member.connected:
                self._hear(member)
        now = time.monotonic()
        self._see_submissions()
        self._see_queue(now)
        for member in self._members:
            self._see(member, now)
        if not self._stopping and not self._broken:
            self._hand_out()
            self._start_more()
        for member in self._members:
            self._flush(member)
        if now >= self._tick_at:
            self._tick_at = now + POLL_S
            self.client.tick()

    def _wait(self) -> None:
        """Until something happens, or a moment has passed."""
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        poll.register(self._listener, select.POLLIN)
        for channel, _ in self._greeting:
            poll.register(channel, select.POLLIN)
        for member in self._members:
            line = member.link.channel
            if line is not None:
                poll.register(line, select.POLLIN | (select.POLLOUT if line.wants_write else 0))
        poll.poll(POLL_S * 1000)
        with suppress(BlockingIOError):
            os.read(self._bell, 4096)

    # Tasks

    def _line_up(self, tasks: list[Task]) -> None:
        longest = self.wish.walltime_s - self.session.margin_s
        for task in tasks:
            if task.needs_s > longest:
                with self._lock:
                    self._open.pop(task.id, None)
                self.client.impossible(
                    task,
                    f"its runtime of {task.needs_s / 60:g} min does not fit into the walltime of a batch job "
                    f"({lasts(self.wish.walltime_s)}, of which the last {self.session.margin_s:g} s are kept free)",
                )
        self._unassigned.add(task for task in tasks if task.id in self._open)

    def _hand_out(self) -> None:
        """Give each pool as much as it can use, in turns."""
        alone = self.policy.pools == 1
        takers = [
            member for member in self._members if member.state == "up" and member.connected and not member.closing
        ]
        while takers and len(self._unassigned):
            for member in list(takers):
                part: list[Task] = []
                left_s = float("inf") if member.until is None else member.until - time.time()
                while len(part) < PART and (task := self._next(member, left_s, alone)) is not None:
                    self._unassigned.pop(task)
                    member.give([task])
                    part.append(task)
                if part:
                    member.link.queue(("submit", part))
                else:
                    takers.remove(member)
                    self._let_go(member, left_s)

    def _next(self, member: Member, left_s: float, alone: bool) -> Task | None:
        """The next task that a pool has time for and can use: one without devices where its devices are taken."""
        task = self._unassigned.best(left_s)
        if task is not None and task.devices and not member.takes(task, alone=alone):
            task = self._unassigned.best(left_s, devices=False)
        return task if task is not None and member.takes(task, alone=alone) else None

    def _let_go(self, member: Member, left_s: float) -> None:
        """End a pool that has nothing to do and too little time for all that waits: another one has more."""
        if not member.tasks and len(self._unassigned) and self._unassigned.best(left_s) is None:
            self.client.log(f"worksteal: {member.name} has too little time left for what is to be done, and ends")
            self._part(member)
            if not member.finished:
                self._count_fruitless(f"{member.name} had too little time for any job")

    def _finish(self, member: Member, result: Result) -> None:
        task = member.take(result.id, ended=True)
        if task is None or result.id not in self._open:
            return  # it has been reported before, or is another pool's by now
        cut = result.told and result.status is None and not (self._draining or self._stopping)
        if cut and self._may_begin_again(task, result):
            self._again([task])
            return
        result.rank += member.base
        with self._lock:
            del self._open[result.id]
        self._fruitless = 0
        self.client.finished(task, result)

    def _may_begin_again(self, task: Task, result: Result) -> bool:
        """A task was ended because its pool's time was up: not for ever."""
        self._cut[task.id] = self._cut.get(task.id, 0) + 1
        if self._cut[task.id] <= self.policy.restarts:
            return True
        result.told, result.signal = False, result.signal or signal.SIGTERM
        result.reason = (
            f"was ended by the end of {self._cut[task.id]} batch jobs; give it a runtime that fits into one, or have "
            "it save its state and go on later (status 75)"
        )
        return False

    def _again(self, tasks: list[Task]) -> None:
        """Prepare unfinished tasks that may have begun once more, and put them in line."""
        tasks = [task for task in tasks if task.id in self._open]
        self._begun.update(task.id for task in tasks)
        if self._stopping:
            return
        if self._draining:
            self._give_back(tasks)
            return
        well = set(self.client.again(tasks))
        with self._lock:
            for task in tasks:
                if task.id not in well:
                    del self._open[task.id]
        self._unassigned.add(task for task in tasks if task.id in well)

    def _give_back(self, tasks: list[Task]) -> None:
        """Snakemake gets tasks back that have not begun, or not finished."""
        with self._lock:
            found = [task for task in tasks if self._open.pop(task.id, None) is not None]
        for begun in (False, True):
            if some := [task for task in found if (task.id in self._begun) is begun]:
                self.client.withdrawn(some, begun=begun)

    def _withdraw(self, save: bool) -> None:
        self._draining = True
        self._give_back(self._unassigned.take_all())
        for member in self._members:
            if member.state == "up":
                member.link.queue(("withdraw", save))
        self._dismiss(member for member in self._members if member.state in ("submitting", "queued"))

    # What pools say

    def _welcome(self) -> None:
        """Let pools in that know the secret and are wanted."""
        while (channel := self._listener.accept(0)) is not None:
            self._greeting.append((channel, time.monotonic() + HELLO_S))
        greeting, self._greeting = self._greeting, []
        for channel, deadline in greeting:
            try:
                messages = channel.read()
            except ChannelError:
                continue
            if messages:
                self._greet(channel, messages[0])
            elif time.monotonic() < deadline:
                self._greeting.append((channel, deadline))
            else:
                channel.close()

    def _greet(self, channel: Channel, hello: Any) -> None:
        """A pool says who it is: for the first time, or because it had lost the connection."""
        member = next((each for each in self._members if hello[:2] == ("hello", each.epoch)), None)
        if member is None or member.state not in ("queued", "submitting", "up") or self._stopping:
            with suppress(ChannelError):
                channel.send((UNWANTED, 0))
            channel.close()
            return
        _, _, nodes, received, until = hello
        channel.queue((WELCOME, member.link.received))
        member.link.attach(channel, received)
        if member.state == "up":
            self.client.log(f"worksteal: {member.name} is connected again")
            member.lost_at = None
            return
        member.state, member.nodes, member.until = "up", nodes, until
        member.base = member.slot * self.wish.nodes
        member.forget_secret()
        self.client.started([{**node, "rank": node["rank"] + member.base} for node in nodes], member.name)
        if len(nodes) != self.wish.nodes:
            raise PoolError(
                f"{member.name} has {self.wish.nodes} nodes, and its agents found themselves in MPI worlds of "
                f"{len(nodes)}: mpi4py uses another MPI than the launcher; see 'Troubleshooting' in worksteal's guide"
            )
        if self._draining:
            self._part(member)

    def _hear(self, member: Member) -> None:
        try:
            for kind, *content in member.link.read():
                getattr(self, f"_on_{kind}")(member, *content)
        except ChannelError as error:
            member.link.detach()
            if member.state == "up":
                member.lost_at, member.why = time.monotonic(), str(error)
                self._look_at, self._look_s = 0.0, LOOK_S

    def _on_results(self, member: Member, results: list[Result]) -> None:
        for result in results:
            self._finish(member, result)

    def _on_status(self, member: Member, running: int) -> None:
        member.running = running
        self._count_running()

    def _count_running(self) -> None:
        self.client.running(sum(each.running for each in self._members if each.state == "up"))

    def _on_withdrawn(self, member: Member, numbers: list[int], late: bool) -> None:
        tasks = [task for number in numbers if (task := member.take(number)) is not None]
        if late and member.until is not None:
            # Clocks differ: what there was too little time for there must not be taken to fit here.
            least = min((task.needs_s for task in tasks), default=float("inf"))
            member.until = min(member.until, time.time() + least - 1.0)
        if self._draining:
            self._give_back(tasks)
        else:
            self._unassigned.add(task for task in tasks if task.id in self._open)

    def _on_time(self, member: Member, until: float) -> None:
        member.closing = member.short = True
        self.client.log(
            f"worksteal: the time of {member.name} ends at {time.strftime('%H:%M:%S', time.localtime(until))}: what "
            "runs there is told to end, and no more is begun there"
        )

    def _on_impossible(self, member: Member, number: int, why: str) -> None:
        task = member.take(number)
        with self._lock:
            known = self._open.pop(number, None)
        if task is not None and known is not None:
            self.client.impossible(task, why)

    def _on_event(self, member: Member, name: str, rank: int, when: float, details: dict[str, Any]) -> None:
        self.client.event(name, rank + member.base, when, details)

    def _on_log(self, member: Member, text: str) -> None:
        self.client.log(text, warning=True)

    def _on_ended(self, member: Member, statistics: dict[int, Any]) -> None:
        self.statistics[f"pool {member.epoch}"] = statistics
        member.orderly = True
        member.link.detach()
        self._leave(member, "has ended", LONGER_S)

    def _flush(self, member: Member) -> None:
        channel = member.link.channel
        if channel is None:
            return
        member.link.tick()
        with suppress(ChannelError):  # the next read says so
            channel.flush()

    # What the batch system says

    def _see_submissions(self) -> None:
        for member in self._members:
            if not member.number and member.state != "ended" and member.submission.done():
                try:
                    member.number = member.submission.result()
                except BatchError as error:
                    member.state = "ended"
                    member.forget_secret()
                    if not member.cancelled:
                        self._refused(str(error))
                    continue
                assert self._guard is not None
                self._guard.tell("+", member.number)
                member.state = "queued" if member.state == "submitting" else member.state
                self._look_at, self._look_s = time.monotonic() + LOOK_S, LOOK_S
                self.client.log(f"worksteal: {member.name} is submitted: {counted(self.wish.nodes, 'node')}")
                if member.cancelled:
                    member.cancelled = False
                    self._cancel([member])

    def _refused(self, why: str) -> None:
        """The batch system does not take a job: not to be mended if it never has, else perhaps a matter of time, as
        where only so many jobs may be in the queue.
        """
        others = any(member.state != "ended" for member in self._members)
        self._fruitless += 0 if others else 1
        if not any(member.number for member in self._members) or self._fruitless > self.policy.restarts:
            raise PoolError(why)
        self._submit_at = time.monotonic() + REFUSED_S
        when = f"in {lasts(REFUSED_S)}{', or when a pool ends' if others else ''}"
        self.client.log(f"worksteal: {why}; it is tried again {when}", warning=True)

    def _see_queue(self, now: float) -> None:
        """Ask how the jobs fare, the more rarely the longer nothing happens."""
        if self._looking is not None:
            if not self._looking.done():
                return
            looks, self._looking = self._looking.result(), None
            for member in self._members:
                if member.number in looks:
                    self._on_look(member, looks[member.number], now)
        jobs = [member for member in self._members if member.number and member.state not in ("ending", "ended")]
        urgent = any(member.state == "leaving" for member in jobs)
        if jobs and (now >= self._look_at or (urgent and now >= self._look_at - self._look_s + OFTEN_S)):
            self._look_s = min(RARELY_S, self._look_s * GROWTH)
            self._look_at = now + self._look_s
            self._looking = self._worker.submit(self.system.look, [member.number for member in jobs])

    def _on_look(self, member: Member, look: Look, now: float) -> None:
        before, member.look, member.looked_at = member.look, look, now
        if look.state == "ends" and not member.connected and member.ends_at is None:
            member.ends_at = now + END_S
        over = look.state == "ended" or (member.ends_at is not None and now > member.ends_at)
        if over and member.state in ("queued", "up", "leaving"):
            if member.connected:
                self._hear(member)  # its last words
                member.link.detach()
            if not member.orderly and not member.cancelled:
                member.why = str(look) + ("" if look.state == "ended" else ", and a node does not answer any more")
            # Where Slurm was not done with a node, what ran there has had that time already.
            member.state, member.give_up_at = "ending", now + (END_S if member.ends_at is None else 0.0)
            return
        if member.state == "queued" and look.state in ("waits", "unknown") and str(look) != str(before):
            self.client.log(f"worksteal: {member.name} waits: {look}", warning=look.held)
        if member.state == "queued" and look.state == "runs" and member.ran_at is None:
            member.ran_at = now

    def _see(self, member: Member, now: float) -> None:
        """Deadlines, and what is to happen next with a pool."""
        wait_s = self.policy.queue_wait_s
        if member.state == "queued" and member.ran_at is None and wait_s is not None and not self._stopping:
            limit = member.submitted + wait_s
            if now > limit and member.looked_at > limit:
                self._end_wait(member, wait_s)
            elif now > limit:
                self._look_at = 0.0  # it may have begun since the last look
        if self._hurry and member.state in ("up", "queued"):
            self._cancel([member])
        if member.state == "queued" and member.ran_at is not None and now > member.ran_at + SILENT_S:
            member.ran_at = float("inf")  # said once
            self.client.log(
                f"worksteal: {member.name} has begun {SILENT_S:g} s ago, and its agents have not connected yet: can "
                f"its nodes reach {self.session.address}?{member.said(self.system.work)}",
                warning=True,
            )
        if member.state == "up" and member.closing and not member.tasks and not member.parting:
            self._part(member)
        patience = self.session.reconnect_s + LONGER_S
        if member.state == "up" and member.lost_at is not None and now > member.lost_at + patience:
            self._leave(member, f"the connection is lost, and it did not come back within {patience:g} s", 0.0)
        if member.state == "leaving" and (now > member.give_up_at or self._hurry) and not member.cancelled:
            self._cancel([member])
            member.give_up_at = now + CANCEL_S
        if member.state == "leaving" and member.cancelled and now > member.cancelled_at + CANCEL_AGAIN_S:
            member.cancelled_at = now
            self._worker.submit(self.system.cancel, [member.number])
        if member.state == "leaving" and member.cancelled and now > member.give_up_at:
            self.client.log(
                f"worksteal: {member.name} was cancelled and has not ended; a job may still run there", warning=True
            )
            member.state, member.give_up_at = "ending", now + END_S
        if member.state == "ending":
            self._bury(member, now)

    def _end_wait(self, member: Member, wait_s: float) -> None:
        """A job has waited too long until it begins."""
        problem = f"{member.name} has not begun within {lasts(wait_s)}: {member.look}"
        if not any(each.state == "up" for each in self._members):
            raise PoolError(problem)
        self.client.log(f"worksteal: {problem}; it is cancelled", warning=True)
        self._dismiss([member])

    def _leave(self, member: Member, why: str, patience: float) -> None:
        """Wait for its job to end, and cancel it then."""
        member.state, member.give_up_at = "leaving", time.monotonic() + patience
        member.lost_at = None
        member.why = why
        self._look_at = 0.0

    def _part(self, member: Member) -> None:
        """Tell a pool to end when all its tasks have."""
        member.parting = member.closing = True
        member.link.queue(("bye", False))

    def _dismiss(self, members: Iterable[Member]) -> None:
        """Cancel the jobs of pools that are not wanted any more."""
        members = list(members)
        for member in members:
            member.dismissed = True
        self._cancel(members)

    def _cancel(self, members: Iterable[Member]) -> None:
        """Have the batch system end these jobs."""
        members = [member for member in members if member.state != "ended" and not member.cancelled]
        for member in members:
            member.cancelled, member.cancelled_at = True, time.monotonic()
            if member.number and member.state != "ending":
                member.state, member.give_up_at = "leaving", time.monotonic() + CANCEL_S
        if numbers := [member.number for member in members if member.number]:
            self._worker.submit(self.system.cancel, numbers)
            self._look_at = 0.0

    def _bury(self, member: Member, now: float) -> None:
        """Its job has ended: take over what it has finished, and hand out the rest again."""
        read = [read_journal(path) for path in member.journals()]
        closed = all(done for _, done in read)
        if not closed and member.tasks and now < member.give_up_at:
            return  # what is left of its tasks is being ended
        if not closed and member.tasks:
            self.client.log(
                f"worksteal: not every node of {member.name} has said that its tasks are ended; a task may still run "
                "there for a moment",
                warning=True,
            )
        for results, _ in read:
            for result in results:
                # A task that a signal ended may have been ended by the end of the pool: it is run again.
                if result.status is not None and (not self._kill or result.later):
                    self._finish(member, result)
        left = member.take_all()
        member.state = "ended"
        self._count_running()
        member.forget_secret()
        self._submit_at = 0.0
        if self._guard is not None and member.over:  # else it is cancelled once more in the end
            self._guard.tell("-", member.number)
        ending = member.dismissed or self._stopping or self._broken
        try:
            if not member.orderly and not ending:
                self._mourn(member, left)
            elif member.short and not member.finished and not ending:
                self._count_fruitless(f"{member.name} had too little time for any job")
        finally:
            self._again(left)

    def _mourn(self, member: Member, left: list[Task]) -> None:
        """A pool has ended that was not to."""
        self.deaths += 1
        self.client.event("pool died", member.base, time.time(), {"error": member.why})
        if (why := member.refusal()) and not any(other.nodes for other in self._members):
            raise PoolError(f"{member.name} has started no agents, and another would not either: {why}")
        said = member.said(self.system.work)
        how = "has ended" if member.nodes else "has ended before its agents were up"
        self._last_words = f"{member.name} {how}: {member.why}{said}"
        if member.finished:
            self._fruitless = 0
        else:
            self._count_fruitless(self._last_words)
        again = f"; {counted(len(left), 'unfinished job')} handed out again" if left else ""
        self.client.log(f"worksteal: {self._last_words}{again}", warning=True)

    def _count_fruitless(self, why: str) -> None:
        """Raises PoolError if too many pools in a row have ended so."""
        self._fruitless += 1
        if self._fruitless > self.policy.restarts:
            ends = counted(self._fruitless, "batch job")
            raise PoolError(f"{ends} in a row ended with no job finished; the last: {why}")

    # More, and the end

    def _start_more(self) -> None:
        alive = [member for member in self._members if member.alive]
        if self._draining or len(alive) >= min(self.policy.pools, len(self._unassigned)):
            return
        taken = sum(bool(member.number) or member.state == "submitting" for member in self._members)
        if taken < self.policy.pools + self.policy.follow_ups:
            if time.monotonic() >= self._submit_at:
                self._submit_one()
        elif not alive and not any(member.state == "up" for member in self._members):
            self._give_up()

    def _submit_one(self) -> None:
        epoch = len(self._members) + 1
        # One that is ending still tells of its nodes.
        taken = {member.slot for member in self._members if member.state != "ended"}
        slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
        folder = self.folder / f"pool-{epoch}"
        folder.mkdir(mode=0o700)
        session = replace(self.session, pool=f"{self.session.pool}.{epoch}", epoch=epoch, nodes=self.wish.nodes)
        session.write(folder)
        assert self._guard is not None
        self._guard.tell("remove", str(folder / FILE))
        submission = self._worker.submit(self.system.submit, folder, f"worksteal-{epoch}", self.wish)
        self._members.append(Member(epoch, slot, folder, self.system.title, submission))

    def _give_up(self) -> None:
        """No further job may be submitted, and tasks are left."""
        number = len(self._unassigned)
        last = f"; {self._last_words}" if self._last_words else ""
        submitted = counted(sum(bool(member.number) for member in self._members), "batch job")
        self.client.log(
            f"worksteal: {counted(number, 'job')} left, and {submitted} submitted, as many as may be "
            f"(worksteal-pools and worksteal-follow-ups){last}",
            warning=True,
        )
        self._draining = True
        self._give_back(self._unassigned.take_all())
        self.client.no_more()

    def _begin_stop(self, kill: bool) -> None:
        self._stopping, self._kill = True, kill
        idle = []
        for member in self._members:
            if member.state == "up" and member.connected:
                if not member.parting or kill:
                    member.link.queue(("bye", kill))
                member.parting = member.closing = True
            elif member.state in ("submitting", "queued", "up"):
                idle.append(member)
                if member.state == "queued":
                    self.client.log(f"worksteal: {member.name} is cancelled; it had not begun: {member.look}")
        self._dismiss(idle)
