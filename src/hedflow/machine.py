"""The machine this process is on: what decides how fast runs go and how many of them fit at once."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

# Variables that hide devices from a process: under another mask it may train on another device.
MASKS = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")


@dataclass(frozen=True)
class Machine:
    """`cores`, `memory_mb` (0 = unknown) and `devices` (GPUs and the like; 0 = none, or unknown) are what this process
    may use; `mask` is of the devices it may see."""

    host: str
    cpu: str
    cores: int
    memory_mb: int
    mask: str = ""
    devices: int = 0


def this_machine(cores: int | None = None) -> Machine:
    """What this process may use here; of the cores at most `cores`."""
    mask = ";".join(f"{name}={os.environ[name]}" for name in MASKS if name in os.environ)
    has = len(os.sched_getaffinity(0))
    return Machine(os.uname().nodename, _cpu(), max(1, min(has, cores or has)), _memory_mb(), mask, _devices())


def _devices() -> int:
    """How many devices a process may see: those of its mask, else those that the system's drivers list."""
    for name in MASKS:
        if name in os.environ:
            return len([one for one in os.environ[name].split(",") if one.strip() not in ("", "-1", "NoDevFiles")])
    nvidia = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    return nvidia or len(list(Path("/dev/dri").glob("renderD*")))


def _cpu() -> str:
    """The processor's name, as the system gives it."""
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_mb() -> int:
    """The least of the machine's memory and its control groups' limits, MB; 0 if neither is known."""
    limits = [
        int(line.split()[1]) // 1024
        for line in _read(Path("/proc/meminfo")).splitlines()
        if line.startswith("MemTotal:")
    ]
    groups = _read(Path("/proc/self/cgroup")).splitlines()
    group = next((line.split("::", 1)[1] for line in groups if line.startswith("0::")), "")
    folder = Path("/sys/fs/cgroup") / group.lstrip("/")
    texts = [_read(path / "memory.max").strip() for path in (folder, *folder.parents)]
    return min(limits + [int(text) // 2**20 for text in texts if text.isdigit()], default=0)


def _read(path: Path) -> str:
    """A small file of the system; empty where it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
