"""Ridge regression on the features of cells and drugs side by side: a linear effect of each, no interaction.

A row's features are x = [C[cell], D[drug]], so X'WX and X'Wy follow from how often each cell met each drug, and the
rows themselves are never laid out: with n_c, n_d the weights of a cell's and a drug's rows and N (cells, drugs) those
of a pair's,

    X'WX = [[C' diag(n_c) C, C' N D], [D' N' C, D' diag(n_d) D]].

The intercept bears no penalty. One eigendecomposition serves all penalties.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from hedflow.models.estimator import Estimator, TrainingData
from hedflow.models.settings import RidgeSettings

Floats = NDArray[np.float64]


class Ridge(Estimator[RidgeSettings]):
    """Minimises sum(w (y - a - x'b)^2) + penalty * |b|^2, exactly, for the penalty that validates best."""

    def fit(self, data: TrainingData) -> None:
        cells, drugs = (matrix.astype(np.float64) for matrix in (data.cells, data.drugs))
        gram, moment, means, auc_mean = normal_equations(data, cells, drugs)
        values, vectors = eigh(gram, driver="evd")
        turned = vectors.T @ moment
        self.cell, self.drug = data.cell, data.drug
        validation = data.rows.validation
        self.tried: list[dict[str, float]] = []
        best = np.inf
        for penalty in self.settings.penalties:
            coefficients = vectors @ (turned / (np.maximum(values, 0) + penalty))
            of_cell = cells @ coefficients[: cells.shape[1]]
            of_drug = drugs @ coefficients[cells.shape[1] :] + auc_mean - means @ coefficients
            error = data.error(of_cell[data.cell[validation]] + of_drug[data.drug[validation]])
            self.tried.append({"penalty": penalty, data.monitor: error})
            if error < best:
                best, self.penalty, self.of_cell, self.of_drug = error, penalty, of_cell, of_drug
        self.parameters = len(moment) + 1

    def predict(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        return np.asarray(self.of_cell[self.cell[rows]] + self.of_drug[self.drug[rows]], np.float32)

    def describe(self) -> dict[str, Any]:
        return {"parameters": self.parameters, "penalty": self.penalty, "tried": self.tried}


def normal_equations(data: TrainingData, cells: Floats, drugs: Floats) -> tuple[Floats, Floats, Floats, float]:
    """X'WX (p, p) and X'Wy (p,) of the training rows, both centred; the means of X (p,) and of y."""
    train = data.rows.train
    cell, drug, auc = data.cell[train], data.drug[train], data.auc[train].astype(np.float64)
    weights, size = data.train_weights, len(cells) * len(drugs)
    pairs = np.bincount(cell * len(drugs) + drug, weights, size).reshape(len(cells), len(drugs))
    of_cell, of_drug, total = pairs.sum(axis=1), pairs.sum(axis=0), pairs.sum()
    cross = cells.T @ pairs @ drugs
    gram = np.block([[cells.T * of_cell @ cells, cross], [cross.T, drugs.T * of_drug @ drugs]])
    sums = (np.bincount(i, weights * auc, len(matrix)) for i, matrix in ((cell, cells), (drug, drugs)))
    moment = np.concatenate([matrix.T @ s for matrix, s in zip((cells, drugs), sums, strict=True)])
    means = np.concatenate([of_cell @ cells, of_drug @ drugs]) / total
    auc_mean = float(weights @ auc / total)
    gram -= total * np.outer(means, means)
    return gram, moment - total * means * auc_mean, means, auc_mean
