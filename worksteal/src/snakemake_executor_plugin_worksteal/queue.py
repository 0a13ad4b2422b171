"""The tasks that wait at one agent, in the order in which they are to begin."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter

from .messages import Room
from .tasks import Task

# A task with what it is ordered by: priority, expected seconds (longest first, unknown last), then submission (`-id`).
# Those that go on after a piece come after all others of their priority, the fewer pieces the sooner.
Entry = tuple[int, float, int, Task]
ids_of = itemgetter(3)


def entry(task: Task) -> Entry:
    """A task's place: the largest begins first."""
    return task.priority, -float(task.pieces) if task.pieces else task.expected, -task.id, task


def beside(free: Room, task: Task) -> Room:
    """What of `free` others may use while a task waits that has been passed often enough.

    Devices and memory are kept for it in any case, and a single core, since a device that waits for a core is dearer.
    More cores are kept only once its devices are free: a large task that waits for a device for hours must not keep the
    cores of its node idle so long.
    """
    cores = task.cores if task.cores == 1 or task.devices <= free.devices else 0
    return free.without(cores, task.devices, task.mem_mb)


class Shelf:
    """Waiting tasks that need the same: cores, devices, and about the same memory (within a factor of two)."""

    __slots__ = ("affine", "cores", "devices", "entries", "most_mb")

    def __init__(self, cores: int, devices: int, most_mb: int, affine: bool) -> None:
        self.cores = cores
        self.devices = devices
        self.most_mb = most_mb  # no task on the shelf needs more
        self.affine = affine
        self.entries: list[Entry] = []  # ascending: the next to begin is the last

    def fits(self, room: Room) -> bool:
        """Whether the next task fits."""
        return room.holds(self.cores, self.devices, self.entries[-1][3].mem_mb)

    def take(self, room: Room, parts: int) -> list[Entry]:
        """Take out every `parts`-th task of those that fit, the first among them; best first."""
        if room.holds(self.cores, self.devices, self.most_mb):
            taken = self.entries[-1::-parts]
            del self.entries[-1::-parts]
            return taken
        if not room.holds(self.cores, self.devices, 0):
            return []
        taken = [found for found in reversed(self.entries) if found[3].mem_mb <= room.mem_mb][::parts]
        gone = {found[3].id for found in taken}
        self.entries = [found for found in self.entries if found[3].id not in gone]
        return taken


class Waiting:
    """All waiting tasks of an agent, on shelves: each start looks at the first of every shelf only, however many wait.

    `is_home(task)` says whether a task prefers this agent; such tasks are given away last.
    """

    def __init__(self, is_home: Callable[[Task], bool]) -> None:
        self._is_home = is_home
        self._shelves: dict[tuple[int, int, int, bool], Shelf] = {}
        self._size = 0
        # A blocked task and how many others have begun before it since it was first in line.
        self._passed: dict[int, int] = {}

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Task]:
        for shelf in self._shelves.values():
            yield from map(ids_of, shelf.entries)

    def add(self, tasks: Iterable[Task]) -> None:
        """Put tasks in line."""
        batches: dict[tuple[int, int, int, bool], list[Entry]] = {}
        for task in tasks:
            key = task.cores, task.devices, task.mem_mb.bit_length(), bool(task.affinity) and self._is_home(task)
            batches.setdefault(key, []).append(entry(task))
        for key, batch in batches.items():
            shelf = self._shelves.get(key)
            if shelf is None:
                shelf = self._shelves[key] = Shelf(key[0], key[1], (1 << key[2]) - 1, key[3])
            if len(batch) == 1:
                insort(shelf.entries, batch[0])
            else:
                shelf.entries.extend(batch)
                shelf.entries.sort()  # of two sorted runs: linear
            self._size += len(batch)

    def _first(self, free: Room) -> tuple[Shelf | None, Task | None]:
        """The shelf whose first task begins next, and the task before it in line, if any, that does not fit."""
        best: Shelf | None = None
        blocked: Entry | None = None
        for shelf in self._shelves.values():
            if not shelf.entries:
                continue
            first = shelf.entries[-1]
            if shelf.fits(free):
                if best is None or first > best.entries[-1]:
                    best = shelf
            elif blocked is None or first > blocked:
                blocked = first
        if blocked is None or (best is not None and blocked < best.entries[-1]):
            return best, None
        return best, blocked[3]

    def next(self, free: Room, patience: int) -> Task | None:
        """Take the task that is to begin now: the first that fits.

        One that does not fit may be passed by later ones `patience` times; after that they get only what it can spare.
        """
        best, blocked = self._first(free)
        if best is None:
            return None
        if blocked is not None:
            passed = self._passed.get(blocked.id, 0)
            if passed < patience:
                self._passed[blocked.id] = passed + 1
            else:
                best, _ = self._first(beside(free, blocked))
                if best is None:
                    return None
        task = best.entries.pop()[3]
        self._size -= 1
        if self._passed:
            self._passed.pop(task.id, None)
        return task

    def take_first(self, fits: Callable[[Task], bool]) -> Task | None:
        """Take the first in line if it suits and no room has been kept for it."""
        shelves = [shelf for shelf in self._shelves.values() if shelf.entries]
        best = max(shelves, key=lambda shelf: shelf.entries[-1], default=None)
        if best is None:
            return None
        task = best.entries[-1][3]
        if task.id in self._passed or not fits(task):
            return None
        best.entries.pop()
        self._size -= 1
        return task

    def spare(self, free: Room, patience: int) -> Room:
        """What of `free` is not kept for a task that does not fit and has been passed `patience` times."""
        if not self._passed:
            return free
        _, blocked = self._first(free)
        if blocked is None or self._passed.get(blocked.id, 0) < patience:
            return free
        return beside(free, blocked)

    def take(self, room: Room, parts: int = 2) -> list[Task]:
        """A part of what fits into `room`: every `parts`-th task of the order and the first among them, best first.

        Tasks that prefer this agent are given only if there are no others.
        """
        for affine in (False, True):
            taken: list[Entry] = []
            for shelf in self._shelves.values():
                if shelf.entries and shelf.affine is affine:
                    taken += shelf.take(room, parts)
            if taken:
                self._size -= len(taken)
                taken.sort(reverse=True)
                return self._taken(taken)
        return []

    def needs(self, capacity: Room) -> tuple[Room, ...]:
        """What the least demanding waiting tasks need that a node of this capacity could hold."""
        needs = {
            Room(shelf.cores, shelf.devices, shelf.entries[-1][3].mem_mb)
            for shelf in self._shelves.values()
            if shelf.entries and shelf.fits(capacity)
        }
        return tuple(sorted(room for room in needs if not any(room.holds(*other) for other in needs - {room})))

    def remove_upto(self, number: int) -> list[int]:
        """Take out every task with an id up to `number`; their ids."""
        removed = []
        for shelf in self._shelves.values():
            gone = [found for found in shelf.entries if found[3].id <= number]
            if gone:
                shelf.entries = [found for found in shelf.entries if found[3].id > number]
                removed += self._taken(gone)
        self._size -= len(removed)
        return [task.id for task in removed]

    def _taken(self, entries: list[Entry]) -> list[Task]:
        tasks = [found[3] for found in entries]
        if self._passed:
            for task in tasks:
                self._passed.pop(task.id, None)
        return tasks
