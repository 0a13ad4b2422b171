"""What a model is that trains itself: an estimator, in place of a network that `hedflow.training` trains.

A subclass gets what a network gets, as arrays: features scaled by the training cells and drugs only, and index arrays.
It never sees the truth of test rows: their AUC is NaN in what it is given. Light: numpy only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from hedflow.models.settings import KindSettings

if TYPE_CHECKING:
    from hedflow.splits import Rows

LOW_AUC = 0.5
S = TypeVar("S", bound=KindSettings)


@dataclass(frozen=True)
class TrainingData:
    """All that an estimator may learn from. `rows` below are those of the bundle's response, of every part.

    cells: float32 (cells, columns), drugs: float32 (drugs, columns): the features that the settings name, standardised
    over the training cells and drugs, nothing missing; no column where the settings name no features.
    cell, drug: int64 (rows,), row numbers in the two. auc: float32 (rows,), 0..1, low = potent; NaN where a row is
    neither trained nor validated. rows: row numbers of the parts. fingerprints: uint8 (drugs, bits), 0 or 1.
    tissue: (cells,), `unknown` where no table names it. weights: float64 (training rows,), or None: all count alike.
    monitor: which metric of the validation rows chooses hyper-parameters (`training.monitor`).
    """

    cells: NDArray[np.float32]
    drugs: NDArray[np.float32]
    cell: NDArray[np.int64]
    drug: NDArray[np.int64]
    auc: NDArray[np.float32]
    rows: Rows
    fingerprints: NDArray[np.uint8]
    tissue: NDArray[np.str_]
    weights: NDArray[np.float64] | None = None
    monitor: str = "balanced_mae"

    @property
    def train_weights(self) -> NDArray[np.float64]:
        """Weight of each training row, ones where there are none."""
        return np.ones(len(self.rows.train)) if self.weights is None else self.weights

    def error(self, predicted: NDArray[Any]) -> float:
        """The monitor's metric of predictions of the validation rows, in their order; lower is better."""
        return validation_errors(self.auc[self.rows.validation], predicted)[self.monitor]


def validation_errors(auc: NDArray[Any], predicted: NDArray[Any]) -> dict[str, float]:
    """`mae`; `balanced_mae`: the mean of the MAE below and above AUC 0.5, the MAE where there is only one side; `loss`:
    the mean squared error, which estimators minimise."""
    error, low = np.abs(predicted.astype(np.float64) - auc), auc < LOW_AUC
    one_side = low.all() or not low.any()
    balanced = error.mean() if one_side else (error[low].mean() + error[~low].mean()) / 2
    return {"mae": float(error.mean()), "balanced_mae": float(balanced), "loss": float((error**2).mean())}


class Estimator(ABC, Generic[S]):
    """A model that trains itself. Made, fitted and asked in one process; the same seed must give the same result.

    settings: its own class of settings. seed: of all its random numbers. threads: CPU threads that it may use.
    """

    def __init__(self, settings: S, seed: int, threads: int) -> None:
        self.settings = settings
        self.seed = seed
        self.threads = threads

    @abstractmethod
    def fit(self, data: TrainingData) -> None:
        """Learn from the training rows; choose hyper-parameters by `data.error` of the validation rows only."""

    @abstractmethod
    def predict(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """AUC of any rows of the response, in their order: float32 (rows,). What lies outside 0..1 is cut off there."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What a run's record says of it, as JSON: `parameters` (how many numbers it learnt), chosen hyper-parameters
        and what was tried."""
