"""What is analysed: prediction frames of the methods and the naive baselines, and resamples of their drugs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from hedflow import UNKNOWN
from hedflow.baselines import informed
from hedflow.config import Analysis
from hedflow.errors import LOW_AUC
from hedflow.intervals import DrugBootstrap, Interval

ALL = "all"
PARTS = {"mae": None, "mae_low": True, "mae_rest": False}  # of which rows: all, AUC < 0.5, the rest


@dataclass(frozen=True)
class Experiment:
    """What is analysed: prediction frames of the methods and of the naive baselines, on the same rows.

    reference: the method the others are compared with. split_kind: decides which baselines are legal. part: by row of
    the bundle, the number of the part of the split that tests it (`collect.parts_of_rows`; -1: several do); None = one.
    """

    methods: dict[str, pd.DataFrame]
    naive: dict[str, pd.DataFrame]
    reference: str
    split_kind: str
    settings: Analysis
    part: pd.Series[int] | None = None

    @cached_property
    def frames(self) -> dict[str, pd.DataFrame]:
        return {**self.methods, **self.naive}

    @cached_property
    def rows(self) -> pd.DataFrame:
        """row, cell, drug, source and auc of the test rows, which all frames share.

        Raises:
            ValueError: a frame has other rows.
        """
        rows = next(iter(self.frames.values())).drop(columns="auc_pred")
        for name, frame in self.frames.items():
            if not np.array_equal(frame["row"].to_numpy(), rows["row"].to_numpy()):
                raise ValueError(f"{name} predicts other rows than the other methods; they cannot be compared.")
        return rows

    @cached_property
    def part_of_row(self) -> np.ndarray:
        """Number of the part of the split that tests each test row (n,)."""
        if self.part is None:
            return np.zeros(len(self.rows), dtype=np.int64)
        part: np.ndarray = self.part.reindex(self.rows["row"]).to_numpy(np.int64)
        return part

    @cached_property
    def boot(self) -> DrugBootstrap:
        """Resamples of the drugs of all test rows, drawn once: whatever is computed from them is paired."""
        return self.bootstrap(self.rows)

    def error(self, name: str) -> np.ndarray:
        """Prediction - truth of every test row (n,), AUC units."""
        frame = self.frames[name]
        error: np.ndarray = frame["auc_pred"].to_numpy(np.float64) - frame["auc"].to_numpy(np.float64)
        return error

    @cached_property
    def ranked(self) -> dict[str, pd.DataFrame]:
        """The frames as drugs are ranked by them: predictions less the training mean of their part of the split.

        A line's list joins drugs from several parts. Part i is predicted by a model whose training mean is low just
        where the drugs it tests are high, which alone puts lists into the wrong order. (The mean of the training
        means is added, to stay on the scale of AUC.) The global mean then ranks as a constant does, at random.
        """
        training_mean = self.naive["global_mean"]["auc_pred"].to_numpy(np.float64)
        offset = training_mean - training_mean.mean()
        return {name: frame.assign(auc_pred=frame["auc_pred"] - offset) for name, frame in self.frames.items()}

    @cached_property
    def strongest(self) -> str:
        """The naive baseline with the lowest MAE: what a model has to beat in absolute error."""
        return min(self.naive, key=lambda name: absolute_error(self.naive[name]).mean())

    @cached_property
    def strongest_squared(self) -> str:
        """The naive baseline with the lowest squared error: what a model has to beat in R2."""
        return min(self.naive, key=lambda name: (absolute_error(self.naive[name]) ** 2).mean())

    def bootstrap(self, frame: pd.DataFrame) -> DrugBootstrap:
        """Resamples of the frame's drugs: equal for equal drugs, so that methods are compared on the same ones."""
        return DrugBootstrap(frame["drug"], n_boot=self.settings.bootstrap, seed=self.settings.seed)


def legal_baselines(split_kind: str, tissue: pd.Series[str]) -> list[str]:
    """The baselines that mean something here: legal for the split, and tissue only where tissues are known."""
    names = list(informed(split_kind))
    return [name for name in names if name != "tissue_mean" or (tissue != UNKNOWN).any()]


def absolute_error(frame: pd.DataFrame) -> np.ndarray:
    """|prediction - truth| of every row (n,), AUC units."""
    error: np.ndarray = np.abs(frame["auc_pred"].to_numpy(np.float64) - frame["auc"].to_numpy(np.float64))
    return error


def mask_of(frame: pd.DataFrame, low: bool | None) -> np.ndarray:
    """The rows of a part (n, bool): all of them, the low ones (AUC < 0.5) or the rest."""
    is_low = frame["auc"].to_numpy() < LOW_AUC
    return np.ones(len(frame), bool) if low is None else is_low if low else ~is_low


def spread(name: str, interval: Interval) -> dict[str, float]:
    """`name`, `name`_lower and `name`_upper of an interval."""
    return {name: interval.estimate, f"{name}_lower": interval.low, f"{name}_upper": interval.high}
