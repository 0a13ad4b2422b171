"""How a fork of the warm runner begins anew for another script: what it had at its birth is noted, and put back."""

from __future__ import annotations

import inspect
import logging
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

_RESET_PEAK = b"5"  # to /proc/self/clear_refs: the peak of the resident memory becomes what is resident now
PEAK_SLACK_KB = 1024  # a peak that rose by less is left as it is: to reset it takes as long as all the rest
_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
_SIGNALS = frozenset(map(int, signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}))
_STATUS, _STATUS_MOST = "/proc/self/status", 1 << 16  # bytes
# Of that: threads, and masks of the signals that are ignored and caught
_STATE = re.compile(rb"Threads:\s(\d+)\n.*SigIgn:\s(\w+)\nSigCgt:\s(\w+)\n", re.DOTALL)
_getsignal = inspect.unwrap(signal.getsignal)  # without making an enumeration's member of what it finds
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


def state() -> tuple[int, set[int]]:
    """How many threads this process has, and what signals it handles or ignores, as the kernel has it.

    C libraries set handlers too.
    """
    file = os.open(_STATUS, os.O_RDONLY)
    try:
        return _state_in(file, bytearray(_STATUS_MOST))
    finally:
        os.close(file)


def _state_in(file: int, space: bytearray) -> tuple[int, set[int]]:
    """The same from the open file, in one call."""
    found = _STATE.search(space, 0, os.preadv(file, [space], 0))
    assert found is not None
    threads, ignored, caught = found.groups()
    either = int(ignored, 16) | int(caught, 16)
    signals = set()
    while either:
        lowest = either & -either
        signals.add(lowest.bit_length())
        either ^= lowest
    return int(threads), signals & _SIGNALS


