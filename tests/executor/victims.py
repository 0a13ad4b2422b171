"""Parts of a running pool, told apart by parentage and by the markers in their environments; and how to catch one."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
from snakemake_executor_plugin_worksteal import processes
from snakemake_executor_plugin_worksteal.launch import AGENT

KINDS = ("shell", "script", "runner", "guard", "agent", "proxy", "launcher", "snakemake")


def parts(snakemake: int) -> dict[str, list[int]]:
    """Process ids of the parts of a pool below a Snakemake process, by kind.

    shell are all processes of a command, script the forks that have run a script, or do. Forks that have run none yet
    are of no kind. proxy is what mpiexec starts the agents with; without mpiexec there is neither.
    """
    found: dict[str, list[int]] = {kind: [] for kind in KINDS}
    found["snakemake"].append(snakemake)
    for child in processes.children(snakemake):
        if is_agent(child):
            found["agent"].append(child)
        elif AGENT in words(child):
            found["launcher"].append(child)
    for launcher in found["launcher"]:
        found["proxy"] += processes.children(launcher)
    for proxy in found["proxy"]:
        found["agent"] += filter(is_agent, processes.children(proxy))
    for agent in found["agent"]:
        found["runner"] += filter(is_agent, processes.children(agent))  # a fork has its parent's command line
    for runner in found["runner"]:
        for child in processes.children(runner):
            marker = processes.variable(child, processes.TASK)
            if marker:
                found["script"] += [child] if is_agent(child) else []
                found["shell"] += [] if is_agent(child) else processes.with_descendants([child])
            elif marker == "" and has_no_socket(child):
                found["guard"].append(child)
    return found


def words(pid: int) -> list[str]:
    """The command line; empty if the process is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    return []


def is_agent(pid: int) -> bool:
    """Whether the process is an agent, or a fork of one."""
    return words(pid)[1:3] == ["-m", AGENT]


def has_no_socket(pid: int) -> bool:
    """Whether it hears of nothing, as a guard, which waits at a pipe; a fork waits at a socket."""
    try:
        files = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd") if int(name) > 2]
    except OSError:
        return False
    return not any(file.startswith("socket:") for file in files)


def catch(pid: int) -> bool:
    """Stop a process, so that it lives and does nothing more until it is killed or let go; False if it has ended."""
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        while (status := psutil.Process(pid).status()) != psutil.STATUS_ZOMBIE:
            if status == psutil.STATUS_STOPPED:
                return True
            time.sleep(0.001)
    return False


def has_ended(pid: int) -> bool:
    """Whether the process is gone, or would be if its parent asked for it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def let_go(pid: int) -> None:
    """Let a process that was caught go on."""
    processes.send([pid], signal.SIGCONT)
