"""Readers of the screens' own files, one module a source.

A reader takes the paths of its source's files and returns the columns of `schemas.READING`: one row a measured curve,
the source's own names, the provider's AUC brought to one scale (0..1, low = potent), and what else the provider says
of the curve. Readers drop nothing. Where a screen's dose points are at hand, a second reader returns them
(`schemas.POINTS`); `hedflow.curves.screens` fits them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from hedflow import HedflowError
from hedflow.config import nearest
from hedflow.schemas import CURVE, POINTS, READING, checked
from hedflow.sources import ccle, ctrpv2, gcsi, gdsc_points, gdscv1, gdscv2
from hedflow.sources.scales import check_auc, check_points

READERS: dict[str, Callable[[dict[str, Path]], pd.DataFrame]] = {
    "CCLE": ccle.read,
    "CTRPv2": ctrpv2.read,
    "gCSI": gcsi.read,
    "GDSCv1": gdscv1.read,
    "GDSCv2": gdscv2.read,
}

# Dose points, by source. CCLE's file holds both.
POINT_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    "CCLE": ccle.read_points,
    "GDSCv1": gdsc_points.read_release,
    "GDSCv2": gdsc_points.read_wells,
}


def read_points(source: str, path: Path) -> pd.DataFrame:
    """Read a source's dose points into a table `schemas.POINTS`.

    Raises:
        HedflowError: unreadable file, missing column, doses on another scale than mol/l, or viability on another scale
            than a fraction of the control.
    """
    points = checked(POINT_READERS[source](path), POINTS, f"dose points of {source}")
    check_points(source, path, points)
    return points


def read_source(source: str, paths: list[Path]) -> pd.DataFrame:
    """Read a source's files into a table `schemas.READING`.

    Raises:
        HedflowError: unreadable file, missing column, text where a number should be, AUC on another scale, or the same
            in all rows.
    """
    if source not in READERS:
        raise HedflowError(f"no reader for the source '{source}'{nearest(source, READERS)}")
    table = READERS[source]({path.name: path for path in paths})
    table = table.reindex(columns=list(READING.columns))
    numbers = dict.fromkeys(["auc", *CURVE], float)
    table = checked(table.astype({**numbers, "combination": bool, "repeated": bool}), READING, f"source {source}")
    check_auc(source, table["auc"])
    return table
