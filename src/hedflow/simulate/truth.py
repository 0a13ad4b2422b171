"""The truth of a simulated world: the dose-response curve of each (cell line, drug), and what makes it so.

Potency is low-rank: a cell line's few hidden factors, which its expression shows, times the weights of the
drug's class. A model of expression and structure can so beat the mean, also for a new drug of a known class.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hedflow.curves.hill import auc_fixed
from hedflow.simulate.catalogue import GENES

Array = npt.NDArray[np.float64]
FACTORS = 5
# Mean ec50 (-log10 M) and sd of it over cell lines, and the lowest viability that the class can reach.
CLASSES: dict[str, tuple[float, float, float]] = {
    "EGFR": (4.8, 1.0, 0.10),
    "TOP2": (6.1, 0.7, 0.02),
    "MEK": (5.3, 1.5, 0.10),
    "tubulin": (7.2, 1.0, 0.10),
    "ABL": (4.4, 0.8, 0.15),
    "MET": (4.6, 0.8, 0.15),
    "proteasome": (7.6, 0.6, 0.00),
    "HDAC": (5.3, 0.6, 0.05),
    "RAF": (4.6, 1.0, 0.15),
    "HSP90": (6.1, 0.8, 0.10),
    "TOP1": (5.9, 0.9, 0.05),
    "antimetabolite": (5.6, 1.3, 0.10),
    "MDM2": (4.5, 0.7, 0.10),
    "PI3K": (5.0, 0.8, 0.20),
    "CDK": (4.8, 0.7, 0.20),
    "PARP": (4.5, 0.6, 0.20),
}


def stream(seed: int, name: str) -> np.random.Generator:
    """The random numbers of one part of the world: another part's change does not shift them."""
    return np.random.default_rng([seed, *name.encode()])


def cell_factors(tissues: pd.Series[Any], rng: np.random.Generator) -> Array:
    """Hidden factors, shape (cells, FACTORS), each about standard normal; partly shared within a tissue."""
    codes, _ = pd.factorize(tissues)
    shared = rng.normal(size=(codes.max() + 1, FACTORS))
    own = rng.normal(size=(len(tissues), FACTORS))
    return np.asarray(np.sqrt(0.3) * shared[codes] + np.sqrt(0.7) * own)


def make_expression(cells: pd.DataFrame, factors: Array, rng: np.random.Generator) -> pd.DataFrame:
    """log2(TPM+1) of each line that has expression: ModelID and one column `<GENE>_Exp` a gene."""
    loadings = rng.normal(scale=0.6, size=(FACTORS, len(GENES)))
    level = rng.uniform(1, 7, size=len(GENES)) + factors @ loadings
    level += rng.normal(scale=0.3, size=level.shape)
    table = pd.DataFrame(level.clip(min=0).round(6), columns=[f"{gene}_Exp" for gene in GENES])
    table.insert(0, "ModelID", cells["model_id"])
    return table[cells["has_expression"].to_numpy()].reset_index(drop=True)


def make_truth(cells: pd.DataFrame, drugs: pd.DataFrame, factors: Array, rng: np.random.Generator) -> pd.DataFrame:
    """The true curve of every (cell line, drug), screened or not.

    Returns:
        model_id, drug (canonical name), einf, ec50 (-log10 M), hs, auc (x in 4..10; low = potent).
    """
    weights = {name: rng.normal(size=FACTORS) for name in CLASSES}
    tables = []
    for drug in drugs.itertuples():
        middle, spread, lowest = CLASSES[str(drug[2])]
        weight = weights[str(drug[2])]
        weight = weight / np.linalg.norm(weight) + rng.normal(scale=0.1, size=FACTORS)
        ec50 = middle + rng.normal(scale=0.3) + spread * (factors @ weight) + rng.normal(scale=0.15, size=len(cells))
        ec50 = ec50.clip(2.5, 9.5)
        # An insensitive line is not killed by any dose: the floor rises as the potency falls.
        einf = lowest + (0.85 - lowest) / (1 + np.exp(2.5 * (ec50 - 5)))
        hs = np.exp(rng.normal(loc=0.05, scale=0.2)) * np.ones(len(cells))
        columns = {"model_id": cells["model_id"], "drug": drug[1], "einf": einf, "ec50": ec50, "hs": hs}
        tables.append(pd.DataFrame(columns).assign(auc=auc_fixed(einf, ec50, hs)))
    return pd.concat(tables, ignore_index=True)
