"""What a node has: cores, memory, accelerators; and which part of it is this agent's where several share a machine."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Which devices a process may see: CUDA, Intel Level Zero, AMD HIP.
MASKS = ("CUDA_VISIBLE_DEVICES", "ZE_AFFINITY_MASK", "HIP_VISIBLE_DEVICES")


@dataclass(frozen=True, slots=True)
class Node:
    """An agent's part of a machine. Device names are what a mask holds; memory in MB, 0 = unknown."""

    host: str
    cores: int
    devices: tuple[str, ...]
    mem_mb: int
    managed: bool = False  # the pool gives out devices of this machine, if perhaps none to this agent


class NodeError(ValueError):
    """A setting does not fit the node."""


def find_node(
    host: str, slots: int | None, devices: str, memory_mb: int | None, *, part: int = 0, parts: int = 1
) -> Node:
    """What agent `part` of `parts` on one machine has.

    Stated slots and memory are each agent's; devices, and what is found, are shared out.

    Raises:
        NodeError: the setting `devices` is neither 'auto', a number, nor a list.
    """
    cores = slots if slots is not None else max(1, share(len(os.sched_getaffinity(0)), part, parts))
    names = find_devices(devices)
    memory = memory_mb if memory_mb is not None else memory_of_node() // parts
    return Node(host, cores, names[part::parts], memory, bool(names))


def share(total: int, part: int, parts: int) -> int:
    """An even share of `total`, the first parts one more."""
    return total // parts + (part < total % parts)


def find_devices(
    setting: str, environment: Mapping[str, str] = os.environ, dev: Path = Path("/dev")
) -> tuple[str, ...]:
    """Names of the accelerators: those of a mask that is set already, else the NVIDIA devices of the machine, else
    none.

    Raises:
        NodeError: the setting is not understood.
    """
    setting = setting.strip()
    if setting == "auto":
        for mask in MASKS:
            if environment.get(mask, "").strip():
                return tuple(name.strip() for name in environment[mask].split(","))
        found = sorted(int(path.name[6:]) for path in dev.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name))
        return tuple(str(index) for index in range(len(found)))
    if re.fullmatch(r"\d+", setting):
        return tuple(str(index) for index in range(int(setting)))
    if re.fullmatch(r"[\w.:-]+(\s*,\s*[\w.:-]+)*", setting):
        return tuple(name.strip() for name in setting.split(","))
    raise NodeError(f"devices is {setting!r}; it must be 'auto', a number, or a list such as '0,2'")


def memory_of_node() -> int:
    """Memory in MB that this process may use: the least of the machine's and its cgroups'; 0 if neither is known."""
    limits = []
    for line in read("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            limits.append(int(line.split()[1]) // 1024)
    group = next((line.split("::")[1] for line in read("/proc/self/cgroup").splitlines() if line.startswith("0::")), "")
    for path in [Path("/sys/fs/cgroup") / group.lstrip("/"), *(Path("/sys/fs/cgroup") / group.lstrip("/")).parents]:
        text = read(path / "memory.max").strip()
        if text.isdigit():
            limits.append(int(text) // 2**20)
    return min(limits, default=0)


def read(path: str | Path) -> str:
    """A small file of the system, empty where it cannot be read."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def masks(node: Node, used: Sequence[int]) -> dict[str, str]:
    """Variables that show a task its devices only; nothing is set on a node whose devices the pool does not manage."""
    if not node.managed:
        return {}
    shown = ",".join(node.devices[index] for index in used)
    # An empty mask hides all devices from CUDA and HIP; Level Zero takes an index that no machine has.
    return {
        mask: shown or ("-1" if mask == "CUDA_VISIBLE_DEVICES" else "99" if mask == "ZE_AFFINITY_MASK" else "")
        for mask in MASKS
    }
