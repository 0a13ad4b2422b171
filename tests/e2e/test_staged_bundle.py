"""Training reads the copy of the bundle that the pool has put on a node's own disk."""

from __future__ import annotations

import shutil

from project import AWAY, predictions, staging


def test_runs_are_trained_on_the_staged_copy_when_the_bundle_is_gone(project):
    before = predictions(project.folder)
    shutil.rmtree(project.folder / "results/toy/runs")
    (project.folder / "away.smk").write_text(AWAY)
    disk = project.folder / "disk"
    pool = ("--executor", "worksteal", "--cores", "1", "--worksteal-stage-dir", str(disk))
    done = project.snakemake("-s", "away.smk", *pool, "away.txt", *before)
    assert done.returncode == 0, done.stdout
    assert not (project.folder / "results/bundle").exists()
    assert predictions(project.folder) == before
    size = sum(path.stat().st_size for path in (project.folder / "results/gone").iterdir())
    found = staging(project.folder)
    assert (found["read_bytes"], found["written_bytes"]) == (size, size)
    assert not list(disk.iterdir())


def test_without_a_copy_training_in_a_missing_bundle_fails(project):
    """What the test above rests on."""
    runs = predictions(project.folder)
    shutil.rmtree(project.folder / "results/toy/runs")
    (project.folder / "away.smk").write_text(AWAY)
    done = project.snakemake("-s", "away.smk", "--executor", "worksteal", "--cores", "1", "away.txt", *runs)
    assert done.returncode != 0
    assert "expected a bundle (manifest.json)" in done.stdout
