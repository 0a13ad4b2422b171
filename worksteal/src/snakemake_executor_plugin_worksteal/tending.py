"""The inside of a runner's process: it starts tasks, watches them, ends them and reports. One thread, one poll()."""

from __future__ import annotations

import json
import math
import os
import select
import signal
import socket
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from resource import struct_rusage
from typing import Any, NoReturn

from . import processes, warm, wire
from .afresh import state
from .forks import Fork, Forks
from .tasks import LATER, Back, Kind, Order, Result
from .tended import NEVER, Tended, copy_output, open_output, remove_old, state_of, tail
from .wire import Wire

CLOSED = b'{"closed": true}\n'  # the last line of a journal: nothing of the runner's tasks lives any more
PARTING_S = 2.0  # how long tasks may take to end when the agent is gone
# How long, and how often, to look again at an orphan that may be just executing a program.
UNCLEAR_S, LOOK_S = 0.1, 0.01
UNKILLABLE_S = 5.0  # how long to wait for killed processes that are left of a task (they may hang in the file system)
# How long nothing must happen before a spare is forked, if there is another: what runs has the cores first.
QUIET_MS = 2
# How long to wait for a fork to hear what it has been told, before it is told what follows.
HEARD_S = 0.001
# A batch system that ends a job sends SIGTERM to all its processes. How long after one what tasks say is taken for an
# answer to it, though the agent has not told them to end yet.
ANSWER_S = 60.0
MOST_TRIES = 2  # to begin a task in another fork if the first died before it had heard of it
MOST_OUTPUTS = 64  # empty files that are kept for the output of commands
# How long results of tasks that took less than the second are gathered while there is work at hand: each message wakes
# the agent. Longer tasks gain nothing by it, and wait for what follows them.
GATHER_S, GATHER_BELOW_S = 0.005, 0.02


@dataclass(slots=True)
class Settings:
    """What a runner is told when it is made; see `runner.Runner`."""

    kind: str
    rank: int
    pool: str
    spares: int
    grace_s: float
    patience: float
    reuse: int


