"""A pool of agents in one process under a virtual clock: real cores, a simulated network, deaths, all from one seed.

The network keeps the order of the messages of one pair of agents (as MPI does) and of nothing else. What an agent sends
leaves one after the other at the link's bandwidth. An agent that dies does nothing more; what it had sent may still
arrive, and each survivor hears of the death at another time.
"""

from __future__ import annotations

import gc
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush, heapreplace
from itertools import pairwise
from typing import Any

from .core import Capacity, Core
from .messages import Done, Give, Impossible, Recall, Report, Save, Send, Start, Withdrawn, Withdrew
from .tasks import LATER, Task

AHEAD_S = 0.5  # how long a task is kept at hand
SAVE_S = 0.2  # how long a task takes at most to save its state
FURTHER = 1_000_000  # numbers of further pieces


@dataclass(frozen=True, slots=True)
class Network:
    """Times in seconds, sizes in bytes.

    A message takes latency_s, up to jitter_s more, and with probability `slow` up to slow_s more.
    """

    latency_s: float = 0.001
    jitter_s: float = 0.0
    slow: float = 0.0
    slow_s: float = 0.0
    bytes_per_s: float = 100e6
    task_bytes: int = 200
    message_bytes: int = 100


@dataclass(slots=True)
class Outcome:
    """What came of a simulation. Times are seconds of the virtual clock.

    makespan: when the root knew the last task to be finished, withdrawn or impossible. all_busy: when every core of
    every living agent was first in use. busy: (time, cores in use) at each change, at most one point a `resolution`.
    messages: by the name of their class. starts: (time, rank) of each start, by task. reports: (time, rank) by task.
    chains: the tasks that one job was, piece by piece, by the first. later: jobs that have saved their state and do not
    go on in this pool, by their first task.
    """

    makespan: float = 0.0
    all_busy: float | None = None
    busy: list[tuple[float, int]] = field(default_factory=list)
    messages: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    events: int = 0
    starts: dict[int, list[tuple[float, int]]] = field(default_factory=dict)
    reports: dict[int, tuple[float, int]] = field(default_factory=dict)
    withdrawn: set[int] = field(default_factory=set)
    impossible: dict[int, str] = field(default_factory=dict)
    chains: dict[int, list[int]] = field(default_factory=dict)
    later: set[int] = field(default_factory=set)


def needs(task: Task) -> tuple[int, int, int]:
    """What a task needs of a node."""
    return task.cores, task.devices, task.mem_mb


def carried(message: Any) -> Sequence[int]:
    """Ids of the tasks that a message moves: to another agent, or, finished or given up, to the root."""
    if isinstance(message, Give):
        return [task.id for task in message.tasks]
    if isinstance(message, Done):
        return [number for number, _ in message.items]
    return list(message.ids) if isinstance(message, Withdrew) else []


