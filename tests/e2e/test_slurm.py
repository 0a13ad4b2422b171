"""The experiment by `--profile slurm`, from a login node to the report, on a real Slurm, though a node dies meanwhile;
the same runs once more, trained on copies that two nodes have staged together; and a sweep for which the walltime is
too short, or that is cancelled.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path

import psutil
import pytest
import yaml
from project import AWAY, CONFIG, Project, copy_project, counts, predictions, staging
from slurm import Slurm, cluster

from hedflow.figures.load import draw_load

EPOCHS = 100  # some seconds, in which much can happen


def prolong(config: dict) -> None:
    """Have the runs of a configuration train for longer, and save their state after every epoch."""
    changes = {"epochs": EPOCHS, "patience": EPOCHS, "checkpoints": {"minutes": 0}}
    config["experiments"]["toy"]["training"].update(changes)


@contextmanager
def started(project: Project, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Snakemake that runs on; both streams in one pipe. A test that fails shows what it has said."""
    with subprocess.Popen(
        project.command(*arguments),
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            with suppress(ValueError, subprocess.TimeoutExpired):  # it is read already
                print(process.communicate(timeout=30)[0])
            raise


def saved(project: Project) -> set[str]:
    """Runs that have a checkpoint: it is removed when they are trained."""
    return {path.parent.name for path in project.folder.glob("results/toy/checkpoints/*/*.json")}


def trained_on(project: Project, slurm: Slurm, *nodes: str) -> dict[str, psutil.Process]:
    """Runs that have a checkpoint and are being trained on these nodes; each with its process, which has its log
    open.
    """
    logs, found = project.folder / "results/logs/toy/runs", {}
    for process in (each for node in nodes for each in slurm.processes(node)):
        with suppress(psutil.Error):
            found |= {Path(file.path).stem: process for file in process.open_files() if Path(file.path).parent == logs}
    return {run: process for run, process in found.items() if run in saved(project)}


def wait_until_trained_on(project: Project, slurm: Slurm, *nodes: str) -> dict[str, psutil.Process]:
    """The same, when there is one."""
    found: dict[str, psutil.Process] = {}
    slurm.wait_for(lambda: found.update(trained_on(project, slurm, *nodes)) or found, "nothing is trained", 300)
    return found


def resumed(project: Project) -> set[str]:
    """Runs that have gone on from a checkpoint, by their records."""
    records = [json.loads(path.read_text()) for path in project.folder.glob("results/toy/runs/*/run.json")]
    return {record["run"] for record in records if record["resumed"] and min(record["resumed"]) > 0}


def nothing_left(project: Project, slurm: Slurm) -> None:
    """No batch job, no process, no secret."""
    slurm.wait_for(lambda: not slurm.jobs(), "a batch job is left")
    slurm.wait_for(lambda: not project.processes(), f"a process is left: {project.processes()}")
    assert not list(project.folder.glob(".snakemake/worksteal/**/session.*"))


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[Slurm]:
    """A Slurm for all these tests."""
    with cluster(3) as slurm:
        yield slurm


@pytest.fixture
def slurm(three_nodes: Slurm, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """The same, with no jobs and all nodes idle, as the login node's Slurm."""
    three_nodes.cancel_all()
    monkeypatch.setenv("SLURM_CONF", three_nodes.environment["SLURM_CONF"])
    return three_nodes


@pytest.fixture(scope="module")
def undisturbed(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The finished project with its runs trained anew, for longer; without Slurm."""
    folder = tmp_path_factory.mktemp("undisturbed") / "project"
    shutil.copytree(finished.folder, folder, symlinks=True)
    project = Project(folder)
    project.configure(prolong)
    done = project.snakemake(*predictions(folder))
    assert done.returncode == 0, done.stdout
    assert not resumed(project)
    return project


@pytest.fixture
def sweep(undisturbed: Project, tmp_path: Path) -> Project:
    """A copy of it in which only the runs are still to be trained."""
    shutil.copytree(undisturbed.folder, tmp_path / "project", symlinks=True)
    for made in ("toy/runs", "toy/collected", "toy/tables"):
        shutil.rmtree(tmp_path / "project/results" / made, ignore_errors=True)
    return Project(tmp_path / "project")


def test_from_the_login_node_to_the_report(slurm: Slurm, tmp_path: Path):
    """With nodes and walltime given on the command line; then nothing is left to do, nor in Slurm. A node that dies
    changes nothing of what is predicted, and a run that it was training goes on from its checkpoint on another.
    """
    project = copy_project(tmp_path / "project")
    config = deepcopy(CONFIG)
    prolong(config)
    (project.folder / "toy.yaml").write_text(yaml.safe_dump(config))
    simulate = [sys.executable, "-m", "hedflow.cli", "simulate", "world", "--cells", "40", "--drugs", "16"]
    subprocess.run(simulate, cwd=project.folder, env=project.environment, check=True)
    # Two runs have room on a node: the four are trained on both.
    site = ("--profile", "slurm", "--worksteal-nodes", "2", "--worksteal-walltime", "15", "--worksteal-slots", "2")
    disks = tmp_path / "disks"
    stage = ("--worksteal-stage-dir", f"{disks}/{{rank}}")
    with started(project, *site, *stage) as process:
        lost = wait_until_trained_on(project, slurm, "n2")
        slurm.kill_node("n2")
        output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    assert "worksteal: pool 1 (Slurm job 1): 2 nodes" in output
    assert "handed out again" in output, output
    assert "pool 2 (Slurm job" in output, output
    assert lost.keys() <= resumed(project), output
    assert (project.folder / "results/report.html").stat().st_size > 100_000
    draw_load([], tmp_path / "none.png")
    assert (project.folder / "results/report/load.png").read_bytes() != (tmp_path / "none.png").read_bytes()
    size = sum(path.stat().st_size for path in (project.folder / "results/bundle").iterdir())
    found = staging(project.folder)
    assert found["read_bytes"] >= size
    assert found["written_bytes"] >= 2 * size
    nothing_left(project, slurm)
    again = project.snakemake("--profile", "slurm", "-n")
    assert again.returncode == 0, again.stdout
    assert counts(again.stdout) == {}

    before = predictions(project.folder)
    shutil.rmtree(project.folder / "results/toy/runs")
    shutil.rmtree(project.folder / ".snakemake/worksteal")
    (project.folder / "away.smk").write_text(AWAY)
    done = project.snakemake("-s", "away.smk", *site, *stage, "away.txt", *before)
    assert done.returncode == 0, done.stdout
    nothing_left(project, slurm)
    assert not (project.folder / "results/bundle").exists()
    assert not resumed(project)
    assert predictions(project.folder) == before
    found = staging(project.folder)
    assert found["read_bytes"] == size
    assert found["written_bytes"] == 2 * size
    assert [list(disk.iterdir()) for disk in disks.iterdir()] == [[], []]


def test_a_walltime_that_is_too_short_for_the_sweep(slurm: Slurm, undisturbed: Project, sweep: Project):
    """It ends while runs are trained, which are stopped until then, as if they took long: they save their state, and go
    on in the next batch job.
    """
    wanted = predictions(undisturbed.folder)
    short = ("--worksteal-nodes", "1", "--worksteal-walltime", "0:01:00", "--worksteal-margin", "40")
    with started(sweep, "--profile", "slurm", *short, "--worksteal-slots", "4", *wanted) as process:
        slow = wait_until_trained_on(sweep, slurm, *slurm.nodes)
        for each in slow.values():
            each.suspend()
        output = ""
        for line in process.stdout:
            output += line
            if "the time of pool 1 (Slurm job" in line:
                break
        for each in slow.values():
            each.resume()
        output += process.stdout.read()
        assert process.wait() == 0, output
    assert "the time of pool 1 (Slurm job" in output, output
    assert all(f"run={run} has saved its state" in output for run in slow), output
    assert "pool 2 (Slurm job" in output, output
    assert slow.keys() <= resumed(sweep), output
    assert predictions(sweep.folder) == wanted
    nothing_left(sweep, slurm)


def test_a_sweep_that_is_cancelled(slurm: Slurm, undisturbed: Project, sweep: Project):
    """Ctrl-C while runs are trained leaves nothing behind; the same command again goes on from their checkpoints."""
    wanted = predictions(undisturbed.folder)
    site = ("--profile", "slurm", "--worksteal-nodes", "1", "--worksteal-walltime", "15")
    with started(sweep, *site, *wanted) as process:
        wait_until_trained_on(sweep, slurm, *slurm.nodes)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    assert process.returncode != 0, output
    assert "Traceback" not in output, output
    nothing_left(sweep, slurm)
    left = saved(sweep)
    assert left, output
    done = sweep.snakemake(*site, *wanted)
    assert done.returncode == 0, done.stdout
    assert left <= resumed(sweep), done.stdout
    assert predictions(sweep.folder) == wanted
    nothing_left(sweep, slurm)
