"""Views: what a model can see of a cell line or of a drug. One module a view; raw values, scaling is training's.

A view's module has one function. For cells `read(files)`: paths by file name -> a table, one row a cell id. For
drugs `compute(smiles, settings)`: structures -> a table in their order. Values are numbers, NaN where there is
none; which columns are worth keeping is the bundle's to decide (`usable_columns`). This file imports none of the
modules, since the configuration reads the registry.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from hedflow import HedflowError

if TYPE_CHECKING:
    import pandas as pd

    from hedflow.config import Features


@dataclass(frozen=True)
class View:
    """A view's row in the registry.

    axis: whose it is. of: what a cell line lacks where it has no row, for the table of lost rows. depmap: whether
    it comes with DepMap's table, which the wheel-only edition has not.
    """

    axis: Literal["cell", "drug"]
    of: str = ""
    depmap: bool = False


# The registry: a name here, and a module of that name in this folder.
VIEWS: dict[str, View] = {
    "expression": View("cell", of="expression"),
    "mutations": View("cell", of="mutation calls", depmap=True),
    "descriptors": View("drug"),
    "fingerprints": View("drug"),
    "mordred": View("drug"),
}
# Twins, splits by similarity and the naive neighbours need them, whatever the models use.
ALWAYS = "fingerprints"


def in_order(names: Sequence[str]) -> list[str]:
    """The views of a bundle for `features.views`: in the registry's order, the fingerprints always."""
    return [name for name in VIEWS if name in names or name == ALWAYS]


def module_of(name: str) -> str:
    """The module that makes a view, for `importlib` and for digests of the code."""
    return f"{__name__}.{name}"


def read_cells(name: str, files: Sequence[Path]) -> pd.DataFrame:
    """A view of the cells: one row a cell id, one column a feature, float32.

    Raises:
        HedflowError: no file for it, or a cell or a column that is there twice.
    """
    table = importlib.import_module(module_of(name)).read({path.name: path for path in files})
    for axis, labels in (("cell", table.index), ("column", table.columns)):
        if labels.has_duplicates:
            raise HedflowError(f"{name}: {axis} {labels[labels.duplicated()][0]} is there twice; expected once.")
    return cast("pd.DataFrame", table.astype("float32"))


def compute_drugs(name: str, smiles: pd.Series[str], settings: Features) -> pd.DataFrame:
    """A view of the drugs: one row a structure, in the order of `smiles`, one column a feature."""
    table = importlib.import_module(module_of(name)).compute(smiles, settings)
    return cast("pd.DataFrame", table)


def usable_columns(table: pd.DataFrame, max_missing: float) -> pd.Index[str]:
    """Columns that are finite in enough rows and not constant, in their order."""
    finite = np.isfinite(table)
    spread = table.max() > table.min()
    usable: pd.Index[str] = table.columns[(finite.mean() >= 1 - max_missing) & spread]
    return usable
