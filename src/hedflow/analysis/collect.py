"""Gathers what the runs wrote: predictions pooled by method, records as a table, baselines on the same splits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hedflow import HedflowError
from hedflow.bundle import Bundle
from hedflow.files import read_json
from hedflow.schemas import PREDICTIONS, checked


def collect_runs(plan: pd.DataFrame, runs: Sequence[str], folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions and records of some runs of a plan.

    Returns:
        (run, row, auc_pred) of all their test rows, and one row a run: metrics, best epoch, epochs, seconds.
        What the plan says of a run (method, split) is left to the plan: it can change without the run.
    """
    predictions, records = [], []
    wanted = plan.set_index("run")
    for run in runs:
        record = read_json(folder / run / "run.json")
        if record["digest"] != wanted.loc[run, "digest"]:
            raise HedflowError(f"{folder / run}: made by another plan; run `snakemake` again.")
        table = checked(pd.read_parquet(folder / run / "predictions.parquet"), PREDICTIONS, f"predictions of {run}")
        if record["status"] == "trained" and table["auc_pred"].isna().any():
            raise HedflowError(
                f"predictions of {run}: column 'auc_pred' is not finite everywhere; delete the run's folder."
            )
        predictions.append(table.assign(run=run))
        records.append(
            {
                "run": run,
                "status": record["status"],
                "reason": record["reason"],
                "seed": int(record["spec"]["seed"]),
                **record["metrics"],
                "monitor": record["best"]["monitor"],
                "validation_mae": record["best"]["validation_mae"],
                "best_epoch": record["best"]["epoch"],
                "epochs": len(record["history"]),
                "train_seconds": record["seconds"]["train"],
                "rows_per_second": record["rows_per_second"],
                "peak_mb": record["peak_mb"],
                "device": record["device"],
                "history": json.dumps(record["history"]),
            }
        )
    table = pd.DataFrame(records).astype({"best_epoch": "Int64"})  # a model that is no network has none
    return pd.concat(predictions, ignore_index=True), table


def pool(plan: pd.DataFrame, predictions: pd.DataFrame, bundle: Bundle) -> dict[str, pd.DataFrame]:
    """Prediction frames (row, cell, drug, source, auc, auc_pred) by method, in the plan's order.

    A row predicted by several seeds gets the mean of their predictions: the method is then their ensemble.
    """
    method = plan.set_index("run")["method"]
    predictions = predictions.assign(method=predictions["run"].map(method))
    frames = {}
    for name in dict.fromkeys(plan["method"]):
        rows = predictions[predictions["method"] == name]
        mean = rows.groupby("row")["auc_pred"].mean()
        frames[str(name)] = frame_of(bundle, mean.index.to_numpy(), mean.to_numpy())
    return frames


def parts_of_rows(plan: pd.DataFrame, predictions: pd.DataFrame) -> pd.Series[int]:
    """By row of the bundle, the number of the part of the split that tests it.

    -1 for all rows where some are tested by several parts: their predictions are then means over these.
    """
    runs = plan.drop_duplicates("split")["run"]
    tested = predictions[predictions["run"].isin(runs)]
    if tested["row"].duplicated().any():
        return pd.Series(-1, index=tested["row"].unique())
    return pd.Series(pd.factorize(tested["run"])[0], index=tested["row"].to_numpy())


def frame_of(bundle: Bundle, rows: np.ndarray, auc_pred: np.ndarray) -> pd.DataFrame:
    """A prediction frame: rows of the bundle's response with their predictions."""
    table = bundle.response.iloc[rows].reset_index(drop=True)
    table.insert(0, "row", rows)
    return table.assign(auc_pred=auc_pred)
