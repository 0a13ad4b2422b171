"""A project folder and how its user runs it: real Snakemake processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml
from left import processes_of

REPO = Path(__file__).parents[2]
PARTS = ("workflow", "rules", "scripts", "envs", "profiles", "resources", "src", "config.yaml")
# At the root, so that `snakemake --profile SITE` finds it: a link into profiles/.
SITES = ("aurora", "polaris", "slurm", "local", "ci")
# The bundle is staged with the first jobs, and the one that goes first takes it away.
AWAY = """
include: "workflow/Snakefile"


rule away:
    output:
        "away.txt",
    priority: 1000
    resources:
        stage="results/bundle",
    shell:
        "mv results/bundle results/gone && touch {output}"
"""
CONFIG = {
    "results": "results",
    "data": {"mirror": "world", "registry": "world/datasets.csv"},
    "models": {
        "tiny": {"width": 16, "tower_depth": 1, "head_depth": 1, "drug_features": ["fingerprints"], "dropout": 0}
    },
    "experiments": {
        "losses": None,
        "toy": {
            "split": {"kind": "drug_blind", "folds": 2},
            "models": ["tiny"],
            "losses": [{"name": "mse"}, {"name": "mae_poly", "alpha": [2]}],
            "training": {"epochs": 3, "batch_size": 256, "learning_rate": 0.003, "warmup_epochs": 0},
        },
    },
    "analysis": {"top_k": 5, "bootstrap": 100},
}


@dataclass
class Project:
    """A project folder and how its user runs it."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = f"{self.folder / 'src'}{os.pathsep}{REPO / 'worksteal' / 'src'}"
        return {**os.environ, "PYTHONPATH": own, "PATH": path}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", *arguments, "--configfile", "toy.yaml"]

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake to its end; stdout holds both streams."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=600,
        )

    def configure(self, change) -> None:
        """Edit toy.yaml by a function of its content."""
        config = yaml.safe_load((self.folder / "toy.yaml").read_text())
        change(config)
        (self.folder / "toy.yaml").write_text(yaml.safe_dump(config))

    def processes(self) -> list[psutil.Process]:
        """Processes that work in this folder or have it on their command line."""
        return processes_of(self.folder)

    def jobs(self, *arguments: str) -> dict[str, int]:
        """Jobs that a dry run would do, by rule."""
        done = self.snakemake("-n", *arguments)
        assert done.returncode == 0, done.stdout
        return counts(done.stdout)


def predictions(folder: Path) -> dict[str, bytes]:
    """Of all runs, by their file."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("results/toy/runs/*/*.parquet")}


def staging(folder: Path) -> dict[str, float]:
    """What the one run of Snakemake that staged something says of it."""
    summaries = [json.loads(path.read_text()) for path in folder.glob(".snakemake/worksteal/*/summary.json")]
    (found,) = [each["phases"]["staging"] for each in summaries if "staging" in each["phases"]]
    return found


def counts(output: str) -> dict[str, int]:
    """The first `Job stats` table of Snakemake's output; empty where there is nothing to do."""
    found: dict[str, int] = {}
    lines = iter(output.splitlines())
    for line in lines:
        if line.startswith("Job stats:"):
            next(lines), next(lines)
            for row in lines:
                fields = row.split()
                if len(fields) != 2 or fields[0] == "total":
                    return found
                found[fields[0]] = int(fields[1])
    return found


def copy_project(folder: Path) -> Project:
    """The project as it is cloned, into `folder`, with an empty toy.yaml: nothing has run."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        source = REPO / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / part)
    for site in SITES:
        (folder / site).symlink_to((REPO / site).readlink())
    (folder / "toy.yaml").write_text("{}\n")
    return Project(folder)
