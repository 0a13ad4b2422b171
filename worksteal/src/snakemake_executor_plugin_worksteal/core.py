"""The scheduling core: the state machine of one agent. Events in (method calls with the time), effects out (`drain`).

No clock, no socket, no thread and no global randomness are in it, so the same code runs over MPI, in one process, and
in the simulator (module simulator), where delays and deaths are tried by seed.

How work spreads. A batch that is more than the pool can run at once is dealt out to all agents; a smaller one waits at
the root for those who are idle. An agent that has room and nothing to start asks a random other one, which gives half
of what fits (every second task, so that both keep the mix). After two refusals it leaves a *lifeline* with the root
(after Saraswat et al., PPoPP 2011): a request that stays until it is answered, and is silent. Agents tell the root,
with their results, what waits with them; the root sends lifelines on to those who have what fits. So no slot stays idle
for long while a task waits anywhere that it could run.

What is safe. A transfer stays the giver's until it is acknowledged. When an agent dies, the root takes a census: the
survivors name the tasks they hold, and what nobody holds is queued again. So that each task is named by exactly one
survivor, or by none if it was lost: a survivor answers when all that it gave has been acknowledged, and gives nothing
until then; who is given something by one that has answered gives nothing before having answered too (else it might give
it to the dead); what was acknowledged by one that had answered before it came there is named by its giver; and after
the answer nothing from the dead is accepted. docs/worksteal.md has the invariants.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from .messages import (
    Acknowledge,
    Census,
    Done,
    Give,
    Held,
    Idle,
    Impossible,
    Nothing,
    Recall,
    Report,
    Room,
    Save,
    Send,
    Start,
    Status,
    Steal,
    Want,
    Withdraw,
    Withdrawn,
    Withdrew,
    uncovered,
)
from .queue import Waiting, entry
from .tasks import Task

UNLIMITED = -1
ANY = Room(sys.maxsize, sys.maxsize, UNLIMITED)


@dataclass(frozen=True, slots=True)
class Capacity:
    """What an agent may use of its node. mem_mb 0: not limited."""

    cores: int
    devices: int = 0
    mem_mb: int = 0
    host: str = ""

    @property
    def room(self) -> Room:
        """The same as room."""
        return Room(self.cores, self.devices, self.mem_mb or UNLIMITED)


@dataclass(frozen=True, slots=True)
class CoreConfig:
    """misses: random victims asked in vain before the lifeline. status_s: shortest time between two status messages."""

    misses: int = 2
    status_s: float = 1.0


class Core:
    """One agent. `root` is the agent that Snakemake talks to; task ids must rise from one `submit` to the next."""

    def __init__(
        self,
        rank: int,
        capacities: Sequence[Capacity],
        *,
        seed: int = 0,
        root: int = 0,
        config: CoreConfig = CoreConfig(),
    ) -> None:
        self.rank = rank
        self.root = root
        self.config = config
        self.capacities = capacities
        self.next_tick: float | None = None
        self.until = float("inf")  # when tasks have to end, by the driver's clock
        self.counts = dict.fromkeys(("asked", "got", "stolen", "given", "sent", "started"), 0)
        own = capacities[rank]
        self._own = own.room
        self._patience = max(1, own.cores)
        self._cores = list(range(own.cores - 1, -1, -1))
        self._devices = list(range(own.devices - 1, -1, -1))
        self._mem_mb = own.mem_mb or UNLIMITED
        self._random = random.Random(f"{seed}:{rank}")
        self._alive: Sequence[int] = range(len(capacities))
        self._dead: set[int] = set()
        self._homes: dict[str, int] = {}
        self._slots: dict[Room, list[int]] = {}  # at the root: agents by what they can run, each as often as it fits
        self._waiting = Waiting(lambda task: self._home(task.affinity) == rank)
        self._running: dict[int, tuple[Task, tuple[int, ...], tuple[int, ...]]] = {}
        self._ahead: dict[int, Task] = {}  # taken by the driver, to begin when another ends
        self._results: list[tuple[int, Any]] = []
        self._effects: list[Any] = []
        # Stealing
        self._asking: int | None = None
        self._missed = 0
        self._lifeline = False  # whether the root has this agent's request
        self._wants: tuple[Room, ...] = ()  # what the root said that there is
        # Transfers
        self._transfers = 0
        self._transit: dict[int, tuple[int, tuple[Task, ...], bool]] = {}
        self._epoch = 0  # the last census that was answered (at the root: begun)
        self._heard = 0  # the last census that was heard of: while it is ahead of _epoch, nothing is given away
        self._asked = 0  # the last census that is to be answered
        self._late: list[tuple[int, list[int]]] = []  # acknowledged by one who had answered that census
        self._withdrawn_upto = -1
        # Status
        self._told = 0
        self._told_at = float("-inf")
        self._told_needs: tuple[Room, ...] = ()
        # The root's
        self._unfinished: dict[int, Task] = {}
        self._submitted = self._finished = self._given_up = 0
        self._census: tuple[set[int], set[int]] | None = None  # (still to answer, held)
        self._pool: dict[int, int] = {}
        self._idle: dict[int, Room] = {}  # whose lifelines are here, and the room they had
        self._offers: list[int] = []  # those of them who may now get something
        self._coming: Counter[int] = Counter()  # unacknowledged transfers that use up the receiver's lifeline
        self._wanted: dict[int, tuple[Room, ...]] = {}  # what the idle were told that they would need
        self._surplus: dict[int, tuple[Room, ...]] = {}  # who has tasks that wait, and what these need
        self._handlers: dict[type, Callable[[float, int, Any], None]] = {
            Steal: self._on_steal,
            Give: self._on_give,
            Nothing: self._on_nothing,
            Idle: self._on_idle,
            Want: self._on_want,
            Acknowledge: self._on_acknowledge,
            Done: self._on_done,
            Status: self._on_status,
            Withdraw: self._on_withdraw,
            Withdrew: self._on_withdrew,
            Census: self._on_census,
            Held: self._on_held,
        }

    # What the driver may look at

    @property
    def queued(self) -> int:
        """Tasks that wait here."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Tasks that run here."""
        return len(self._running)

    @property
    def pool_running(self) -> int:
        """At the root: tasks that run anywhere, as last told."""
        return len(self._running) + sum(self._pool.values())

    @property
    def unfinished(self) -> int:
        """At the root: tasks that were submitted and are neither finished nor withdrawn."""
        return len(self._unfinished)

    @property
    def free(self) -> Room:
        """What of the node is not in use."""
        return Room(len(self._cores), len(self._devices), self._mem_mb)

    @property
    def spare(self) -> Room:
        """What of the node is neither in use nor kept for a task that has waited long."""
        return self._waiting.spare(self.free, self._patience)

    @property
    def waiting(self) -> list[Task]:
        """The tasks that wait here."""
        return list(self._waiting)

    @property
    def holding(self) -> set[int]:
        """Ids of the tasks that are here in any form."""
        held = {task.id for task in self._waiting} | set(self._running) | set(self._ahead)
        held.update(number for number, _ in self._results)
        for _, tasks, _ in self._transit.values():
            held.update(task.id for task in tasks)
        return held

    def statistics(self) -> dict[str, int]:
        """Counts: steals asked and answered with work, tasks stolen and given away, messages sent, tasks started."""
        return dict(self.counts)

    # Events

    def submit(self, now: float, tasks: Iterable[Task]) -> None:
        """At the root: new tasks."""
        tasks = list(tasks)
        self._submitted += len(tasks)
        self._unfinished.update((task.id, task) for task in tasks)
        self._route(tasks)
        self._settle(now)

    def withdraw(self, now: float, *, save: bool = False, stop: bool = False) -> None:
        """At the root: give up all that has been submitted and has not begun anywhere; save: tell the rest to save;
        stop: tell the rest to end, and begin nothing any more.
        """
        message = Withdraw(sys.maxsize if stop else max(self._unfinished, default=-1), save, stop)
        self._on_withdraw(now, self.root, message)
        for rank in self._alive:
            if rank != self.rank:
                self._send(rank, message)
        self._settle(now)

    def message(self, now: float, source: int, message: Any) -> None:
        """Another agent's message has come."""
        self._handlers[type(message)](now, source, message)
        self._settle(now)

    def finished(self, now: float, number: int, result: Any, successor: int | None = None) -> None:
        """A task that was started here has ended, and a task that was taken ahead, if any, has begun in its place."""
        task, cores, devices = self._running.pop(number)
        if successor is not None:
            self._running[successor] = (self._ahead.pop(successor), cores, devices)
            self.counts["started"] += 1
        else:
            self._cores.extend(cores)
            self._devices.extend(devices)
            if self._mem_mb != UNLIMITED:
                self._mem_mb += task.mem_mb
        self._results.append((number, result))
        self._settle(now)

    def take_ahead(self, now: float, suits: Callable[[Task], bool], most: int) -> list[Task]:
        """Tasks that the driver may have at hand, to start one itself the moment a task that needs just the same ends.

        They are the first in line, as far as they suit, and none of the last that wait: these are for thieves, where
        there are any. The driver gives them back (`put_back`) if they do not begin soon.
        """
        taken: list[Task] = []
        kept = self._patience if len(self._alive) > 1 else 0
        while len(taken) < most and len(self._waiting) > kept:
            task = self._waiting.take_first(lambda task: suits(task) and not self._is_late(now, task))
            if task is None:
                break
            taken.append(task)
        self._ahead.update((task.id, task) for task in taken)
        return taken

    def put_back(self, now: float, numbers: Iterable[int]) -> None:
        """Tasks that were taken ahead have not begun."""
        self._place([self._ahead.pop(number) for number in numbers])
        self._settle(now)

    def died(self, now: float, rank: int) -> None:
        """Another agent is dead."""
        if not self._bury(rank):
            return
        if self.rank == self.root:
            self._begin_census()
        self._settle(now)

    def tick(self, now: float) -> None:
        """The time that `next_tick` named has come; also to be called once at the start, to look for work."""
        self.next_tick = None
        if len(self._running) != self._told and self.rank != self.root:
            self._told_at = now
            self._tell(self._told_needs)
        self._settle(now)

    def drain(self) -> list[Any]:
        """The effects since the last call; results since then go in one message."""
        results, self._results = self._results, []
        if self.rank == self.root:
            self._report(self.rank, results)
        else:
            needs = self._waiting.needs(ANY) if self._waiting and self._may_give else ()
            if results:
                self.next_tick = None
                self._told, self._told_needs = len(self._running), needs
                self._send(self.root, Done(tuple(results), self._told, needs))
            elif uncovered(needs, self._told_needs):
                self._tell(needs)
        effects, self._effects = self._effects, []
        return effects

    # Starting

    def _settle(self, now: float) -> None:
        """After any event: start what fits, give away what is too much, look for work if there is room."""
        while self._cores and self._waiting:
            task = self._waiting.next(self.free, self._patience)
            if task is None:
                break
            if self._is_late(now, task):
                self._withdrew([task.id], late=True)
            else:
                self._start(task)
        if self._cores and len(self._alive) > 1:
            self._seek()
        elif self._missed:
            self._missed = 0
        if self._offers:
            self._share()
        if self.rank != self.root and len(self._running) != self._told and self.next_tick is None:
            self.next_tick = max(now, self._told_at + max(self.config.status_s, len(self._alive) / 200))

    def _is_late(self, now: float, task: Task) -> bool:
        """Whether too little time is left for a task. It only gets less, and is the same at all agents."""
        return task.needs_s > 0 and now + task.needs_s > self.until

    def _start(self, task: Task) -> None:
        cores = tuple(self._cores.pop() for _ in range(task.cores))
        devices = tuple(self._devices.pop() for _ in range(task.devices))
        if self._mem_mb != UNLIMITED:
            self._mem_mb -= task.mem_mb
        self._running[task.id] = (task, cores, devices)
        self.counts["started"] += 1
        self._effects.append(Start(task, cores, devices))

    def _route(self, tasks: Iterable[Task]) -> None:
        """At the root: send tasks to their homes, deal out large batches, queue the others here."""
        places: dict[int, list[Task]] = {self.rank: []}
        groups: dict[Room, list[Task]] = {}
        for task in tasks:
            need = Room(task.cores, task.devices, task.mem_mb)
            if task.id <= self._withdrawn_upto:
                places[self.rank].append(task)
            elif task.affinity and self.capacities[home := self._home(task.affinity)].room.holds(*need):
                places.setdefault(home, []).append(task)
            else:
                groups.setdefault(need, []).append(task)
        for need, group in groups.items():
            if len(group) <= self._own.times(*need):
                places[self.rank] += group
            else:
                self._deal(need, group, places)
        self._place(places.pop(self.rank))
        for rank, some in places.items():
            self._give(rank, some, answer=False)

    def _deal(self, need: Room, group: list[Task], places: dict[int, list[Task]]) -> None:
        """Add tasks that need the same to what goes to the agents.

        More of them than the pool can run at once are dealt to all like cards, best first and there and back, so that
        each agent has the same mix. Fewer stay here for those who look for work, or go to any node that can hold them
        if this one cannot.
        """
        if need not in self._slots:
            fits = [(rank, self.capacities[rank].room.times(*need)) for rank in self._alive]
            most = max(times for _, times in fits)
            self._slots[need] = [rank for turn in range(most) for rank, times in fits if turn < times]
        slots = self._slots[need]
        if not slots:
            for task in group:
                self._give_up(task)
        elif len(group) > len(slots):
            for index, task in enumerate(sorted(group, key=entry, reverse=True)):
                row, column = divmod(index, len(slots))
                places.setdefault(slots[~column if row % 2 else column], []).append(task)
        elif self._own.holds(*need):
            places[self.rank] += group
        else:
            for task in group:
                places.setdefault(self._random.choice(slots), []).append(task)

    def _place(self, tasks: Iterable[Task]) -> None:
        """Queue tasks here, but for those that have been withdrawn."""
        here: list[Task] = []
        gone: list[int] = []
        for task in tasks:
            if task.id > self._withdrawn_upto:
                here.append(task)
            else:
                gone.append(task.id)
        self._waiting.add(here)
        self._withdrew(gone)
        if here:
            self._offers = list(self._idle)

    def _give_up(self, task: Task) -> None:
        """At the root: no living agent can ever run a task."""
        del self._unfinished[task.id]
        self._given_up += 1
        self._effects.append(Impossible(task.id, self._why_impossible(task)))

    def _why_impossible(self, task: Task) -> str:
        def words(cores: int, devices: int, mem_mb: int) -> str:
            return f"{cores} cores, {devices} devices" + (f" and {mem_mb} MB" if mem_mb > 0 else "")

        largest = max(self.capacities[rank].room for rank in self._alive)
        return f"it needs {words(task.cores, task.devices, task.mem_mb)}, the largest node has {words(*largest)}"

    def _home(self, affinity: str) -> int:
        """The living agent that tasks of one affinity prefer (rendezvous hashing: deaths move only the dead's keys)."""
        if affinity not in self._homes:
            self._homes[affinity] = max(
                self._alive,
                key=lambda rank: blake2b(f"{rank}:{affinity}".encode(), digest_size=8).digest(),
            )
        return self._homes[affinity]

    # Stealing

    @property
    def _may_give(self) -> bool:
        """Not while a census is being taken that was not answered here."""
        return self._heard == self._epoch

    def _seek(self) -> None:
        """Look for work: there is room and nothing to start."""
        if self._asking is not None:
            return
        free = self.spare
        if not free.cores:
            return
        if self._lifeline:
            if any(free.holds(*room) for room in self._wants):
                self._leave_lifeline(free)
        elif self._missed < self.config.misses:
            victim = self._alive[self._random.randrange(len(self._alive) - 1)]
            if victim == self.rank:
                victim = self._alive[-1]
            self._asking = victim
            self.counts["asked"] += 1
            self._send(victim, Steal(free, False))
        else:
            self._leave_lifeline(free)

    def _leave_lifeline(self, free: Room) -> None:
        self._lifeline = True
        self._wants = ()
        if self.rank == self.root:
            self._keep_lifeline(self.rank, free)
        else:
            self._send(self.root, Steal(free, True))

    def _on_steal(self, now: float, source: int, message: Steal) -> None:
        if source in self._dead:
            return
        if message.lifeline:
            self._keep_lifeline(source, message.room)
            return
        tasks = self._waiting.take(message.room) if self._may_give else []
        if tasks:
            self._give(source, tasks, answer=True)
        else:
            self._send(source, Nothing())

    def _keep_lifeline(self, rank: int, room: Room) -> None:
        """At the root: note who is idle. If work is on its way there, the request is older and is used up by it."""
        if not self._coming[rank]:
            self._idle[rank] = room
            self._wanted.pop(rank, None)
            self._offers.append(rank)  # _settle shares

    def _share(self) -> None:
        """At the root: give the idle equal parts of what waits here, or send them on to those who have what fits."""
        offers, self._offers = self._offers, []
        for rank in offers:
            if rank not in self._idle:
                continue
            if not self._waiting and not self._surplus:
                break
            tasks = self._waiting.take(self._idle[rank], len(self._idle) + 1) if rank != self.rank else []
            if tasks:
                self._give(rank, tasks, answer=False)
                continue
            if rank != self.rank and self._waiting:
                self._tell_wanted(rank, self._waiting.needs(self.capacities[rank].room))
            for giver in self._surplus:
                if self._introduce(giver, rank):
                    break

    def _introduce(self, giver: int, taker: int) -> bool:
        """At the root: send a lifeline on to one who has tasks that wait, if one of them fits; whether it does."""
        needs, room = self._surplus[giver], self._idle[taker]
        if giver == taker:
            return False
        if any(room.holds(*need) for need in needs):
            del self._surplus[giver]  # until it tells what it has left
            self._use_up(taker)
            self._send(giver, Idle(taker, room))
            return True
        capacity = self.capacities[taker].room
        self._tell_wanted(taker, tuple(need for need in needs if capacity.holds(*need)))
        return False

    def _tell_wanted(self, rank: int, needs: tuple[Room, ...]) -> None:
        told = self._wanted.get(rank, ())
        if uncovered(needs, told):
            self._wanted[rank] = needs = told + needs
            if rank == self.rank:
                self._wants = needs
            else:
                self._send(rank, Want(needs))

    def _use_up(self, rank: int) -> None:
        self._idle.pop(rank, None)
        self._wanted.pop(rank, None)

    def _on_idle(self, now: float, source: int, message: Idle) -> None:
        if message.rank in self._dead:
            return
        if self.rank == self.root:
            if message.rank not in self._idle:
                self._keep_lifeline(message.rank, message.room)
            return
        self._told_needs = ()  # the root is to hear what is left
        tasks = self._waiting.take(message.room) if self._may_give else []
        if tasks:
            self._give(message.rank, tasks, answer=False)
        else:
            self._send(self.root, message)

    def _on_want(self, now: float, source: int, message: Want) -> None:
        self._wants = message.rooms  # _seek answers when there is room

    def _on_nothing(self, now: float, source: int, message: Nothing) -> None:
        if self._asking == source:
            self._asking = None
            self._missed += 1

    # Transfers

    def _give(self, rank: int, tasks: Sequence[Task], *, answer: bool) -> None:
        self._transfers += 1
        given = tuple(tasks)
        self._transit[self._transfers] = (rank, given, answer)
        if not answer and self.rank == self.root:
            self._coming[rank] += 1
            self._use_up(rank)
        self.counts["given"] += len(given)
        self._send(rank, Give(self._transfers, given, answer, self._epoch))

    def _on_give(self, now: float, source: int, message: Give) -> None:
        if source in self._dead:
            return  # the census counts these as the dead's
        self._heard = max(self._heard, message.epoch)
        if not message.answer:
            self._lifeline = False
            self._wants = ()
        elif self._asking == source:
            self._asking = None
            self._missed = 0
        self.counts["got"] += 1
        self.counts["stolen"] += len(message.tasks)
        self._send(source, Acknowledge(message.transfer, self._epoch))
        self._place(message.tasks)

    def _on_acknowledge(self, now: float, source: int, message: Acknowledge) -> None:
        found = self._transit.pop(message.transfer, None)
        if found is None:
            return
        if not found[2]:
            self._coming[source] -= 1
        if message.epoch > self._epoch or (self._census is not None and message.epoch == self._epoch):
            # The receiver had answered a census before these came there, so it has not named them: their giver does.
            ids = [task.id for task in found[1]]
            if self._census is not None:
                self._census[1].update(ids)
            else:
                self._late.append((message.epoch, ids))
        if self._asked > self._epoch and not self._transit:
            self._answer_census()

    # Results

    def _on_done(self, now: float, source: int, message: Done) -> None:
        if source in self._dead:
            return  # the census has these begin again, which must not happen to a task that was reported
        self._hear_status(source, message.running, message.needs)
        self._report(source, message.items)

    def _report(self, rank: int, items: Iterable[tuple[int, Any]]) -> None:
        new = [(number, rank, result) for number, result in items if self._unfinished.pop(number, None) is not None]
        if new:
            self._finished += len(new)
            self._effects.append(Report(new))

    def _tell(self, needs: tuple[Room, ...]) -> None:
        self._told, self._told_needs = len(self._running), needs
        self._send(self.root, Status(self._told, needs))

    def _on_status(self, now: float, source: int, message: Status) -> None:
        if source not in self._dead:
            self._hear_status(source, message.running, message.needs)

    def _hear_status(self, source: int, running: int, needs: tuple[Room, ...]) -> None:
        self._pool[source] = running
        self._surplus.pop(source, None)
        if needs:
            self._surplus[source] = needs
            for taker in self._idle:
                if self._introduce(source, taker):
                    break

    # Withdrawing

    def _on_withdraw(self, now: float, source: int, message: Withdraw) -> None:
        self._withdrawn_upto = max(self._withdrawn_upto, message.upto)
        self._withdrew(self._waiting.remove_upto(self._withdrawn_upto))
        ahead = [number for number in self._ahead if number <= self._withdrawn_upto]
        if ahead:
            self._effects.append(Recall(ahead))
        if message.save or message.stop:
            self._effects.append(Save(message.stop))

    def _withdrew(self, ids: Sequence[int], *, late: bool = False) -> None:
        if ids and self.rank == self.root:
            self._on_withdrew(0.0, self.rank, Withdrew(tuple(ids), late))
        elif ids:
            self._send(self.root, Withdrew(tuple(ids), late))

    def _on_withdrew(self, now: float, source: int, message: Withdrew) -> None:
        gone = [number for number in message.ids if self._unfinished.pop(number, None) is not None]
        if gone:
            self._given_up += len(gone)
            self._effects.append(Withdrawn(gone, message.late))

    # Deaths

    def _bury(self, rank: int) -> bool:
        """Forget a dead agent; False if it was known to be dead."""
        if rank in self._dead:
            return False
        self._dead.add(rank)
        self._alive = [other for other in self._alive if other != rank]
        self._homes.clear()
        self._slots.clear()
        for table in (self._idle, self._wanted, self._surplus, self._pool, self._coming):
            table.pop(rank, None)
        if self._asking == rank:
            self._asking = None
        return True

    def _begin_census(self) -> None:
        self._epoch += 1
        self._heard = self._epoch
        self._lifeline = False
        self._forget_lost()
        others = {rank for rank in self._alive if rank != self.rank}
        self._census = (others, set())
        for rank in sorted(others):
            self._send(rank, Census(self._epoch, tuple(self._dead)))
        if not others:
            self._end_census()

    def _forget_lost(self) -> None:
        """What is on its way to the dead is nobody's now: if it came there and went on, the census shows that."""
        self._transit = {number: found for number, found in self._transit.items() if found[0] not in self._dead}

    def _on_census(self, now: float, source: int, message: Census) -> None:
        for rank in message.dead:
            self._bury(rank)
        self._heard = max(self._heard, message.epoch)
        self._asked = message.epoch
        self._lifeline = False  # it may have been sent on to the dead
        self._forget_lost()
        if not self._transit:
            self._answer_census()

    def _answer_census(self) -> None:
        self._epoch = self._asked
        held = self.holding
        for epoch, ids in self._late:
            if epoch >= self._epoch:
                held.update(ids)
        self._late = [late for late in self._late if late[0] > self._epoch]
        self._send(self.root, Held(self._epoch, tuple(held)))

    def _on_held(self, now: float, source: int, message: Held) -> None:
        if self._census is None or message.epoch != self._epoch:
            return
        self._census[0].discard(source)
        self._census[1].update(message.ids)
        if not self._census[0]:
            self._end_census()

    def _end_census(self) -> None:
        assert self._census is not None
        held = self._census[1] | self.holding
        self._census = None
        self._route([task for number, task in self._unfinished.items() if number not in held])

    def _send(self, to: int, message: Any) -> None:
        self.counts["sent"] += 1
        self._effects.append(Send(to, message))

    def check(self) -> None:
        """Assert what must hold after every event (for tests)."""
        own = self._own
        used = [cores for _, cores, _ in self._running.values()]
        used_devices = [devices for _, _, devices in self._running.values()]
        cores = sorted([*self._cores, *(core for some in used for core in some)])
        devices = sorted([*self._devices, *(device for some in used_devices for device in some)])
        assert cores == list(range(own.cores)), f"cores are lost or doubled: {cores}"
        assert devices == list(range(own.devices)), f"devices are lost or doubled: {devices}"
        if own.mem_mb != UNLIMITED:
            memory = sum(task.mem_mb for task, _, _ in self._running.values())
            assert self._mem_mb == own.mem_mb - memory >= 0, f"memory is overcommitted: {memory} of {own.mem_mb} MB"
        waiting = [task.id for task in self._waiting]
        assert len(self._waiting) == len(waiting), f"the queue has {len(waiting)} tasks and counts {len(self._waiting)}"
        assert len(waiting) == len({*waiting} - self._running.keys()), "a task is here twice"
        if self.rank == self.root:
            assert self._submitted == len(self._unfinished) + self._finished + self._given_up, "tasks were lost"