class Simulation:
    """A pool. Say what is to happen (`submit_at`, `withdraw_at`, `kill_at`), then `run`.

    durations: seconds by task id. core: the class that is tried. resolution: seconds. checked: after every event call
    `check()` of the core that handled it, and the other laws below (AssertionError, the last events as a note). ahead:
    tasks that each agent's driver has at hand, to begin when others end. pieces: jobs that can go on later, by id, with
    the seconds of each piece after the first: whoever submits hands them over again, as tasks with numbers from FURTHER
    on, until they are done or a withdrawal has told all to save.
    """

    def __init__(
        self,
        capacities: Sequence[Capacity],
        durations: Mapping[int, float] | Sequence[float],
        *,
        seed: int = 0,
        network: Network = Network(),
        core: type[Core] = Core,
        checked: bool = False,
        resolution: float = 0.0,
        ahead: int = 0,
        pieces: Mapping[int, Sequence[float]] | None = None,
    ) -> None:
        self.capacities = capacities
        self.durations = durations
        self.network = network
        self.cores = [core(rank, capacities, seed=seed) for rank in range(len(capacities))]
        self.now = 0.0
        self.dead: dict[int, float] = {}  # when each died
        self.outcome = Outcome()
        self.log: deque[str] = deque(maxlen=400)
        self.submitted: dict[int, Task] = {}
        self.saved: dict[int, float] = {}  # when each agent was last told to have its tasks save their state
        self._pieces = {number: list(seconds) for number, seconds in (pieces or {}).items()}
        self._first = {number: number for number in self._pieces}  # of a job's tasks, by task
        self._piece_s: dict[int, float] = {}
        self._next = FURTHER
        self._ending = False
        self._run: list[dict[int, Task]] = [{} for _ in capacities]  # tasks that run, by agent
        self._ahead = ahead
        self._at_hand: list[list[Task]] = [[] for _ in capacities]  # taken ahead, by agent
        self._checked = checked
        self._resolution = resolution
        self._random = random.Random(seed)
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._ticks: list[float | None] = [None] * len(capacities)
        self._link_free = [0.0] * len(capacities)
        self._ordered = network.jitter_s > 0 or network.slow > 0  # else the link keeps the order
        self._last: dict[tuple[int, int], float] = {}
        self._lost_after: dict[tuple[int, int], float] = {}
        self._flying = 0  # messages and news of deaths that are on their way
        self._unfinished: set[int] = set()  # by the root's books
        self._mourned: set[int] = set()  # the dead that the root has heard of
        self._carried: dict[tuple[int, int], list[int]] = {}  # tasks in messages on their way, by sender and receiver
        self._here: list[list[int]] = [[] for _ in capacities]  # tasks that wait, run or are at hand, by agent
        self._busy = 0
        self._busy_of = [0] * len(capacities)
        self._total = sum(capacity.cores for capacity in capacities)
        for rank in range(len(capacities)):
            self._at(0.0, self._tick, rank, 0.0)
            self._ticks[rank] = 0.0

    # What is to happen

    def submit_at(self, time: float, tasks: Sequence[Task]) -> None:
        """The root gets tasks. Ids must be above those of all earlier batches."""
        self._at(time, self._submit, tasks)

    def withdraw_at(self, time: float, *, save: bool = False) -> None:
        """The root is told to give up what has not begun; save: and to have the rest save its state."""
        self._at(time, self._withdraw, save)

    def kill_at(self, time: float, rank: int, detected_s: float = 0.5) -> None:
        """An agent dies; each of the others hears of it at some time up to `detected_s` later."""
        if rank == 0:
            raise ValueError("Agent 0 is the root: a pool without it is over, so it cannot be killed here.")
        self._at(time, self._kill, rank, detected_s)

    def run(self) -> Outcome:
        """Until nothing is left to happen."""
        heap = self._heap
        collecting = gc.isenabled()
        gc.disable()  # a million live tasks and nothing cyclic among them
        try:
            while heap:
                self.now, _, action, arguments = heappop(heap)
                self.outcome.events += 1
                action(*arguments)
        except AssertionError as error:
            error.add_note("\n".join(["The last events:", *self.log]))
            raise
        finally:
            if collecting:
                gc.enable()
        return self.outcome

    # Events

    def _at(self, time: float, action: Callable[..., None], *arguments: Any) -> None:
        self._sequence += 1
        heappush(self._heap, (time, self._sequence, action, arguments))

    def _submit(self, tasks: Sequence[Task]) -> None:
        if self._checked or self._pieces:
            self.submitted.update((task.id, task) for task in tasks)
        if self._checked:
            self._note("submit", [task.id for task in tasks])
            self._unfinished.update(task.id for task in tasks)
        self.cores[0].submit(self.now, tasks)
        if self._ending:
            self.cores[0].withdraw(self.now, save=True)
        self._obey(0)

    def _withdraw(self, save: bool) -> None:
        self._note("withdraw", "and save" if save else "")
        self._ending = self._ending or save
        self.cores[0].withdraw(self.now, save=save)
        self._obey(0)

    def _kill(self, rank: int, detected_s: float) -> None:
        if rank in self.dead:
            return
        self._note("kill", rank)
        self.dead[rank] = self.now
        self._count(rank, -self._busy_of[rank])
        self._total -= self.capacities[rank].cores
        self._here[rank] = []
        for pair in [pair for pair in self._carried if rank in pair]:
            del self._carried[pair]
        for other in range(len(self.cores)):
            if other == rank:
                continue
            if self._random.random() < 0.5:
                self._lost_after[rank, other] = self.now + self._random.random() * 4 * self.network.latency_s
            self._flying += 1
            self._at(self.now + self._random.random() * detected_s, self._hear_death, other, rank)

    def _hear_death(self, rank: int, of: int) -> None:
        self._flying -= 1
        if rank not in self.dead:
            self._note("died", of, "heard by", rank)
            if rank == 0:
                self._mourned.add(of)
            self.cores[rank].died(self.now, of)
            self._obey(rank)

    def _arrive(self, source: int, to: int, message: Any) -> None:
        self._flying -= 1
        if to in self.dead or (source in self.dead and self._lost_after.get((source, to), self.now) < self.now):
            return
        if self._checked:
            self._note(source, "->", to, message)
            if source not in self.dead:
                carrying = self._carried[source, to]  # in the order in which they were sent
                del carrying[: len(carried(message))]
        self.cores[to].message(self.now, source, message)
        self._obey(to)

    def _finish(self, rank: int, task: Task, told: bool = False) -> None:
        if rank in self.dead or self._run[rank].pop(task.id, None) is None:
            return  # it has saved its state meanwhile, or come to its end before it could
        if self._checked:
            self._note("end of", task.id, "at", rank)
            self._check_saved(rank, task)
        self._count(rank, -task.cores)
        result = LATER if told or self._pieces.get(self._first.get(task.id, -1)) else 0
        successor = next((each for each in self._at_hand[rank] if needs(each) == needs(task)), None)
        if successor is None:
            self.cores[rank].finished(self.now, task.id, result)
        else:  # as a runner does: at once, and the core hears of it with the end
            self._at_hand[rank].remove(successor)
            self.cores[rank].finished(self.now, task.id, result, successor.id)
            self._begin(rank, successor)
        self._obey(rank)

    def _save(self, rank: int) -> None:
        """What runs and can go on later saves its state and ends, if it has not ended by then."""
        self._note("save", "at", rank)
        self.saved[rank] = self.now
        for task in self._run[rank].values():
            if task.id in self._first:
                self._at(self.now + self._random.random() * SAVE_S, self._finish, rank, task, True)

    def _put_back(self, rank: int, number: int) -> None:
        """A task that was taken ahead has waited too long, or is called back, unless it has begun."""
        found = [task for task in self._at_hand[rank] if task.id == number]
        if found and rank not in self.dead:
            self._at_hand[rank].remove(found[0])
            self._note("back", number, "at", rank)
            self.cores[rank].put_back(self.now, [number])
            self._obey(rank)

    def _tick(self, rank: int, due: float) -> None:
        if self._ticks[rank] != due:
            return
        self._ticks[rank] = None
        if rank not in self.dead:
            self.cores[rank].tick(self.now)
            self._obey(rank)

    # Effects

    def _obey(self, rank: int) -> None:
        core = self.cores[rank]
        for effect in core.drain():
            if isinstance(effect, Send):
                self._send(rank, effect.to, effect.message)
            elif isinstance(effect, Start):
                self._begin(rank, effect.task)
            elif isinstance(effect, Recall):
                for number in effect.ids:
                    self._at(self.now + self._random.random() * self.network.latency_s, self._put_back, rank, number)
            elif isinstance(effect, Save):
                self._at(self.now + self.network.latency_s, self._save, rank)  # after what it calls back
            elif isinstance(effect, Report):
                self._report(effect)
            elif isinstance(effect, Withdrawn):
                self._settled(effect.ids)
                self.outcome.withdrawn.update(effect.ids)
                self.outcome.later.update(self._first[number] for number in effect.ids if number >= FURTHER)
            elif isinstance(effect, Impossible):
                self._settled([effect.id])
                self.outcome.impossible[effect.id] = effect.why
        if self._ahead and self._busy_of[rank]:
            self._take_ahead(rank)
        if core.next_tick is not None and core.next_tick != self._ticks[rank]:
            self._ticks[rank] = core.next_tick
            self._at(core.next_tick, self._tick, rank, core.next_tick)
        if self._checked:
            core.check()
            self._check_books()
            self._check_places(rank)
            if not self._flying and all(due is None for due in self._ticks):
                self._check_idle()

    def _send(self, source: int, to: int, message: Any) -> None:
        network = self.network
        self.outcome.messages[type(message).__name__] += 1
        size = network.message_bytes
        if isinstance(message, Give):
            size += network.task_bytes * len(message.tasks)
        self.outcome.bytes += size
        self._link_free[source] = left = max(self.now, self._link_free[source]) + size / network.bytes_per_s
        due = left + network.latency_s
        if self._ordered:
            due += self._random.random() * network.jitter_s
            if self._random.random() < network.slow:
                due += self._random.random() * network.slow_s
            self._last[source, to] = due = max(due, self._last.get((source, to), 0.0))
        self._flying += 1
        if self._checked and to not in self.dead:
            self._carried.setdefault((source, to), []).extend(carried(message))
        self._at(due, self._arrive, source, to, message)

    def _take_ahead(self, rank: int) -> None:
        """What an agent has at hand of tasks without devices; each for a while only."""
        lacking = self._ahead - len(self._at_hand[rank])
        for task in self.cores[rank].take_ahead(self.now, lambda task: not task.devices, lacking):
            self._at_hand[rank].append(task)
            self._at(self.now + AHEAD_S, self._put_back, rank, task.id)

    def _begin(self, rank: int, task: Task) -> None:
        if self._checked:
            self._note("start", task.id, "at", rank)
            self._check_start(rank, task)
        self.outcome.starts.setdefault(task.id, []).append((self.now, rank))
        self._count(rank, task.cores)
        self._run[rank][task.id] = task
        seconds = self._piece_s[task.id] if task.id >= FURTHER else self.durations[task.id]
        self._at(self.now + seconds, self._finish, rank, task)

    def _report(self, effect: Report) -> None:
        self._settled([number for number, _, _ in effect.items])
        for number, rank, result in effect.items:
            self.outcome.reports[number] = (self.now, rank)
            if result == LATER:
                self._go_on(number)

    def _go_on(self, number: int) -> None:
        """A job has saved its state: whoever submits hands it over again, unless the pool is to end."""
        first = self._first[number]
        if self._ending:
            self.outcome.later.add(first)
            return
        task, left = self.submitted[number], self._pieces[first]
        again = replace(task, id=self._next, pieces=task.pieces + 1)
        self._next += 1
        self._first[again.id] = first
        self.outcome.chains.setdefault(first, [first]).append(again.id)
        self._piece_s[again.id] = left.pop(0)
        self._at(self.now + self.network.latency_s, self._submit, [again])

    def _settled(self, ids: Iterable[int]) -> None:
        outcome = self.outcome
        for number in ids:
            again = number in outcome.reports or number in outcome.withdrawn or number in outcome.impossible
            assert not again, f"task {number} is accounted for twice"
            self._unfinished.discard(number)
        outcome.makespan = self.now

    def _count(self, rank: int, change: int) -> None:
        """Cores that come into use (or, below 0, out of it)."""
        self._busy += change
        self._busy_of[rank] += change
        outcome = self.outcome
        if outcome.all_busy is None and self._busy == self._total:
            outcome.all_busy = self.now
        if outcome.busy and self.now - outcome.busy[-1][0] <= self._resolution:
            outcome.busy[-1] = (outcome.busy[-1][0], self._busy)
        else:
            outcome.busy.append((self.now, self._busy))

    # Laws

    def _note(self, *words: Any) -> None:
        self.log.append(f"{self.now:.6f} " + " ".join(map(str, words)))

    def _check_start(self, rank: int, task: Task) -> None:
        outcome = self.outcome
        assert task.id not in outcome.reports, f"task {task.id} was reported and begins again at {rank}"
        for _, earlier in outcome.starts.get(task.id, ()):
            assert earlier in self.dead, f"task {task.id} begins at {rank} while {earlier} lives and has begun it"

    def _check_saved(self, rank: int, task: Task) -> None:
        """A task that can go on later has ended soon after its agent was told to have it do so."""
        if task.id in self._first and self.outcome.starts[task.id][-1][0] <= self.saved.get(rank, -1.0):
            late = self.now - self.saved[rank]
            assert late <= SAVE_S, f"task {task.id} ran on at {rank} for {late} s after it was told to save its state"

    def _check_books(self) -> None:
        outcome = self.outcome
        accounted = len(outcome.reports) + len(outcome.withdrawn) + len(outcome.impossible)
        unfinished = self.cores[0].unfinished
        assert len(self.submitted) == unfinished + accounted, (
            f"{len(self.submitted)} tasks were submitted, {unfinished} are unfinished, {accounted} accounted for"
        )

    def _check_places(self, rank: int) -> None:
        """Each task that the root has not accounted for waits, runs or is at hand at one agent, or is in one message.

        Nobody can say so from a death on until the root's census has ended.
        """
        here = [task.id for task in self.cores[rank].waiting]
        self._here[rank] = [*here, *self._run[rank], *(task.id for task in self._at_hand[rank])]
        if len(self._mourned) < len(self.dead) or self.cores[0]._census is not None:
            return
        places = [number for some in (*self._here, *self._carried.values()) for number in some]
        if len(places) == len(self._unfinished) and self._unfinished.issubset(places):
            return
        nowhere, ended = self._unfinished.difference(places), set(places) - self._unfinished
        assert not nowhere, f"unfinished tasks are nowhere: {sorted(nowhere)}"
        assert not ended, f"tasks that have ended are kept: {sorted(ended)}"
        twice = [number for number, times in Counter(places).items() if times > 1]
        raise AssertionError(f"tasks are in two places: {twice}")

    def _check_idle(self) -> None:
        """Nothing is on its way: no task may wait anywhere that an agent could start."""
        alive = [core for rank, core in enumerate(self.cores) if rank not in self.dead]
        rooms = [core.spare for core in alive]
        for core in alive:
            for task in core.waiting:
                # A queue looks at the first only of tasks that need about the same memory.
                mem_mb = (1 << task.mem_mb.bit_length()) - 1
                for other, room in zip(alive, rooms, strict=True):
                    fits = room.holds(task.cores, task.devices, mem_mb)
                    assert not fits, f"task {task.id} waits at {core.rank} although {other.rank} has {room}"

    def check_end(self) -> None:
        """Assert what must hold when nothing is left to happen: tasks have an end, nobody holds or plans anything."""
        outcome = self.outcome
        ends = outcome.reports.keys() | outcome.withdrawn | outcome.impossible.keys()
        assert ends == self.submitted.keys(), f"no end of tasks {sorted(self.submitted.keys() - ends)}"
        for first in self._pieces.keys() & self.submitted.keys():
            self._check_job(first)
        for rank, core in enumerate(self.cores):
            if rank not in self.dead:
                assert not core.holding, f"agent {rank} still holds {sorted(core.holding)}"
                assert core.next_tick is None, f"agent {rank} plans something at {core.next_tick}"
                assert rank in self.saved or not self._ending, f"agent {rank} was never told to have its tasks saved"

    def _check_job(self, first: int) -> None:
        """Assert that a job in pieces is done, goes on later, or never began; and that each piece follows the last."""
        outcome = self.outcome
        chain = outcome.chains.get(first, [first])
        for before, after in pairwise(chain):
            (ended, _), starts = outcome.reports[before], outcome.starts.get(after, [])
            assert all(begun >= ended for begun, _ in starts), f"task {after} began before {before} was reported"
        last, later = chain[-1], first in outcome.later
        for begun, rank in outcome.starts.get(last, []) if self._ending else []:
            told = rank in self.dead or begun <= self.saved.get(rank, -1.0)
            assert told, f"task {last} began at {rank} and was never told to save its state"
        done = last in outcome.reports and not later
        assert not done or not self._pieces[first], f"job {first} was not handed over again"
        never = len(chain) == 1 and (first in outcome.withdrawn or first in outcome.impossible)
        lost = last in outcome.impossible  # those who could run it have died
        assert done + later + never + (lost and not never) == 1, f"job {first} has not one end: {chain}, later: {later}"


def central_queue(durations: Iterable[float], slots: int) -> list[float]:
    """When each task of one core ends, s, if one queue without delay serves `slots` slots in the order given."""
    free = [0.0] * slots
    heapify(free)
    ends = []
    for duration in durations:
        end = free[0] + duration
        heapreplace(free, end)
        ends.append(end)
    return ends
