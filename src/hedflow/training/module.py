"""The Lightning module: a stack of runs, one optimiser step of each on an index batch, validation, best weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from hedflow.losses import MAE, Loss
from hedflow.models.dropout import seed_dropout
from hedflow.models.stack import Stack, take
from hedflow.training.batches import Batch, Batches, Ordered, mix
from hedflow.training.checkpoints import CheckpointFolder
from hedflow.training.inputs import Inputs
from hedflow.training.state import RunState

LOW_AUC = 0.5


class Interrupted(Exception):
    """The process was told to end. saved: whether the state of every run of the stack is on disk."""

    def __init__(self, saved: bool) -> None:
        super().__init__(
            "saved, and goes on from there when it is run again"
            if saved
            else "not saved, so that it begins anew when it is run again"
        )
        self.saved = saved


class DrugResponse(pl.LightningModule):
    """Networks, their loss, and the matrices they read, which move to the device with them.

    The runs of the stack go in step, each with its own rows, rate, epoch and end. One that is done leaves the stack.
    """

    # The buffers: `Inputs`, field by field, with a leading dimension of runs (1 where all runs have the same)
    cells: Tensor
    drugs: Tensor
    auc: Tensor
    weight: Tensor
    cell: Tensor
    drug: Tensor

    def __init__(
        self,
        network: Stack,
        loss: Loss,
        inputs: Sequence[Inputs],
        runs: Sequence[RunState],
        batches: Batches,
        validation: Ordered,
        folders: Sequence[CheckpointFolder],
        told: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network, self.loss = network, loss
        self.runs, self.folders = list(runs), list(folders)
        self.batches, self.validation = batches, validation
        for name in ("cells", "drugs", "auc", "weight"):
            self.register_buffer(name, _shared([getattr(one, name) for one in inputs]), persistent=False)
        self.register_buffer("cell", inputs[0].cell, persistent=False)
        self.register_buffer("drug", inputs[0].drug, persistent=False)
        self.computed: Callable[..., Tensor] = network
        self.streams = True
        self.told = told  # whether the process was told to end
        self._losses: list[tuple[Tensor, tuple[int, ...]]] = []
        self._metrics = {"all": MAE(), "low": MAE(), "rest": MAE()}
        self._own = any(run.settings.monitor == "loss" for run in self.runs)

    def forward(self, batch: Batch) -> Tensor:
        """Predicted AUC of the response's rows of a batch, (runs, rows)."""
        rows = batch.rows
        predicted = self.computed(self.cells, self.drugs, self.cell[rows], self.drug[rows], batch.sizes)
        return predicted.float()

    def on_train_start(self) -> None:
        self.loss.to(self.device)
        self.loss.fit([self._values(self.auc, run)[rows.to(self.device)] for run, rows in enumerate(self.batches.rows)])
        self._tie()
        self._started = time.monotonic()
        if self.told():  # what is saved is all that there is
            raise Interrupted(all(folder.holds for folder in self.folders))

    def _values(self, tensor: Tensor, run: int) -> Tensor:
        return tensor[run if len(tensor) > 1 else 0]

    def _tie(self) -> None:
        for number, run in enumerate(self.runs):
            run.tie(self.network.tie(number))
        self._generators = [torch.Generator(self.device) for _ in self.runs] if self.streams else None
        seed_dropout(self.network, self._generators)

    def training_step(self, chunk: list[Batch], _: int) -> None:
        """Several batches, one after the other: what Lightning does around a step costs as much as a small batch."""
        for batch in chunk:
            if any(batch.sizes):  # else all runs were saved at the end of an epoch that was not validated yet
                self.step(self._moved(batch))

    def step(self, batch: Batch) -> None:
        """One optimiser step of each run."""
        self._seed()
        y = take(self.auc[..., None], batch.rows).squeeze(-1)
        losses = self.loss(y, self(batch), self._weights(batch))
        self.network.clear()
        losses.sum().backward()
        for number, run in enumerate(self.runs):
            if batch.sizes[number]:
                run.advance(self.batches.count(number))
        self._losses.append((losses.detach(), batch.sizes))
        left = any(run.batch < self.batches.count(number) for number, run in enumerate(self.runs))
        if left and self.told():
            self._interrupt()

    def _seed(self) -> None:
        """Random numbers of a step follow from the run's seed and the step: a run that goes on needs no other state."""
        seed = mix(self.runs[0].seed, self.runs[0].step, 1)
        # Not torch.manual_seed: for each kind of device that is not in use it keeps a formatted traceback, every step.
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            getattr(torch, self.device.type).manual_seed(seed)
        for run, generator in zip(self.runs, self._generators or (), strict=False):
            generator.manual_seed(mix(run.seed, run.step))

    def _weights(self, batch: Batch) -> Tensor | None:
        """Weights of a batch's rows; None: all alike."""
        if self.weight.shape[-1] == 0:
            return None if batch.valid is None else batch.valid.float()
        weight = take(self.weight[..., None], batch.rows).squeeze(-1)
        return weight if batch.valid is None else weight * batch.valid

    def _interrupt(self) -> None:
        self._note_losses()
        self._clock()
        saved = [self._save(number, run) for number, run in enumerate(self.runs)]
        raise Interrupted(all(saved))

    def _save(self, number: int, run: RunState) -> bool:
        # In the middle of an epoch its weights are none that were validated.
        value = run.history[-1][run.monitor] if run.history and not run.batch else math.inf
        return self.folders[number].save(run.state(self.network.state_of(number)), value)

    def on_validation_model_zero_grad(self) -> None:
        """Lightning would drop the gradients, of which the runs' optimisers hold views."""

    def on_validation_epoch_start(self) -> None:
        for metric in self._metrics.values():
            metric.reset()
        self.loss.reset()

    def validation_step(self, batch: Batch, _: int) -> None:
        batch = self._moved(batch)
        y, p = take(self.auc[..., None], batch.rows).squeeze(-1), self(batch)
        counted = torch.ones_like(y) if batch.valid is None else batch.valid.to(y.dtype)
        low = (y < LOW_AUC).to(y.dtype)
        for name, weight in (("all", counted), ("low", counted * low), ("rest", counted * (1 - low))):
            self._metrics[name].update(y, p, weight)
        if self._own:  # in batches as in training: a loss may look at what else is in its batch
            size = self.batches.size
            for part in zip(y.split(size, 1), p.split(size, 1), counted.split(size, 1), strict=True):
                self.loss.update(*part)

    def on_validation_epoch_end(self) -> None:
        found = torch.stack([metric.compute() for metric in self._metrics.values()]).tolist()
        own = self.loss.compute().tolist() if self._own else None
        self._note_losses()
        self._clock()
        again = False
        for number, run in enumerate(self.runs):
            mae, low, rest = (values[number] for values in found)
            # Without a potent (or any other) pair to validate on, the two metrics are one.
            balanced = mae if math.isnan(low) or math.isnan(rest) else (low + rest) / 2
            train = float(run.losses.mean())
            metrics = {"validation_mae": mae, "validation_balanced_mae": balanced}
            if own:
                metrics["validation_loss"] = own[number]
            if all(map(math.isfinite, (mae, train, metrics[run.monitor]))):
                run.end_epoch(metrics, self.network.state_of(number) if run.would_be_best(metrics) else None)
                continue
            problem = (
                f"training diverged in epoch {run.epoch}: loss {train}, {run.monitor.replace('_', ' ')} "
                f"{metrics[run.monitor]}; use a lower learning_rate or more warmup_epochs"
            )
            if run.fall_back(run.settings.checkpoints.rollback, problem):
                self.network.load(number, run.best_weights)
                again = True
        if again:
            self._tie()
        self._end_round()

    def _end_round(self) -> None:
        going = [number for number, run in enumerate(self.runs) if not run.done]
        for number in going:
            if self.folders[number].due(self.runs[number].epoch - 1) and not self.told():
                self._save(number, self.runs[number])
        if not going:
            self.trainer.should_stop = True
            return
        if len(going) < len(self.runs):
            self._keep(going)
        self.batches.begin([run.epoch for run in self.runs], [run.batch for run in self.runs])
        if self.told():
            self._interrupt()

    def _keep(self, going: list[int]) -> None:
        """Let the runs that are done leave the stack."""
        self.runs, self.folders = [self.runs[n] for n in going], [self.folders[n] for n in going]
        self.network.select(going)
        chosen = torch.tensor(going)
        self.loss.select(chosen)
        self.batches.select(going)
        self.validation.select(going)
        for name in ("cells", "drugs", "auc", "weight"):
            values = getattr(self, name)
            if len(values) > 1:
                setattr(self, name, values[chosen.to(values.device)])
        self._tie()

    def _note_losses(self) -> None:
        """Add the losses of the batches since the last time to the runs'."""
        if not self._losses:
            return
        losses = torch.stack([values for values, _ in self._losses]).cpu()
        for number, run in enumerate(self.runs):
            had = torch.tensor([sizes[number] > 0 for _, sizes in self._losses])
            run.losses = torch.cat([run.losses, losses[had, number]])
        self._losses = []

    def _clock(self) -> None:
        """Share the time since the last time among the runs."""
        now = time.monotonic()
        for run in self.runs:
            run.seconds += (now - self._started) / len(self.runs)
        self._started = now

    def configure_optimizers(self) -> None:
        """None of Lightning's: each run has its own (`RunState.tie`)."""

    def transfer_batch_to_device(self, batch: Any, _: torch.device, __: int) -> Any:
        """Nothing yet: row numbers are moved when they are used."""
        return batch

    def _moved(self, batch: Batch) -> Batch:
        valid = None if batch.valid is None else batch.valid.to(self.device, non_blocking=True)
        return Batch(batch.rows.to(self.device, non_blocking=True), valid, batch.sizes)


def _shared(tensors: list[Tensor]) -> Tensor:
    """(runs, ...), or (1, ...) where all runs have the same."""
    if all(tensor is tensors[0] or torch.equal(tensor, tensors[0]) for tensor in tensors[1:]):
        return tensors[0][None]
    longest = max(tensors, key=len)
    return torch.stack([tensor if len(tensor) else torch.ones_like(longest) for tensor in tensors])
