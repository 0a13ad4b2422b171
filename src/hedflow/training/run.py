"""One run of a plan: split, scale, train, predict the held-out rows, write two files."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import resource
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch

from hedflow import HedflowError
from hedflow.alignment import Alignment, fit_alignment
from hedflow.bundle import Bundle, open_bundle
from hedflow.config import Model, Split, Training
from hedflow.files import write_json, write_parquet
from hedflow.losses import make_loss
from hedflow.models.uno import Uno
from hedflow.provenance import versions
from hedflow.splits import Rows, make_rows
from hedflow.training.inputs import Batches, Inputs, make_inputs
from hedflow.training.module import LOW_AUC, DrugResponse

PREDICT_ROWS = 65_536


def train_run(bundle: str | Path, plan: str | Path, run: str, predictions: str | Path, record: str | Path) -> None:
    """Train run `run` of a plan and write its predictions and its record.

    Args:
        bundle: folder of the bundle.
        plan: plan.parquet of the experiment.
        predictions: written: `schemas.PREDICTIONS`, one row a test row.
        record: written: JSON with spec, metrics, history, timings, versions, device.
    """
    started = time.time()
    row = _plan_row(plan, run)
    spec = json.loads(row["spec"])
    split, model, training = Split(**spec["split"]), Model(**spec["model"]), Training(**spec["training"])
    opened = open_bundle(bundle)
    rows = make_rows(split, spec["label"], opened)
    pl.seed_everything(spec["seed"], verbose=False)
    torch.set_num_threads(training.threads)
    loaded = time.time()
    alignment = None
    if training.align is not None:
        alignment = fit_alignment(opened.response.iloc[rows.train], training.align)
    module, device = fit(opened, rows, model, training, spec["loss"], spec["alpha"], spec["seed"], alignment)
    trained = time.time()
    auc_pred = predict(module, rows.test, device)
    if alignment is not None:
        auc_pred = alignment.to_own(auc_pred, opened.response["source"].to_numpy()[rows.test])
    write_parquet(predictions, pd.DataFrame({"row": rows.test, "auc_pred": auc_pred}))
    write_json(
        record,
        {
            "run": run,
            "digest": row["digest"],
            "bundle": opened.digest,
            "spec": spec,
            "rows": {name: len(getattr(rows, name)) for name in ("train", "validation", "test")},
            # Columns that the network saw; a gene set may not be wholly in the data.
            "inputs": {"cell": module.cells.shape[1], "drug": module.drugs.shape[1]},
            "parameters": sum(p.numel() for p in module.network.parameters()),
            "metrics": _metrics(opened.response["auc"].to_numpy()[rows.test], auc_pred),
            "best": {
                "epoch": module.best_epoch,
                "monitor": module.monitor,
                "validation_mae": module.history[module.best_epoch]["validation_mae"],
                "validation_balanced_mae": module.history[module.best_epoch]["validation_balanced_mae"],
            },
            "alignment": None if alignment is None else alignment.summary(),
            "history": module.history,
            "seconds": {
                "load": round(loaded - started, 3),
                "train": round(trained - loaded, 3),
                "predict": round(time.time() - trained, 3),
            },
            "rows_per_second": round(_rows_trained(module, rows, training) / (trained - loaded), 1),
            "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "device": _device_name(device),
            "host": os.uname().nodename,
            "versions": versions(),
        },
    )


def _plan_row(plan: str | Path, run: str) -> dict[str, Any]:
    table = pd.read_parquet(plan, filters=[("run", "==", run)])
    if len(table) != 1:
        raise HedflowError(f"{plan}: expected one run called {run}, found {len(table)}; make the plan anew.")
    return {str(key): value for key, value in table.iloc[0].items()}


def fit(
    bundle: Bundle,
    rows: Rows,
    model: Model,
    training: Training,
    loss: str,
    alpha: float | None,
    seed: int,
    alignment: Alignment | None = None,
) -> tuple[DrugResponse, torch.device]:
    """Train a model on `rows.train`; returns the module with its best weights by `training.monitor`, and its device.

    With `alignment` the model learns and predicts AUC on the reference source's scale.
    """
    inputs = make_inputs(bundle, rows, model)
    if alignment is not None:
        aligned = alignment.to_reference(inputs.auc.numpy(), bundle.response["source"].to_numpy())
        inputs = dataclasses.replace(inputs, auc=torch.from_numpy(aligned))
    start = float(np.clip(inputs.auc.numpy()[rows.train].mean(), 0.01, 0.99))
    module = DrugResponse(make_network(inputs, model, start), make_loss(loss, alpha), inputs, training)
    accelerator = training.device
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise HedflowError("training.device is cuda, but PyTorch finds no CUDA device here; use auto or cpu.")
    with _quiet():
        trainer = pl.Trainer(
            accelerator="gpu" if accelerator == "cuda" else "cpu",
            devices=1,
            max_epochs=training.epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        batches = Batches(rows.train, training.batch_size, seed=seed, limit=training.epoch_rows)
        trainer.fit(module, batches, Batches(rows.validation, PREDICT_ROWS))
    module.network.load_state_dict(module.best_weights)
    return module, torch.device(accelerator)


def make_network(inputs: Inputs, model: Model, start: float = 0.5) -> Uno:
    """The network for the inputs' widths; its output begins at `start` (AUC)."""
    return Uno(
        inputs.cells.shape[1],
        inputs.drugs.shape[1],
        model.width,
        model.tower_depth,
        model.head_depth,
        model.dropout,
        start,
    )


def predict(module: DrugResponse, rows: np.ndarray, device: torch.device) -> np.ndarray:
    """Predicted AUC (float32) of the response's rows, in their order."""
    module.to(device).eval()
    with torch.inference_mode():
        parts = [module(batch.to(device)).cpu() for batch in Batches(rows, PREDICT_ROWS)]
    predicted: np.ndarray = torch.cat(parts).float().numpy()
    return predicted


def _metrics(auc: np.ndarray, predicted: np.ndarray) -> dict[str, float | None]:
    """A run's own figures; the analysis pools the runs and is not imported here, lest its changes retrain."""
    error = np.abs(predicted - auc).astype(np.float64)
    spread = ((auc - auc.mean()) ** 2).sum()
    low = auc < LOW_AUC
    return {
        "mae": float(error.mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "r2": float(1 - (error**2).sum() / spread) if spread > 0 else None,
        "mae_low": float(error[low].mean()) if low.any() else None,
        "mae_rest": float(error[~low].mean()) if not low.all() else None,
    }


def _rows_trained(module: DrugResponse, rows: Rows, training: Training) -> int:
    return len(module.history) * min(len(rows.train), training.epoch_rows or len(rows.train))


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


class _quiet:
    """Silences Lightning's banners and its advice about loader processes, which there are none of."""

    def __enter__(self) -> None:
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        self.caught = warnings.catch_warnings()
        self.caught.__enter__()
        warnings.filterwarnings("ignore", module="pytorch_lightning")

    def __exit__(self, *error: object) -> None:
        self.caught.__exit__(None, None, None)
