"""Nearest neighbours by structure: `hedflow.baselines` calls it tanimoto_knn; here the validation may choose k."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedflow.baselines import knn_predictions
from hedflow.models.estimator import Estimator, TrainingData
from hedflow.models.settings import TanimotoKnnSettings


class TanimotoKnn(Estimator[TanimotoKnnSettings]):
    """Similarity-weighted mean of the same cell's responses to the k most similar training drugs; gaps by mean effects.

    Training rows count alike, whatever their weights.
    """

    def fit(self, data: TrainingData) -> None:
        train, validation = data.rows.train, data.rows.validation
        self.cell, self.drug = data.cell, data.drug
        rows = data.cell[train], data.drug[train], data.auc[train].astype(np.float64)
        wanted = np.arange(len(data.fingerprints))
        self.tried: list[dict[str, float]] = []
        best = np.inf
        for k in self.settings.neighbours:
            predictions = knn_predictions(*rows, len(data.cells), data.fingerprints, wanted, k)
            error = data.error(predictions[data.cell[validation], data.drug[validation]])
            self.tried.append({"neighbours": k, data.monitor: error})
            if error < best:
                best, self.neighbours, self.predictions = error, k, predictions
        self.parameters = len(train)

    def predict(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        return np.asarray(self.predictions[self.cell[rows], self.drug[rows]], np.float32)

    def describe(self) -> dict[str, Any]:
        return {"parameters": self.parameters, "neighbours": self.neighbours, "tried": self.tried}
