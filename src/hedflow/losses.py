"""Losses that lean toward the potent end. y = true AUC (0..1, low = potent), p = predicted, a = alpha.

    mse        mean((y - p)^2)
    mae        mean(|y - p|)
    mae_poly   mean(w |y - p|), w = (1 - y)^a
    mae_exp    mean(w |y - p|), w = exp(-a y)

The weights of a batch are divided by their mean, so that the learning rate keeps its meaning over a; a = 0 is the
plain loss. A row may count more by itself (high error drugs weighted up): its w is then multiplied by that.

Source: Gwinn, Wozniak et al., WORKS@SC25.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hedflow import HedflowError

# Keeps a batch of only resistant pairs (all weights 0) finite.
TINY = 1e-12
LossFunction = Callable[..., Tensor]


def make_loss(name: str, alpha: float | None) -> LossFunction:
    """The loss as a function (y, p, row weights = 1) -> scalar; all of one shape."""
    if name == "mse":
        return lambda y, p, row=None: _weighted((y - p) ** 2, None, row)
    if name == "mae":
        return lambda y, p, row=None: _weighted(torch.abs(y - p), None, row)
    if alpha is not None and name == "mae_poly":
        return lambda y, p, row=None: _weighted(torch.abs(y - p), _relative((1 - y).clamp(min=0)) ** alpha, row)
    if alpha is not None and name == "mae_exp":
        return lambda y, p, row=None: _weighted(torch.abs(y - p), torch.exp(alpha * (y.min() - y)), row)
    raise HedflowError(f"loss '{name}' with alpha {alpha}: expected mse, mae, or mae_poly and mae_exp with an alpha.")


def _relative(lean: Tensor) -> Tensor:
    """`lean` over its largest: else a large alpha takes every weight of a resistant batch below `TINY`."""
    return lean / lean.max().clamp(min=TINY)


def _weighted(error: Tensor, weight: Tensor | None, row: Tensor | None) -> Tensor:
    """Mean error by the product of the weights that there are."""
    if row is not None:
        weight = row if weight is None else weight * row
    if weight is None:
        return torch.mean(error)
    return torch.sum(weight * error) / torch.sum(weight).clamp(min=TINY)
