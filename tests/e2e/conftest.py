"""A copy of the project with a simulated world, run once; every test gets its own copy of the finished run."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from project import CONFIG, Project, copy_project


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Project:
    """A project whose experiment has run; not to be changed. Made once, for all processes that run tests."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        project, log = Project(folder / "project"), folder / "project" / "first.log"
        if not log.exists():
            shutil.rmtree(project.folder, ignore_errors=True)
            make(project.folder, log)
    return project


def make(folder: Path, log: Path) -> None:
    """Run the experiment."""
    project = copy_project(folder)
    (folder / "toy.yaml").write_text(yaml.safe_dump(CONFIG))
    subprocess.run(
        [sys.executable, "-m", "hedflow.cli", "simulate", "world", "--cells", "40", "--drugs", "16"],
        cwd=folder,
        env=project.environment,
        check=True,
    )
    no_mpi = folder / "src" / "mpi4py"  # a laptop has none
    no_mpi.mkdir()
    (no_mpi / "__init__.py").write_text("raise ImportError('there is no MPI here')\n")
    done = project.snakemake()
    assert done.returncode == 0, done.stdout
    shutil.rmtree(no_mpi)
    log.write_text(done.stdout)


@pytest.fixture
def project(finished, tmp_path) -> Project:
    """A copy of the finished project, times of its files kept, to be changed and run again."""
    shutil.copytree(finished.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")
