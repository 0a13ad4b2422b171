"""Losses, each also a metric. y = true AUC (0..1, low = potent), p = predicted, a = alpha.

    mse          (y - p)^2
    mae          |y - p|
    log_cosh     log cosh(y - p)
    mae_poly     w |y - p|,    w = (1 - y)^a
    mse_poly     w (y - p)^2,  w = (1 - y)^a
    mae_exp      w |y - p|,    w = exp(-a y)
    mse_linear   w (y - p)^2,  w = 1 + a (1 - y)
    mse_inverse  w (y - p)^2,  w = 1 / (y + a)
    mse_lds      w (y - p)^2,  w = 1 / density(y)^a, the training AUCs' density, smoothed (LDS)
    balanced_mse -2 a^2 log softmax of -(p - y_j)^2 / 2a^2 over the batch's y_j, at the row's own y
    huber        (y - p)^2 / 2 where |y - p| < a, else a (|y - p| - a/2)
    pinball      a (y - p) where p < y, else (1 - a) (p - y)

A loss is the weighted mean over a batch's rows: its weights are divided by their mean, so that the learning rate keeps
its meaning over a; a = 0 is the plain loss. As a metric (`update`, `compute`) it is the same mean over all rows.

Everything works on the last dimension: y and p of shape (runs, rows) are a stack of runs, with an alpha each.

Sources: Gwinn, Wozniak et al., WORKS@SC25 (weights); Ren et al., CVPR 2022 (Balanced MSE, batch-based Monte Carlo);
Yang et al., ICML 2021 (label distribution smoothing, LDS).
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from hedflow import HedflowError
from hedflow.loss_kinds import loss_kinds

TINY = 1e-12
NONE = float("-inf")  # log of a weight of 0


class Loss:
    """The mean over rows of weight x error; subclasses say what a row's error and weight are."""

    def __init__(self, alpha: Sequence[float | None] = (None,)) -> None:
        """alpha: of each run of a stack."""
        plain = [math.nan if a is None else a for a in alpha]
        self.alpha = torch.tensor(plain, dtype=torch.float32)[:, None]  # (runs, 1)
        self.reset()

    def to(self, device: torch.device) -> Loss:
        """Move what it knows to a device."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))
        return self

    def select(self, runs: Tensor) -> None:
        """Keep only some runs of the stack (int64 numbers)."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value[runs.to(value.device)])

    def fit(self, auc: Sequence[Tensor]) -> None:
        """Learn what the weights need of each run's training AUCs; most losses need nothing."""

    def error(self, y: Tensor, p: Tensor) -> Tensor:
        """Error of each row."""
        raise NotImplementedError

    def log_weight(self, y: Tensor) -> Tensor:
        """Logarithm of each row's weight; 0 is a weight of 1."""
        return torch.zeros_like(y)

    def __call__(self, y: Tensor, p: Tensor, weight: Tensor | None = None) -> Tensor:
        """Loss of a batch.

        Args:
            y, p: (rows,) or (runs, rows).
            weight: more weights of the rows, of the same shape; 0 leaves a row out.

        Returns:
            (), or (runs,); 0 for a run without a row.
        """
        single = y.ndim == 1
        y, p = (y[None], p[None]) if single else (y, p)
        log = self.log_weight(y)
        if weight is not None:
            log = log + torch.log(weight if weight.ndim == 2 else weight[None])
        # Over the largest: else a large alpha takes every weight of a resistant batch below what a float32 can hold.
        top = log.amax(dim=-1, keepdim=True).clamp(min=-1e30)
        w = torch.exp(log - top)
        found = torch.sum(w * self.error(y, p), dim=-1) / torch.sum(w, dim=-1).clamp(min=TINY)
        return found[0] if single else found

    def reset(self) -> None:
        """Forget the rows of the metric."""
        self._sum: Tensor | None = None
        self._weight: Tensor | None = None

    def update(self, y: Tensor, p: Tensor, weight: Tensor | None = None) -> None:
        """Add rows to the metric: arguments as of a batch, float64 inside."""
        y, p = (y[None], p[None]) if y.ndim == 1 else (y, p)
        w = torch.exp(self.log_weight(y).double())
        if weight is not None:
            w = w * weight
        total, weights = (w * self.error(y, p).double()).sum(dim=-1), w.sum(dim=-1)
        self._sum = total if self._sum is None else self._sum + total
        self._weight = weights if self._weight is None else self._weight + weights

    def compute(self) -> Tensor:
        """The metric over all rows so far, (runs,) float64; NaN for a run without a row."""
        if self._sum is None or self._weight is None:
            raise ValueError("the metric has seen no rows yet; call update first")
        return self._sum / self._weight


class MSE(Loss):
    """Squared error."""

    def error(self, y: Tensor, p: Tensor) -> Tensor:
        return (y - p) ** 2


class MAE(Loss):
    """Absolute error."""

    def error(self, y: Tensor, p: Tensor) -> Tensor:
        return torch.abs(y - p)


class LogCosh(Loss):
    """log cosh of the error: squared where it is small, absolute where it is large."""

    def error(self, y: Tensor, p: Tensor) -> Tensor:
        size = torch.abs(y - p)
        return size + functional.softplus(-2 * size) - math.log(2)


