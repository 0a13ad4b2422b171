"""Hand-made experiments: prediction frames in, an experiment's tables and results folder out, as the rules leave them.

Two sources of 30 drugs x 24 cells; what a method predicts is a function of the truth.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from test_splits import make_bundle

from hedflow.analysis import TABLES
from hedflow.analysis.experiment import Experiment
from hedflow.analysis.run import Measurements, make_tables
from hedflow.bundle import open_bundle
from hedflow.config import Analysis, Split
from hedflow.explorer.page import make_page
from hedflow.figures import FIGURES
from hedflow.figures import experiment as figures
from hedflow.files import write_json, write_parquet, write_text
from hedflow.harmony import agreement, noise, second_errors, shared_pairs
from hedflow.integrate import NO_CURVES
from hedflow.splits import labels

DRUGS, CELLS = 30, 24
# What a drug may be called in a file, for all that a page knows.
ODD = "x\"'</script><b>${{ y }}`*_|$a$\\"
FOLDS = Split(folds=3)
HISTORY = [
    {"epoch": i, "loss": 1 / (i + 1), "validation_balanced_mae": 0.3 - i / 100, "validation_mae": 0.2, "rate": 1e-3}
    for i in range(4)
]
Predict = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def frame(predict: Predict, drugs: int = DRUGS) -> pd.DataFrame:
    """A prediction frame; `predict(auc, drug, rng)` makes the predictions."""
    rng = np.random.default_rng(0)
    level = np.clip(rng.beta(5, 1.2, drugs), 0.1, 1)
    parts = []
    for source in ("A", "B"):
        cell, drug = (grid.ravel() for grid in np.meshgrid(np.arange(CELLS), np.arange(drugs)))
        auc = np.clip(level[drug] + rng.normal(0, 0.08, len(drug)), 0, 1)
        parts.append(pd.DataFrame({"cell": cell, "drug": drug, "source": source, "auc": auc.astype(np.float32)}))
    table = pd.concat(parts, ignore_index=True)
    table.insert(0, "row", np.arange(len(table)))
    return table.assign(auc_pred=predict(table["auc"].to_numpy(), table["drug"].to_numpy(), rng))


def naive_frames(drugs: int = DRUGS) -> dict[str, pd.DataFrame]:
    """A baseline that knows nothing, and one that nearly knows the truth."""
    return {
        "global_mean": frame(lambda auc, drug, rng: np.full(len(auc), auc.mean()), drugs),
        "tanimoto_knn": frame(lambda auc, drug, rng: auc + rng.normal(0, 0.05, len(auc)), drugs),
    }


def experiment_of(methods: dict[str, pd.DataFrame], naive: dict[str, pd.DataFrame], **settings: object) -> Experiment:
    """The first method is the reference; drug-blind."""
    wanted = {"bootstrap": 100, "top_k": 5, "high_error_z": 1.0} | settings
    return Experiment(methods, naive, next(iter(methods)), "drug_blind", Analysis(**wanted))


def tables_of(
    experiment: Experiment,
    folder: Path,
    losses: dict[str, tuple[str | None, float | None]] | None = None,
    split: Split = FOLDS,
    names: Callable[[int], str] = lambda i: f"*drug_{i}*{ODD}",
    drugs: int = DRUGS,
) -> dict[str, pd.DataFrame]:
    """All tables of the experiment, on a bundle below `folder` whose response is that of a whole `frame`.

    Args:
        losses: loss and alpha of a method, where it is not a loss without alpha; no loss: a model without epochs.
        split: what the experiment's rows are tested by; each method has a run for each part.
        names: name of a drug.
        drugs: of the bundle.
    """
    make_bundle(folder, range(drugs), n_cells=CELLS)
    rows = frame(lambda auc, drug, rng: auc, drugs).drop(columns=["row", "auc_pred"])
    write_parquet(folder / "response.parquet", rows)
    table = pd.read_parquet(folder / "drugs.parquet")
    mechanism = np.where(np.arange(drugs) < 3, "rare", "common")
    write_parquet(
        folder / "drugs.parquet", table.assign(drug_name=[names(i) for i in range(drugs)], mechanism=mechanism)
    )
    bundle = open_bundle(folder)
    spec = {"split": split.deciding(), "training": {"epochs": len(HISTORY)}}
    known = losses or {}
    plan = pd.DataFrame(
        [
            {
                "run": f"{method}.{label}", "method": method, "split": f"{split.kind}-{label}",
                "split_kind": split.kind,
                "model": method if known.get(method) == (None, None) else "m",
                "loss_name": known.get(method, (method, None))[0], "alpha": known.get(method, (method, None))[1],
                "spec": json.dumps({**spec, "label": label}),
            }
            for method in experiment.methods for label in labels(split, bundle)
        ]
    )  # fmt: skip
    trained = plan["loss_name"].notna()
    runs = plan[["run"]].assign(
        seed=0,
        best_epoch=np.where(trained, 2.0, np.nan),
        history=np.where(trained, json.dumps(HISTORY), "[]"),
        monitor="validation_balanced_mae",
        status="trained",
        reason=None,
    )
    response = rows.assign(
        cell_id=bundle.cells["cell_id"].to_numpy()[rows["cell"]],
        drug_id=bundle.drugs["drug_id"].to_numpy()[rows["drug"]],
        auc_sd=np.nan,
        replicates=1,
    )
    shared = shared_pairs(response)
    found = noise(response, shared, agreement(shared), NO_CURVES)
    measurements = Measurements(response, found, second_errors(response, shared, NO_CURVES))
    return make_tables(experiment, bundle, plan, runs, measurements)


def write_results(
    results: Path,
    made: dict[str, pd.DataFrame],
    audits: list[dict[str, object]] | None = None,
    names: Iterable[str] = FIGURES,
) -> Path:
    """A results folder with one experiment, `e`: tables, figures and explorer, and what the page says of the data.

    Args:
        names: of the figures that are drawn.
    """
    assert tuple(made) == TABLES
    for name, table in made.items():
        write_parquet(results / "e" / "tables" / f"{name}.parquet", table)
    write_json(results / "e" / "audit.json", audits or [{"unused": 0}])
    losses = pd.DataFrame(
        {"source": ["A"], "step": "integrate", "reason": "no AUC", "rows_before": 10, "rows_lost": 2, "rows_after": 8}
    )
    write_parquet(results / "integration_report.parquet", losses)
    tables = {
        "response": pd.DataFrame({"source": ["A", "A"], "clipped": [1, 0], "replicates": [3, 1]}),
        "curves": NO_CURVES,
        "cell_identity": pd.DataFrame({"route": ["name", "ambiguous name"]}),
        "drug_identity": pd.DataFrame({"drug_id": ["A" * 14, None]}),
    }
    for name, table in tables.items():
        write_parquet(results / "integration" / f"{name}.parquet", table)
    manifest = {
        "rows": 8,
        "cells": 2,
        "drugs": 3,
        "sources": {"A": 8},
        "views": {"expression": {"columns": ["G"]}, "mutations": {"columns": ["G"], "cells_imputed": 2}},
        "digest": "d",
    }
    write_json(results / "bundle" / "manifest.json", manifest)
    figures.draw_all(results / "e" / "tables", results / "e" / "figures", names)
    write_text(results / "e" / "explorer.html", make_page(results / "e" / "tables", "e"))
    return results
