"""The experiment by `--profile slurm`, from a login node to the report, on a real Slurm, though a node dies meanwhile;
and the same runs once more, trained on copies that two nodes have staged together.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

import yaml
from project import AWAY, CONFIG, copy_project, counts, predictions, staging
from slurm import cluster

from hedflow.figures.load import draw_load


def test_from_the_login_node_to_the_report(tmp_path, monkeypatch):
    """With nodes and walltime given on the command line; then nothing is left to do, nor in Slurm. A node that dies
    changes nothing of what is predicted.
    """
    project = copy_project(tmp_path / "project")
    (project.folder / "toy.yaml").write_text(yaml.safe_dump(CONFIG))
    simulate = [sys.executable, "-m", "hedflow.cli", "simulate", "world", "--cells", "40", "--drugs", "16"]
    subprocess.run(simulate, cwd=project.folder, env=project.environment, check=True)
    site = ("--profile", "slurm", "--worksteal-nodes", "2", "--worksteal-walltime", "15")
    with cluster(3) as slurm:
        monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
        command = project.command(*site)
        with subprocess.Popen(
            command,
            cwd=project.folder,
            env=project.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            slurm.wait_for(lambda: predictions(project.folder) or process.poll() is not None, "nothing is trained", 300)
            slurm.kill_node("n2")
            output, _ = process.communicate(timeout=400)
        assert process.returncode == 0, output
        assert "worksteal: pool 1 (Slurm job 1): 2 nodes" in output
        assert "handed out again" in output, output
        assert "pool 2 (Slurm job" in output, output
        assert (project.folder / "results/report.html").stat().st_size > 100_000
        draw_load([], tmp_path / "none.png")
        assert (project.folder / "results/report/load.png").read_bytes() != (tmp_path / "none.png").read_bytes()
        slurm.wait_for(lambda: not slurm.jobs(), "a batch job is left")
        again = project.snakemake("--profile", "slurm", "-n")
        assert again.returncode == 0, again.stdout
        assert counts(again.stdout) == {}

        before = predictions(project.folder)
        shutil.rmtree(project.folder / "results/toy/runs")
        (project.folder / "away.smk").write_text(AWAY)
        disks = tmp_path / "disks"
        stage = ("--worksteal-stage-dir", f"{disks}/{{rank}}")
        done = project.snakemake("-s", "away.smk", *site, *stage, "away.txt", *before)
        assert done.returncode == 0, done.stdout
        slurm.wait_for(lambda: not slurm.jobs(), "a batch job is left")
    assert not (project.folder / "results/bundle").exists()
    assert predictions(project.folder) == before
    found = staging(project.folder)
    size = sum(path.stat().st_size for path in (project.folder / "results/gone").iterdir())
    assert found["read_bytes"] == size
    assert found["written_bytes"] == 2 * size
    assert [list(disk.iterdir()) for disk in disks.iterdir()] == [[], []]