class Birth:
    """What a fork was born with. To be made before its first script, in its main thread.

    channel leads to the runner, null is what descriptor 0 refers to, outputs what 1 and 2 do, in turn.
    open_streams opens the standard streams.

    A process that has slept finds its caches cold, and anything it does takes ten times as long: what is
    done between two scripts is therefore little, and /proc is read once, from a file that stays open.
    """

    def __init__(
        self,
        channel: int,
        null: int,
        outputs: tuple[int, ...],
        open_streams: Callable[[], None],
    ) -> None:
        self.pid = os.getpid()
        self.folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        self.status, self.space = os.open(_STATUS, os.O_RDONLY), bytearray(_STATUS_MOST)
        self.null, self.outputs = null, outputs
        self.runs = 0
        self.descriptors = {number: _file(number) for number in (channel, null, *outputs, self.folder, self.status)}
        self.environ, self.environb = os.environ, os.environb  # two views of the same
        self.variables = dict(os.environb)
        self.given: dict[bytes, bytes] = {}
        self.left = self.variables  # the variables that the last script was given
        self.zone = time.tzname
        self.path, self.paths = sys.path, list(sys.path)
        self.umask = os.umask(0)
        os.umask(self.umask)
        self.kernels = self.signals = state()[1]
        self.handlers: dict[int, Any] = {number: _getsignal(number) for number in _SIGNALS}
        self.hooks = sys.excepthook, sys.unraisablehook
        self.loggers, self.level = list(logging.root.handlers), logging.root.level
        self.open_streams = open_streams
        self.streams = _streams()
        self.nature = _nature()
        self.begin(True)
        self.peak = self.used[1]

    def close(self) -> None:
        """Close the descriptors, so that a script finds what it would find in a fork of its own."""
        for number in self.descriptors:
            if self._is_ours(number):
                os.close(number)

    def begin(self, may_have_threads: bool) -> None:
        """The script comes next: its usage begins here, and the threads that there are now are not its own.

        OpenBLAS opens its pool when it is told its size: there may be new ones.
        """
        self.used = _used()
        if may_have_threads:
            self.threads = _threads()

    def can_go_on(self) -> bool:
        """Whether the script has left nothing that lasts: no thread, no process, no limit that cannot be taken back.

        Standard streams must have been flushed before.
        """
        if os.getpid() != self.pid or not _is_childless() or not all(map(self._is_ours, self.descriptors)):
            return False
        count, self.signals = _state_in(self.status, self.space)
        if count > 1 and not _threads() <= self.threads:
            return False
        return _nature() == self.nature

    def usage(self) -> tuple[float, float]:
        """Peak of the resident memory (MB) and CPU seconds since the last call, children that have ended included."""
        before, self.used = self.used, _used()
        peak = self.used[1] if self.used[2] == before[2] else max(self.used[1:])
        return round(peak * 1024 / 1e6, 3), round(self.used[0] - before[0], 6)

    def take_handlers_back(self) -> None:
        """Put the handlers of signals and exceptions back, which may hold the script's globals; timers end before."""
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        for number in self.signals | self.kernels:  # of the others, the kernel has none
            handler = self.handlers[number]
            if _getsignal(number) != handler:
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            elif number not in self.kernels:  # a C library's
                signal.signal(number, signal.SIG_DFL)
        sys.excepthook, sys.unraisablehook = self.hooks

    def again(self) -> None:
        """Put everything back, after `can_go_on`. Modules stay imported, with what they keep."""
        self.take_handlers_back()
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # First, for the script's own may be on these descriptors, and close them when they are dropped.
        sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__ = self.streams[0]  # type: ignore[misc]
        self.runs += 1
        output = self.outputs[self.runs % len(self.outputs)]
        for source, target in ((self.null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        os.fchdir(self.folder)
        os.umask(self.umask)
        sys.path = self.path
        sys.path[:] = self.paths
        tempfile.tempdir = None
        self._log_afresh()
        random.seed()
        if self.used[1] > self.peak + PEAK_SLACK_KB:
            self._reset_peak()

    def _reset_peak(self) -> None:
        with suppress(OSError):  # not every kernel has the file; the peak is then that of the fork's life
            descriptor = os.open("/proc/self/clear_refs", os.O_WRONLY)
            try:
                os.write(descriptor, _RESET_PEAK)
            finally:
                os.close(descriptor)

    def environment(self, changes: dict[str, str]) -> None:
        """The environment of the next order, and streams that are as it wants them."""
        vars(os)["environ"] = self.environ  # a script may have put another object there
        # What it keeps, in bytes: to ask it for each of them takes longer than the rest.
        found: dict[bytes, bytes] = vars(self.environb)["_data"]
        given = {os.fsencode(name): os.fsencode(value) for name, value in changes.items()}
        wanted = {**self.variables, **given}
        zone = found.get(b"TZ")
        differ: Iterable[tuple[bytes, bytes]] = ()
        if found != self.left or given.keys() != self.given.keys():
            for name in found.keys() - wanted.keys():
                del self.environb[name]
            differ = wanted.items() - found.items()
        # The order's own always: a script may have set one past Python (os.putenv, C), where it is not seen.
        self.environb.update((*differ, *given.items()))
        self.given, self.left = given, wanted
        if zone != wanted.get(b"TZ") or time.tzname != self.zone:
            time.tzset()
        direct = bool(os.environ.get("PYTHONUNBUFFERED"))
        if _streams() != self.streams or getattr(sys.stdout, "write_through", False) != direct:
            self.open_streams()
            self.streams = _streams()
        elif "snakemake.shell" in sys.modules:
            vars(sys.modules["snakemake.shell"])["STDOUT"] = sys.stdout

    def _log_afresh(self) -> None:
        """Take off the handlers of `logging.basicConfig`: it does nothing where there is one, so that the next script
        would write into this one's file.
        """
        for handler in [handler for handler in logging.root.handlers if handler not in self.loggers]:
            logging.root.removeHandler(handler)
            with suppress(Exception):  # its stream may be closed
                handler.close()
        logging.root.handlers[:] = self.loggers
        if logging.root.level != self.level:
            logging.root.setLevel(self.level)

    def _is_ours(self, number: int) -> bool:
        return _file(number) == self.descriptors[number]


def _file(number: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(number)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _streams() -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The standard streams, and what about them a script may change."""
    streams = sys.stdin, sys.stdout, sys.stderr
    return streams, tuple(_manner(stream) for stream in streams)


def _manner(stream: Any) -> tuple[Any, ...]:
    try:
        return stream.closed, stream.encoding, stream.errors, stream.line_buffering, stream.write_through
    except ValueError:  # detached from its file
        return ()


def _nature() -> tuple[Any, ...]:
    """What a process cannot always take back."""
    limits = tuple(map(resource.getrlimit, _LIMITS))
    return os.getresuid(), os.getresgid(), os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0), limits


def _threads() -> set[str]:
    return set(os.listdir("/proc/self/task"))


def _is_childless() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def _used() -> tuple[float, int, int]:
    """CPU seconds, and the peaks of the resident memory (kB) of this process and of the largest child so far."""
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime, own.ru_maxrss, others.ru_maxrss
