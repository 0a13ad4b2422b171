"""What Linux knows of processes: parents, markers, memory; and how to leave none behind. Reads /proc."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Collection, Iterable, Iterator
from functools import cache

TASK = "WORKSTEAL_TASK"  # environment variable of a task: pool:rank:id
RUNNER = "WORKSTEAL_RUNNER"  # environment variable of everything that a runner starts: pool:rank:kind:pid

_PAGE = 4096  # bytes
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, argument: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0):
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}, {argument}) was refused: {os.strerror(code)}")


def become_subreaper() -> None:
    """Orphans among this process's descendants become its children, not those of init. OSError if refused."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """The kernel kills this process (SIGKILL) when its parent ends; at once if process `parent` is gone already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def close_descriptors(keep: Collection[int]) -> None:
    """Close every open file descriptor of this process that is not in `keep`."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            try:
                os.close(int(name))
            except OSError:
                continue  # the descriptor of the listing itself


def _read(path: str) -> bytes:
    """A file of /proc; empty if the process is gone or is somebody else's."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except OSError:
        return b""


def _stat(pid: int) -> list[bytes]:
    """Fields of /proc/PID/stat from the third on (state, parent, group, session, ...); empty if the process is gone."""
    # The second field is the program's name in brackets, and may itself hold blanks and brackets.
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _numbered() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


@cache
def _kernel_lists_children() -> bool:
    return os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children")


def children(pid: int) -> list[int]:
    """Process ids of the children of a process, zombies too; empty if it is gone."""
    if not _kernel_lists_children():
        return [other for other in _numbered() if (fields := _stat(other)) and int(fields[1]) == pid]
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    return [int(child) for thread in threads for child in _read(f"/proc/{pid}/task/{thread}/children").split()]


class OwnChildren:
    """This process's children, for one who asks often: the files of /proc stay open, since opening takes the longest.

    Its descriptors are its process's own: a fork has to close them. OSError if /proc cannot be read.
    """

    def __init__(self) -> None:
        pid = os.getpid()
        self.descriptors: set[int] = set()
        if _kernel_lists_children():
            self._threads = os.open(f"/proc/{pid}/task", os.O_RDONLY | os.O_DIRECTORY)
            self._list = os.open(f"/proc/{pid}/task/{pid}/children", os.O_RDONLY)
            self.descriptors = {self._threads, self._list}

    def pids(self) -> list[int]:
        """As `children` has them."""
        # A folder has two links and one for each folder in it: one a thread.
        if not self.descriptors or os.fstat(self._threads).st_nlink != 3:
            return children(os.getpid())
        text = b""
        while part := os.pread(self._list, _PAGE, len(text)):
            text += part
        return [int(child) for child in text.split()]


def with_descendants(pids: Iterable[int]) -> list[int]:
    """The processes and all their descendants, ancestors first."""
    found: dict[int, None] = {}
    waiting = list(pids)
    while waiting:
        pid = waiting.pop(0)
        if pid not in found:
            found[pid] = None
            waiting += children(pid)
    return list(found)


def session(pid: int) -> int:
    """The process's session id; -1 if it is gone."""
    fields = _stat(pid)
    return int(fields[3]) if fields else -1


def is_dying(pid: int) -> bool:
    """Whether the process is about to end: nothing tells whose it is, and its children will soon be its parent's."""
    fields = _stat(pid)
    return not fields or fields[0] in b"ZX" or _read(f"/proc/{pid}/statm").startswith(b"0 ")


def variable(pid: int, name: str) -> str | None:
    """A variable of the environment that the process was started with; "" if it has none of that name.

    None if no environment can be read: the process is not ours, is ending, or is executing a program at this moment.
    """
    key = name.encode() + b"="
    environment = _read(f"/proc/{pid}/environ")
    for entry in environment.split(b"\0"):
        if entry.startswith(key):
            return entry[len(key) :].decode(errors="replace")
    return "" if environment else None


