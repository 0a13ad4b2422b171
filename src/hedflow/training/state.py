"""Where a run of a stack stands: all that it needs to go on, and what it has found so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hedflow.config import Training

# Uno's own: 1e-5 x batch size, at its batch of 32
BASE_RATE, BASE_BATCH = 3.2e-4, 32
# A checkpoint holds these beside weights, optimiser and schedule.
KEPT = ("epoch", "batch", "step", "history", "best", "best_epoch", "best_weights", "rate", "rollbacks", "seconds")


def highest_rate(training: Training) -> float:
    """Uno's rate at its own batch of 32, times the square root of how many times larger the batch is.

    Adam's rule (Malladi et al., NeurIPS 2022). Uno's 1e-5 x batch size, linear, is 0.04 at 4096, where it learns little
    (docs/benchmarks.md).
    """
    return training.learning_rate or BASE_RATE * math.sqrt(training.batch_size / BASE_BATCH)


@dataclass
class RunState:
    """One run of a stack.

    epoch: the one it is in; batch: how many batches of it are done; step: batches in all. losses: of this epoch's
    batches. best: lowest value of the monitor, of `best_epoch` and `best_weights`. rate: its highest learning rate.
    seconds: its share of the training's time. failure: why it ended without a result.
    """

    name: str
    seed: int
    settings: Training
    epoch: int = 0
    batch: int = 0
    step: int = 0
    losses: Tensor = field(default_factory=lambda: torch.empty(0))
    history: list[dict[str, float]] = field(default_factory=list)
    best: float = float("inf")
    best_epoch: int = -1
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    rate: float = 0.0
    rollbacks: int = 0
    seconds: float = 0.0
    failure: str | None = None
    resumed: list[int] = field(default_factory=list)  # steps that it went on from
    optimiser: Any = None
    plateau: Any = None
    earlier: dict[str, Any] | None = None  # states of a checkpoint's optimiser and schedule, until they are tied

    def __post_init__(self) -> None:
        self.rate = self.rate or highest_rate(self.settings)

    @property
    def monitor(self) -> str:
        """The metric that decides."""
        return f"validation_{self.settings.monitor}"

    @property
    def done(self) -> bool:
        """Whether it is trained, or has failed."""
        last = self.epoch - 1
        stalled = last >= self._warm and last - self.best_epoch >= self.settings.patience
        return self.failure is not None or self.epoch >= self.settings.epochs or stalled

    @property
    def _warm(self) -> int:
        """Epochs in which the rate still rises, of which one may be the last."""
        return min(self.settings.warmup_epochs, self.settings.epochs - 1)

    def tie(self, weights: list[torch.nn.Parameter]) -> None:
        """A new optimiser and schedule over the run's weights, which go on where the old ones were."""
        settings = self.settings
        earlier = self.earlier or (self.optimiser and self._schedule())
        self.optimiser = torch.optim.Adam(weights, lr=self.rate, fused=True)
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimiser, factor=settings.plateau_factor, patience=settings.plateau_patience
        )
        if earlier:
            self.optimiser.load_state_dict(earlier["optimiser"])
            self.plateau.load_state_dict(earlier["plateau"])
        self.earlier = None

    def _schedule(self) -> dict[str, Any]:
        return {"optimiser": self.optimiser.state_dict(), "plateau": self.plateau.state_dict()}

    def advance(self, batches: int) -> None:
        """One optimiser step, at a rate that rises linearly over the warm-up; `batches` an epoch."""
        warm = self.settings.warmup_epochs * batches
        if self.step < warm:
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate * (self.step + 1) / warm
        self.optimiser.step()
        self.step += 1
        self.batch += 1

    def fall_back(self, rollbacks: int, problem: str) -> bool:
        """The run has diverged: begin again with half the rate from its best weights, or count as failed.

        Returns:
            Whether it goes on; the network is then to load `best_weights`, and the optimiser to be tied anew.
        """
        if self.rollbacks >= rollbacks:
            self.failure = problem
            return False
        self.rollbacks, self.rate = self.rollbacks + 1, self.rate / 2
        self.epoch, self.batch, self.losses = self.epoch + 1, 0, self.losses[:0]
        self.optimiser = self.plateau = None
        if self.done and self.best_epoch < 0:  # nothing is left to try, and nothing was learnt
            self.failure = problem
            return False
        return True

    def would_be_best(self, metrics: dict[str, float]) -> bool:
        """Whether this epoch's weights are to be kept.

        While the rate still rises nothing is trained yet: such epochs neither win nor use up patience.
        """
        return self.epoch >= self._warm and metrics[self.monitor] < self.best

    def end_epoch(self, metrics: dict[str, float], weights: dict[str, Tensor] | None) -> None:
        """Take down an epoch: `metrics` of the validation, `weights` as they are now if they are the best."""
        rate = self.optimiser.param_groups[0]["lr"]
        self.history.append({"epoch": self.epoch, "loss": float(self.losses.mean()), **metrics, "rate": rate})
        if weights is not None:
            self.best, self.best_epoch, self.best_weights = metrics[self.monitor], self.epoch, weights
        if self.epoch >= self._warm:
            self.plateau.step(metrics[self.monitor])
        self.epoch, self.batch, self.losses = self.epoch + 1, 0, self.losses[:0]

    def state(self, weights: dict[str, Tensor]) -> dict[str, Any]:
        """All that a checkpoint holds."""
        parts = {"weights": weights, "losses": self.losses, **self._schedule()}
        return {**parts, **{name: getattr(self, name) for name in KEPT}}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint; its weights are the network's to load."""
        for name in (*KEPT, "losses"):
            setattr(self, name, state[name])
        self.earlier = {name: state[name] for name in ("optimiser", "plateau")}
        self.resumed = [*self.resumed, self.step]
