"""Runs of a plan: split, scale, train, predict the held-out rows, write two files a run."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from hedflow import HedflowError
from hedflow.alignment import Alignment, fit_alignment
from hedflow.bundle import Bundle, open_bundle
from hedflow.config import Split, Training, parse_model
from hedflow.files import write_json, write_parquet
from hedflow.models import find
from hedflow.models.settings import KindSettings, ModelSettings
from hedflow.provenance import versions
from hedflow.splits import Rows, make_rows
from hedflow.training.devices import device_name
from hedflow.training.estimate import fit_estimator, predict_estimator
from hedflow.training.fit import Ear, Job, Trained, align_inputs, fit_stack
from hedflow.training.inputs import make_inputs, row_weights
from hedflow.training.module import LOW_AUC, Interrupted

# sysexits.h, EX_TEMPFAIL: "I have saved my state; run me again", which the executor `worksteal` understands.
GO_ON_LATER = 75


@dataclass(frozen=True)
class _Run:
    """A run of the plan, ready to be trained."""

    name: str
    digest: str
    spec: dict[str, Any]
    bundle: Bundle
    rows: Rows
    alignment: Alignment | None


@dataclass(frozen=True)
class _Outcome:
    """What came of it: the predictions of rows, what the record says of it, seconds of its training, rows trained.

    finish: called once it is written down.
    """

    predict: Callable[[np.ndarray], np.ndarray]
    about: dict[str, Any]
    seconds: float
    rows: int
    device: torch.device
    finish: Callable[[], None] = lambda: None


def train_run(
    bundle: str | Path,
    plan: str | Path,
    run: str,
    predictions: str | Path,
    record: str | Path,
    checkpoints: str | Path | None = None,
) -> None:
    """Train run `run` of a plan and write its predictions and its record.

    Args:
        bundle: folder of the bundle.
        plan: plan.parquet of the experiment.
        predictions: written: `schemas.PREDICTIONS`, one row a test row.
        record: written: JSON with spec, metrics, history, timings, versions, device.
        checkpoints: folder of the run's checkpoints; None = it saves nothing.

    Raises:
        SystemExit: with `GO_ON_LATER` after SIGTERM: the run is saved, and goes on when it is trained again.
    """
    train_runs(bundle, plan, {run: (Path(predictions), Path(record))}, {run: checkpoints})


def train_runs(
    bundle: str | Path,
    plan: str | Path,
    files: Mapping[str, tuple[Path, Path]],
    checkpoints: Mapping[str, str | Path | None] | None = None,
) -> None:
    """Train runs that share model, loss and training settings at once.

    A run that diverges is written as failed, with the reason and no predictions; the others go on.

    Args:
        files: by run, its predictions and its record. checkpoints: by run, its folder of them.
    """
    started, opened = time.monotonic(), open_bundle(bundle)
    specs = {name: _plan_row(plan, name) for name in files}
    model, training, loss = _shared(specs)
    torch.set_num_threads(training.threads)
    runs = [_ready(name, digest, spec, opened, training) for name, (digest, spec) in specs.items()]
    if isinstance(model, ModelSettings) and find(model.kind).network:
        outcomes = _train_networks(runs, model, training, loss, checkpoints or {})
    else:
        outcomes = [_train_estimator(run, model, training) for run in runs]
    load = (time.monotonic() - started - sum(outcome.seconds for outcome in outcomes)) / len(runs)
    for run, outcome in zip(runs, outcomes, strict=True):
        _write(run, outcome, {"load": max(load, 0.0), "together": len(runs)}, *files[run.name])
        outcome.finish()


def _shared(specs: Mapping[str, tuple[str, dict[str, Any]]]) -> tuple[KindSettings, Training, str]:
    """Model, training settings and loss of all the runs."""
    first = next(iter(specs.values()))[1]
    for name, (_, spec) in specs.items():
        if any(spec[key] != first[key] for key in ("model", "training", "loss")):
            raise HedflowError(f"{name} and {next(iter(specs))} differ in model, loss or training: no stack of runs.")
    return parse_model(first["model"]), Training(**first["training"]), str(first["loss"])


def _ready(name: str, digest: str, spec: dict[str, Any], bundle: Bundle, training: Training) -> _Run:
    rows = make_rows(Split(**spec["split"]), spec["label"], bundle)
    align = training.align
    alignment = None if align is None else fit_alignment(bundle.response.iloc[rows.train], align)
    return _Run(name, digest, spec, bundle, rows, alignment)


def _train_networks(
    runs: list[_Run],
    model: ModelSettings,
    training: Training,
    loss: str,
    checkpoints: Mapping[str, str | Path | None],
) -> list[_Outcome]:
    """Raises: SystemExit with `GO_ON_LATER` after SIGTERM."""
    ear = Ear()
    with ear.listening():
        jobs = _jobs(runs, model, checkpoints)
        try:
            trained = fit_stack(jobs, model, training, loss, ear)
        except Interrupted as interrupted:
            names = ", ".join(run.name for run in runs)
            print(f"{names}: told to end; {interrupted}.", file=sys.stderr, flush=True)
            raise SystemExit(GO_ON_LATER) from None
    return [_outcome(job, one) for job, one in zip(jobs, trained, strict=True)]


def _jobs(runs: list[_Run], model: ModelSettings, checkpoints: Mapping[str, str | Path | None]) -> list[Job]:
    jobs = []
    for run in runs:
        inputs = make_inputs(run.bundle, run.rows, model, run.spec.get("weights"))
        about = {"spec": run.spec, "versions": versions(), "bundle": run.bundle.digest}
        where = checkpoints.get(run.name)
        folder = None if where is None else Path(where)
        inputs = align_inputs(inputs, run.bundle, run.alignment)
        jobs.append(Job(run.name, run.rows, inputs, run.spec["alpha"], run.spec["seed"], run.digest, about, folder))
    return jobs


def _outcome(job: Job, trained: Trained) -> _Outcome:
    state, rows = trained.state, len(job.rows.train)
    # Not by place: an epoch that diverged is in no history.
    best = next((entry for entry in state.history if entry["epoch"] == state.best_epoch), {})
    about = {
        "status": "failed" if state.failure else "trained",
        "reason": state.failure,
        # Columns that the network saw; a gene set may not be wholly in the data.
        "inputs": {"cell": job.inputs.cells.shape[1], "drug": job.inputs.drugs.shape[1]},
        "parameters": trained.parameters,
        "best": {
            "epoch": state.best_epoch,
            "monitor": state.monitor,
            "validation_mae": best.get("validation_mae"),
            "validation_balanced_mae": best.get("validation_balanced_mae"),
            **({"validation_loss": best.get("validation_loss")} if state.settings.monitor == "loss" else {}),
        },
        "history": state.history,
        "resumed": state.resumed,
        "rollbacks": state.rollbacks,
        "notes": trained.notes,
        "precision": str(trained.precision).removeprefix("torch."),
    }
    passed = state.epoch * min(rows, state.settings.epoch_rows or rows)
    return _Outcome(trained.predict, about, state.seconds, passed, trained.device, trained.finish)


def _train_estimator(run: _Run, model: KindSettings, training: Training) -> _Outcome:
    started = time.monotonic()
    spec, weights = run.spec, row_weights(run.bundle, run.spec.get("weights"))
    own = weights[run.rows.train].astype(np.float64) if len(weights) else None
    estimator, about = fit_estimator(run.bundle, run.rows, model, training, spec["seed"], run.alignment, own)

    def predict(rows: np.ndarray) -> np.ndarray:
        return predict_estimator(estimator, rows)

    about = {"status": "trained", "reason": None, **about}
    return _Outcome(predict, about, time.monotonic() - started, len(run.rows.train), torch.device("cpu"))


def _write(run: _Run, outcome: _Outcome, shared: Mapping[str, Any], predictions: Path, record: Path) -> None:
    """Predict a run's test rows and write its two files."""
    started, test, response = time.monotonic(), run.rows.test, run.bundle.response
    auc_pred = np.full(len(test), np.nan, np.float32)
    if outcome.about["status"] == "trained":
        auc_pred = outcome.predict(test)
        if run.alignment is not None:
            auc_pred = run.alignment.to_own(auc_pred, response["source"].to_numpy()[test])
    write_parquet(predictions, pd.DataFrame({"row": test, "auc_pred": auc_pred}))
    write_json(
        record,
        {
            "run": run.name,
            "digest": run.digest,
            "bundle": run.bundle.digest,
            "spec": run.spec,
            "rows": {name: len(getattr(run.rows, name)) for name in ("train", "validation", "test")},
            "metrics": _metrics(response["auc"].to_numpy()[test], auc_pred),
            **outcome.about,
            "alignment": None if run.alignment is None else run.alignment.summary(),
            "together": shared["together"],
            "seconds": {
                "load": round(shared["load"], 3),
                "train": round(outcome.seconds, 3),
                "predict": round(time.monotonic() - started, 3),
            },
            "rows_per_second": round(outcome.rows / max(outcome.seconds, 1e-9), 1),
            "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "device": device_name(outcome.device),
            "host": os.uname().nodename,
            "versions": versions(),
        },
    )


def _plan_row(plan: str | Path, run: str) -> tuple[str, dict[str, Any]]:
    """Digest and spec of a run."""
    table = pd.read_parquet(plan, columns=["run", "digest", "spec"], filters=[("run", "==", run)])
    if len(table) != 1:
        raise HedflowError(f"{plan}: expected one run called {run}, found {len(table)}; make the plan anew.")
    return str(table["digest"].iloc[0]), json.loads(table["spec"].iloc[0])


def _metrics(auc: np.ndarray, predicted: np.ndarray) -> dict[str, float | None]:
    """A run's own figures; the analysis pools the runs and is not imported here, lest its changes retrain."""
    if np.isnan(predicted).any():
        return dict.fromkeys(("mae", "rmse", "r2", "mae_low", "mae_rest"))
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