class Tender:
    """Serves one agent until it closes or is gone."""

    def __init__(self, agent: socket.socket, journal: int, settings: Settings) -> None:
        self.wire = Wire(agent)
        self.gathered: list[Result] = []
        self.tell_at = NEVER  # when they are told
        self.journal = journal
        self.settings = settings
        self.host = socket.gethostname()
        self.folder = tempfile.gettempdir()
        self.null = os.open(os.devnull, os.O_RDONLY)
        self.tasks: dict[int, Tended] = {}
        self.by_pid: dict[int, Tended] = {}
        self.forks = Forks(settings.spares, settings.grace_s)
        self.by_channel: dict[int, Tended] = {}  # scripts whose forks may stay for another
        self.poll = select.poll()
        self.scripts: dict[bytes, tuple[str, str, bytes, bytes]] = {}
        self.ahead: dict[Kind, deque[tuple[int, Order, bytes]]] = {}  # what begins when another ends
        self.closing = False
        self.outputs: list[int] = []  # empty files for the output of commands
        self.abandoned = False
        self.memory_kills = processes.memory_kills()
        self.counted_at = time.monotonic()
        self.base = dict(os.environ)
        self.children = processes.OwnChildren()
        self.own = set(self.children.pids())  # what preloaded modules have started
        self.bell, bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.alarm = (self.bell, bell)
        self.term_at = -math.inf
        self._listen_to_signals(bell)
        self.handled = state()[1]
        self.guard = self.guard_pipe = -1
        self._post_guard()

    def _note_term(self, number: int, frame: Any) -> None:
        self.term_at = time.time()

    def _listen_to_signals(self, bell: int) -> None:
        """SIGCHLD rings the bell; what a terminal or a batch system sends is the agent's to decide on.

        A handler instead of SIG_IGN, which the tasks would inherit.
        """
        signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGTERM, self._note_term)
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTSTP):
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def serve(self) -> None:
        """Until closed: wait, read, reap, tend, write; fork spares when there is nothing else to do."""
        self.note({"runner": self.settings.kind, "rank": self.settings.rank, "pid": os.getpid()})
        self.poll.register(self.bell, select.POLLIN)
        spares = self.forks.spares
        while self.tasks or self.forks.leaving or not self.closing:
            if not self.abandoned:
                self.poll.register(self.wire, select.POLLIN | (select.POLLOUT if self.wire.wants_write else 0))
            lacking = self.settings.kind == "warm" and not self.closing and len(spares) <= self.settings.spares // 2
            patience = self._wait_ms()
            if lacking:
                quiet = QUIET_MS if spares or self.forks.idle else 0
                patience = quiet if patience is None else min(quiet, patience)
            events = dict(self.poll.poll(patience))
            if self.bell in events:
                os.read(self.bell, 4096)
            if self.wire.fileno() in events:
                self._hear()
            for channel in events.keys() & self.by_channel.keys():
                self._hear_fork(self.by_channel[channel])
            self._reap()
            self._look(time.monotonic())
            if self.tell_at <= time.monotonic():
                self._tell_results()
            self.wire.flush()
            if lacking and not events:
                self._fork_spares()
        self._end()

    def note(self, line: dict[str, Any]) -> None:
        """A line of the journal, in one write."""
        self._write(json.dumps(line).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        try:
            os.write(self.journal, line)
        except OSError as error:
            self._say(f"The journal of the {self.settings.kind} runner cannot be written: {error}.")

    def _say(self, message: Any) -> None:
        """Tell the agent, after the results that have been gathered."""
        self._tell_results()
        self.wire.send(message)

    def _tell_results(self) -> None:
        self.tell_at = NEVER
        for result in self.gathered:
            self.wire.send(result)
        self.gathered.clear()

    def _wait_ms(self) -> int | None:
        """Until the next deadline of a task or a fork; None, for ever, if there is none."""
        at = min((task.next_at() for task in self.tasks.values()), default=NEVER)
        at = min(at, self.forks.next_at(), self.tell_at)
        return None if at == NEVER else max(0, math.ceil((at - time.monotonic()) * 1000))

    def _end(self) -> None:
        for spare in self.forks.spares:
            spare.hang_up()
        processes.send([self.guard, *(spare.pid for spare in self.forks.spares)], signal.SIGKILL)
        self._write(CLOSED)
        until = time.monotonic() + PARTING_S
        while not self.wire.flush() and (left := until - time.monotonic()) > 0:
            select.select([], [self.wire], [], left)

    # The agent's words

    def _hear(self) -> None:
        for message in self.wire.receive():
            getattr(self, f"_on_{message[0]}")(*message[1:])
        if self.wire.ended:
            self.poll.unregister(self.wire)
            self.abandoned = self.closing = True
            self._stop_all("was ended because its agent has ended", PARTING_S)
            self.forks.let_all_go(PARTING_S)

    def _on_source(self, key: bytes, path: str, source: str, config: bytes) -> None:
        code = warm.compiled(path, source) if self.settings.kind == "warm" else b""
        self.scripts[key] = (path, source, config, code)

    def _on_start(
        self,
        number: int,
        order: Order,
        key: bytes,
        cores: tuple[int, ...],
        devices: tuple[int, ...],
        kind: Kind | None = None,
    ) -> None:
        self._start(self._tend(number, order, cores, devices, kind), key)

    def _tend(
        self, number: int, order: Order, cores: tuple[int, ...], devices: tuple[int, ...], kind: Kind | None
    ) -> Tended:
        now = time.monotonic()
        if now - self.counted_at > 1:
            self.memory_kills, self.counted_at = processes.memory_kills(), now
        result = Result(number, None, rank=self.settings.rank, host=self.host, cores=cores, devices=devices)
        task = self.tasks[number] = Tended(result, order, self._marker(number), -1, kind)
        if order.resume:
            task.state = state_of(order.resume)
        return task

    def _marker(self, number: int) -> str:
        return f"{self.settings.pool}:{self.settings.rank}:{number}"

    @staticmethod
    def _changes(order: Order, marker: str) -> dict[str, str]:
        """To the environment."""
        threads = dict.fromkeys(warm.THREAD_VARIABLES, str(order.threads))
        return {**threads, **order.environment, processes.TASK: marker}

    def _start(self, task: Tended, key: bytes) -> None:
        order, result = task.order, task.result
        try:
            remove_old(order.remove)
            if order.script is not None or order.benchmark is not None:
                self._start_fork(task, key)
            else:
                self._start_command(task)
        except (OSError, ValueError) as error:
            what = "a warm fork" if order.script is not None or order.benchmark is not None else order.shell
            result.started = result.ended = time.time()
            result.status = 127 if isinstance(error, FileNotFoundError) else 126
            result.reason = f"could not be started ({what}): {error}"
            self._report(task)
            return
        self._has_begun(task)

    def _has_begun(self, task: Tended) -> None:
        now = time.monotonic()
        self.by_pid[task.pid] = task
        task.limit_at = now + task.order.limit_s if task.order.limit_s else NEVER
        task.measure_at = now + self.settings.patience if task.order.limit_mb else NEVER
        self._tell_next(task)

    # What follows when a task ends

    def _on_ahead(self, number: int, order: Order, key: bytes, kind: Kind) -> None:
        same = [task for task in self.tasks.values() if task.kind == kind]
        if not same or self.closing:  # the last of its kind has just ended, and the agent will hear of it
            self._say(Back([number]))
            return
        self.ahead.setdefault(kind, deque()).append((number, order, key))
        for task in same:
            self._tell_next(task)

    def _tell_next(self, task: Tended) -> None:
        """Tell its fork what follows while its script still runs: it then need not wait for this process."""
        task.tell_at = NEVER
        fork, waiting = task.fork, self.ahead.get(task.kind) if task.kind else None
        if not waiting or fork is None or fork.its_end is None or fork.channel not in self.by_channel:
            return
        if fork.following or fork.dead or task.ended or task.stopped or task.before or self.closing:
            return
        number, order, key = waiting[0]
        script = order.script if order.benchmark is None else None
        if key != fork.key or script is None or script.shell_exec or any(map(os.path.lexists, order.remove)):
            return
        if not fork.has_heard():
            task.tell_at = time.monotonic() + HEARD_S
            return
        stays = fork.runs + 1 < self.settings.reuse
        parts = wire.packets((order, self._changes(order, self._marker(number)), stays))
        if len(parts) == 1:
            wire.tell(fork.channel, parts)
            fork.following = waiting.popleft()

    def _hold(self, task: Tended) -> bool:
        """Take back what its fork has been told to do next; False if that has begun, so that the task has ended."""
        fork = task.fork
        if fork is None or fork.following is None:
            return True
        if not fork.take_back():
            return False
        assert task.kind is not None
        self.ahead[task.kind].appendleft(fork.following)
        fork.following = None
        return True

    def _from_another(self, kind: Kind) -> deque[tuple[int, Order, bytes]] | None:
        """What another fork has been told to do next, for one that has nothing to do."""
        told = [task for task in self.tasks.values() if task.kind == kind and task.fork and task.fork.following]
        for task in told:
            if not task.ended and self._hold(task):
                return self.ahead[kind]
        return None

    def _goes_on(self, task: Tended) -> None:
        """The task has ended, and its fork has gone on to what it had been told."""
        fork = task.fork
        assert fork is not None
        assert fork.following is not None
        (number, order, _), fork.following = fork.following, None
        task.moved, task.result.successor = True, number
        following = self._tend(number, order, task.result.cores, task.result.devices, task.kind)
        following.result.started, following.before = task.result.ended, task
        fork.marker, fork.runs = following.marker, fork.runs + 1
        following.pid, following.output, following.fork = fork.pid, fork.output, fork
        self._expect(following, fork.runs < self.settings.reuse)
        self._has_begun(following)

    def _on_recall(self, numbers: list[int]) -> None:
        back = []
        for task in self.tasks.values():
            if task.fork and task.fork.following and task.fork.following[0] in numbers and not task.ended:
                self._hold(task)
        for kind, waiting in self.ahead.items():
            back += [number for number, _, _ in waiting if number in numbers]
            self.ahead[kind] = deque(each for each in waiting if each[0] not in numbers)
        if back:
            self._say(Back(back))

    # Beginnings

    def _start_command(self, task: Tended) -> None:
        """posix_spawn: half the time and CPU of fork and exec, which first copies this process's page tables."""
        task.output = self.outputs.pop() if self.outputs else open_output(self.folder)
        words, task.script_file = warm.shell_words(task.order, self.folder)
        task.result.started = time.time()
        task.pid = os.posix_spawnp(
            words[0],
            words,
            {**self.base, **self._changes(task.order, task.marker)},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, self.null, 0),
                (os.POSIX_SPAWN_DUP2, task.output, 1),
                (os.POSIX_SPAWN_DUP2, task.output, 2),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=warm.CATCHABLE,
        )

    def _start_fork(self, task: Tended, key: bytes) -> None:
        if self.settings.kind != "warm":
            raise ValueError("only the warm runner runs scripts and benchmarks, and this order went to the plain one")
        order, code = task.order, b""
        changes = self._changes(order, task.marker)
        script = order.script if order.benchmark is None else None
        # The shell of an order stays set in its process, and not all orders of a script need name the same.
        reuse = self.settings.reuse if script is not None and script.shell_exec is None else 1
        while True:
            fork = self.forks.take(key) if reuse > 1 else None
            if fork is None:
                fork = self.forks.spares.popleft() if self.forks.spares else self._fork_spare()
            if order.script is not None and not fork.runs and not code:
                path, source, config, code = self.scripts[key]
                order = replace(order, script=replace(order.script, path=path, source=source, config=config))
            fork.key, fork.marker, fork.runs = key, task.marker, fork.runs + 1
            stays = fork.runs < reuse
            parts = wire.packets((order, changes, stays) if fork.runs > 1 else (order, changes, code, stays))
            if not stays or len(parts) > 1:
                fork.keep_what_it_is_told()
            task.result.started = time.time()
            try:
                wire.tell(fork.channel, parts)
            except OSError:  # killed while it waited; it will be reaped
                fork.hang_up()
                fork.close_outputs()
                continue
            task.pid, task.output, task.fork = fork.pid, fork.output, fork
            self._expect(task, stays)
            return

    def _expect(self, task: Tended, stays: bool) -> None:
        """Its fork will say when the script has ended, or else exit."""
        fork = task.fork
        assert fork is not None
        if stays:
            self.by_channel[fork.channel] = task
            self.poll.register(fork.channel, select.POLLIN)
        else:
            fork.hang_up()

    def _on_stop(self, number: int, reason: str, sign: int) -> None:
        task = self.tasks.get(number)
        if task is not None and not task.ended:
            self._stop(task, reason, sign, self.settings.grace_s)

    def _on_save(self, all: bool = False) -> None:
        """Tell what can go on another time, or all, to save its state and end."""
        reason = "was told to end because the pool is to end"
        for _ in range(2):  # again, for what has begun in place of one that had ended already
            for task in list(self.tasks.values()):
                if (all or task.order.resume) and not task.ended and not task.stopped:
                    task.saving = True
                    self._stop(task, reason, signal.SIGTERM, self.settings.grace_s)

    def _on_close(self, wait_s: float) -> None:
        self.closing = True
        self._stop_all("was ended because the pool closes", min(self.settings.grace_s, wait_s))
        self.forks.let_all_go(wait_s)

    # Forks of this process

    def _fork(self, life: Callable[[], NoReturn]) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            signal.set_wakeup_fd(-1)
            mine = {self.wire.fileno(), self.journal, self.guard_pipe, self.null, *self.alarm}
            mine |= {task.output for task in self.tasks.values()} | set(self.outputs)
            mine |= self.forks.descriptors() | self.children.descriptors
            mine.update(*(task.fork.descriptors() for task in self.tasks.values() if task.fork))
            for descriptor in mine - {-1}:
                os.close(descriptor)
            life()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(70)

    def _fork_spares(self) -> None:
        """Several at once: after each fork the first write to each page is a page fault in this process too."""
        with suppress(OSError):  # no more processes or files just now; a task that needs a fork will say so
            while len(self.forks.spares) < self.settings.spares:
                self.forks.spares.append(self._fork_spare())

    def _fork_spare(self) -> Fork:
        stays = self.settings.reuse > 1
        outputs = tuple(open_output(self.folder) for _ in range(2 if stays else 1))
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        mine, its = ours.detach(), theirs.fileno()
        parent = os.getpid()

        def life() -> NoReturn:
            os.close(mine)
            warm.wait_for_order(its, outputs, parent, self.handled)

        try:
            pid = self._fork(life)
        except OSError:
            for descriptor in (mine, *outputs):
                os.close(descriptor)
            theirs.close()
            raise
        if not stays:
            theirs.close()
        return Fork(pid, mine, outputs, theirs if stays else None)

    def _post_guard(self) -> None:
        """A process that sleeps until this one is gone, and kills what is left of its tasks if it was killed.

        It reaches whole trees, which PR_SET_PDEATHSIG does not, and works with posix_spawn, which leaves no moment
        between fork and exec in which a command could ask for that signal.
        """
        read, write = os.pipe()
        own, journal = self.base[processes.RUNNER], os.dup(self.journal)

        def life() -> NoReturn:
            os.close(write)
            os.setsid()
            os.read(read, 1)
            if not processes.kill_leftovers(own, processes.RUNNER):
                os.write(journal, CLOSED)
            os._exit(0)

        if self.guard_pipe >= 0:
            os.close(self.guard_pipe)
        self.guard_pipe = -1
        self.guard = self._fork(life)
        os.close(read)
        os.close(journal)
        self.guard_pipe = write

    # Watching

    def _reap(self) -> None:
        """Take in what has ended: first processes of tasks, orphans that became our children, spares, the guard."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid in self.by_pid:
                self._process_ended(self.by_pid[pid], status, usage)
            elif pid == self.guard and not self.closing:
                self._post_guard()
            elif os.waitstatus_to_exitcode(status) == LATER:
                for task in self.tasks.values():
                    task.saved = task.saved or pid in task.signalled
            self.forks.ended(pid)
            for task in self.tasks.values():
                if task.ended and task.fork is not None and task.fork.pid == pid:
                    task.fork.dead = True  # before its last task was reported: it can neither stay nor leave
                    task.fork.hang_up()
        for task in [task for task in self.tasks.values() if task.ended]:
            self._settle(task, time.monotonic())

    def _process_ended(self, task: Tended, status: int, usage: struct_rusage) -> None:
        fork = task.fork
        if fork is not None:
            fork.dead = True
            unheard = self._hold(task) and fork.take_back()
            # Its script may have ended before it did, and the next one too
            while fork.channel >= 0:
                self._hear_fork(task)
                if fork.pid not in self.by_pid:
                    return
                task = self.by_pid[fork.pid]
            may_begin = task.tries < MOST_TRIES and not task.stopped and not self.closing and task.before is None
            if unheard and may_begin:  # it was killed while it waited
                del self.by_pid[fork.pid]
                fork.close_outputs()
                task.fork, task.output, task.tries = None, -1, task.tries + 1
                self._start(task, fork.key)
                return
        rss_mb, cpu_s = usage.ru_maxrss * 1024 / 1e6, usage.ru_utime + usage.ru_stime
        self._first_ended(task, os.waitstatus_to_exitcode(status), rss_mb, cpu_s)

    def _hear_fork(self, task: Tended) -> None:
        """The script has ended, or the fork closes the channel because it exits, and its end will tell."""
        fork = task.fork
        assert fork is not None
        spoken = fork.has_spoken()
        if not spoken and not fork.dead:
            return
        usage = fork.usage() if spoken else None
        self.poll.unregister(fork.channel)
        del self.by_channel[fork.channel]
        if usage is None:
            fork.hang_up()
            return
        self._first_ended(task, 0, *usage)
        if fork.following is not None:
            self._goes_on(task)
        elif task.stopped or self.closing:
            self.forks.send_off(fork, PARTING_S)
        self._settle(task, time.monotonic())

    def _first_ended(self, task: Tended, code: int, rss_mb: float, cpu_s: float) -> None:
        """Its first process has ended, or its script in a fork that has not."""
        del self.by_pid[task.pid]
        result = task.result
        result.status, result.signal = (code, 0) if code >= 0 else (None, -code)
        result.ended = time.time()
        result.max_rss_mb, result.cpu_s = round(rss_mb, 3), round(cpu_s, 6)
        task.ended = True
        task.limit_at = task.measure_at = NEVER
        task.unclear_until = time.monotonic() + UNCLEAR_S
        if not result.reason and code in (-signal.SIGKILL, 128 + signal.SIGKILL):
            count = processes.memory_kills()
            reason = "was killed by SIGKILL, which the pool did not send" if code < 0 else ""
            if count > self.memory_kills:
                reason = (reason or "a process of it was killed by SIGKILL") + "; probably out of memory"
            result.reason, self.memory_kills = reason, count
        ending = self.abandoned or self.closing
        signalled = not result.reason and result.started <= self.term_at and time.time() < self.term_at + ANSWER_S
        if ending or task.saving or signalled:
            result.told = True
            if code == 0 and not ending:
                result.reason = ""
            elif code != LATER:  # however it ended: what it did after it was told to is not its outcome
                result.status, result.signal = None, result.signal or signal.SIGTERM

    def _settle(self, task: Tended, now: float) -> None:
        """Report the task if nothing of it lives any more; else end what does."""
        task.look_at = NEVER
        left, unclear = self._strays(task)
        if (left or unclear) and not task.moved and task.fork is not None and task.fork.channel >= 0:
            self.forks.send_off(task.fork)
        if left and task.stopped and now < task.kill_at:
            return
        task.kill_at = NEVER
        task.give_up_at = min(task.give_up_at, now + UNKILLABLE_S)
        if left and now < task.give_up_at:
            processes.send(left, signal.SIGKILL)
        elif unclear and now < task.unclear_until:
            task.look_at = now + LOOK_S
        elif task.before is None:
            if left:
                names = ", ".join(map(str, left))
                self._say(f"Task {task.result.id} has left processes that do not end when killed: {names}.")
            self._report(task)

    def _strays(self, task: Tended) -> tuple[list[int], bool]:
        """Orphans of the task, and whether there are some of which nothing can be told at this moment.

        An orphan becomes a child of this process, a subreaper; one small file lists them. Session or marker tell whose
        it is, or that there is no other task. One that is about to end counts too: its children show up when it has.
        """
        known = {self.guard, *self.own, *self.by_pid, *(fork.pid for fork in self.forks)}
        if task.fork is not None and task.fork.channel >= 0:
            known.add(task.pid)  # it may stay
        alone = task.ended and len(self.tasks) == 1
        strays, unclear = [], False
        for pid in self.children.pids():
            if pid in known:
                continue
            marker = None if alone else processes.variable(pid, processes.TASK)
            others = task.moved and task.fork is not None and marker == task.fork.marker
            in_session = processes.session(pid) == task.pid and not others
            if alone or marker == task.marker or in_session or processes.is_dying(pid):
                strays.append(pid)
            else:
                unclear = unclear or marker is None
        return strays, unclear

    def _tree(self, task: Tended) -> list[int]:
        return processes.with_descendants([*([] if task.ended else [task.pid]), *self._strays(task)[0]])

    def _look(self, now: float) -> None:
        """Limits and deadlines."""
        self.forks.kill_late(now)
        for task in [task for task in self.tasks.values() if task.next_at() <= now]:
            if task.limit_at <= now:
                limit = f"ran over its limit of {task.order.limit_s:g} s (resource runtime)"
                self._stop(task, limit, signal.SIGTERM, self.settings.grace_s)
            if task.measure_at <= now:
                self._measure(task, now)
            if task.tell_at <= now:
                self._tell_next(task)
            if task.ended and task.result.id in self.tasks:
                self._settle(task, now)
            if not task.ended and task.kill_at <= now:
                processes.send(self._tree(task), signal.SIGKILL)
                task.kill_at = now + self.settings.patience  # again: something may have been started meanwhile

    def _measure(self, task: Tended, now: float) -> None:
        task.measure_at = now + self.settings.patience
        used = processes.memory_mb(self._tree(task), fork_of=os.getpid() if task.fork else 0)
        if used > task.order.limit_mb:
            self._stop(task, f"used {used:,.0f} MB, more than its mem_mb={task.order.limit_mb:,}", signal.SIGKILL, 0)

    def _stop_all(self, reason: str, grace_s: float) -> None:
        known = dict(self.tasks)
        for task in known.values():
            self._stop(task, reason, signal.SIGTERM, grace_s)
        for number in self.tasks.keys() - known.keys():  # begun in place of one that had ended already
            self._stop(self.tasks[number], reason, signal.SIGTERM, grace_s)

    def _stop(self, task: Tended, reason: str, sign: int, grace_s: float) -> None:
        """Signal all its processes, and SIGKILL those that live after the grace."""
        if not task.ended and not self._hold(task):
            self._hear_fork(task)
            return
        if not task.ended:
            task.result.reason = task.result.reason or reason
        task.limit_at = task.measure_at = NEVER
        task.kill_at = min(task.kill_at, time.monotonic() + grace_s)
        if not task.stopped or sign != signal.SIGTERM:  # a second SIGTERM makes some programs give up what they save
            tree = self._tree(task)
            processes.send(tree, sign)
            task.signalled = frozenset(tree)
        task.stopped = True

    # The report

    def _report(self, task: Tended) -> None:
        result = task.result
        del self.tasks[result.id]
        self._see_whether_it_goes_on(task)
        if task.output >= 0:
            size = os.fstat(task.output).st_size
            if size:
                result.tail = tail(task.output, size)
                result.log = self._keep(task, size)
                if task.fork:
                    os.ftruncate(task.output, 0)
            if task.fork is None and not size and len(self.outputs) < MOST_OUTPUTS:
                self.outputs.append(task.output)  # as good as new, and spares the making of one
            elif task.fork is None:
                os.close(task.output)
            elif task.fork.channel >= 0 and not task.moved:
                self.forks.keep(task.fork)
            elif not task.moved:
                task.fork.close_outputs()
        if task.script_file:
            with suppress(OSError):  # the task may have cleaned up its temporary folder
                os.unlink(task.script_file)
        order, key = task.order, b""
        if task.kind and not task.moved and not self.closing:
            waiting = self.ahead.get(task.kind) or self._from_another(task.kind)
            if waiting:
                result.successor, order, key = waiting.popleft()
        self.note(result.as_dict())
        self.gathered.append(result)
        brief = result.successor is not None and result.ended - result.started < GATHER_BELOW_S
        more = brief and task.kind is not None and self.ahead.get(task.kind)
        self.tell_at = min(self.tell_at, time.monotonic() + (GATHER_S if more else 0))
        if task.moved:
            assert result.successor is not None
            following = self.tasks[result.successor]
            following.before = None
            if following.ended:
                following.look_at = 0.0  # it can be reported now
            else:
                self._tell_next(following)
        elif result.successor is not None:
            self._start(self._tend(result.successor, order, result.cores, result.devices, task.kind), key)

    @staticmethod
    def _see_whether_it_goes_on(task: Tended) -> None:
        """A shell dies of the SIGTERM that the program in it answers: it is the program's answer that counts."""
        result = task.result
        if task.saved and (result.signal == signal.SIGTERM or result.status == 128 + signal.SIGTERM):
            result.status, result.signal = LATER, 0
        if result.later:
            result.progress = state_of(task.order.resume) != task.state

    def _keep(self, task: Tended, size: int) -> str:
        if not task.order.log:
            return ""
        try:
            copy_output(task.output, size, task.order.log, f"{os.getpid()}-{task.result.id}")
        except OSError as error:
            self._say(f"The output of task {task.result.id} could not be kept in {task.order.log}: {error}.")
            return ""
        return task.order.log
