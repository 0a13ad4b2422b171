"""A run's inputs: feature matrices scaled by the training cells and drugs only, and index batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hedflow import HedflowError
from hedflow.bundle import Bundle
from hedflow.config import Model
from hedflow.features.genes import gene_set
from hedflow.splits import Rows

# A standardised value beyond this is a rare descriptor's outlier (Ipc spans 30 decades), not information.
CLIP = 10.0


@dataclass(frozen=True)
class Inputs:
    """All a network reads, as tensors: float32 matrices, int64 indices, float32 auc (0..1, low = potent)."""

    cells: Tensor
    drugs: Tensor
    cell: Tensor
    drug: Tensor
    auc: Tensor


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


def make_inputs(bundle: Bundle, rows: Rows, model: Model) -> Inputs:
    """Read and scale what a model asks for; scalers see the cells and drugs of `rows.train` only.

    Several views of a cell (drug) are joined side by side. A cell without a view has the training mean in its place.
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
    )


def _joined(bundle: Bundle, model: Model, views: Sequence[str], training: np.ndarray) -> Tensor:
    """The views side by side, scaled by the rows `training`."""
    parts = [standardise(_read(bundle, view, model, training), training) for view in views]
    return torch.from_numpy(np.concatenate(parts, axis=1))


def _read(bundle: Bundle, view: str, model: Model, training: np.ndarray) -> np.ndarray:
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


def row_weights(weights: dict[str, Any] | None, bundle: Bundle, rows: Rows) -> np.ndarray | None:
    """What each training row counts, float32 (len(rows.train),): `factor` for rows of the named drugs, else 1.

    Args:
        weights: of a run's spec: drugs (ids) and factor. None: all rows count alike, and None is returned.
    """
    if weights is None:
        return None
    ids = bundle.drugs["drug_id"]
    if unknown := sorted(set(weights["drugs"]) - set(ids)):
        raise HedflowError(f"the bundle has no drug {unknown[0]}, whose rows are to be weighed; plan the runs anew.")
    weighed = ids.isin(weights["drugs"]).to_numpy()[bundle.response["drug"].to_numpy()[rows.train]]
    return np.where(weighed, np.float32(weights["factor"]), np.float32(1))


class Batches:
    """Row numbers in batches: shuffled anew each pass, or in order. An iterable in place of a DataLoader."""

    def __init__(self, rows: np.ndarray, size: int, seed: int | None = None, limit: int | None = None) -> None:
        self.rows = torch.from_numpy(rows.astype(np.int64))
        self.size = size
        self.count = min(len(rows), limit or len(rows))
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return -(-self.count // self.size)

    def __iter__(self) -> Iterator[Tensor]:
        rows = self.rows
        if self.generator is not None:
            rows = rows[torch.randperm(len(rows), generator=self.generator)[: self.count]]
        yield from rows.split(self.size)
