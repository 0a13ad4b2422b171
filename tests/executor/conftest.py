"""Workflows in folders of their own, run by real Snakemake processes, on one process and on four MPI ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from left import processes_of
from slurm import Slurm, cluster

# One process with two slots, or four agents with one slot each: the machine has two cores, the jobs of these tests
# mostly wait.
POOLS = {
    "one": ("--worksteal-launcher", "local", "--worksteal-slots", "2"),
    "mpi": ("--worksteal-launcher", "mpiexec", "--worksteal-nodes", "4", "--worksteal-slots", "1"),
}


@dataclass
class Workflow:
    """A folder with a Snakefile, and how it is run."""

    folder: Path
    pool: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def write(self, name: str, text: str) -> Path:
        """A file of the workflow; common indentation is taken off."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def command(self, *arguments: str) -> list[str]:
        """Snakemake with this executor."""
        base = [sys.executable, "-m", "snakemake", "--executor", "worksteal", "--scheduler", "worksteal", *self.pool]
        jobs = [] if {"--jobs", "-j"} & set(arguments) else ["--jobs", "1000"]
        return [*base, *jobs, "--max-jobs-per-timespan", "100000/1s", "--latency-wait", "2", *arguments]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Snakemake, both streams in one pipe, in a process group of its own."""
        process = subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, *arguments: str, fails: bool = False) -> str:
        """Run Snakemake to its end and check that it succeeded, or failed; its output."""
        process = self.start(*arguments)
        try:
            output, _ = process.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"Snakemake did not end:\n{process.communicate()[0]}")
        assert (process.returncode != 0) == fails, output
        return output

    def lines(self, name: str) -> list[str]:
        """Lines of a file of the workflow; none where it does not exist."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def left(self) -> list[psutil.Process]:
        """Processes that work in this folder or carry its pool's marker."""
        return processes_of(self.folder)

    def assert_nothing_left(self, patience: float = 20.0) -> None:
        """Wait until no process of the workflow is left."""
        wait_for(lambda: not self.left(), patience, lambda: f"still running: {self.left()}")


def wait_for(
    holds: Callable[[], bool], patience: float = 30.0, why: Callable[[], str] = lambda: "it never came to be"
) -> None:
    """Wait until something holds; fail if it does not within `patience` seconds."""
    deadline = time.monotonic() + patience
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(why())
        time.sleep(0.02)


@contextmanager
def workflow_in(folder: Path, pool: str) -> Iterator[Workflow]:
    """A workflow; nothing that a failed test started outlives it."""
    made = Workflow(folder, POOLS[pool])
    try:
        yield made
    finally:
        for process in (*made.started, *made.left()):
            with suppress(psutil.Error, ProcessLookupError):
                process.kill()


@pytest.fixture(params=list(POOLS))
def workflow(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workflow]:
    """A workflow, for each kind of pool."""
    with workflow_in(tmp_path, request.param) as made:
        yield made


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Workflow]:
    """A workflow on one process."""
    with workflow_in(tmp_path, "one") as made:
        yield made


@pytest.fixture(scope="session")
def one_slurm() -> Iterator[Slurm]:
    """A Slurm of four nodes, for all tests that need one."""
    with cluster(4) as slurm:
        yield slurm


@pytest.fixture
def slurm(one_slurm: Slurm) -> Iterator[Slurm]:
    """The same, with no jobs and all nodes idle, before and after."""
    one_slurm.cancel_all()
    yield one_slurm
    one_slurm.cancel_all()
