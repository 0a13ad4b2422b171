"""Index batches of a stack of runs: row numbers in place of data, and no DataLoader.

Which rows a batch has follows from the run's seed, its epoch and the batch's place in it, so a run that goes on in the
middle of an epoch draws what it would have drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def mix(*numbers: int) -> int:
    """A seed (63 bits) from several numbers: near ones give unlike seeds (splitmix64, Steele et al. 2014)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


class Batch(NamedTuple):
    """One batch of each run of a stack.

    rows: (runs, rows) int64, of the response; 0 where `valid` (the same shape, or None: all are) is False. sizes: how
    many rows each run has in it; the others are padding, behind them.
    """

    rows: Tensor
    valid: Tensor | None
    sizes: tuple[int, ...]


def stack_rows(parts: Sequence[Tensor]) -> Batch:
    """Rows of each run side by side, the shorter ones padded."""
    sizes = tuple(len(part) for part in parts)
    if len(set(sizes)) == 1:
        return Batch(torch.stack(list(parts)), None, sizes)
    rows = torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True, padding_value=-1)
    return Batch(rows.clamp(min=0), rows >= 0, sizes)


class Batches:
    """Batches of one round: of each run the rest of its epoch, shuffled anew each epoch. Lightning iterates over it."""

    def __init__(self, rows: Sequence[np.ndarray], size: int, seeds: Sequence[int], limit: int | None = None) -> None:
        """rows: of each run. limit: rows an epoch, a new sample each epoch; None = all."""
        self.rows = [torch.from_numpy(part.astype(np.int64)) for part in rows]
        self.size = size
        self.seeds = list(seeds)
        self.limit = limit
        self.epochs = [0] * len(rows)
        self.done = [0] * len(rows)

    def count(self, run: int) -> int:
        """Batches of a run's epoch."""
        rows = len(self.rows[run])
        return -(-min(rows, self.limit or rows) // self.size)

    def begin(self, epochs: Sequence[int], done: Sequence[int]) -> None:
        """The next round: each run's epoch, and how many of its batches are done."""
        self.epochs, self.done = list(epochs), list(done)

    def select(self, runs: Sequence[int]) -> None:
        """Keep only some runs of the stack."""
        self.rows, self.seeds = [self.rows[r] for r in runs], [self.seeds[r] for r in runs]

    def epoch(self, run: int) -> Tensor:
        """A run's rows of its epoch in their order, int64."""
        rows = self.rows[run]
        generator = torch.Generator().manual_seed(mix(self.seeds[run], self.epochs[run]))
        return rows[torch.randperm(len(rows), generator=generator)[: min(len(rows), self.limit or len(rows))]]

    def __iter__(self) -> Iterator[Batch]:
        parts = [self.epoch(run).split(self.size)[self.done[run] :] for run in range(len(self.rows))]
        none = torch.empty(0, dtype=torch.int64)
        # At least one, if an empty one: with none there would be no validation either.
        for step in range(max(1, *(len(part) for part in parts))):
            yield stack_rows([part[step] if step < len(part) else none for part in parts])


class Chunks:
    """Batches several at a time: (up to) `size` in a list."""

    def __init__(self, batches: Batches, size: int) -> None:
        self.batches, self.size = batches, size

    def __iter__(self) -> Iterator[list[Batch]]:
        batches = iter(self.batches)
        while chunk := list(islice(batches, self.size)):
            yield chunk


class Ordered:
    """All rows of each run in their order, in batches of about `size` rows of all runs together.

    A run has a multiple of `step` rows in each batch but its last.
    """

    def __init__(self, rows: Sequence[np.ndarray], size: int, step: int = 1) -> None:
        self.rows = [torch.from_numpy(part.astype(np.int64)) for part in rows]
        self.size, self.step = size, step

    def select(self, runs: Sequence[int]) -> None:
        """Keep only some runs of the stack."""
        self.rows = [self.rows[r] for r in runs]

    @property
    def each(self) -> int:
        """Rows of a run in a batch."""
        return max(1, self.size // len(self.rows) // self.step) * self.step

    def __len__(self) -> int:
        return -(-max(len(part) for part in self.rows) // self.each)

    def __iter__(self) -> Iterator[Batch]:
        each = self.each
        for start in range(0, len(self) * each, each):
            yield stack_rows([part[start : start + each] for part in self.rows])
