"""Laws of the scheduling core on simulated pools: a seed decides delays, deaths and all else, so that it repeats."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from snakemake_executor_plugin_worksteal.core import Capacity, Core
from snakemake_executor_plugin_worksteal.messages import Acknowledge, Give
from snakemake_executor_plugin_worksteal.simulator import Network, Simulation, central_queue
from snakemake_executor_plugin_worksteal.tasks import Task

WILD = Network(latency_s=0.01, jitter_s=0.05, slow=0.2, slow_s=2.0)


def wild_pool(
    seed: int, agents: int, tasks: int, deaths: int = 0, withdraws: int = 0, core: type[Core] = Core, **options: Any
) -> Simulation:
    """A pool of unlike agents; unlike tasks come in batches, agents die and tasks are withdrawn at any time."""
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


@settings(max_examples=3000, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    agents=st.integers(1, 9),
    tasks=st.integers(0, 60),
    deaths=st.integers(0, 4),
    withdraws=st.integers(0, 2),
    ahead=st.sampled_from([0, 1, 4]),
)
def test_every_task_has_one_end(seed: int, agents: int, tasks: int, deaths: int, withdraws: int, ahead: int) -> None:
    pool = wild_pool(seed, agents, tasks, deaths, withdraws, ahead=ahead)
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


def pool_with_pieces(seed: int, core: type[Core] = Core) -> Simulation:
    """A wild pool in which half of the jobs go on later, up to five times; most are told to save their state."""
    draw = random.Random(seed)
    tasks = draw.randint(1, 50)
    pieces = {
        number: [draw.choice([0.0, 0.5, draw.expovariate(1.0)]) for _ in range(draw.randint(0, 5))]
        for number in range(tasks)
        if draw.random() < 0.5
    }
    deaths, withdraws, ahead = draw.choice([0, 0, 1, 3]), draw.choice([0, 0, 1]), draw.choice([0, 1, 4])
    pool = wild_pool(seed, draw.randint(1, 9), tasks, deaths, withdraws, core, ahead=ahead, pieces=pieces)
    if draw.random() < 0.7:
        pool.withdraw_at(draw.uniform(0.0, 12.0), save=True)
    return pool


def test_every_job_in_pieces_is_done_goes_on_later_or_never_began() -> None:
    done = later = 0
    for seed in range(150):
        pool = pool_with_pieces(seed)
        outcome = pool.run()
        pool.check_end()
        later += len(outcome.later)
        done += len(outcome.chains.keys() - outcome.later)
    assert min(done, later) > 200, "these pools try too little"


def submitted_at_once(slots: list[int], durations: list[float], *, known: bool = False, seed: int = 0) -> Simulation:
    """A pool that gets one-core tasks of these durations at time 0."""
    pool = Simulation([Capacity(number) for number in slots], durations, seed=seed, checked=True)
    pool.submit_at(0.0, [Task(number, expected=known * duration) for number, duration in enumerate(durations)])
    return pool


@pytest.mark.parametrize("agents", [1, 2, 5, 9])
def test_an_idle_pool_is_silent(agents: int) -> None:
    pool = Simulation([Capacity(2)] * agents, [], checked=True)
    outcome = pool.run()
    pool.check_end()
    assert pool.now < 1.0, "it went on talking"
    assert outcome.messages.total() <= 12 * agents


def test_the_same_seed_gives_the_same_events() -> None:
    pools = [wild_pool(7, 6, 40, deaths=2, withdraws=1) for _ in range(2)]
    first, second = [(pool.run(), list(pool.log)) for pool in pools]
    assert first == second
    assert len(first[1]) > 100


def test_work_that_comes_later_wakes_an_idle_pool() -> None:
    pool = Simulation([Capacity(2)] * 8, [10.0] * 32, checked=True)
    batches = [range(16), range(16, 32)]
    for batch, time in zip(batches, (100.0, 200.0), strict=True):
        pool.submit_at(time, [Task(number) for number in batch])
    starts = pool.run().starts
    for batch, time in zip(batches, (100.0, 200.0), strict=True):
        assert max(starts[number][0][0] for number in batch) < time + 0.1, "a slot stayed idle"


class Watched(Core):
    """Notes what waited at each start."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.choices: list[tuple[list[Task], Task]] = []

    def _start(self, task: Task) -> None:
        self.choices.append((list(self._waiting), task))
        super()._start(task)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), agents=st.integers(1, 6))
