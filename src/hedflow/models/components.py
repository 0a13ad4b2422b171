"""Principal components: features few enough for trees, which look at every column in every split."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedflow.models.estimator import TrainingData


def principal_components(matrix: NDArray[np.float32], training: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """The first `count` principal components of the rows `training` (fewer where there are fewer), of all rows.

    (n, columns) -> (n, at most count), scaled as the features are, each with its largest loading positive, so that
    they are the same everywhere.
    """
    seen = matrix[training].astype(np.float64)
    mean = seen.mean(axis=0)
    _, values, loadings = np.linalg.svd(seen - mean, full_matrices=False)
    kept = loadings[: min(count, int((values > 1e-6 * max(values.max(initial=0), 1e-6)).sum()))]
    largest = kept[np.arange(len(kept)), np.abs(kept).argmax(axis=1)] if len(kept) else np.empty(0)
    found: NDArray[np.float32] = ((matrix - mean) @ (kept.T * np.sign(largest))).astype(np.float32)
    return found


class Columns:
    """The columns that trees see of a row: of its cell, then of its drug; components of them if a number is given."""

    def __init__(self, data: TrainingData, components: int | None) -> None:
        train = data.rows.train
        self.cell, self.drug = data.cell, data.drug
        self.cells, self.drugs = data.cells, data.drugs
        if components is not None:
            self.cells = principal_components(data.cells, np.unique(data.cell[train]), components)
            self.drugs = principal_components(data.drugs, np.unique(data.drug[train]), components)

    def of(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """float32 (rows, columns); a column of zeros where a training cell and drug alone leave none."""
        found = np.concatenate([self.cells[self.cell[rows]], self.drugs[self.drug[rows]]], axis=1)
        return found if found.shape[1] else np.zeros((len(rows), 1), np.float32)
