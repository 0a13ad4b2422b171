"""A real pool for `worksteal doctor`: one task on every node at the same time, each with a device of its own."""

from __future__ import annotations

import json
import shlex
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from .channel import Listener
from .launch import Launch
from .node import find_devices
from .pool import Pool
from .session import Session, remove_socket
from .tasks import Order, Result, Task

# Each task waits until all others run too, so two on one node would be noticed; it says what it sees.
_TASK = """
import json, os, socket, sys, time
from pathlib import Path
folder, number, together = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
seen = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")}
(folder / f"{number}.tmp").write_text(json.dumps({"host": socket.gethostname(), "masks": seen}))
(folder / f"{number}.tmp").rename(folder / f"task-{number}.json")
deadline = time.monotonic() + 60
while len(list(folder.glob("task-*.json"))) < together:
    if time.monotonic() > deadline:
        sys.exit(f"only {len(list(folder.glob('task-*.json')))} of {together} tasks ran at the same time")
    time.sleep(0.05)
"""


class Trial:
    """The user of the pool: keeps what came of the tasks, and wakes who waits for them."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.results: list[Result] = []
        self.problem = ""
        self.over = threading.Event()

    def started(self, nodes: list[dict[str, Any]], pool: str = "") -> None:
        """The pool is up."""

    def finished(self, task: Task, result: Result) -> None:
        """A task has ended."""
        self.results.append(result)
        if not result.ok:
            self.problem = result.reason or result.tail.strip() or f"it ended with status {result.status}"
        if len(self.results) == self.number or self.problem:
            self.over.set()

    def impossible(self, task: Task, why: str) -> None:
        """A task fits no node."""
        self.problem = why
        self.over.set()

    def broken(self, error: Exception) -> None:
        """The pool cannot go on."""
        self.problem = str(error)
        self.over.set()

    def again(self, tasks: list[Task]) -> list[int]:
        """The pool died and is started again: all tasks may be, too."""
        return [task.id for task in tasks]

    def withdrawn(self, tasks: list[Task], **_: Any) -> None:
        """Nothing is taken back but at the end of the allocation."""

    def time_up(self, until: float) -> None:
        """The allocation is about to end."""
        self.problem = "the allocation ends before it was done; get a longer one"
        self.over.set()

    def no_more(self) -> None:
        """There is one pool only."""

    def event(self, name: str, rank: int, when: float, details: dict[str, Any]) -> None:
        """Nothing is traced."""

    def running(self, running: int) -> None:
        """Nobody counts."""

    def tick(self) -> None:
        """A moment has passed."""

    def log(self, text: str, *, warning: bool = False) -> None:
        """What the pool says matters only if it fails, and then it is the problem."""


def run_trial(launch: Launch, session: Session, folder: Path, devices: int, timeout: float) -> str:
    """Run a task on each node; what went wrong ("" for nothing).

    Args:
        folder: of its own, seen by all nodes.
        devices: 1 if every node has one to give, else 0.
    """
    trial = Trial(launch.nodes)
    listener = Listener(bytes.fromhex(session.secret), session.address, lambda text: None)
    # One slot an agent, so that no agent can run two.
    session = replace(session, slots=1, address=reachable(listener.address, session.host), preload=[], stage_dir="none")
    pool = Pool(launch, session, folder, listener, trial, restarts=0)
    command = " ".join(map(shlex.quote, [sys.executable, "-c", _TASK, str(folder)]))
    pool.start()
    pool.submit(
        Task(
            id=number,
            name=f"doctor {number}",
            devices=devices,
            payload=Order(command=f"{command} {number} {launch.nodes}"),
        )
        for number in range(launch.nodes)
    )
    begin = time.monotonic()
    if not trial.over.wait(timeout):
        trial.problem = f"after {time.monotonic() - begin:.0f} s {len(trial.results)} of {launch.nodes} tasks had ended"
    pool.stop(kill=bool(trial.problem))
    remove_socket(session.address)
    return trial.problem or who_ran_what(trial.results, folder, session.devices if devices else "0")


def reachable(address: str, host: str) -> str:
    """The address of a listener on all interfaces, by this host's name."""
    return address.replace("tcp:0.0.0.0:", f"tcp:{host}:")


def who_ran_what(results: list[Result], folder: Path, devices: str) -> str:
    """Whether each agent ran one task, and each task saw one device that no other of its host saw."""
    ranks = [result.rank for result in results]
    if len(set(ranks)) != len(ranks):
        return f"the tasks ran at agents {sorted(ranks)}, not one at each"
    names = find_devices(devices)
    seen: Counter[tuple[str, str, str]] = Counter()
    for result in results if devices != "0" else ():
        told = json.loads((folder / f"task-{result.id}.json").read_text())
        for name, value in told["masks"].items():
            if not value or "," in value:
                return f"a task with one device on {told['host']} had {name}={value}"
            seen[told["host"], name, value] += 1
            if seen[told["host"], name, value] > max(1, names.count(value)):
                return f"two tasks on {told['host']} had {name}={value}"
    return ""