def test_no_task_begins_before_one_that_goes_first_and_waits_at_the_same_agent(seed: int, agents: int) -> None:
    draw = random.Random(seed)
    tasks = [Task(number, priority=draw.randint(0, 3), expected=draw.choice([0.0, 2.0, 4.0])) for number in range(40)]
    capacities = [Capacity(draw.randint(1, 3)) for _ in range(agents)]
    pool = Simulation(capacities, [draw.random() for _ in tasks], seed=seed, core=Watched)
    pool.submit_at(0.0, tasks[:20])
    pool.submit_at(draw.random() * 5, tasks[20:])
    pool.run()

    def place(task: Task) -> tuple[int, float, int]:
        return task.priority, task.expected, -task.id

    for core in pool.cores:
        assert isinstance(core, Watched)
        for waiting, begun in core.choices:
            assert all(place(task) < place(begun) for task in waiting)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), agents=st.integers(1, 6))
def test_a_task_that_needs_a_whole_node_does_not_starve(seed: int, agents: int) -> None:
    """It begins within the time of the tasks that may pass it (4, up to 1.5 s each) and of those that run already."""
    draw = random.Random(seed)
    count = 80 * agents
    wide = 8 * agents
    pool = Simulation([Capacity(4)] * agents, [draw.uniform(0.5, 1.5) for _ in range(count)], seed=seed, checked=True)
    pool.submit_at(0.0, [Task(number) for number in range(wide)])
    pool.submit_at(0.5, [Task(wide, cores=4, priority=1)])
    pool.submit_at(0.6, [Task(number) for number in range(wide + 1, count)])
    outcome = pool.run()
    pool.check_end()
    assert outcome.starts[wide][0][0] < 0.5 + 2 * 1.5 + 4 * 1.5
    assert outcome.makespan > 15.0, "there was not enough to starve it"


def test_tasks_of_one_key_run_at_their_home_if_there_is_room() -> None:
    pool = Simulation([Capacity(4)] * 6, [1.0] * 96, checked=True)
    tasks = [Task(number, affinity=f"key {number % 3}") for number in range(96)]
    for batch in range(24):
        pool.submit_at(5.0 * batch, tasks[4 * batch : 4 * batch + 4])
    starts = pool.run().starts
    for key in range(3):
        assert len({starts[number][0][1] for number in range(key, 96, 3)}) == 1


def test_a_key_with_more_tasks_than_its_home_has_slots_keeps_nobody_idle() -> None:
    pool = Simulation([Capacity(2)] * 6, [10.0] * 12, checked=True)
    pool.submit_at(1.0, [Task(number, affinity="key") for number in range(12)])
    assert pool.run().makespan < 11.1


@pytest.mark.parametrize("slots", [[1] * 8, [2] * 4], ids=["8 agents of 1", "4 agents of 2"])
@pytest.mark.parametrize("seed", range(20))
def test_with_expected_durations_the_makespan_is_that_of_longest_first(slots: list[int], seed: int) -> None:
    draw = random.Random(seed)
    durations = [draw.lognormvariate(math.log(60.0), 1.0) for _ in range(200)]
    pool = submitted_at_once(slots, durations, known=True, seed=seed)
    bound = max(central_queue(sorted(durations, reverse=True), sum(slots)))
    assert pool.run().makespan <= 1.03 * bound


