"""Gradient-boosted trees (LightGBM), stopped early on the validation rows."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from hedflow.models.components import Columns
from hedflow.models.estimator import Estimator, TrainingData
from hedflow.models.settings import LightGBMSettings


class LightGBM(Estimator[LightGBMSettings]):
    """Boosted trees on principal components of the features; least squares."""

    def fit(self, data: TrainingData) -> None:
        settings, rows = self.settings, data.rows
        self.columns = Columns(data, settings.components)
        train = lightgbm.Dataset(self.columns.of(rows.train), data.auc[rows.train], weight=data.weights)
        validation = train.create_valid(self.columns.of(rows.validation), data.auc[rows.validation])
        curve: dict[str, dict[str, list[float]]] = {}
        self.booster = lightgbm.train(
            self._parameters(),
            train,
            settings.trees,
            valid_sets=[validation],
            feval=lambda predicted, _: (data.monitor, data.error(predicted), False),
            callbacks=[
                lightgbm.early_stopping(settings.patience, verbose=False),
                lightgbm.record_evaluation(curve),
            ],
        )
        self.tried = {data.monitor: curve["valid_0"][data.monitor]}

    def _parameters(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "objective": "regression",
            "metric": "None",
            "learning_rate": settings.learning_rate,
            "num_leaves": settings.leaves,
            "min_data_in_leaf": settings.leaf_rows,
            "feature_fraction": settings.column_share,
            "bagging_fraction": settings.row_share,
            "bagging_freq": int(settings.row_share < 1),
            "num_threads": self.threads,
            "seed": self.seed,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }

    def predict(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        predicted = self.booster.predict(self.columns.of(rows), num_threads=self.threads)
        return np.asarray(predicted, np.float32)

    def describe(self) -> dict[str, Any]:
        trees = self.booster.dump_model(num_iteration=self.booster.best_iteration)["tree_info"]
        leaves = sum(int(tree["num_leaves"]) for tree in trees)
        return {"parameters": leaves, "trees": len(trees), "tried": self.tried}
