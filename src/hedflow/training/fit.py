"""Training networks: one run, or a stack of runs that share a shape."""

from __future__ import annotations

import dataclasses
import logging
import math
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import nn

from hedflow import HedflowError
from hedflow.alignment import Alignment
from hedflow.bundle import Bundle
from hedflow.config import Training
from hedflow.losses import make_loss
from hedflow.models import find
from hedflow.models.settings import ModelSettings
from hedflow.models.stack import One, Stack
from hedflow.splits import Rows
from hedflow.training.batches import Batches, Chunks, Ordered
from hedflow.training.checkpoints import CheckpointFolder
from hedflow.training.devices import choose_device, choose_precision, placement
from hedflow.training.inputs import Inputs, make_inputs
from hedflow.training.module import DrugResponse, Interrupted
from hedflow.training.state import RunState

PREDICT_ROWS = 65_536
CHUNK = 16  # batches that Lightning sees as one


@dataclass(frozen=True)
class Job:
    """What one run of a stack is trained on.

    digest: of all that decides its result; about: what its checkpoints say beside; folder: where they are, or None.
    """

    run: str
    rows: Rows
    inputs: Inputs
    alpha: float | None
    seed: int
    digest: str = ""
    about: dict[str, Any] = dataclasses.field(default_factory=dict)
    folder: Path | None = None


@dataclass(frozen=True)
class Trained:
    """A run that is trained: its network with the best weights by `training.monitor`, and how it went."""

    network: nn.Module
    inputs: Inputs
    state: RunState
    device: torch.device
    precision: torch.dtype
    folder: CheckpointFolder

    @property
    def notes(self) -> list[str]:
        """What was wrong with its checkpoints."""
        return self.folder.notes

    @property
    def history(self) -> list[dict[str, float]]:
        """An entry an epoch: epoch, loss, validation_mae, validation_balanced_mae (and validation_loss), rate."""
        return self.state.history

    @property
    def parameters(self) -> int:
        """How many weights the network has."""
        return sum(p.numel() for p in self.network.parameters())

    def finish(self) -> None:
        """What came of it is written down: its checkpoints are kept or removed, as `when_done` says."""
        self.folder.finish(None if self.state.failure else self.state.best_weights)

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Predicted AUC (float32) of the response's rows, in their order."""
        inputs, stack = self.inputs, One(self.network).to(self.device).eval()
        cells, drugs, cell, drug = (
            part.to(self.device) for part in (inputs.cells[None], inputs.drugs[None], inputs.cell, inputs.drug)
        )
        parts = []
        with torch.inference_mode(), autocast(self.device, self.precision):
            for batch in Ordered([rows], PREDICT_ROWS) if len(rows) else ():
                of = batch.rows.to(self.device)
                parts.append(stack(cells, drugs, cell[of], drug[of], batch.sizes)[0].float().cpu())
        self.network.cpu()  # a group's networks would add up on the device
        predicted: np.ndarray = torch.cat(parts).numpy() if parts else np.empty(0, np.float32)
        return predicted


def autocast(device: torch.device, precision: torch.dtype) -> Any:
    """Matrix products in the precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16)


def align_inputs(inputs: Inputs, bundle: Bundle, alignment: Alignment | None) -> Inputs:
    """The inputs with AUC on the reference source's scale."""
    if alignment is None:
        return inputs
    aligned = alignment.to_reference(inputs.auc.numpy(), bundle.response["source"].to_numpy())
    return dataclasses.replace(inputs, auc=torch.from_numpy(aligned))


def fit(
    bundle: Bundle,
    rows: Rows,
    model: ModelSettings,
    training: Training,
    loss: str,
    alpha: float | None,
    seed: int,
    alignment: Alignment | None = None,
) -> Trained:
    """Train one network on `rows.train`.

    With `alignment` the model learns and predicts AUC on the reference source's scale.

    Raises:
        HedflowError: the training diverged.
    """
    inputs = align_inputs(make_inputs(bundle, rows, model), bundle, alignment)
    trained = fit_stack([Job("this run", rows, inputs, alpha, seed)], model, training, loss)[0]
    if trained.state.failure:
        raise HedflowError(f"{trained.state.failure}.")
    return trained


def fit_stack(
    jobs: Sequence[Job], model: ModelSettings, training: Training, loss: str, ear: Ear | None = None
) -> list[Trained]:
    """Train several runs at once: the same result for each (to rounding) as if it were trained alone.

    Args:
        ear: one that is listening already.

    Raises:
        Interrupted: the process got SIGTERM; every run that was not done has been saved.
    """
    device = choose_device(training.device)
    precision = choose_precision(training.precision, device)
    members = [_member(job, model, training) for job in jobs]
    going = [member for member in members if not member.state.done]
    together = len(going) > 1 and hasattr(type(going[0].network), "stack")
    own = Ear()
    with nullcontext() if ear else own.listening():
        try:
            for stack in [going] if together else [[member] for member in going]:
                _train(stack, training, loss, device, precision, ear or own)
        except Interrupted as interrupted:
            # Those that are done have left the stack: they need not be trained again.
            done = [member for member in members if member.state.done and member.state.optimiser is not None]
            saved = [member.folder.save(member.state.state(member.state.best_weights), math.inf) for member in done]
            raise Interrupted(interrupted.saved and all(saved)) from None
    return [_finish(member, device, precision) for member in members]


