"""What an idle pool costs: CPU of its agents and their runners, one agent without MPI and four as ranks of mpiexec.

    python benchmarks/bench_worksteal_idle.py [--seconds 20]

Each pool first does some work (empty orders and scripts in forks), so that what it is left with is what idleness after
work looks like: lifelines, spare forks, a back-off that has reached its end. Then nothing is done for a while, and what
the processes have used meanwhile (user and system time) is read from the kernel. What Snakemake's side of the pool
uses, its thread, is said apart, and so is the launcher.

The last line is JSON: `share` is the CPU of an agent with its runners, as a share of one core; `ratio` is the largest.
"""

from __future__ import annotations

import argparse
import json
import os
import time

import psutil
from bench_worksteal_peers import AGENTS, WARM_UP, WORKERS, WorkstealPool

AGENT = "snakemake_executor_plugin_worksteal.agent"
SETTLE_S = 2.0


def is_agent(process: psutil.Process) -> bool:
    """Whether it is an agent and neither one of its forks nor the launcher."""

    def runs_agent(process: psutil.Process) -> bool:
        return AGENT in process.cmdline() and "python" in process.name()

    parent = process.parent()
    return runs_agent(process) and not (parent is not None and runs_agent(parent))


def used(processes: list[psutil.Process]) -> float:
    """CPU seconds that they have used, ended children that they have waited for included."""
    return sum(sum(process.cpu_times()[:4]) for process in processes)


def idle_pool(launcher: str, agents: int, slots: int, seconds: float) -> dict[str, float]:
    """Shares of a core that an idle pool uses: of an agent (mean), of its user's side, of the launcher."""
    with WorkstealPool(launcher, agents, slots) as pool:
        pool.empty(10 * WARM_UP)
        pool.scripts("pass", [None] * 10 * WORKERS)
        # Not a guess at when the work ends (it has), but the time in which spare forks are made and all comes to rest.
        time.sleep(SETTLE_S)
        own = psutil.Process()
        found = [process for process in own.children(recursive=True) if is_agent(process)]
        if len(found) != agents:
            raise RuntimeError(f"{len(found)} agents were found among the processes of the pool, expected {agents}")
        tended = [[agent, *agent.children(recursive=True)] for agent in found]
        known = {process.pid for group in tended for process in group}
        others = [process for process in own.children(recursive=True) if process.pid not in known]
        groups = [*tended, others, [own]]
        begun, before = time.perf_counter(), [used(group) for group in groups]
        time.sleep(seconds)
        spent = [now - then for now, then in zip([used(group) for group in groups], before, strict=True)]
        wall = time.perf_counter() - begun
    return {
        "agents": agents,
        "processes_of_an_agent": len(tended[0]),
        "share": round(sum(spent[:agents]) / agents / wall, 5),
        "largest_share": round(max(spent[:agents]) / wall, 5),
        "launcher_share": round(spent[agents] / wall, 5),
        "snakemake_side_share": round(spent[agents + 1] / wall, 5),
    }


def main() -> None:
    """Measure both pools."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    pools = {}
    for launcher, agents in (("local", 1), ("mpiexec", AGENTS)):
        pools[launcher] = idle_pool(launcher, agents, WORKERS // agents, given.seconds)
        print(f"{launcher}: {pools[launcher]}", flush=True)
    report = {
        "benchmark": "worksteal_idle",
        "cores": len(os.sched_getaffinity(0)),
        "seconds": given.seconds,
        "pools": pools,
        "ratio": max(pool["largest_share"] for pool in pools.values()),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
