"""Monotone alignment of the sources' AUC scales, fitted on (cell line, drug) pairs that two sources share.

Equipercentile linking: the quantiles of a source's AUC over the shared pairs are matched with the reference's over the
same pairs. A regression of one on the other would shrink towards the mean by the noise of both; linking does not.
The map is piecewise linear and strictly increasing from (0, 0) to (1, 1), so that predictions can be taken back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

# Fewer shared pairs fix no scale: the source is left as it is.
MIN_PAIRS = 100
QUANTILES = np.linspace(0.025, 0.975, 20)
LEAST_STEP = 1e-3


@dataclass(frozen=True)
class Alignment:
    """Knots (own AUC, reference's AUC), ascending, of each source that is mapped; the others stay as they are."""

    reference: str
    knots: Mapping[str, tuple[np.ndarray, np.ndarray]]
    pairs: Mapping[str, int]  # how many shared pairs each other source has, mapped or not

    def to_reference(self, auc: np.ndarray, source: np.ndarray) -> np.ndarray:
        """AUC (rows,) on the reference's scale."""
        return self._mapped(auc, source, forward=True)

    def to_own(self, auc: np.ndarray, source: np.ndarray) -> np.ndarray:
        """The inverse: AUC on the scale of each row's own source."""
        return self._mapped(auc, source, forward=False)

    def summary(self) -> dict[str, Any]:
        """For a run's record: the reference, the sources that are mapped, the pairs each shares with the reference."""
        return {"reference": self.reference, "mapped": sorted(self.knots), "pairs": dict(self.pairs)}

    def _mapped(self, auc: np.ndarray, source: np.ndarray, forward: bool) -> np.ndarray:
        result = np.array(auc, copy=True)
        for name, (own, reference) in self.knots.items():
            mine = source == name
            result[mine] = np.interp(result[mine], *((own, reference) if forward else (reference, own)))
        return result


def fit_alignment(response: pd.DataFrame, reference: str) -> Alignment:
    """Fit the maps on the given rows: **training rows only**, or the held-out measurements set the scale.

    Args:
        response: cell, drug, source, auc (0..1, low = potent), one row a (source, cell, drug).
        reference: the source whose scale the others are brought to.
    """
    wide = response.pivot(index=["cell", "drug"], columns="source", values="auc")
    knots, pairs = {}, {}
    for name in wide.columns:
        if name == reference or reference not in wide:
            continue
        both = wide[[name, reference]].dropna()
        pairs[str(name)] = len(both)
        if len(both) >= MIN_PAIRS:
            knots[str(name)] = (_knots(both[name].to_numpy(float)), _knots(both[reference].to_numpy(float)))
    return Alignment(reference, knots, pairs)


def _knots(values: np.ndarray) -> np.ndarray:
    """0, the quantiles, 1, made strictly increasing."""
    inner = np.clip(np.quantile(values, QUANTILES), 0, 1)
    knots = np.concatenate([[0.0], inner, [1.0]])
    raised = np.maximum.accumulate(knots + LEAST_STEP * np.arange(len(knots)))
    scaled: np.ndarray = (raised - raised[0]) / (raised[-1] - raised[0])
    return scaled
