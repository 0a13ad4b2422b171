"""What `worksteal doctor` starts on the nodes, in place of agents, and what these processes find there.

    python -m snakemake_executor_plugin_worksteal.probe SESSION_FOLDER [--mpi]

Each process writes `started-HOST-PID` before it starts MPI, and what it has found to `report-HOST-PID.json` at its end.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .channel import ChannelError, connect
from .node import find_node, masks
from .peers import fill_in
from .session import Session, SessionError, read_session, task_environment
from .stages import AUTO, NONE, file_system, own_disk
from .transport import Alone, Mpi, Transport

STARTED, REPORT, SEEN = "started", "report", "seen"
# What is written to the node's disk, and how long another node's file may take to appear.
DISK_MB, APPEAR_S = 64, 20.0
MASK_S = 120.0
# A device that a process sees: how many there are, and which the first one is.
_LOOK = """
import json, torch
kinds = [kind for kind in (torch.cuda, getattr(torch, "xpu", None)) if kind is not None and kind.is_available()]
number = kinds[0].device_count() if kinds else 0
first = str(getattr(kinds[0].get_device_properties(0), "uuid", "")) if number else ""
print(json.dumps([number, first]))
"""


@dataclass(slots=True)
class Report:
    """What one process of the launch has found; times in seconds, sizes in MB, "" for no problem."""

    host: str
    node: str  # the host, or what Slurm calls it
    rank: int
    size: int
    library: str  # of MPI
    cpus: int  # that this process may use
    cores: int  # that a pool's agent would have as slots
    machine: int  # hardware threads of the machine
    mem_mb: int
    devices: list[str]
    masks: str = ""  # what is wrong with them
    masks_tried: bool = False
    disk: dict[str, Any] = field(default_factory=dict)
    appeared_s: float = 0.0
    unseen: list[int] = field(default_factory=list)  # ranks whose file has not appeared
    channel: str = ""


def main(arguments: list[str] | None = None) -> int:
    """Look at this node, as one rank of the launch."""
    parser = argparse.ArgumentParser(prog="worksteal probe", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mpi", action="store_true")
    given = parser.parse_args(arguments)
    name = f"{socket.gethostname()}-{os.getpid()}"
    try:
        session = read_session(given.folder)
        (given.folder / f"{STARTED}-{name}").touch()
    except (SessionError, OSError) as error:
        sys.exit(f"worksteal: {socket.gethostname()}: {error}")
    # Before MPI starts, since PyTorch is tried in processes of its own.
    tried = look_through_masks(session)
    transport: Transport = Mpi() if given.mpi else Alone()
    try:
        report = look(session, given.folder, transport)
    except Exception as error:  # the others would wait for this rank for ever
        transport.abort(f"{socket.gethostname()}: {error}")
    report.masks, report.masks_tried = tried
    temporary = given.folder / f"{REPORT}-{name}.tmp"
    temporary.write_text(json.dumps(asdict(report)))
    temporary.rename(temporary.with_suffix(".json"))
    transport.close()
    return 0


def look(session: Session, folder: Path, transport: Transport) -> Report:
    """Everything; the ranks do each step together."""
    host = socket.gethostname()
    hosts = transport.gather(host)
    mine = [rank for rank, other in enumerate(hosts) if other == host]
    part = mine.index(transport.rank)
    node = find_node(host, session.slots, session.devices, session.memory_mb, part=part, parts=len(mine))
    report = Report(
        host=host,
        node=os.environ.get("SLURMD_NODENAME") or host,
        rank=transport.rank,
        size=transport.size,
        library=mpi_library() if isinstance(transport, Mpi) else "",
        cpus=len(os.sched_getaffinity(0)),
        cores=node.cores,
        machine=os.cpu_count() or 1,
        mem_mb=node.mem_mb,
        devices=list(node.devices),
    )
    staging = own_disk() if session.stage_dir in (AUTO, NONE) else session.stage_dir
    report.disk = look_at_disk(fill_in(staging, transport.rank))
    report.appeared_s, report.unseen = look_at_shared(folder, transport)
    if transport.rank == 0:
        report.channel = call_back(session)
    return report


def mpi_library() -> str:
    """First line of what the MPI that mpi4py has found says of itself."""
    from mpi4py import MPI

    return MPI.Get_library_version().strip("\0 \n").splitlines()[0].strip()


def look_at_disk(folder: Path) -> dict[str, Any]:
    """Free space (MB), speed of writing (MB/s), kind of file system; `error` where it cannot be written."""
    path = folder / f"worksteal-doctor-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free // 2**20
        block, size = os.urandom(2**20), min(DISK_MB, free // 2)
        begin = time.monotonic()
        with path.open("wb", buffering=0) as out:
            for _ in range(size):
                out.write(block)
            os.fsync(out.fileno())
        seconds = time.monotonic() - begin
    except OSError as error:
        return {"folder": str(folder), "error": error.strerror or str(error)}
    finally:
        with suppress(OSError):
            path.unlink()
    return {"folder": str(folder), "free_mb": free, "mb_s": size / max(seconds, 1e-6), "kind": file_system(folder)}


def look_through_masks(session: Session) -> tuple[str, bool]:
    """Whether a task that was given one device sees that one and no other: what is wrong, and whether it was tried."""
    node = find_node(socket.gethostname(), session.slots, session.devices, session.memory_mb)
    environment = task_environment(os.environ, session.environment, same_machine=session.host == node.host)
    if not node.devices:
        return "", True
    if importlib.util.find_spec("torch") is None:
        return "", False
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _LOOK],
            env={**environment, **masks(node, (index,))},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(len(node.devices))
    ]
    firsts: dict[str, str] = {}
    try:
        for name, process in zip(node.devices, started, strict=True):
            output = errors = ""
            try:
                output, errors = process.communicate(timeout=MASK_S)
                number, first = json.loads(output.splitlines()[-1])
            except subprocess.TimeoutExpired:
                return f"PyTorch with only device {name} in sight gave no answer within {MASK_S:g} s", True
            except (ValueError, IndexError) as error:
                said = error if output else tail_of(errors)
                return f"PyTorch with only device {name} in sight failed: {said}", True
            if number != 1:
                return f"with only device {name} in sight, PyTorch sees {number}", True
            if first and firsts.setdefault(first, name) != name:
                return f"devices {firsts[first]} and {name} are the same one", True
    finally:
        for process in started:
            process.kill()
            process.wait()
    return "", True


def tail_of(text: str) -> str:
    """The last line that says something."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "it printed nothing")


def look_at_shared(folder: Path, transport: Transport) -> tuple[float, list[int]]:
    """How long the slowest file of another rank took to appear, and which ranks' files have not."""
    (folder / f"{SEEN}-{transport.rank}").touch()
    transport.gather(None)
    begin = time.monotonic()
    missing = list(range(transport.size))
    while True:
        missing = [rank for rank in missing if not (folder / f"{SEEN}-{rank}").exists()]
        passed = time.monotonic() - begin
        if not missing or passed > APPEAR_S:
            return passed, missing
        time.sleep(0.05)


def call_back(session: Session) -> str:
    """Meet whoever listens, as an agent does; what went wrong."""
    try:
        channel = connect(session.address, bytes.fromhex(session.secret), 10.0)
        channel.send(("hello", session.epoch, socket.gethostname()))
        channel.finish(5.0)
    except (ChannelError, TimeoutError) as error:
        return str(error)
    return ""


if __name__ == "__main__":
    sys.exit(main())
