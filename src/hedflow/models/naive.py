"""The naive baselines as models: on the training rows of each run, to stand beside others in a plan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hedflow.baselines import fit_predict
from hedflow.models.estimator import Estimator, TrainingData
from hedflow.models.settings import NaiveSettings


class Naive(Estimator[NaiveSettings]):
    """One of `hedflow.baselines`. Training rows count alike, whatever their weights."""

    def fit(self, data: TrainingData) -> None:
        self.data = data

    def predict(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        data = self.data
        response = pd.DataFrame({"cell": data.cell, "drug": data.drug, "auc": data.auc})
        made = fit_predict(response, data.rows.train, np.asarray(rows, np.int64), data.tissue, data.fingerprints)
        return np.asarray(made[self.settings.baseline], np.float32)

    def describe(self) -> dict[str, Any]:
        return {"parameters": 0, "baseline": self.settings.baseline}
