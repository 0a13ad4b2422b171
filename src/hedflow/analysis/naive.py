"""The naive baselines on the very splits that an experiment's runs used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from hedflow.analysis.collect import frame_of
from hedflow.baselines import fit_predict
from hedflow.bundle import Bundle
from hedflow.config import Split
from hedflow.splits import make_rows


def predict_baselines(parts: Iterable[tuple[str, Split]], bundle: Bundle, neighbours: int) -> pd.DataFrame:
    """The naive baselines of every part of a split: label, row, and a column a baseline.

    They are fitted on the training and validation rows: none of them stops early.
    """
    prints, tissue = np.asarray(bundle.array("fingerprints")), bundle.cells["tissue"].to_numpy(dtype=str)
    tables = []
    for label, split in parts:
        rows = make_rows(split, label, bundle)
        train = np.sort(np.concatenate([rows.train, rows.validation]))
        made = fit_predict(bundle.response, train, rows.test, tissue, prints, neighbours)
        tables.append(made.rename_axis("row").reset_index().assign(label=label))
    return pd.concat(tables, ignore_index=True)


def baseline_frames(table: pd.DataFrame, names: Sequence[str], bundle: Bundle) -> dict[str, pd.DataFrame]:
    """Prediction frames of the named baselines; rows tested by several parts get the mean."""
    mean = table.groupby("row")[list(names)].mean()
    return {name: frame_of(bundle, mean.index.to_numpy(), mean[name].to_numpy()) for name in names}
