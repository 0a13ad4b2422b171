"""The Lightning module: one optimiser step on an index batch, validation, best weights kept."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from hedflow import HedflowError
from hedflow.config import Training
from hedflow.losses import LossFunction
from hedflow.training.inputs import Inputs

LARGEST_RATE = 1e-3
LOW_AUC = 0.5


def highest_rate(training: Training) -> float:
    """1e-5 x batch size as IMPROVE's Uno; at most 0.001, above which Adam diverges with large batches."""
    return training.learning_rate or min(1e-5 * training.batch_size, LARGEST_RATE)


class DrugResponse(pl.LightningModule):
    """A network, its loss, and the matrices it reads, which move to the device with it."""

    # The buffers: `Inputs`, field by field
    cells: Tensor
    drugs: Tensor
    cell: Tensor
    drug: Tensor
    auc: Tensor
    # What each row of the response counts in the loss; None: all alike
    weight: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        loss: LossFunction,
        inputs: Inputs,
        training: Training,
        weight: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.training_settings = training
        self.highest_rate = highest_rate(training)
        for name, tensor in vars(inputs).items():
            self.register_buffer(name, tensor, persistent=False)
        self.register_buffer("weight", weight, persistent=False)
        self.history: list[dict[str, float]] = []
        self.monitor = f"validation_{training.monitor}"
        self.best = float("inf")
        self.best_epoch = -1
        self.best_weights: dict[str, Tensor] = {}
        self._train: list[Tensor] = []
        self._validation: list[Tensor] = []

    def forward(self, rows: Tensor) -> Tensor:
        """Predicted AUC of the response's rows."""
        predicted: Tensor = self.network(self.cells, self.drugs, self.cell[rows], self.drug[rows])
        return predicted

    def training_step(self, rows: Tensor, _: int) -> Tensor:
        loss = self.loss(self.auc[rows], self(rows), None if self.weight is None else self.weight[rows])
        self._train.append(loss.detach())
        return loss

    def validation_step(self, rows: Tensor, _: int) -> None:
        error, low = torch.abs(self.auc[rows] - self(rows)), self.auc[rows] < LOW_AUC
        parts = [part.sum(dtype=torch.float64) for part in (error, error * low, low)]
        self._validation.append(torch.stack(parts))

    def on_validation_epoch_end(self) -> None:
        batches: Any = self.trainer.val_dataloaders
        total, total_low, low = torch.stack(self._validation).sum(dim=0).tolist()
        mae, rest = total / batches.count, batches.count - low
        # Without a potent (or any other) pair to validate on, the two metrics are one.
        balanced = (total_low / low + (total - total_low) / rest) / 2 if low and rest else mae
        train = float(torch.stack(self._train).mean())
        self._train, self._validation = [], []
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        metrics = {"validation_mae": mae, "validation_balanced_mae": balanced}
        self.history.append({"epoch": self.current_epoch, "loss": train, **metrics, "rate": rate})
        if not (mae < float("inf") and train < float("inf")):
            raise HedflowError(
                f"training diverged in epoch {self.current_epoch}: loss {train}, validation MAE {mae}; use a lower "
                "learning_rate or more warmup_epochs."
            )
        # While the rate still rises nothing is trained yet: such epochs neither win nor use up patience.
        warm = self.current_epoch >= min(self.training_settings.warmup_epochs, self.training_settings.epochs - 1)
        if warm and metrics[self.monitor] < self.best:
            self.best, self.best_epoch = metrics[self.monitor], self.current_epoch
            self.best_weights = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        elif warm and self.current_epoch - self.best_epoch >= self.training_settings.patience:
            self.trainer.should_stop = True
        self.log(self.monitor, metrics[self.monitor], batch_size=1)

    def configure_optimizers(self) -> Any:
        settings = self.training_settings
        optimiser = torch.optim.Adam(self.network.parameters(), lr=self.highest_rate, fused=True)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser, factor=settings.plateau_factor, patience=settings.plateau_patience
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": plateau, "monitor": self.monitor}}

    def optimizer_step(self, epoch: int, batch: int, optimiser: Any, closure: Any = None) -> None:
        """A step, at a rate that rises linearly over the warm-up."""
        batches: Any = self.trainer.train_dataloader
        steps = self.training_settings.warmup_epochs * len(batches)
        if self.global_step < steps:
            for group in optimiser.param_groups:
                group["lr"] = self.highest_rate * (self.global_step + 1) / steps
        optimiser.step(closure=closure)
