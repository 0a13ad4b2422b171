"""Laws of the scheduling core, tried on simulated pools: seeds decide delays, deaths and everything else. A failing seed repeats."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from snakemake_executor_plugin_worksteal.core import Capacity, Core
from snakemake_executor_plugin_worksteal.simulator import Network, Simulation
from snakemake_executor_plugin_worksteal.tasks import Task

WILD = Network(latency_s=0.01, jitter_s=0.05, slow=0.2, slow_s=2.0)


def wild_pool(
    seed: int, agents: int, tasks: int, deaths: int = 0, withdraws: int = 0, core: type[Core] = Core, **options: Any
) -> Simulation:
    """A pool of unlike agents; unlike tasks come in up to five batches, agents die and tasks are withdrawn at any time."""
    draw = random.Random(seed)
    capacities = [
        Capacity(draw.randint(1, 6), draw.choice([0, 0, 1, 2]), draw.choice([0, 4000, 16000])) for _ in range(agents)
    ]
    names = ["", "", "a", "b", "c"]
    made = [
        Task(
            number,
            cores=draw.choice([1, 1, 1, 2, 3, 6, 7] if draw.random() < 0.5 else [1]),
            devices=draw.choice([0, 0, 0, 1]),
            mem_mb=draw.choice([0, 0, 100, 3000, 3500]),
            priority=draw.choice([0, 0, 1]),
            expected=draw.choice([0.0, 1.0, 5.0]),
            affinity=draw.choice(names),
        )
        for number in range(tasks)
    ]
    durations = [draw.choice([0.0, 0.02, draw.expovariate(1.0)]) for _ in made]
    pool = Simulation(
        capacities, durations, seed=seed, network=options.pop("network", WILD), core=core, checked=True, **options
    )
    batches = sorted(draw.randint(0, tasks) for _ in range(draw.randint(0, 4)))
    span = draw.choice([0.1, 3.0, 20.0])
    times = sorted(draw.uniform(0.0, span) for _ in range(len(batches) + 1))
    for time, begin, end in zip(times, [0, *batches], [*batches, tasks], strict=True):
        pool.submit_at(time, made[begin:end])
    for _ in range(withdraws):
        pool.withdraw_at(draw.uniform(0.0, span))
    for rank in draw.sample(range(1, agents), min(deaths, agents - 1)):
        pool.kill_at(draw.uniform(0.0, span), rank, draw.choice([0.01, 0.5, 3.0]))
    return pool


@settings(max_examples=1000, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    agents=st.integers(1, 9),
    tasks=st.integers(0, 60),
    deaths=st.integers(0, 4),
    withdraws=st.integers(0, 2),
)
def test_every_task_has_one_end(seed: int, agents: int, tasks: int, deaths: int, withdraws: int) -> None:
    pool = wild_pool(seed, agents, tasks, deaths, withdraws)
    outcome = pool.run()
    pool.check_end()
    if not withdraws:
        assert not outcome.withdrawn
    for number in outcome.impossible:
        task = pool.submitted[number]
        for rank, capacity in enumerate(pool.capacities):
            assert rank in pool.dead or not capacity.room.holds(task.cores, task.devices, task.mem_mb)
    for number in outcome.reports:
        assert number in outcome.starts
    if not deaths:
        assert all(len(starts) == 1 for starts in outcome.starts.values())
        assert not outcome.withdrawn & outcome.starts.keys()
