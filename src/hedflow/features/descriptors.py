"""RDKit's 2D descriptors of a drug's structure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from rdkit import Chem
from rdkit.Chem import Descriptors

from hedflow.config import Features
from hedflow.features.molecules import molecule

# Information content from the characteristic polynomial, summed in floating point: for large molecules noise that
# differs with the machine's BLAS and its threads, and with it the bundle's digest.
NOISE = ("Ipc", "AvgIpc")


def compute(smiles: pd.Series[str], settings: Features) -> pd.DataFrame:
    """RDKit's 2D descriptors but for `NOISE`, one row a structure; what RDKit or float32 cannot give is NaN."""
    functions = [(name, function) for name, function in Descriptors.descList if name not in NOISE]
    table = pd.DataFrame(
        [[_value(function, molecule(s)) for _, function in functions] for s in smiles],
        index=smiles.index,
        columns=[name for name, _ in functions],
    )
    return table.where(table.abs() < np.finfo(np.float32).max).astype(np.float32)


def _value(function: Callable[[Chem.Mol], float], structure: Chem.Mol) -> float:
    """A descriptor; RDKit's functions fail in their own ways on atoms they have no parameters for."""
    try:
        return float(function(structure))
    except (ValueError, ArithmeticError, RuntimeError, KeyError, IndexError):
        return float("nan")
