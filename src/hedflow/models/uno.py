"""Uno (IMPROVE): a tower for cells, a tower for drugs, a head over both, sigmoid output; and a stack of several."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hedflow.models.dropout import RunDropout
from hedflow.models.settings import UnoSettings
from hedflow.models.stack import Stack, Stacked, distinct, take, wide


def _tower(inputs: int, width: int, depth: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(inputs if i == 0 else width, width), nn.ReLU(), RunDropout(dropout)]
    return nn.Sequential(*layers)


def _whole(network: Uno | UnoStack, number: Tensor, matrix: Tensor) -> bool:
    """Whether towers run on every cell (drug): a batch holds most of them, or asking which would halt a GPU.

    In training it goes by the size of a full batch, so that a run draws the same dropout in any company.
    """
    rows = network.batch_rows if network.training and network.batch_rows else number.shape[-1]
    return number.device.type != "cpu" or rows >= 2 * matrix.shape[-2]


class Uno(nn.Module):
    """Uno over index batches.

    Parameters with width 1000, towers of 3 and a head of 5: 1000 x (genes + descriptors) + 10,012,001.

    A batch of rows holds each cell and drug many times. The towers, and each tower's share of the head's first
    layer, are computed once for every distinct cell and drug and then gathered: the same function of the inputs,
    several times fewer operations. In training the rows that share a cell share its tower's dropout mask.

    The output begins at `start` (the mean AUC of the training rows): begun at 0.5, the first steps all push it
    up, and with an absolute error it often ends where the sigmoid is flat and nothing can be learnt any more.
    """

    def __init__(
        self,
        genes: int,
        descriptors: int,
        width: int,
        tower_depth: int,
        head_depth: int,
        dropout: float,
        start: float = 0.5,
    ) -> None:
        super().__init__()
        self.batch_rows: int | None = None  # of a full batch in training, where that is known
        self.width = width
        self.cell_tower = _tower(genes, width, tower_depth, dropout)
        self.drug_tower = _tower(descriptors, width, tower_depth, dropout)
        self.join = nn.Linear(2 * width, width)
        last = nn.Linear(width, 1)
        nn.init.constant_(last.bias, math.log(start / (1 - start)))
        self.head = nn.Sequential(nn.ReLU(), RunDropout(dropout), _tower(width, width, head_depth - 1, dropout), last)

    def forward(self, cells: Tensor, drugs: Tensor, cell: Tensor, drug: Tensor) -> Tensor:
        """Predicted AUC, shape (rows,).

        Args:
            cells: (cells, genes), standardised.
            drugs: (drugs, descriptors), standardised.
            cell, drug: row numbers in the two, int64, shape (rows,).
        """
        of_cell, of_drug = self.join.weight.split(self.width, dim=1)
        from_cell = self._rows(cells, cell, self.cell_tower, of_cell, None)
        from_drug = self._rows(drugs, drug, self.drug_tower, of_drug, self.join.bias)
        x = self.head[:-1](from_cell + from_drug)
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 has 128 numbers from 0.5 to 1: drugs would tie
            return torch.sigmoid(self.head[-1](wide(x))).squeeze(-1)

    def _rows(self, matrix: Tensor, number: Tensor, tower: nn.Module, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The tower's share of the head's first layer, (rows, width)."""
        if not _whole(self, number, matrix):
            values, number = torch.unique(number, return_inverse=True)
            matrix = matrix.index_select(0, values)
        # In float32: the gradient of a gather adds up, for a drug over all its rows of the batch.
        return wide(functional.linear(tower(matrix), weight, bias)).index_select(0, number)

    @staticmethod
    def stack(networks: Sequence[Uno]) -> Stack:
        """Several networks of one shape as one: see `UnoStack`."""
        return UnoStack(networks)


class UnoStack(Stacked):
    """Several Unos of one shape, their weights stacked: each layer is one batched matrix product.

    What a run computes is what its network would compute alone, dropout included.
    """

    def __init__(self, networks: Sequence[Uno]) -> None:
        super().__init__(networks)
        self.batch_rows = networks[0].batch_rows
        self.width = networks[0].width
        linear = [name for name, module in networks[0].named_modules() if isinstance(module, nn.Linear)]
        self.cell_tower = [name for name in linear if name.startswith("cell_tower")]
        self.drug_tower = [name for name in linear if name.startswith("drug_tower")]
        self.head = [name for name in linear if name.startswith("head")]
        self.dropout = next(module for module in networks[0].modules() if isinstance(module, RunDropout))

    def forward(self, cells: Tensor, drugs: Tensor, cell: Tensor, drug: Tensor, sizes: Sequence[int]) -> Tensor:
        of_cell, of_drug = self.weight("join.weight").split(self.width, dim=2)
        joined = self._rows(cells, cell, sizes, self.cell_tower, of_cell)
        joined = joined + self._rows(drugs, drug, sizes, self.drug_tower, of_drug, self.weight("join.bias"))
        x = self.dropout(torch.relu(joined), sizes)
        *hidden, last = self.head
        for name in hidden:
            x = self.dropout(torch.relu(self.linear(name, x)), sizes)
        with torch.autocast(x.device.type, enabled=False):
            return torch.sigmoid(self.linear(last, wide(x))).squeeze(-1)

    def _rows(
        self,
        matrix: Tensor,
        number: Tensor,
        sizes: Sequence[int],
        tower: Sequence[str],
        weight: Tensor,
        bias: Tensor | None = None,
    ) -> Tensor:
        """The tower's share of the head's first layer, (runs, rows, width)."""
        counts = None
        if not _whole(self, number, matrix):
            values, number, counts = distinct(number, sizes)
            matrix = take(matrix, values)
        x = matrix
        for name in tower:
            x = self.dropout(torch.relu(self.linear(name, x)), counts)
        x = x @ weight.transpose(1, 2)
        return take(wide(x if bias is None else x + bias[:, None]), number)


def build(cell_inputs: int, drug_inputs: int, settings: UnoSettings, start: float = 0.5) -> Uno:
    """The network of these settings for the inputs' widths; its output begins at `start` (AUC)."""
    return Uno(
        cell_inputs,
        drug_inputs,
        settings.width,
        settings.tower_depth,
        settings.head_depth,
        settings.dropout,
        start,
    )
