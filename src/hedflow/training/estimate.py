"""A run of a model that trains itself (`models.estimator`): the same inputs, splits and scales as a network's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from hedflow import HedflowError
from hedflow.alignment import Alignment
from hedflow.bundle import Bundle
from hedflow.config import Training
from hedflow.models import find
from hedflow.models.estimator import Estimator, TrainingData, validation_errors
from hedflow.models.settings import KindSettings, ModelSettings
from hedflow.splits import Rows
from hedflow.training.inputs import make_inputs


def fit_estimator(
    bundle: Bundle,
    rows: Rows,
    model: KindSettings,
    training: Training,
    seed: int,
    alignment: Alignment | None = None,
    weights: NDArray[np.float64] | None = None,
) -> tuple[Estimator[Any], dict[str, Any]]:
    """Let a model train itself; returns it, and what its run's record says of it.

    Args:
        weights: of the training rows, in their order; None = all count alike.
    """
    data = training_data(bundle, rows, model, training, alignment, weights)
    estimator: Estimator[Any] = find(model.kind).load()(model, seed, training.threads)
    with threadpool_limits(training.threads):
        estimator.fit(data)
    errors = validation_errors(data.auc[rows.validation], predict_estimator(estimator, rows.validation))
    described = estimator.describe()
    return estimator, {
        "inputs": {"cell": data.cells.shape[1], "drug": data.drugs.shape[1]},
        "parameters": described.get("parameters", 0),
        "best": {
            "epoch": None,  # it has none
            "monitor": f"validation_{training.monitor}",
            **{f"validation_{name}": value for name, value in errors.items()},
        },
        "history": [],
        "estimator": described,
    }


def predict_estimator(estimator: Estimator[Any], rows: NDArray[Any]) -> NDArray[np.float32]:
    """Predicted AUC (float32, cut off at 0 and 1) of the response's rows, in their order.

    Raises:
        HedflowError: not one finite number a row.
    """
    kind = estimator.settings.kind
    with threadpool_limits(estimator.threads):
        predicted = np.asarray(estimator.predict(rows))
    if predicted.shape != rows.shape or predicted.dtype != np.float32:
        raise HedflowError(
            f"model kind {kind}: predicted {predicted.dtype} of shape {predicted.shape}, expected float32 of shape "
            f"{rows.shape}, one number a row; mend its predict()."
        )
    if wrong := int(np.count_nonzero(~np.isfinite(predicted))):
        raise HedflowError(f"model kind {kind}: {wrong} of {len(rows)} predictions are not finite; mend the model.")
    return np.clip(predicted, 0, 1)


def training_data(
    bundle: Bundle,
    rows: Rows,
    model: KindSettings,
    training: Training,
    alignment: Alignment | None = None,
    weights: NDArray[np.float64] | None = None,
) -> TrainingData:
    """What an estimator may learn from; with `alignment`, AUC on the scale of the reference source."""
    response = bundle.response
    if isinstance(model, ModelSettings):
        inputs = make_inputs(bundle, rows, model)
        cells, drugs = inputs.cells.numpy(), inputs.drugs.numpy()
    else:
        cells, drugs = (np.empty((len(table), 0), np.float32) for table in (bundle.cells, bundle.drugs))
    auc = response["auc"].to_numpy(np.float32)
    if alignment is not None:
        auc = alignment.to_reference(auc, response["source"].to_numpy())
    shown = np.full(len(auc), np.nan, np.float32)
    for part in (rows.train, rows.validation):
        shown[part] = auc[part]
    return TrainingData(
        cells=cells,
        drugs=drugs,
        cell=response["cell"].to_numpy(np.int64),
        drug=response["drug"].to_numpy(np.int64),
        auc=shown,
        rows=rows,
        fingerprints=np.asarray(bundle.array("fingerprints")),
        tissue=bundle.cells["tissue"].to_numpy(dtype=str),
        weights=weights,
        monitor=training.monitor,
    )
