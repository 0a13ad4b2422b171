"""A sweep of tiny PyTorch jobs through Snakemake: worksteal with warm forks against Snakemake's local executor.

    python benchmarks/bench_worksteal_sweep.py [--jobs 200] [--local-jobs 200] [--rounds 1]

Each job is a `script:` that imports torch and pytorch_lightning, as such scripts do, fits a linear regression by a few
steps of SGD with one thread, and writes one small file; both sides must write the same bytes. Both run the same
workflow on the same cores, one after the other. Two times are taken: that of the whole `snakemake` command, with the
start of Python and of the pool, and that of Snakemake's scheduling loop, from its onstart to its onsuccess handler. The
local executor takes seconds a job: with fewer --local-jobs its loop is timed with so many and scaled to all.

The last line is JSON: `ratio` is the local executor's whole time over worksteal's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

SNAKEFILE = """
import time
rule all:
    input: expand("out/{{n}}.json", n=range({jobs}))
rule fit:
    output: "out/{{n}}.json"
    threads: 1
    script: "fit.py"
onstart: open("started", "w").write(repr(time.time()))
onsuccess: open("ended", "w").write(repr(time.time()))
"""
SCRIPT = """
import json

import pytorch_lightning as pl
import torch

torch.set_num_threads(snakemake.threads)
pl.seed_everything(int(snakemake.wildcards.n), verbose=False)
x = torch.randn(256, 8)
y = x @ torch.arange(8.0) + 0.1 * torch.randn(256)
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(20):
    optimizer.zero_grad()
    loss = torch.nn.functional.mse_loss(model(x).squeeze(1), y)
    loss.backward()
    optimizer.step()
with open(snakemake.output[0], "w") as out:
    json.dump({"n": snakemake.wildcards.n, "loss": loss.item()}, out)
"""
CORES = len(os.sched_getaffinity(0))
NO_RATE_LIMIT = ("--max-jobs-per-timespan", "1000000/1s")
SIDES = {
    "worksteal": (
        *("--executor", "worksteal", "--worksteal-preload", "torch,pytorch_lightning"),
        *("--scheduler", "worksteal", "--jobs", "100000"),
    ),
    "local": ("--cores", str(CORES)),
}


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds of the whole command and of the scheduling loop; results by file name."""

    whole_s: float
    loop_s: float
    results: dict[str, bytes]

    def scaled(self, factor: float) -> tuple[float, float]:
        """Both times, were there `factor` times as many jobs."""
        loop = self.loop_s * factor
        return self.whole_s - self.loop_s + loop, loop


def run_sweep(side: str, jobs: int) -> Timed:
    """One run of the workflow in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        (folder / "Snakefile").write_text(SNAKEFILE.format(jobs=jobs))
        (folder / "fit.py").write_text(SCRIPT)
        command = [sys.executable, "-m", "snakemake", *SIDES[side], *NO_RATE_LIMIT, "--quiet", "all"]
        begun = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, stdin=subprocess.DEVNULL)
        whole = time.perf_counter() - begun
        started, ended = (float((folder / file).read_text()) for file in ("started", "ended"))
        results = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    return Timed(whole, ended - started, results)


def same_results(found: dict[str, bytes], others: dict[str, bytes]) -> int:
    """How many results both sides have; raises SystemExit if one of them differs."""
    both = found.keys() & others.keys()
    different = sorted(name for name in both if found[name] != others[name])
    if different:
        raise SystemExit(f"{len(different)} of {len(both)} results differ between the sides, first {different[0]}")
    return len(both)


def main() -> None:
    """Time both sides in turn, print each round and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--local-jobs", type=int, default=0, help="jobs on the local executor's side (default: all)")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    local_jobs = given.local_jobs or given.jobs
    times: dict[str, list[float]] = {f"{side}_{part}_s": [] for side in SIDES for part in ("whole", "loop")}
    compared = 0
    for number in range(given.rounds):
        ours, theirs = run_sweep("worksteal", given.jobs), run_sweep("local", local_jobs)
        compared = same_results(ours.results, theirs.results)
        for side, (whole, loop) in (("worksteal", ours.scaled(1)), ("local", theirs.scaled(given.jobs / local_jobs))):
            times[f"{side}_whole_s"].append(whole)
            times[f"{side}_loop_s"].append(loop)
            print(f"round {number + 1}: {side}: whole {whole:.2f} s, scheduling loop {loop:.2f} s", flush=True)
    middle = {name: round(statistics.median(values), 3) for name, values in times.items()}
    report = {
        "benchmark": "worksteal_sweep",
        "jobs": given.jobs,
        "local_jobs_timed": local_jobs,
        "results_compared": compared,
        "cores": CORES,
        "versions": {name: version(name) for name in ("snakemake", "torch", "pytorch-lightning")},
        **middle,
        "ratio": round(middle["local_whole_s"] / middle["worksteal_whole_s"], 2),
        "ratio_loop": round(middle["local_loop_s"] / middle["worksteal_loop_s"], 2),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
