"""The measurement's own error beside the methods': the best that any model could do on the tested rows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hedflow.analysis.experiment import ALL, Experiment
from hedflow.harmony import SECOND_COLUMNS, SECOND_PARTS

ESTIMATES = ("plates", "repeats", "other sources")
COLUMNS = ("source", "estimate", "n", "sd", "best_mae", "best_r2", "n_second", "n_second_low", *SECOND_COLUMNS[4:])


def floors_table(experiment: Experiment, noise: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Floors of the tested sources, and of all tested rows where every source has that estimate.

    Args:
        noise, second: from `harmony.noise` and `harmony.second_errors`, of the integrated data.

    Returns:
        source (`all` first), estimate (plates, repeats, other sources: see `hedflow.harmony`), n (pairs behind it), sd
        of the noise, best_mae and best_r2 (1 - sd^2 / variance of the *tested* rows' AUC) of a model that knew every
        pair's own AUC; n_second measurements (n_second_low of them below 0.5) of n_drugs drugs, and the mean distance
        of a second measurement from them: second_mae, and of the low ones and the rest, for which there is no floor
        but one that lies below this: second_mae_low, second_mae_rest, each with _lower and _upper. Of `all` these are
        means over the sources, weighted by their tested rows, without an interval.
    """
    counts = {"n": "n_second", "n_low": "n_second_low"}
    table = noise.merge(second.rename(columns=counts), on=["source", "estimate"], how="left")
    rows = experiment.rows
    auc, source = rows["auc"].to_numpy(np.float64), rows["source"].astype(str)
    tested = pd.DataFrame(
        {
            "variance": pd.Series(auc).groupby(source.to_numpy()).var(ddof=0),
            "second_mae": source.value_counts(),
            "second_mae_low": source[auc < 0.5].value_counts(),
            "second_mae_rest": source[auc >= 0.5].value_counts(),
        }
    ).fillna(0)
    table = table[table["source"].isin(tested.index)]
    table["best_r2"] = 1 - table["sd"] ** 2 / table["source"].map(tested["variance"])
    whole = [
        _whole(estimate, own.set_index("source"), tested, float(auc.var()))
        for estimate in ESTIMATES
        if set((own := table[table["estimate"] == estimate])["source"]) == set(tested.index)
    ]
    return pd.concat([pd.DataFrame(whole, columns=list(COLUMNS)), table[list(COLUMNS)]], ignore_index=True)


def _whole(estimate: str, own: pd.DataFrame, tested: pd.DataFrame, variance: float) -> dict[str, object]:
    """The row `all` of an estimate that every tested source has."""
    n = tested["second_mae"]
    square = float((own["sd"] ** 2 * n).sum() / n.sum())
    row: dict[str, object] = {name: int(own[name].sum()) for name in ("n", "n_second", "n_second_low")}
    row |= {"source": ALL, "estimate": estimate, "sd": np.sqrt(square), "best_r2": 1 - square / variance}
    row["best_mae"] = float((own["best_mae"] * n).sum() / n.sum())
    for part in SECOND_PARTS:
        weight = tested[part]
        # A source without such rows has no part in the mean.
        total = (own[part].where(weight > 0, 0.0) * weight).sum(skipna=False)
        row[part] = float(total / weight.sum()) if weight.sum() else np.nan
    return row
