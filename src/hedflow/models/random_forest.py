"""Random forest (scikit-learn): the mean of deep trees, each grown on its own draw of the training rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor

from hedflow.models.components import Columns
from hedflow.models.estimator import Estimator, TrainingData
from hedflow.models.settings import RandomForestSettings


class RandomForest(Estimator[RandomForestSettings]):
    """Trees on principal components of the features; nothing is chosen by the validation rows."""

    def fit(self, data: TrainingData) -> None:
        settings, train = self.settings, data.rows.train
        self.columns = Columns(data, settings.components)
        self.forest = RandomForestRegressor(
            settings.trees,
            min_samples_leaf=settings.leaf_rows,
            max_features=settings.column_share,
            max_samples=min(settings.tree_rows, len(train)),
            n_jobs=self.threads,
            random_state=self.seed,
        )
        # Always with weights: without any, scikit-learn draws the rows of a tree in another way.
        self.forest.fit(self.columns.of(train), data.auc[train], sample_weight=data.train_weights)

    def predict(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        return np.asarray(self.forest.predict(self.columns.of(rows)), np.float32)

    def describe(self) -> dict[str, Any]:
        leaves = sum(int(tree.get_n_leaves()) for tree in self.forest.estimators_)
        return {"parameters": leaves, "trees": len(self.forest.estimators_)}
