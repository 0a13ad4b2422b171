"""A sweep on a cluster: one pool of worksteal against a batch job for every Snakemake job, by the public plugin.

    pip install snakemake-executor-plugin-slurm
    python benchmarks/bench_worksteal_slurm.py [--alphas 16] [--rounds 1]

The toy experiment of a simulated world from its bundle to its report, one training run for each alpha and fold, on a
real Slurm of two nodes, both of them this machine (tests/slurm.py; needs what those tests need). One side is
`--profile slurm`; the other is `--executor slurm`, asked for as many jobs at once as the nodes have CPUs, its waits
between two looks at the queue as short as it allows. Both train one run a job, and both must find the same errors.

The last line is JSON: `ratio` is the single jobs' time over the pool's, each that of the whole `snakemake` command.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd
import yaml

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO / "tests"), str(REPO / "tests" / "e2e")]
from project import CONFIG, Project, copy_project  # noqa: E402
from slurm import CPUS, Slurm, cluster  # noqa: E402

NODES = 2
PLUGIN = "snakemake-executor-plugin-slurm"
SIDES = {
    "pool": ("--profile", "slurm", "--worksteal-nodes", str(NODES), "--worksteal-walltime", "120"),
    "single": (
        *("--workflow-profile", "none", "--executor", "slurm", "--jobs", str(NODES * CPUS), "--slurm-no-account"),
        *("--default-resources", "mem_mb=0", "--slurm-status-command", "squeue"),
        *("--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1"),
        *("--max-status-checks-per-second", "10", "--max-jobs-per-timespan", "1000/1s", "--latency-wait", "60"),
    ),
}


def make_project(folder: Path, alphas: int) -> Project:
    """A project with the sweep, and the bundle that it learns from."""
    project = copy_project(folder)
    config = yaml.safe_load(yaml.safe_dump(CONFIG))
    losses = [{"name": "mae_poly", "alpha": [round(0.25 * (n + 1), 2) for n in range(alphas)]}]
    config["experiments"]["toy"]["losses"] = losses
    (folder / "toy.yaml").write_text(yaml.safe_dump(config))
    simulate = [sys.executable, "-m", "hedflow.cli", "simulate", "world", "--cells", "40", "--drugs", "16"]
    for command in (simulate, project.command("bundle", "--quiet", "all")):
        subprocess.run(command, cwd=folder, env=project.environment, check=True, stdout=subprocess.DEVNULL)
    return project


def timed(project: Project, side: str) -> tuple[float, pd.DataFrame]:
    """Seconds of the whole command, and what the methods' errors are."""
    begun = time.perf_counter()
    with (project.folder / "log").open("w") as log:
        command = project.command(*SIDES[side])
        done = subprocess.run(
            command, cwd=project.folder, env=project.environment, stdout=log, stderr=subprocess.STDOUT, check=False
        )
    whole = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(f"{side}: status {done.returncode}\n{(project.folder / 'log').read_text()[-3000:]}")
    return whole, pd.read_parquet(project.folder / "results/toy/tables/methods.parquet")


def shim(slurm: Slurm) -> Path:
    """A folder for PATH with an srun that knows this Slurm: the plugin takes SLURM_CONF away from its jobs."""
    folder = slurm.folder / "bin"
    folder.mkdir()
    (folder / "srun").write_text(f'#!/bin/sh\nSLURM_CONF={slurm.config} exec {shutil.which("srun")} "$@"\n')
    (folder / "srun").chmod(0o755)
    return folder


def main() -> None:
    """Time both sides in turn, print each round and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alphas", type=int, default=16, help="training runs are twice as many")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    try:
        plugin = version(PLUGIN)
    except PackageNotFoundError:
        print(json.dumps({"benchmark": "worksteal_slurm", "skipped": f"{PLUGIN} is missing: pip install {PLUGIN}"}))
        return
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    with cluster(NODES) as slurm:
        os.environ |= slurm.environment | {"PATH": f"{shim(slurm)}:{slurm.environment['PATH']}"}
        for number in range(given.rounds):
            found = {}
            for side in SIDES:
                with tempfile.TemporaryDirectory(prefix="bench-") as name:
                    project = make_project(Path(name) / "project", given.alphas)
                    seconds, found[side] = timed(project, side)
                times[side].append(seconds)
                print(f"round {number + 1}: {side}: {seconds:.1f} s", flush=True)
            pd.testing.assert_frame_equal(*found.values())
    middle = {side: statistics.median(values) for side, values in times.items()}
    report = {
        "benchmark": "worksteal_slurm",
        "training_runs": 2 * given.alphas,
        "nodes": NODES,
        "cores": len(os.sched_getaffinity(0)),
        "versions": {"snakemake": version("snakemake"), PLUGIN: plugin},
        **{f"{side}_s": round(value, 1) for side, value in middle.items()},
        "ratio": round(middle["single"] / middle["pool"], 2),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
