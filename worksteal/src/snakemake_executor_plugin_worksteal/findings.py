"""What `worksteal doctor` makes of what it has found: each finding is a name, a state and a sentence."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .launch import OTHER_MPI, Launch, allocated_nodes
from .probe import Report
from .stages import SHARED

OK, WARNING, FAILED = "ok", "warning", "failed"
COMMANDS = {"slurm": ("sbatch", "squeue", "scancel"), "pbs": ("qsub", "qstat", "qdel")}
LEAST_MB = 1024  # of free space on the node's disk


@dataclass(frozen=True, slots=True)
class Finding:
    """A check and how it went; the sentence says what to do if it did not go well."""

    name: str
    state: str
    text: str


def software() -> Finding:
    """Versions of what takes part."""
    found = {}
    for package in ("snakemake", "snakemake-executor-plugin-worksteal", "mpi4py"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    text = f"Python {sys.version.split()[0]}, " + ", ".join(
        f"{name} {number or 'none'}" for name, number in found.items()
    )
    major = found["snakemake"].partition(".")[0]
    if not major:
        return Finding("software", FAILED, f"{text}; install Snakemake 9 beside this package: pip install snakemake")
    if int(major) != 9:
        return Finding("software", WARNING, f"{text}; worksteal is tried with Snakemake 9: pip install 'snakemake<10'")
    return Finding("software", OK, text)


def batch_system(submit: str, environment: Mapping[str, str] = os.environ) -> Finding:
    """The allocation, or the commands that ask for one."""
    if nodes := allocated_nodes(environment):
        number = environment.get("SLURM_JOB_ID") or environment.get("PBS_JOBID") or "of no number"
        return Finding("batch system", OK, f"inside allocation {number} of {nodes} node{'s' if nodes > 1 else ''}")
    if submit == "no":
        return Finding("batch system", OK, "none is asked: the pool runs on this machine")
    if submit not in COMMANDS:
        return Finding("batch system", FAILED, f"submit is {submit!r}; it must be {' or '.join(COMMANDS)}")
    missing = [name for name in COMMANDS[submit] if shutil.which(name) is None]
    if missing:
        text = (
            f"{' and '.join(missing)} not on PATH: log in where jobs are submitted, or load the batch system's module"
        )
        return Finding("batch system", FAILED, text)
    return Finding("batch system", OK, f"{', '.join(COMMANDS[submit])} are on PATH")


def mpi4py_library() -> Finding:
    """The MPI that mpi4py finds, asked in a process of its own since a wrong one may end it."""
    if importlib.util.find_spec("mpi4py") is None:
        return Finding("mpi4py", FAILED, "not installed: pip install 'snakemake-executor-plugin-worksteal[mpi]'")
    code = (
        "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; "
        "print(MPI.Get_library_version().strip(chr(0) + ' \\n').splitlines()[0])"
    )
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return Finding(
            "mpi4py", FAILED, "its MPI library does not answer within 60 s; load the module of the site's MPI"
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Finding("mpi4py", FAILED, f"finds no MPI ({last}); load the module of the site's MPI")
    return Finding("mpi4py", OK, f"uses {done.stdout.strip()}")


def from_reports(reports: Sequence[Report], launch: Launch, settings: Any) -> Iterator[Finding]:
    """All that the processes on the nodes have found, in the order in which one thing needs another."""
    sizes = sorted({report.size for report in reports})
    if len(reports) != launch.nodes or sizes != [launch.nodes]:
        worlds = ", ".join(map(str, sizes))
        text = f"{len(reports)} processes in worlds of {worlds}, expected {launch.nodes} in one: {OTHER_MPI}"
        yield Finding("MPI", FAILED, text)
        return
    yield Finding("MPI", OK, f"{launch.nodes} processes in one world" if not launch.is_local else "none is needed")
    yield hosts(reports, allocated_nodes())
    yield cores(reports, settings)
    yield devices(reports)
    yield masks(reports)
    yield disk(reports)
    yield shared(reports)
    yield channel(reports)


def hosts(reports: Sequence[Report], allocated: int) -> Finding:
    """One process a node."""
    number = Counter(report.node for report in reports)
    named = ", ".join(sorted(number)[:4]) + (f" and {len(number) - 4} more" if len(number) > 4 else "")
    if len(number) == len(reports):
        return Finding("nodes", OK, f"{len(number)}, one process on each: {named}")
    if allocated > 1:
        text = f"{len(reports)} processes on {named}: the launcher has to put one on each node"
        return Finding("nodes", FAILED, f"{text} (-ppn 1, --ntasks-per-node=1)")
    return Finding("nodes", OK, f"{len(reports)} processes share {named}, which is no allocation of several nodes")


def cores(reports: Sequence[Report], settings: Any) -> Finding:
    """Slots, and whether the launcher has bound the agent to a few of them."""
    least = min(reports, key=lambda report: report.cpus)
    text = f"{span([report.cores for report in reports])} slots for jobs on each node"
    wanted = settings.slots or 0
    if wanted > least.cpus or (least.cpus < least.machine // 2 and not settings.slots):
        text += (
            f", but on {least.host} the launcher lets them use {least.cpus} of {least.machine} hardware threads: it "
            "must not bind the agent (mpiexec --cpu-bind none, -bind-to none; srun --cpu-bind=none --cpus-per-task=...)"
        )
        return Finding("cores", WARNING, text)
    return Finding("cores", OK, text)


def devices(reports: Sequence[Report]) -> Finding:
    """Accelerators that jobs can ask for."""
    numbers = {len(report.devices) for report in reports}
    if numbers == {0}:
        return Finding("devices", OK, "none found; if the nodes have some, state their number (worksteal-devices)")
    most = max(reports, key=lambda report: len(report.devices)).devices
    text = f"{span([len(report.devices) for report in reports])} on each node: {', '.join(most)}"
    if 0 in numbers:
        bare = next(report.host for report in reports if not report.devices)
        return Finding("devices", WARNING, f"{text}, but none on {bare}: ask the batch system for nodes of one kind")
    return Finding("devices", OK, text)


def masks(reports: Sequence[Report]) -> Finding:
    """Each job sees its own device."""
    if not any(report.devices for report in reports):
        return Finding("masks", OK, "nothing to mask")
    for report in reports:
        if report.masks:
            text = f"{report.host}: {report.masks}; mend worksteal-devices, or load the module of the devices' driver"
            return Finding("masks", FAILED, text)
    if not all(report.masks_tried for report in reports):
        return Finding("masks", WARNING, "not tried, since this Python has no PyTorch to ask; install it and try again")
    return Finding("masks", OK, "a job with one device sees that one alone")


def disk(reports: Sequence[Report]) -> Finding:
    """The node's own disk."""
    for report in reports:
        if "error" in report.disk:
            text = f"{report.disk['folder']} on {report.host} cannot be written ({report.disk['error']})"
            return Finding("local disk", FAILED, f"{text}; name another folder (--stage-dir, or TMPDIR)")
    least = min((report.disk for report in reports), key=lambda found: found["free_mb"])
    slowest = min(report.disk["mb_s"] for report in reports)
    text = (
        f"{least['folder']} ({least['kind']}): {least['free_mb'] / 1024:.0f} GB free, writes {slowest:.0f} MB/s or more"
    )
    if least["kind"] in SHARED:
        return Finding("local disk", WARNING, f"{text}; this is no disk of the node: name one (--stage-dir)")
    if least["free_mb"] < LEAST_MB:
        return Finding("local disk", WARNING, f"{text}; that is little: clear it, or name another folder (--stage-dir)")
    return Finding("local disk", OK, text)


def shared(reports: Sequence[Report]) -> Finding:
    """Files of one node at the others."""
    for report in reports:
        if report.unseen:
            text = f"{report.host} does not see the files of {len(report.unseen)} other processes"
            return Finding(
                "shared files", FAILED, f"{text}: work in a folder that all nodes share, or set worksteal-folder"
            )
    slowest = max(report.appeared_s for report in reports)
    text = f"files of every node are seen by all after {slowest:.1f} s"
    if slowest > 5:
        return Finding("shared files", WARNING, f"{text}; set latency-wait to more than that")
    return Finding("shared files", OK, text)


def channel(reports: Sequence[Report]) -> Finding:
    """From the first node back to here."""
    first = next(report for report in reports if report.rank == 0)
    if first.channel:
        text = f"{first.host}: {first.channel} Give an address of this host that the nodes reach (worksteal-address)"
        return Finding("channel", FAILED, text)
    return Finding("channel", OK, f"{first.host} reaches this host, and both know the secret")


def span(numbers: Sequence[int]) -> str:
    """`4`, or `2 to 4`."""
    return str(min(numbers)) if min(numbers) == max(numbers) else f"{min(numbers)} to {max(numbers)}"
