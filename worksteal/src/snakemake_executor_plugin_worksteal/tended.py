"""A task as the runner tends it: where it stands, and the file that takes its output."""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .tasks import Kind, Order, Result

if TYPE_CHECKING:
    from .forks import Fork

NEVER = math.inf
TAIL_LINES, TAIL_BYTES = 20, 4096


def remove_old(paths: Iterable[str]) -> None:
    """Remove what an earlier run of a task made: a folder with all in it if its name ends with a slash, else if empty.

    Raises OSError if something is there that cannot be removed.
    """
    for path in paths:
        if path.endswith("/") and os.path.isdir(path) and not os.path.islink(path[:-1]):
            shutil.rmtree(path)
            continue
        try:
            os.unlink(path.rstrip("/"))
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            with suppress(OSError):
                os.rmdir(path)


def state_of(path: str) -> list[tuple[str, int, int, int]]:
    """Name, number, size and time of all files at a path or below it; empty if nothing is there."""
    found = []
    for folder, _, names in os.walk(path):
        found += [os.path.join(folder, name) for name in names]
    state = []
    for name in sorted(found) or ([path] if path else []):
        with suppress(OSError):  # it has gone meanwhile
            stat = os.lstat(name)
            state.append((name, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return state


@dataclass(slots=True)
class Tended:
    """A task that runs, or whose last processes are being ended. Moments are of time.monotonic()."""

    result: Result
    order: Order
    marker: str
    output: int
    kind: Kind | None = None
    pid: int = 0
    fork: Fork | None = None  # where it runs, unless it is a command
    script_file: str = ""
    limit_at: float = NEVER
    measure_at: float = NEVER
    kill_at: float = NEVER
    give_up_at: float = NEVER
    look_at: float = NEVER
    unclear_until: float = 0.0
    tell_at: float = NEVER  # when to see whether its fork can be told what follows
    before: Tended | None = None  # the task in whose place it has begun, until that is reported
    tries: int = 0  # forks that died before they had heard of it
    moved: bool = False  # its fork has gone on to another
    stopped: bool = False  # it has been told to end, and what is left of it may do so until kill_at
    saving: bool = False  # it has been told so because it can go on another time
    signalled: frozenset[int] = frozenset()  # its processes at that moment
    saved: bool = False  # one of them, no child of another any more, has ended with LATER
    state: list[tuple[str, int, int, int]] = field(default_factory=list)  # of Order.resume, when it began
    ended: bool = False  # its first process has

    def next_at(self) -> float:
        """The next moment at which it needs a look; processes that end announce themselves."""
        return min(self.limit_at, self.measure_at, self.kill_at, self.give_up_at, self.look_at, self.tell_at)


def open_output(folder: str) -> int:
    """A file without a name on node-local disk: a silent task leaves no trace in any directory."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        descriptor = os.dup(file.fileno())
    # A command that opens /dev/stderr anew writes from an offset of its own: appended, it overwrites nothing.
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
    return descriptor


def tail(output: int, size: int) -> str:
    """The last 20 lines, at most 4 kB."""
    text = os.pread(output, TAIL_BYTES, max(0, size - TAIL_BYTES)).decode(errors="replace")
    return "\n".join(text.splitlines()[-TAIL_LINES:])


def copy_output(output: int, size: int, log: str, unique: str) -> None:
    """Copy the output to the file `log`, which appears whole or not at all; its folder is made. May raise OSError."""
    folder, name = os.path.split(os.path.abspath(log))
    os.makedirs(folder, exist_ok=True)
    part = os.path.join(folder, f".{name}.{unique}")
    target = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        done = 0
        while done < size and (sent := os.sendfile(target, output, done, size - done)):
            done += sent
        os.replace(part, os.path.join(folder, name))
    except OSError:
        os.unlink(part)
        raise
    finally:
        os.close(target)
