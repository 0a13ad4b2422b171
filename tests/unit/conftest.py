"""A hand-made experiment, its tables and its report, made once for the modules that look at them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from written import experiment_of, frame, naive_frames, tables_of, write_results

from hedflow.analysis.experiment import Experiment


@pytest.fixture(scope="session")
def experiment() -> Experiment:
    """`mse`, the reference, and `low`, which predicts lower."""
    methods = {
        "mse": frame(lambda auc, drug, rng: 0.8 + 0.1 * rng.random(len(auc))),
        "low": frame(lambda auc, drug, rng: 0.5 + 0.1 * rng.random(len(auc))),
    }
    return experiment_of(methods, naive_frames())


@pytest.fixture(scope="session")
def made(experiment, tmp_path_factory) -> dict[str, pd.DataFrame]:
    """All its tables; not to be changed."""
    return tables_of(experiment, tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def written(made, tmp_path_factory) -> Path:
    """A results folder with the experiment `e`, its figures and its explorer; not to be changed."""
    audits = [{"unused": count, **({"unused_because": "no tissue"} if count else {})} for count in (0, 3, 1200)]
    return write_results(tmp_path_factory.mktemp("results"), made, audits)
