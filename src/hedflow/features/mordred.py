"""Mordred's 2D descriptors of a drug's structure, by the package mordredcommunity (the extra `mordred`)."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from hedflow import HedflowError
from hedflow.config import Features
from hedflow.features.molecules import molecule


def compute(smiles: pd.Series[str], settings: Features) -> pd.DataFrame:
    """Mordred's 1,613 2D descriptors, float32; what Mordred or float32 cannot give is NaN.

    Some come from eigenvalues, by BLAS. One or two of its threads give the same values (51 drugs compared, the
    largest among them); another machine's BLAS might differ in a last bit, and the bundle's digest with it.
    """
    try:
        from mordred import Calculator, descriptors
    except ImportError:
        raise HedflowError(
            "Mordred's descriptors need the package mordredcommunity; install it (pip install 'hedflow[mordred]'), or "
            "leave mordred out of features.views (of an export: leave out --mordred)."
        ) from None
    calculator = Calculator(descriptors, ignore_3D=True)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of logarithms and divisions that end as NaN
        # A failed descriptor is an object that says why.
        rows = [[_number(value) for value in calculator(molecule(s))] for s in smiles]
    table = pd.DataFrame(rows, index=smiles.index, columns=[str(d) for d in calculator.descriptors])
    return table.where(table.abs() < np.finfo(np.float32).max).astype(np.float32)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float | np.number | np.bool_) else float("nan")
