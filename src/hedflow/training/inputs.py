"""A run's inputs: feature matrices scaled by the training cells and drugs only, and index batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hedflow import HedflowError
from hedflow.bundle import Bundle
from hedflow.features.genes import gene_set
from hedflow.models.settings import ModelSettings
from hedflow.splits import Rows

# A standardised value beyond this is a rare descriptor's outlier (Ipc spans 30 decades), not information.
CLIP = 10.0


@dataclass(frozen=True)
class Inputs:
    """All a network reads, as tensors: float32 matrices, int64 indices, float32 auc (0..1, low = potent).

    weight: float32, of each row of the response; empty where all weigh the same.
    """

    cells: Tensor
    drugs: Tensor
    cell: Tensor
    drug: Tensor
    auc: Tensor
    weight: Tensor


def standardise(matrix: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Columns to mean 0 and SD 1 over the rows `training`; missing becomes 0, which is their mean; clipped.

    A column that is constant over the training rows carries nothing that could be learnt and becomes 0.
    """
    mean, variance = _moments(matrix[training])
    spread = np.sqrt(variance)
    constant = spread <= 1e-6 * np.maximum(1, np.abs(mean))
    scaled = (matrix - mean) / np.where(constant, 1, spread)
    scaled[:, constant] = 0
    clipped: np.ndarray = np.clip(np.nan_to_num(scaled, nan=0.0, posinf=CLIP, neginf=-CLIP), -CLIP, CLIP)
    return clipped.astype(np.float32)


def _moments(seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each column's finite values, float64; 0 where there is none."""
    finite = np.isfinite(seen)
    values = np.where(finite, seen, 0).astype(np.float64)
    count = np.maximum(finite.sum(axis=0), 1)
    mean = values.sum(axis=0) / count
    return mean, (np.where(finite, values - mean, 0) ** 2).sum(axis=0) / count


def most_variable(matrix: np.ndarray, training: np.ndarray, count: int | None) -> np.ndarray:
    """Columns (ascending) of the `count` largest variances over the rows `training`; all where count is None."""
    columns = np.arange(matrix.shape[1])
    if count is None or count >= len(columns):
        return columns
    variance = _moments(matrix[training])[1]
    return np.sort(np.argsort(-variance, kind="stable")[:count])


def make_inputs(bundle: Bundle, rows: Rows, model: ModelSettings, weights: Mapping[str, Any] | None = None) -> Inputs:
    """Read and scale what a model asks for; scalers see the cells and drugs of `rows.train` only.

    Several views of a cell (drug) are joined side by side. A cell without a view has the training mean in its place.

    Args:
        weights: `drugs` (ids) whose rows weigh `factor` times as much as the others'.
    """
    cell = bundle.response["cell"].to_numpy()
    drug = bundle.response["drug"].to_numpy()
    training_cells, training_drugs = np.unique(cell[rows.train]), np.unique(drug[rows.train])
    return Inputs(
        cells=_joined(bundle, model, model.cell_features, training_cells),
        drugs=_joined(bundle, model, model.drug_features, training_drugs),
        cell=torch.from_numpy(cell.astype(np.int64)),
        drug=torch.from_numpy(drug.astype(np.int64)),
        auc=torch.from_numpy(bundle.response["auc"].to_numpy(np.float32, copy=True)),
        weight=torch.from_numpy(row_weights(bundle, weights)),
    )


def row_weights(bundle: Bundle, weights: Mapping[str, Any] | None) -> np.ndarray:
    """Weight of each row of the response, float32; empty where all weigh the same.

    Raises:
        HedflowError: a drug that the bundle has not.
    """
    if not weights:
        return np.empty(0, np.float32)
    missing = set(weights["drugs"]) - set(bundle.drugs["drug_id"])
    if missing:
        raise HedflowError(f"weights name the drug {sorted(missing)[0]}, which the bundle has not; make the plan anew.")
    heavy = bundle.drugs["drug_id"].isin(weights["drugs"]).to_numpy()[bundle.response["drug"].to_numpy()]
    return np.where(heavy, weights["factor"], 1).astype(np.float32)


def _joined(bundle: Bundle, model: ModelSettings, views: Sequence[str], training: np.ndarray) -> Tensor:
    """The views side by side, scaled by the rows `training`."""
    parts = [standardise(_read(bundle, view, model, training), training) for view in views]
    return torch.from_numpy(np.concatenate(parts, axis=1))


def _read(bundle: Bundle, view: str, model: ModelSettings, training: np.ndarray) -> np.ndarray:
    """A view's matrix, float32; of expression the genes that the model uses."""
    matrix = np.asarray(bundle.array(view), np.float32)
    if view != "expression":
        return matrix
    wanted = gene_set(model.gene_set)
    if wanted is not None:
        has = np.array([symbol in wanted for symbol in bundle.view(view)["columns"]])
        if not has.any():
            raise HedflowError(f"gene_set {model.gene_set}: the bundle's expression has none of its genes; use all.")
        matrix = matrix[:, has]
    return matrix[:, most_variable(matrix, training, model.genes)]
