"""worksteal's scheduling core on simulated pools of up to 10,000 agents, against one central queue that costs nothing.

    python benchmarks/bench_worksteal_scale.py [--agents 10000] [--slots 12] [--tasks 1000000] [--per-slot 8] [--seed 1]

The agents are the real ones (module core), clock and network are simulated: 1 ms a message, 100 MB/s out of an agent,
200 bytes a task. All tasks come to the first agent at time 0; durations are log-normal, mean 60 s, sigma 1. The central
queue serves the same tasks by the same rule: in the order of submission where durations are unknown, longest first
where they are expected. Of both, not only the end is compared (the longest task may decide that alone) but also when 99
% of the tasks had ended. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from typing import Any

from snakemake_executor_plugin_worksteal.core import Capacity
from snakemake_executor_plugin_worksteal.simulator import Simulation, central_queue
from snakemake_executor_plugin_worksteal.tasks import Task

MEAN_S = 60.0
SIGMA = 1.0


def one_pool(agents: int, slots: int, tasks: int, seed: int, *, known: bool) -> dict[str, Any]:
    """Simulate one pool; figures of it and of the central queue."""
    draw = random.Random(seed)
    durations = [draw.lognormvariate(math.log(MEAN_S) - SIGMA**2 / 2, SIGMA) for _ in range(tasks)]
    begun = time.perf_counter()
    pool = Simulation([Capacity(slots)] * agents, durations, seed=seed, resolution=1.0)
    pool.submit_at(0.0, [Task(number, expected=durations[number] if known else 0.0) for number in range(tasks)])
    outcome = pool.run()
    took = time.perf_counter() - begun
    if len(outcome.reports) != tasks:
        raise SystemExit(f"{tasks} tasks were submitted and {len(outcome.reports)} were reported: the core lost some.")
    ends = sorted(central_queue(sorted(durations, reverse=True) if known else durations, agents * slots))
    reports = sorted(at for at, _ in outcome.reports.values())
    most = max(0, math.ceil(0.99 * tasks) - 1)
    return {
        "agents": agents,
        "tasks": tasks,
        "expected": "known" if known else "unknown",
        "makespan_s": round(outcome.makespan, 2),
        "central_s": round(ends[-1], 2),
        "ratio": round(outcome.makespan / ends[-1], 4),
        "ratio_p99": round(reports[most] / ends[most], 4),
        "all_busy_s": None if outcome.all_busy is None else round(outcome.all_busy, 3),
        "messages_per_task": round(outcome.messages.total() / tasks, 3),
        "messages": {name: round(count / tasks, 4) for name, count in outcome.messages.most_common()},
        "simulated_in_s": round(took, 1),
    }


def main() -> None:
    """The large pool by both rules, then pools of four sizes at the same number of tasks a slot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--slots", type=int, default=12)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--per-slot", type=int, default=8, help="tasks a slot in the comparison of sizes")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    large = []
    for known in (False, True):
        large.append(one_pool(given.agents, given.slots, given.tasks, given.seed, known=known))
        print(large[-1], flush=True)
    sizes = []
    for agents in [size for size in (10, 100, 1000, 10_000) if size <= given.agents]:
        tasks = agents * given.slots * given.per_slot
        sizes.append(one_pool(agents, given.slots, tasks, given.seed, known=False))
        print(sizes[-1], flush=True)
    report = {
        "benchmark": "worksteal_scale",
        "slots": given.slots,
        "large": large,
        "messages_per_task": {figures["agents"]: figures["messages_per_task"] for figures in sizes},
        "sizes": sizes,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