class _Poly(Loss):
    def log_weight(self, y: Tensor) -> Tensor:
        return self.alpha * torch.log((1 - y).clamp(min=TINY))


class MAEPoly(_Poly, MAE):
    """Absolute error, weights (1 - y)^a."""


class MSEPoly(_Poly, MSE):
    """Squared error, weights (1 - y)^a."""


class MAEExp(MAE):
    """Absolute error, weights exp(-a y)."""

    def log_weight(self, y: Tensor) -> Tensor:
        return -self.alpha * y


class MSELinear(MSE):
    """Squared error, weights 1 + a (1 - y)."""

    def log_weight(self, y: Tensor) -> Tensor:
        return torch.log1p(self.alpha * (1 - y).clamp(min=0))


class MSEInverse(MSE):
    """Squared error, weights 1 / (y + a)."""

    def log_weight(self, y: Tensor) -> Tensor:
        return -torch.log(y.clamp(min=0) + self.alpha)


class MSELDS(MSE):
    """Squared error, weights by how rare an AUC is among the training rows.

    The density is a histogram of BINS bins over 0..1, smoothed by a Gaussian of SD SPREAD bins; an AUC that no
    training row comes near to weighs as the rarest one that some do.
    """

    BINS = 100
    SPREAD = 2.0

    def __init__(self, alpha: Sequence[float | None] = (None,)) -> None:
        super().__init__(alpha)
        self.density = torch.ones(len(alpha), self.BINS)

    def fit(self, auc: Sequence[Tensor]) -> None:
        reach = torch.arange(-8, 9, dtype=torch.float64)
        kernel = torch.exp(-(reach**2) / (2 * self.SPREAD**2))
        rows = []
        for values in auc:
            counts = torch.bincount(self._bin(values.cpu()), minlength=self.BINS).double()
            smooth = functional.conv1d(counts[None, None], (kernel / kernel.sum())[None, None], padding=8)[0, 0]
            rows.append(smooth.clamp(min=float(smooth[counts > 0].min())) / smooth.mean())
        self.density = torch.stack(rows).float().to(self.alpha.device)

    def _bin(self, y: Tensor) -> Tensor:
        return (y * self.BINS).long().clamp(0, self.BINS - 1)

    def log_weight(self, y: Tensor) -> Tensor:
        return -self.alpha * torch.log(torch.gather(self.density, 1, self._bin(y)))


class BalancedMSE(Loss):
    """Balanced MSE, batch-based Monte Carlo: what squared error is once the batch's own distribution is undone.

    A row's error is the cross-entropy of finding its y among the batch's: (rows x rows) numbers a batch. As a metric it
    depends on the batches for this reason.
    """

    def __call__(self, y: Tensor, p: Tensor, weight: Tensor | None = None) -> Tensor:
        self._others = weight if weight is None or weight.ndim == 2 else weight[None]
        return super().__call__(y, p, weight)

    def update(self, y: Tensor, p: Tensor, weight: Tensor | None = None) -> None:
        self._others = weight if weight is None or weight.ndim == 2 else weight[None]
        super().update(y, p, weight)

    def error(self, y: Tensor, p: Tensor) -> Tensor:
        noise = 2 * self.alpha**2  # (runs, 1)
        distance = -((p[:, :, None] - y[:, None, :]) ** 2) / noise[:, :, None]
        if self._others is not None:  # rows that are left out are nobody's alternative
            distance = distance.masked_fill((self._others == 0)[:, None, :], -1e9)
        own = -((p - y) ** 2) / noise
        return noise * (torch.logsumexp(distance, dim=-1) - own)


class Huber(Loss):
    """Squared (half) up to an error of a, then linear."""

    def error(self, y: Tensor, p: Tensor) -> Tensor:
        size = torch.abs(y - p)
        return torch.where(size < self.alpha, size**2 / 2, self.alpha * (size - self.alpha / 2))


class Pinball(Loss):
    """Pinball loss: its best constant is the a-quantile."""

    def error(self, y: Tensor, p: Tensor) -> Tensor:
        return torch.maximum(self.alpha * (y - p), (self.alpha - 1) * (y - p))


def make_loss(name: str, alpha: float | Sequence[float | None] | None) -> Loss:
    """A loss by name, with its alpha, or an alpha for each run of a stack.

    Raises:
        HedflowError: no such loss, or not with this alpha.
    """
    kinds = loss_kinds()
    if name not in kinds:
        raise HedflowError(f"there is no loss '{name}'; there are {', '.join(kinds)}.")
    kind, alphas = kinds[name], list(alpha) if isinstance(alpha, Sequence) else [alpha]
    for value in alphas:
        if not kind.allows(value):
            wanted = f"an alpha {kind.range()} ({kind.alpha})" if kind.alpha else "no alpha"
            raise HedflowError(f"loss '{name}' with alpha {value}: it takes {wanted}.")
    module, _, attribute = kind.implementation.partition(":")
    made: Loss = getattr(importlib.import_module(module), attribute)(alphas)
    return made
