"""Uno (IMPROVE): a tower for cells, a tower for drugs, a head over both, sigmoid output."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from hedflow.models.settings import UnoSettings


def _tower(inputs: int, width: int, depth: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(inputs if i == 0 else width, width), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers)


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
        self.width = width
        self.cell_tower = _tower(genes, width, tower_depth, dropout)
        self.drug_tower = _tower(descriptors, width, tower_depth, dropout)
        self.join = nn.Linear(2 * width, width)
        last = nn.Linear(width, 1)
        nn.init.constant_(last.bias, math.log(start / (1 - start)))
        self.head = nn.Sequential(nn.ReLU(), nn.Dropout(dropout), _tower(width, width, head_depth - 1, dropout), last)

    def forward(self, cells: Tensor, drugs: Tensor, cell: Tensor, drug: Tensor) -> Tensor:
        """Predicted AUC, shape (rows,).

        Args:
            cells: (cells, genes), standardised.
            drugs: (drugs, descriptors), standardised.
            cell, drug: row numbers in the two, int64, shape (rows,).
        """
        distinct_cell, cell_at = torch.unique(cell, return_inverse=True)
        distinct_drug, drug_at = torch.unique(drug, return_inverse=True)
        of_cell, of_drug = self.join.weight.split(self.width, dim=1)
        from_cell = functional.linear(self.cell_tower(cells.index_select(0, distinct_cell)), of_cell)
        from_drug = functional.linear(self.drug_tower(drugs.index_select(0, distinct_drug)), of_drug, self.join.bias)
        joined = from_cell.index_select(0, cell_at) + from_drug.index_select(0, drug_at)
        return torch.sigmoid(self.head(joined)).squeeze(-1)


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