def mark(values: dict[str, str]) -> None:
    """Write variables over the start of the environment that this process was born with, where `variable` reads them.

    For forks that do not exec: setenv changes a copy, so /proc would go on showing what the ancestor was started with,
    and a descendant that leaves the session could not be told from a stranger. os.environ must have been replaced as a
    whole before (then libc no longer points there). Does nothing where the block is too short.
    """
    text = b"".join(f"{name}={value}".encode() + b"\0" for name, value in values.items())
    start, end = _environment_block()
    if start and end - start > len(text):
        ctypes.memmove(start, text, len(text))


@cache
def _environment_block() -> tuple[int, int]:
    """Where this process was given its environment; forks have it at the same place."""
    fields = _stat(os.getpid())
    return int(fields[47]), int(fields[48])  # env_start, env_end: fields 50 and 51 of proc(5)


def leftovers(prefix: str, name: str = TASK) -> list[int]:
    """Living processes on this machine whose marker is `prefix` or starts with it and a colon.

    "pool" means all tasks of a pool, "pool:3" those of rank 3, "pool:3:17" task 17. This process is never among them.
    """
    key = prefix.rstrip(":")
    found = []
    for pid in _numbered():
        value = variable(pid, name)
        if value and (value == key or value.startswith(key + ":")) and pid != os.getpid():
            found.append(pid)
    return found


def send(pids: Iterable[int], sign: int) -> None:
    """Send a signal to processes; those that are gone are passed over."""
    for pid in pids:
        try:
            os.kill(pid, sign)
        except (ProcessLookupError, PermissionError):
            continue


def kill_leftovers(prefix: str, name: str = TASK, wait_s: float = 2.0) -> list[int]:
    """SIGKILL all `leftovers`, and what they start meanwhile, for at most `wait_s` seconds; those that live on."""
    until = time.monotonic() + wait_s
    clear = 0
    while clear < 2:  # once more when none is found: a process that was just executing a program shows no marker
        found = leftovers(prefix, name)
        send(found, signal.SIGKILL)
        clear = 0 if found else clear + 1
        if time.monotonic() > until:
            return found
        time.sleep(0.005)  # a killed process takes a moment to go; there is no event for one that is not our child
    return []


def _rollup(pid: int) -> tuple[int, int]:
    """Private and proportional (PSS) memory of a process in kB; resident memory for both if smaps is unreadable."""
    private = proportional = 0
    text = _read(f"/proc/{pid}/smaps_rollup")
    for line in text.splitlines():
        if line.startswith(b"Pss:"):
            proportional = int(line.split()[1])
        elif line.startswith((b"Private_Clean:", b"Private_Dirty:")):
            private += int(line.split()[1])
    if not text and (pages := _read(f"/proc/{pid}/statm").split()):
        private = proportional = int(pages[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    return private, proportional


def memory_mb(pids: Iterable[int], fork_of: int = 0) -> float:
    """Memory in MB (10^6 bytes) that the processes use together; a page that several of them share counts once.

    fork_of is the process that they were forked from (0: none). What they share with it is not theirs: its own share
    of those pages is about what each fork is charged for them, and is taken off.
    """
    base = 0
    if fork_of:
        private, proportional = _rollup(fork_of)
        base = proportional - private
    usage = (_rollup(pid) for pid in pids)
    return sum(max(private, proportional - base) for private, proportional in usage) * 1024 / 1e6


@cache
def _memory_counters() -> tuple[str, ...]:
    """Files with a line `oom_kill N`: this process's memory control group (version 2 or 1) and the whole machine."""
    files = ["/proc/vmstat"]
    for line in _read("/proc/self/cgroup").decode().splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            files.append(f"/sys/fs/cgroup{path}/memory.events")
        elif "memory" in controllers.split(","):
            files.append(f"/sys/fs/cgroup/memory{path}/memory.oom_control")
    return tuple(file for file in files if b"oom_kill " in _read(file))


def memory_kills() -> int:
    """A count that rises whenever the kernel kills a process for want of memory, here or (in a container) beside us."""
    lines = (line.split() for file in _memory_counters() for line in _read(file).splitlines())
    return sum(int(fields[1]) for fields in lines if fields[0] == b"oom_kill")
