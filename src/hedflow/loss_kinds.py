"""The registry of losses: names, and what their alpha is. It imports no torch, since the configuration reads it."""

from __future__ import annotations

import functools
import importlib.metadata
from dataclasses import dataclass

from hedflow import HedflowError

GROUP = "hedflow.losses"


@dataclass(frozen=True)
class LossKind:
    """A loss's row in the registry.

    alpha: what its alpha is, or "" where it has none; low and high: the range of alpha, `low` itself only if
    `closed`. implementation: `module:class`, a subclass of `hedflow.losses.Loss`; imported when a run trains.
    square: it compares each row of a batch with each other one.
    """

    implementation: str
    alpha: str = ""
    low: float = 0.0
    high: float = 50.0
    closed: bool = True
    square: bool = False

    @property
    def module(self) -> str:
        """The module with its code."""
        return self.implementation.partition(":")[0]

    def allows(self, alpha: float | None) -> bool:
        """Whether the loss can be had with this alpha."""
        if alpha is None or not self.alpha:
            return alpha is None and not self.alpha
        return (self.low <= alpha if self.closed else self.low < alpha) and alpha <= self.high

    def range(self) -> str:
        """The range of alpha, for people."""
        return f"{'from' if self.closed else 'above'} {self.low:g} to {self.high:g}"


def _own(
    name: str, alpha: str = "", low: float = 0.0, high: float = 50.0, closed: bool = True, square: bool = False
) -> LossKind:
    return LossKind(f"hedflow.losses:{name}", alpha, low, high, closed, square)


LOSSES: dict[str, LossKind] = {
    "mse": _own("MSE"),
    "mae": _own("MAE"),
    "log_cosh": _own("LogCosh"),
    "mae_poly": _own("MAEPoly", "power of (1 - AUC)"),
    "mse_poly": _own("MSEPoly", "power of (1 - AUC)"),
    "mae_exp": _own("MAEExp", "rate of exp(-alpha AUC)"),
    "mse_linear": _own("MSELinear", "slope of 1 + alpha (1 - AUC)"),
    "mse_inverse": _own("MSEInverse", "added to AUC in 1 / (AUC + alpha)", 0.001, 50),
    "mse_lds": _own("MSELDS", "power of 1 / density of the AUC", 0, 2),
    "balanced_mse": _own("BalancedMSE", "SD of the prediction's noise", 0.001, 1, square=True),
    "huber": _own("Huber", "error from which it grows linearly", 0, 1, closed=False),
    "pinball": _own("Pinball", "quantile that is predicted; below 0.5 leans to potent", 0.01, 0.99),
}


@functools.cache
def loss_kinds() -> dict[str, LossKind]:
    """The losses there are: hedflow's own, and those of installed packages (entry points `hedflow.losses`).

    Raises:
        HedflowError: a package's entry point cannot be loaded or is no `LossKind`, or it takes a name of hedflow's.
    """
    found = dict(LOSSES)
    for entry in importlib.metadata.entry_points(group=GROUP):
        try:
            kind = entry.load()
        except Exception as error:
            raise HedflowError(f"loss '{entry.name}' (entry point {entry.value}) cannot be loaded: {error}.") from error
        if not isinstance(kind, LossKind):
            raise HedflowError(f"loss '{entry.name}' (entry point {entry.value}): expected a LossKind, got {kind!r}.")
        if entry.name in LOSSES:
            raise HedflowError(f"loss '{entry.name}' (entry point {entry.value}): hedflow has a loss of that name.")
        found[entry.name] = kind
    return found


def cost_of(name: str) -> str:
    """What a loss's speed is known by: its name where its cost counts, or is not known; empty for all others."""
    kind = LOSSES.get(name)
    return "" if kind is not None and not kind.square else name


def loss_mb(name: str, batch_size: int) -> int:
    """MB that a loss takes beside the network: the matrices of one that compares all rows of a batch, float32.

    Balanced MSE keeps their difference, square, distance and softmax for the gradient, and makes two more for it.
    """
    kind = loss_kinds().get(name)
    return round(6 * 4 * batch_size**2 / 1e6) if kind is not None and kind.square else 0
