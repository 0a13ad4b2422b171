"""Which task a pool gets next, and what the words of batch systems mean."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import pytest
from snakemake_executor_plugin_worksteal.batch import batch_system
from snakemake_executor_plugin_worksteal.member import Member, Unassigned
from snakemake_executor_plugin_worksteal.tasks import Task


def member() -> Member:
    """A node of four cores and two devices."""
    made = Member(1, 0, Path(), "PBS", Future())
    made.nodes = [{"cores": 4, "devices": ["0", "1"]}]
    return made


def test_tasks_without_devices_pass_those_that_wait_for_one():
    waiting = Unassigned()
    waiting.add(Task(id=n, devices=1) for n in range(10))
    waiting.add(Task(id=n) for n in range(10, 20))
    pool = member()
    while (task := waiting.best(60)) and pool.takes(task, alone=False):
        waiting.pop(task)
        pool.give([task])
    assert task is not None
    assert task.devices
    without = waiting.best(60, devices=False)
    assert without is not None
    assert without.id == 10
    assert pool.takes(without, alone=False)
    waiting.pop(without)
    assert len(waiting) == 20 - len(pool.tasks) - 1


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("PENDING", "waits"),
        ("RUNNING", "runs"),
        ("COMPLETING", "ends"),
        ("CANCELLED by 1000", "ended"),
        ("TIMEOUT", "ended"),
        ("EXPEDITING", "unknown"),
    ],
)
def test_words_of_slurm(word: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A word of a newer Slurm is no end."""
    for name in ("sbatch", "scancel", "squeue"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '7|{word}|None'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert batch_system("slurm", tmp_path / "work").look(["7"])["7"].state == state