@pytest.mark.parametrize("seed", range(10))
def test_no_slot_is_idle_for_long_while_tasks_wait(seed: int) -> None:
    draw = random.Random(seed)
    durations = [draw.expovariate(1.0) for _ in range(800)]
    pool = submitted_at_once([2] * 20, durations, seed=seed)
    outcome = pool.run()
    last_start = max(starts[0][0] for starts in outcome.starts.values())
    idle = 0.0
    for (time, busy), (later, _) in pairwise(outcome.busy):
        idle += (40 - busy) * max(0.0, min(later, last_start) - time)
    assert outcome.all_busy is not None
    assert outcome.all_busy < 0.05
    assert idle < 0.05 * 40 * last_start


def test_the_central_queue_is_right_for_cases_that_are_known() -> None:
    assert central_queue([3.0, 1.0, 1.0, 1.0], 2) == [3.0, 1.0, 2.0, 3.0]
    assert max(central_queue([1.0] * 12, 4)) == 3.0


# Cores that are wrong, which these laws must notice


class ForgetsToAcknowledge(Core):
    """A giver never learns that its tasks arrived."""

    def _send(self, to: int, message: Any) -> None:
        if not isinstance(message, Acknowledge):
            super()._send(to, message)


class CountsACoreTwice(Core):
    """The last core of a task of several is free at once."""

    def _start(self, task: Task) -> None:
        super()._start(task)
        if task.cores > 1:
            self._cores.append(self._running[task.id][1][-1])


class DropsHalf(Core):
    """Of a transfer only every second task is kept."""

    def _on_give(self, now: float, source: int, message: Give) -> None:
        super()._on_give(now, source, message._replace(tasks=message.tasks[::2]))


class ForgetsLateAcknowledgements(Core):
    """Tasks that went to an agent which had answered the census are named by nobody."""

    def _on_acknowledge(self, now: float, source: int, message: Acknowledge) -> None:
        super()._on_acknowledge(now, source, message._replace(epoch=0))


class TrustsTheDead(Core):
    """Results of the dead count although their tasks are queued again."""

    def _on_done(self, now: float, source: int, message: Any) -> None:
        self._report(source, message.items)


class ForgetsToSave(Core):
    """What can go on later is not told to, but at the root."""

    def _on_withdraw(self, now: float, source: int, message: Any) -> None:
        super()._on_withdraw(now, source, message._replace(save=message.save and self.rank == self.root))


class SavesTooSoon(Core):
    """What it is about to give up still begins, after the others were told."""

    def _on_withdraw(self, now: float, source: int, message: Any) -> None:
        super()._on_withdraw(now, source, message._replace(upto=-1))


class NeverIntroduces(Core):
    """The root keeps lifelines to itself."""

    def _introduce(self, giver: int, taker: int) -> bool:
        return False


def deadly_pool(seed: int, core: type[Core]) -> Simulation:
    """A wild pool in which agents die."""
    draw = random.Random(seed)
    deaths, withdraws = draw.choice([1, 2, 4]), draw.choice([0, 0, 1])
    return wild_pool(seed, draw.randint(3, 9), draw.randint(20, 60), deaths, withdraws, core)


def first_caught(core: type[Core], pool_of: Callable[[int, type[Core]], Simulation]) -> str:
    """What the first seed says that notices a wrong core; nothing if none does."""
    for seed in range(2000):
        pool = pool_of(seed, core)
        try:
            pool.run()
            pool.check_end()
        except AssertionError as error:
            return str(error)
    return ""


@pytest.mark.parametrize(
    ("core", "said"),
    [
        (ForgetsToAcknowledge, "still holds|begins"),
        (CountsACoreTwice, "cores are lost or doubled"),
        (DropsHalf, "are nowhere"),
        (ForgetsLateAcknowledgements, "begins|twice"),
        (TrustsTheDead, "that have ended are kept"),
        (NeverIntroduces, "although"),
        (ForgetsToSave, "never told"),
        (SavesTooSoon, "never told to save"),
    ],
)
def test_a_wrong_core_is_caught(core: type[Core], said: str) -> None:
    error = first_caught(core, pool_with_pieces if "Save" in core.__name__ else deadly_pool)
    assert any(words in error for words in said.split("|")), f"{core.__name__}: {error or 'no seed noticed'}"
