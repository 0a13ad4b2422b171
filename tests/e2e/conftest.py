"""A copy of the project with a simulated world, run once; every test gets its own copy of the finished run."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
import yaml
from project import CONFIG, Project, copy_project


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Project:
    """A project whose experiment has run; not to be changed."""
    project = copy_project(tmp_path_factory.mktemp("finished") / "project")
    folder = project.folder
    (folder / "toy.yaml").write_text(yaml.safe_dump(CONFIG))
    subprocess.run(
        [sys.executable, "-m", "hedflow.cli", "simulate", "world", "--cells", "40", "--drugs", "16"],
        cwd=folder,
        env=project.environment,
        check=True,
    )
    done = project.snakemake()
    assert done.returncode == 0, done.stdout
    (folder / "first.log").write_text(done.stdout)
    return project


@pytest.fixture
def project(finished, tmp_path) -> Project:
    """A copy of the finished project, times of its files kept, to be changed and run again."""
    shutil.copytree(finished.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")
