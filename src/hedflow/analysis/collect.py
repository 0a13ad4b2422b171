"""Gathers what the runs wrote: predictions pooled by method, records as a table, baselines on the same splits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hedflow import HedflowError
from hedflow.baselines import fit_predict, tanimoto
from hedflow.bundle import Bundle
from hedflow.config import Split
from hedflow.files import read_json
from hedflow.schemas import PREDICTIONS, checked
from hedflow.splits import make_rows


def collect_runs(plan: pd.DataFrame, runs: Sequence[str], folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions and records of some runs of a plan.

    Returns:
        (run, row, auc_pred) of all their test rows, and one row a run: metrics, best epoch, epochs, seconds.
    """
    predictions, records = [], []
    wanted = plan.set_index("run")
    for run in runs:
        record = read_json(folder / run / "run.json")
        if record["digest"] != wanted.loc[run, "digest"]:
            raise HedflowError(f"{folder / run}: made by another plan; run `snakemake` again.")
        table = checked(pd.read_parquet(folder / run / "predictions.parquet"), PREDICTIONS, f"predictions of {run}")
        predictions.append(table.assign(run=run))
        records.append(
            {
                "run": run,
                "method": wanted.loc[run, "method"],
                "split": wanted.loc[run, "split"],
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
    return pd.concat(predictions, ignore_index=True), pd.DataFrame(records)


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
        frames[str(name)] = _frame(bundle, mean.index.to_numpy(), mean.to_numpy())
    return frames


def _frame(bundle: Bundle, rows: np.ndarray, auc_pred: np.ndarray) -> pd.DataFrame:
    table = bundle.response.iloc[rows].reset_index(drop=True)
    table.insert(0, "row", rows)
    return table.assign(auc_pred=auc_pred)


def parts_of(plan: pd.DataFrame) -> list[tuple[str, Split]]:
    """The distinct (label, split) that a plan's runs use."""
    specs = [json.loads(spec) for spec in plan.drop_duplicates("split")["spec"]]
    return [(spec["label"], Split(**spec["split"])) for spec in specs]


def predict_baselines(parts: Iterable[tuple[str, Split]], bundle: Bundle, neighbours: int) -> pd.DataFrame:
    """The naive baselines of every part of a split: label, row, and a column a baseline.

    They are fitted on the training and validation rows: none of them stops early.
    """
    prints, tissue = np.asarray(bundle.array("fingerprints")), bundle.cells["tissue"].to_numpy(dtype=str)
    tables = []
    for label, split in parts:
        rows = make_rows(split, label, bundle)
        train = np.sort(np.concatenate([rows.train, rows.validation]))
        made = fit_predict(bundle.response, train, rows.test, tissue, prints, neighbours)
        tables.append(made.rename_axis("row").reset_index().assign(label=label))
    return pd.concat(tables, ignore_index=True)


def baseline_frames(table: pd.DataFrame, names: Sequence[str], bundle: Bundle) -> dict[str, pd.DataFrame]:
    """Prediction frames of the named baselines; rows tested by several parts get the mean."""
    mean = table.groupby("row")[list(names)].mean()
    return {name: _frame(bundle, mean.index.to_numpy(), mean[name].to_numpy()) for name in names}


def nearest_training_drug(parts: Iterable[tuple[str, Split]], bundle: Bundle) -> pd.DataFrame:
    """For each tested drug the most similar training drug: drug, nearest (its name), similarity (Tanimoto, 0..1).

    Where a drug is tested in several parts, the part with the most similar one counts.
    """
    similarity = tanimoto(bundle.array("fingerprints"), bundle.array("fingerprints"))
    drug = bundle.response["drug"].to_numpy()
    names = bundle.drugs["drug_name"].to_numpy()
    tables = []
    for label, split in parts:
        rows = make_rows(split, label, bundle)
        train, test = np.unique(drug[rows.train]), np.unique(drug[rows.test])
        closest = similarity[np.ix_(test, train)]
        tables.append(
            pd.DataFrame(
                {"drug": test, "nearest": names[train[closest.argmax(axis=1)]], "similarity": closest.max(axis=1)}
            )
        )
    found = pd.concat(tables).sort_values(["drug", "similarity"], ascending=[True, False])
    return found.drop_duplicates("drug", ignore_index=True)