@dataclass(frozen=True)
class _Member:
    """A run of a stack."""

    job: Job
    network: Any
    state: RunState
    folder: CheckpointFolder


def _member(job: Job, model: ModelSettings, training: Training) -> _Member:
    """A run as it begins, or as its newest checkpoint has it."""
    torch.manual_seed(job.seed)
    network: Any = make_network(job.inputs, model, _start(job))
    network.batch_rows = training.batch_size
    state = RunState(job.run, job.seed, training)
    folder = CheckpointFolder(job.folder, training.checkpoints, job.run, job.digest, job.about)
    found = folder.newest()
    if found is not None:
        network.load_state_dict(found["weights"])
        state.restore(found)
    elif training.checkpoints.rollback:
        state.best_weights = {name: value.clone() for name, value in network.state_dict().items()}
    return _Member(job, network, state, folder)


def make_network(inputs: Inputs, model: ModelSettings, start: float = 0.5) -> nn.Module:
    """The network of a kind for the inputs' widths; its output begins at `start` (AUC)."""
    made: nn.Module = find(model.kind).load()(inputs.cells.shape[1], inputs.drugs.shape[1], model, start)
    return made


def _validation(job: Job, most: int | None) -> np.ndarray:
    """The rows that a run is validated on: all, or a sample that its validation rows alone decide."""
    rows = job.rows.validation
    if most is None or most >= len(rows):
        return rows
    return np.sort(np.random.default_rng(len(rows)).choice(rows, most, replace=False))


def _start(job: Job) -> float:
    return float(np.clip(job.inputs.auc.numpy()[job.rows.train].mean(), 0.01, 0.99))


def _finish(member: _Member, device: torch.device, precision: torch.dtype) -> Trained:
    if member.state.failure is None:
        member.network.load_state_dict(member.state.best_weights)
    return Trained(member.network, member.job.inputs, member.state, device, precision, member.folder)


def _train(
    members: list[_Member], training: Training, loss: str, device: torch.device, precision: torch.dtype, ear: Ear
) -> None:
    """Train the runs to their ends; what they find is in their states."""
    networks, states, jobs = ([getattr(member, name) for member in members] for name in ("network", "state", "job"))
    stack: Stack = One(networks[0]) if len(networks) == 1 else type(networks[0]).stack(networks)
    rows, seeds = [job.rows.train for job in jobs], [job.seed for job in jobs]
    batches = Batches(rows, training.batch_size, seeds, training.epoch_rows)
    batches.begin([state.epoch for state in states], [state.batch for state in states])
    module = DrugResponse(
        stack,
        make_loss(loss, [job.alpha for job in jobs]),
        [job.inputs for job in jobs],
        states,
        batches,
        Ordered([_validation(job, training.validation_rows) for job in jobs], PREDICT_ROWS, training.batch_size),
        [member.folder for member in members],
        told=lambda: ear.told,
    )
    if training.compile != "off":
        module.streams = False
        # Each number of runs that are left, in training and in validation, is compiled for itself.
        dynamo = torch._dynamo.config
        dynamo.recompile_limit = max(dynamo.recompile_limit, 2 * len(members) + 8)
        module.computed = torch.compile(stack, mode="reduce-overhead" if training.compile == "graphs" else None)
    with _quiet():
        trainer = pl.Trainer(
            **placement(device),
            deterministic=training.deterministic,
            max_epochs=-1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            callbacks=[ear],
            # One process on one device, wherever it runs: left to itself Lightning would take a Slurm allocation or an
            # MPI launch around it for its own, and start MPI to find out.
            # And for the precision it would take any GPU for CUDA's.
            plugins=[
                LightningEnvironment(),
                *([MixedPrecision("bf16-mixed", device.type)] if precision == torch.bfloat16 else []),
            ],
        )
        trainer.fit(module, Chunks(batches, CHUNK), module.validation)


class Ear(pl.Callback):
    """Hears SIGTERM: the batch ends, all runs are saved, and the training raises `Interrupted`."""

    def __init__(self) -> None:
        self.told = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear SIGTERM in this block (of the main thread: others get no signals)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = self._listen()
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _listen(self) -> Any:
        return signal.signal(signal.SIGTERM, lambda *_: setattr(self, "told", True))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """In place of Lightning's handler, which was set over ours and would only stop."""
        if threading.current_thread() is threading.main_thread():
            self._listen()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences Lightning's banners and its advice about loader processes, which there are none of."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for module in ("pytorch_lightning", "lightning_fabric"):
            warnings.filterwarnings("ignore", module=module)
        yield
