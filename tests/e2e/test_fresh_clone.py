"""`snakemake --profile SITE -n` in a fresh clone, with nothing filled in and on no such machine."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from project import REPO, SITES, Project, copy_project, counts


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Project:
    """The project as it is cloned, with the toy configuration and its simulated world."""
    project = copy_project(tmp_path_factory.mktemp("fresh") / "project")
    shutil.copy(REPO / "config/toy.yaml", project.folder / "toy.yaml")
    simulate = [sys.executable, "-m", "hedflow.cli", "simulate", "results-toy/world", "--cells", "40", "--drugs", "16"]
    subprocess.run(simulate, cwd=project.folder, env=project.environment, check=True)
    return project


@pytest.mark.parametrize("site", SITES)
def test_a_dry_run_of_every_profile_needs_nothing_to_be_filled_in(fresh, site):
    done = fresh.snakemake("--profile", site, "-n")
    assert done.returncode == 0, done.stdout
    assert f"Using profiles {site} and workflow specific profile profiles/default" in done.stdout
    assert {"integrate", "build_bundle", "plan", "all"} <= counts(done.stdout).keys(), done.stdout
    assert not list(fresh.folder.glob("results-toy/*/plan.parquet"))


def test_what_is_missing_is_said_before_anything_runs(fresh):
    done = fresh.snakemake("--profile", "aurora")
    assert done.returncode != 0
    assert "worksteal: profiles/aurora/config.yaml has to be filled in" in done.stdout
    assert "Traceback" not in done.stdout
    assert not (fresh.folder / "results-toy/raw").exists()
