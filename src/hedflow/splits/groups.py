"""Groups of drugs that a split must not divide: twins, scaffolds, clusters of similar drugs. Numbers from 0."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from hedflow.similarity import tanimoto


def twin_groups(fingerprints: np.ndarray) -> np.ndarray:
    """Group number of each drug (int64, shape (drugs,)): the same for drugs with the same fingerprint bits."""
    _, group = np.unique(np.asarray(fingerprints), axis=0, return_inverse=True)
    return group.reshape(-1)


def scaffold_groups(smiles: pd.Series[str], fingerprints: np.ndarray) -> np.ndarray:
    """Drugs with one Bemis-Murcko scaffold (rings and what links them; stereochemistry does not count), and twins.

    A drug without a ring has no scaffold: it is a group of its own (with its twins), since all that such drugs have
    in common is what they lack.
    """
    scaffolds = [scaffold(s) for s in smiles]
    named = np.array([name or f"none {i}" for i, name in enumerate(scaffolds)])
    twin = twin_groups(fingerprints)
    return _components((named[:, None] == named) | (twin[:, None] == twin))


def scaffold(smiles: str) -> str:
    """SMILES of the Bemis-Murcko scaffold (J Med Chem 1996, 39, 2887); empty where there is no ring."""
    from rdkit.Chem.Scaffolds import MurckoScaffold  # 0.3 s, which other splits need not spend

    return str(MurckoScaffold.MurckoScaffoldSmiles(smiles=smiles, includeChirality=False))


def cluster_groups(fingerprints: np.ndarray, threshold: float) -> np.ndarray:
    """Single-linkage clusters: drugs joined by a chain of pairs of Tanimoto similarity >= `threshold`, and twins.

    No drug has, outside its own cluster, one that similar. Butina's clusters do not promise that: a drug may be
    nearer to a member of another cluster than to its own centre.
    """
    prints = np.asarray(fingerprints)
    twin = twin_groups(prints)
    # In float32, as similarities are: 2/5 is at least 0.4.
    return _components((tanimoto(prints, prints) >= np.float32(threshold)) | (twin[:, None] == twin))


def _components(joined: np.ndarray) -> np.ndarray:
    group: np.ndarray = connected_components(csr_array(joined), directed=False)[1].astype(np.int64)
    return group
