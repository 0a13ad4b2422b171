"""Networks of several runs as one module, so that they are trained at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class Stack(nn.Module):
    """Networks of one shape, one a run. Each run's weights are views into the stack's."""

    def forward(self, cells: Tensor, drugs: Tensor, cell: Tensor, drug: Tensor, sizes: Sequence[int]) -> Tensor:
        """Predicted AUC, shape (runs, rows).

        Args:
            cells, drugs: (runs, cells, genes), (runs, drugs, descriptors); or (1, ...) where all runs share one.
            cell, drug: (runs, rows) int64, row numbers in the two.
            sizes: how many of the rows each run has; the others are padding.
        """
        raise NotImplementedError

    def __len__(self) -> int:
        """How many runs."""
        raise NotImplementedError

    def tie(self, run: int) -> list[nn.Parameter]:
        """A run's weights, for its optimiser: they share their memory with the stack's, and so do their gradients."""
        raise NotImplementedError

    def clear(self) -> None:
        """Forget the gradients."""
        raise NotImplementedError

    def state_of(self, run: int) -> dict[str, Tensor]:
        """A copy of a run's weights by name: what the network alone would have as its state."""
        raise NotImplementedError

    def load(self, run: int, state: Mapping[str, Tensor]) -> None:
        """Take over a run's weights."""
        raise NotImplementedError

    def select(self, runs: Sequence[int]) -> None:
        """Keep only some runs; what `tie` gave before is of no use any more."""
        raise NotImplementedError


class One(Stack):
    """A single network, any module that maps (cells, drugs, cell, drug) to AUC, as a stack of one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._tied: list[nn.Parameter] = []

    def forward(self, cells: Tensor, drugs: Tensor, cell: Tensor, drug: Tensor, sizes: Sequence[int]) -> Tensor:
        predicted: Tensor = self.network(cells[0], drugs[0], cell[0], drug[0])
        return predicted[None]

    def __len__(self) -> int:
        return 1

    def tie(self, run: int) -> list[nn.Parameter]:
        self._tied = [p for p in self.network.parameters() if p.requires_grad]
        return self._tied

    def clear(self) -> None:
        for weights in self._tied:  # not zero_grad, which looks for them in all modules, every step
            weights.grad = None

    def state_of(self, run: int) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.network.state_dict().items()}

    def load(self, run: int, state: Mapping[str, Tensor]) -> None:
        self.network.load_state_dict(dict(state))

    def select(self, runs: Sequence[int]) -> None:
        """One network is kept as it is."""


class Stacked(Stack):
    """A stack with every parameter of a network as one tensor, (runs, *shape), in `weights`."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.names = [name for name, _ in networks[0].named_parameters()]
        states = [dict(network.named_parameters()) for network in networks]
        # A ParameterList: names hold dots, which a ParameterDict refuses.
        self.weights = nn.ParameterList(torch.stack([s[name].detach() for s in states]) for name in self.names)

    def weight(self, name: str) -> Tensor:
        """A parameter of all runs, (runs, *shape)."""
        found: Tensor = self.weights[self.names.index(name)]
        return found

    def linear(self, name: str, x: Tensor) -> Tensor:
        """A linear layer of each run: (runs, rows, inputs) -> (runs, rows, outputs)."""
        bias, weight = self.weight(f"{name}.bias"), self.weight(f"{name}.weight")
        return torch.baddbmm(bias[:, None], x.expand(len(self), -1, -1), weight.transpose(1, 2))

    def __len__(self) -> int:
        return len(self.weights[0])

    def tie(self, run: int) -> list[nn.Parameter]:
        tied = []
        for weights in self.weights:
            if weights.grad is None:
                weights.grad = torch.zeros_like(weights)
            mine = nn.Parameter(weights.data[run])
            mine.grad = weights.grad[run]
            tied.append(mine)
        return tied

    def clear(self) -> None:
        torch._foreach_zero_([weights.grad for weights in self.weights])  # the runs' optimisers hold views of them

    def state_of(self, run: int) -> dict[str, Tensor]:
        return {name: w.detach()[run].clone() for name, w in zip(self.names, self.weights, strict=True)}

    def load(self, run: int, state: Mapping[str, Tensor]) -> None:
        for name, weights in zip(self.names, self.weights, strict=True):
            weights.data[run].copy_(state[name])

    def select(self, runs: Sequence[int]) -> None:
        for i, weights in enumerate(self.weights):
            self.weights[i] = nn.Parameter(weights.data[list(runs)].clone())


def wide(x: Tensor) -> Tensor:
    """In float32, where autocast has made it narrower."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def take(matrix: Tensor, number: Tensor) -> Tensor:
    """Rows of each run's matrix: (runs or 1, n, width), (runs, m) -> (runs, m, width)."""
    runs, width = number.shape[0], matrix.shape[-1]
    if matrix.shape[0] == 1:
        return matrix[0].index_select(0, number.flatten()).view(runs, -1, width)
    first = torch.arange(runs, device=number.device)[:, None] * matrix.shape[1]
    return matrix.flatten(0, 1).index_select(0, (number + first).flatten()).view(runs, -1, width)


def distinct(number: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor, list[int]]:
    """The distinct numbers of each run's first `size` entries.

    Returns:
        (runs, most) distinct ones, padded with 0; (runs, m) where each entry is among them; how many each run has.
    """
    found = [torch.unique(row[:size], return_inverse=True) for row, size in zip(number, sizes, strict=True)]
    counts = [len(values) for values, _ in found]
    values = torch.nn.utils.rnn.pad_sequence([values for values, _ in found], batch_first=True)
    at = torch.zeros_like(number)
    for run, (_, inverse) in enumerate(found):
        at[run, : len(inverse)] = inverse
    return values, at, counts
