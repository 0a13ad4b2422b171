"""Runs of a plan: split, scale, train, predict the held-out rows, write two files a run."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from hedflow import HedflowError
from hedflow.alignment import Alignment, fit_alignment
from hedflow.bundle import Bundle, open_bundle
from hedflow.config import Model, Split, Training
from hedflow.files import write_json, write_parquet
from hedflow.provenance import versions
from hedflow.splits import Rows, make_rows
from hedflow.training.devices import device_name
from hedflow.training.fit import Job, Trained, align_inputs, fit_stack
from hedflow.training.inputs import make_inputs
from hedflow.training.module import LOW_AUC, Interrupted

# sysexits.h, EX_TEMPFAIL: "I have saved my state; run me again", which the executor `worksteal` understands.
GO_ON_LATER = 75


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
    started = time.monotonic()
    planned = {run: _plan_row(plan, run) for run in files}
    specs = {run: json.loads(row["spec"]) for run, row in planned.items()}
    first = next(iter(specs.values()))
    model, training = Model(**first["model"]), Training(**first["training"])
    for run, spec in specs.items():
        if any(spec[key] != first[key] for key in ("model", "training", "loss")):
            raise HedflowError(
                f"run {run} and {next(iter(specs))} differ in more than a stack of runs can; make the plan anew."
            )
    opened = open_bundle(bundle)
    torch.set_num_threads(training.threads)
    rows = {run: make_rows(Split(**spec["split"]), spec["label"], opened) for run, spec in specs.items()}
    alignments = {run: _alignment(opened, rows[run], training) for run in files}
    jobs = []
    for run, spec in specs.items():
        inputs = align_inputs(make_inputs(opened, rows[run], model, spec.get("weights")), opened, alignments[run])
        about = {"spec": spec, "versions": versions(), "bundle": opened.digest}
        folder = (checkpoints or {}).get(run)
        where = None if folder is None else Path(folder)
        jobs.append(Job(run, rows[run], inputs, spec["alpha"], spec["seed"], planned[run]["digest"], about, where))
    loaded = time.monotonic()
    try:
        trained = fit_stack(jobs, model, training, first["loss"])
    except Interrupted:
        names = ", ".join(files)
        print(f"{names}: told to end; saved, and goes on from there when it is run again.", file=sys.stderr, flush=True)
        raise SystemExit(GO_ON_LATER) from None
    for job, one in zip(jobs, trained, strict=True):
        shared = {"load": (loaded - started) / len(jobs), "together": len(jobs)}
        _write(opened, job, one, planned[job.run], alignments[job.run], shared, *files[job.run])


def _alignment(bundle: Bundle, rows: Rows, training: Training) -> Alignment | None:
    return None if training.align is None else fit_alignment(bundle.response.iloc[rows.train], training.align)


def _write(
    bundle: Bundle,
    job: Job,
    trained: Trained,
    row: Mapping[str, Any],
    alignment: Alignment | None,
    shared: Mapping[str, Any],
    predictions: Path,
    record: Path,
) -> None:
    """Predict a run's test rows and write its two files."""
    started, state, test = time.monotonic(), trained.state, job.rows.test
    spec = json.loads(row["spec"])
    auc_pred = np.full(len(test), np.nan, np.float32) if state.failure else trained.predict(test)
    if alignment is not None and not state.failure:
        auc_pred = alignment.to_own(auc_pred, bundle.response["source"].to_numpy()[test])
    write_parquet(predictions, pd.DataFrame({"row": test, "auc_pred": auc_pred}))
    best = state.history[state.best_epoch] if state.best_epoch >= 0 else {}
    write_json(
        record,
        {
            "run": job.run,
            "status": "failed" if state.failure else "trained",
            "reason": state.failure,
            "digest": row["digest"],
            "bundle": bundle.digest,
            "spec": spec,
            "rows": {name: len(getattr(job.rows, name)) for name in ("train", "validation", "test")},
            # Columns that the network saw; a gene set may not be wholly in the data.
            "inputs": {"cell": job.inputs.cells.shape[1], "drug": job.inputs.drugs.shape[1]},
            "parameters": trained.parameters,
            "metrics": _metrics(bundle.response["auc"].to_numpy()[test], auc_pred),
            "best": {
                "epoch": state.best_epoch,
                "monitor": state.monitor,
                "validation_mae": best.get("validation_mae"),
                "validation_balanced_mae": best.get("validation_balanced_mae"),
            },
            "alignment": None if alignment is None else alignment.summary(),
            "history": state.history,
            "resumed": state.resumed,
            "rollbacks": state.rollbacks,
            "notes": trained.notes,
            "together": shared["together"],
            "seconds": {
                "load": round(shared["load"], 3),
                "train": round(state.seconds, 3),
                "predict": round(time.monotonic() - started, 3),
            },
            "rows_per_second": round(_rows_trained(job, trained) / max(state.seconds, 1e-9), 1),
            "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "device": device_name(trained.device),
            "precision": str(trained.precision).removeprefix("torch."),
            "host": os.uname().nodename,
            "versions": versions(),
        },
    )


def _plan_row(plan: str | Path, run: str) -> dict[str, Any]:
    table = pd.read_parquet(plan, filters=[("run", "==", run)])
    if len(table) != 1:
        raise HedflowError(f"{plan}: expected one run called {run}, found {len(table)}; make the plan anew.")
    return {str(key): value for key, value in table.iloc[0].items()}


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


def _rows_trained(job: Job, trained: Trained) -> int:
    rows = len(job.rows.train)
    return len(trained.history) * min(rows, trained.state.settings.epoch_rows or rows)
