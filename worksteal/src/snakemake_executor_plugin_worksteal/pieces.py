"""A job that is done in pieces: one that ends with status 75 has saved its state, and is run again to go on from it."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from .tasks import LATER, Order, Result, Task


@dataclass(slots=True)
class Pieces:
    """What a job has been through in this run.

    number counts the pieces after which it was to go on, fruitless those of the last in a row that brought no progress.
    seconds is what all took together.
    """

    number: int = 0
    fruitless: int = 0
    seconds: float = 0.0

    def add(self, result: Result) -> None:
        """A piece has ended. One that the pool told to end need not have made progress."""
        self.seconds += max(0.0, result.ended - result.started)
        if result.later:
            self.number += 1
            self.fruitless = 0 if result.progress else self.fruitless + (not result.told)

    def why_no_more(self, resume: str, reason: str) -> str:
        """Why the job is not run again. reason: why its last piece was ended, if it was."""
        times = "once" if self.fruitless == 1 else f"{self.fruitless} times in a row"
        seen = (
            f"nothing has changed in {resume}"
            if resume
            else "none that could be seen, for its rule does not say where it saves its state (resource resume)"
        )
        last = f"; the last time it {reason}" if reason else ""
        return f"ended {times} with status {LATER}, to go on later, without progress: {seen}{last}"


def next_piece(task: Task, number: int, pieces: int, logs: Collection[str]) -> Task:
    """The task that goes on from where this one stopped; the files `logs` of the job are kept, old output is not."""
    order: Order = task.payload
    log = re.sub(r"(\.\d+)?\.log$", f".{pieces + 1}.log", order.log)
    remove = tuple(path for path in order.remove if path not in logs)
    return replace(task, id=number, pieces=pieces, payload=replace(order, log=log, remove=remove))
