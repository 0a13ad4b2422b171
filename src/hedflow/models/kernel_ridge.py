"""Pairwise kernel ridge regression: k((c, d), (c', d')) = k_cell(c, c') * k_drug(d, d').

The rows are not a complete grid: a pair may be missing, or measured by several sources. Two-step kernel ridge and the
spectral closed form (Stock et al. 2018, Brief. Bioinform.) need every pair once, so missing ones would have to be made
up. What is solved here is the kernel ridge of the rows that there are: repeats of a pair are its mean with their
summed weight w, and the dual coefficients a of the observed pairs obey

    (K + penalty * diag(1 / w)) a = y - b,

by conjugate gradients. K is never laid out: with a scattered into a grid A (cells, drugs), K a is K_cell A K_drug at
the observed pairs (the vec trick of Airola & Pahikkala 2018, IEEE Trans. Neural Netw. Learn. Syst.). Each step is
preconditioned by the closed form of the complete grid, from the eigendecompositions of the two kernels: where every
pair is there and counts alike, the first step is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedflow import HedflowError
from hedflow.models.estimator import Estimator, TrainingData
from hedflow.models.settings import KernelRidgeSettings
from hedflow.similarity import tanimoto

Floats = NDArray[np.float64]
# Relative residual at which the coefficients are good enough: on five sources a thousandth of it moves predictions by
# 0.0001 AUC on average, by 0.001 at most.
TOLERANCE = 1e-3
MOST_STEPS = 1000


class KernelRidge(Estimator[KernelRidgeSettings]):
    """Kernel ridge on pairs, for the sharpness and the penalty that validate best."""

    def fit(self, data: TrainingData) -> None:
        settings, train, validation = self.settings, data.rows.train, data.rows.validation
        self.cell, self.drug = data.cell, data.drug
        pairs = Pairs(data)
        of_cells = Kernel(settings.cell_kernel, data.cells, np.unique(data.cell[train]))
        of_drugs = Kernel(
            settings.drug_kernel,
            data.fingerprints if settings.drug_kernel == "tanimoto" else data.drugs,
            np.unique(data.drug[train]),
        )
        self.tried: list[dict[str, float]] = []
        best = np.inf
        for sharpness in settings.sharpness if "rbf" in (settings.cell_kernel, settings.drug_kernel) else [1.0]:
            cells, drugs = of_cells.at(sharpness), of_drugs.at(sharpness)
            system = System(cells[of_cells.training], drugs[of_drugs.training], pairs)
            for penalty in sorted(settings.penalties, reverse=True):
                dual, steps = system.solve(penalty)
                predictions = pairs.mean + cells @ dual @ drugs.T
                error = data.error(predictions[data.cell[validation], data.drug[validation]])
                self.tried.append({"sharpness": sharpness, "penalty": penalty, "steps": steps, data.monitor: error})
                if error < best:
                    best, self.predictions = error, predictions
                    self.chosen = {"sharpness": sharpness, "penalty": penalty}
        self.parameters = int(pairs.observed.sum())

    def predict(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        return np.asarray(self.predictions[self.cell[rows], self.drug[rows]], np.float32)

    def describe(self) -> dict[str, Any]:
        return {"parameters": self.parameters, **self.chosen, "tried": self.tried}


class Pairs:
    """The training rows as a grid of the training cells and drugs: summed weights; weighted means less their mean."""

    def __init__(self, data: TrainingData) -> None:
        train, weights = data.rows.train, data.train_weights
        cells, cell = np.unique(data.cell[train], return_inverse=True)
        drugs, drug = np.unique(data.drug[train], return_inverse=True)
        shape, auc = (len(cells), len(drugs)), data.auc[train].astype(np.float64)
        pair, size = cell * len(drugs) + drug, len(cells) * len(drugs)
        self.mean = float(weights @ auc / weights.sum())
        self.weights = np.bincount(pair, weights, size).reshape(shape).astype(np.float64)
        self.observed = self.weights > 0
        sums = np.bincount(pair, weights * (auc - self.mean), size).reshape(shape)
        self.auc = np.divide(sums, self.weights, out=np.zeros(shape), where=self.observed)


class Kernel:
    """A kernel between all cells (drugs) and the training ones: (all, training)."""

    def __init__(self, name: str, matrix: NDArray[Any], training: NDArray[np.int64]) -> None:
        self.training = training
        self.name = name
        if name == "tanimoto":
            self.base = tanimoto(matrix, matrix[training]).astype(np.float64)
            return
        features = matrix.astype(np.float64)
        products = features @ features[training].T
        norms = (features**2).sum(axis=1)
        if name == "linear":  # scaled to a mean self-similarity of 1, that penalties mean the same
            self.base = products / max(float(norms[training].mean()), np.finfo(float).tiny)
            return
        distances = np.maximum(norms[:, None] + norms[None, training] - 2 * products, 0)
        among = distances[training][~np.eye(len(training), dtype=bool)]
        typical = float(np.median(among)) if len(among) else 0.0
        self.base = distances / (typical if typical > 0 else 1.0)

    def at(self, sharpness: float) -> Floats:
        """The kernel of this sharpness."""
        return np.exp(-sharpness * self.base) if self.name == "rbf" else self.base


class System:
    """(K + penalty / w) a = y on the observed pairs of a grid, for one pair of kernels and falling penalties."""

    def __init__(self, cells: Floats, drugs: Floats, pairs: Pairs) -> None:
        self.cells, self.drugs, self.pairs = cells, drugs, pairs
        cell_values, self.cell_vectors = np.linalg.eigh(cells)
        drug_values, self.drug_vectors = np.linalg.eigh(drugs)
        self.values = np.outer(np.maximum(cell_values, 0), np.maximum(drug_values, 0))
        self.inverse_weights = np.divide(1, pairs.weights, out=np.zeros(pairs.auc.shape), where=pairs.observed)
        self.dual = np.zeros(pairs.auc.shape)  # of the last penalty: where the next one begins

    def solve(self, penalty: float) -> tuple[Floats, int]:
        """Dual coefficients (cells, drugs), 0 where nothing was measured, and how many steps they took."""
        observed, wanted = self.pairs.observed, np.linalg.norm(self.pairs.auc)
        typical = penalty * self.inverse_weights[observed].mean()
        dual = self.dual.copy()
        residual = self.pairs.auc - self._times(dual, penalty)
        direction = step = self._complete(residual, typical)
        square = float((residual * step).sum())
        steps = 0
        while np.linalg.norm(residual) > TOLERANCE * wanted:
            steps += 1
            if steps > MOST_STEPS:
                raise HedflowError(
                    f"kernel_ridge: no solution for the penalty {penalty:g} after {MOST_STEPS} steps; use larger ones."
                )
            image = self._times(direction, penalty)
            length = square / float((direction * image).sum())
            dual += length * direction
            residual -= length * image
            step = self._complete(residual, typical)
            before, square = square, float((residual * step).sum())
            direction = step + square / before * direction
        self.dual = dual
        return dual, steps

    def _times(self, dual: Floats, penalty: float) -> Floats:
        image = self.cells @ dual @ self.drugs
        return np.where(self.pairs.observed, image + penalty * self.inverse_weights * dual, 0)

    def _complete(self, residual: Floats, penalty: float) -> Floats:
        """The solution as if every pair were there, with one weight."""
        turned = self.cell_vectors.T @ residual @ self.drug_vectors / (self.values + penalty)
        solved = self.cell_vectors @ turned @ self.drug_vectors.T
        return np.where(self.pairs.observed, solved, 0)
