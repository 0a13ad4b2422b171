"""Jobs per second through Snakemake: worksteal against an executor that costs nothing, on the same no-op shell jobs.

    python benchmarks/bench_worksteal_jobs.py [--jobs 2000] [--rounds 3] [--scheduler worksteal] [--place /dev/shm]

All sides run in turn, in one call, with the same profile (one call hands over all ready jobs, no rate limit). The time
is that of Snakemake's scheduling loop: from its onstart to its onsuccess handler, the DAG left out. `forkless` is
worksteal but for the last step: tasks go to the agent and back, and no process is begun for them. What a shell job
must cost whoever runs it, a process with bash and one with the command, is measured as well: jobs/s of a plain loop
over posix_spawn on all cores (`spawn`). What forking allows beside Snakemake (`both`) is measured too: the costless
executor and that loop at the same time on the same cores, until both have done all jobs, without a word between them.
The last line is JSON: `ratio_without_forks` is forkless's jobs/s over the costless executor's, `ratio` is worksteal's
over it, and `ratio_to_possible` worksteal's over `both`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

SNAKEFILE = """
import time
rule all:
    input: expand("out/{{n}}", n=range({jobs}))
rule job:
    output: "out/{{n}}"
    shell: "touch {{output}}"
onstart: open("started", "w").write(repr(time.time()))
onsuccess: open("ended", "w").write(repr(time.time()))
"""
COMMON = ["--jobs", "1000000", "--max-jobs-per-timespan", "1000000/1s", "--quiet", "all"]


def compiled(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which modules are compiled once: those of an editable installation too, as if installed."""
    return {name: value for name, value in environment.items() if name != "PYTHONDONTWRITEBYTECODE"}


def jobs_per_second(
    executor: str, jobs: int, scheduler: str, place: str | None, beside: Callable[[], float] | None = None
) -> float:
    """One run of the workflow; with `beside` begun as it begins, and until that has ended too (its time.time())."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=place) as folder:
        (Path(folder) / "Snakefile").write_text(SNAKEFILE.format(jobs=jobs))
        plugins = str(Path(__file__).parent / "plugins")
        environment = {
            **compiled(os.environ),
            "PYTHONPATH": os.pathsep.join([plugins, os.environ.get("PYTHONPATH", "")]),
        }
        command = [sys.executable, "-m", "snakemake", "--executor", executor, "--scheduler", scheduler, *COMMON]
        with subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL) as snakemake:
            last = 0.0
            if beside is not None:
                while not (Path(folder) / "started").exists() and snakemake.poll() is None:
                    time.sleep(0.001)
                last = beside()
        if snakemake.returncode:
            raise RuntimeError(f"Snakemake with the executor {executor} ended with status {snakemake.returncode}")
        begun, ended = (float((Path(folder) / name).read_text()) for name in ("started", "ended"))
    return jobs / (max(ended, last) - begun)


def spawn_all(jobs: int, place: str | None) -> float:
    """The same commands started by a loop that does nothing else, one thread a core; when they had ended."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=place) as folder:

        def loop(first: int) -> None:
            for index in range(first, jobs, workers):
                command = f"set -euo pipefail;  touch {folder}/{index}"
                os.waitpid(os.posix_spawn("/bin/bash", ["/bin/bash", "-c", command], os.environ), 0)

        workers = len(os.sched_getaffinity(0))
        threads = [threading.Thread(target=loop, args=(first,)) for first in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.time()


def main() -> None:
    """Time both sides in turn, print each round and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scheduler", default="worksteal", help="Snakemake's scheduler: worksteal, greedy or ilp")
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    parser.add_argument("--place", default=memory, help="folder to work in; default: in memory, which has no moods")
    given = parser.parse_args()
    rounds = []
    for number in range(given.rounds):
        how = given.jobs, given.scheduler, given.place
        figures = {
            "worksteal": jobs_per_second("worksteal", *how),
            "costless": jobs_per_second("costless", *how),
            "forkless": jobs_per_second("forkless", *how),
            "both": jobs_per_second("costless", *how, beside=lambda: spawn_all(given.jobs, given.place)),
        }
        begun = time.time()
        figures["spawn"] = given.jobs / (spawn_all(given.jobs, given.place) - begun)
        rounds.append(figures)
        print(
            f"round {number + 1}: " + ", ".join(f"{name} {value:.0f}/s" for name, value in figures.items()), flush=True
        )
    middle = {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}
    cores = len(os.sched_getaffinity(0))
    report = {
        "benchmark": "worksteal_jobs",
        "jobs": given.jobs,
        "scheduler": given.scheduler,
        "place": given.place,
        "cores": cores,
        **{f"{name}_per_s": round(value, 1) for name, value in middle.items()},
        "spawn_ms_of_a_core": round(1000 * cores / middle["spawn"], 2),
        "ratio_without_forks": round(middle["forkless"] / middle["costless"], 3),
        "ratio": round(middle["worksteal"] / middle["costless"], 3),
        "ratio_to_possible": round(middle["worksteal"] / middle["both"], 3),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
