"""Readers of the screens' own files, one module a source.

A reader takes the paths of its source's files and returns a table `schemas.READING`: one row a measured curve,
the source's own names, and the provider's AUC brought to one scale: 0..1, low = potent. Readers drop nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from hedflow import HedflowError
from hedflow.config import nearest
from hedflow.schemas import READING, checked
from hedflow.sources import ccle, ctrpv2, gcsi, gdscv1, gdscv2

READERS: dict[str, Callable[[dict[str, Path]], pd.DataFrame]] = {
    "CCLE": ccle.read,
    "CTRPv2": ctrpv2.read,
    "gCSI": gcsi.read,
    "GDSCv1": gdscv1.read,
    "GDSCv2": gdscv2.read,
}


def read_source(source: str, paths: list[Path]) -> pd.DataFrame:
    """Read a source's files into a table `schemas.READING`.

    Raises:
        HedflowError: unreadable file, missing column, text where a number should be, or AUC on another scale.
    """
    if source not in READERS:
        raise HedflowError(f"no reader for the source '{source}'{nearest(source, READERS)}")
    table = READERS[source]({path.name: path for path in paths})
    table = checked(table.astype({"auc": float, "combination": bool}), READING, f"source {source}")
    check_scale(source, table["auc"])
    return table


def check_scale(source: str, auc: pd.Series[float]) -> None:
    """A percentage or an area over the curve has its own signature; a few odd rows are counted elsewhere.

    Raises:
        HedflowError: no row, or a median that no AUC of 0..1 with low = potent has.
    """
    middle = auc.median()
    if len(auc) == 0:
        raise HedflowError(f"source {source}: the file has a header and no rows.")
    if not 0.3 <= middle <= 1.2:
        raise HedflowError(
            f"source {source}: the median AUC is {middle:.3g}, expected 0.3 to 1.2 on a scale of 0..1 with low = "
            "potent (a percentage, or an area above the curve?); check the file's columns."
        )
