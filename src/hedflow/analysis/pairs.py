"""Which (drug, cell) pairs make a drug's error, and whether it is the model or the measurement that is wrong there."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hedflow.analysis.experiment import Experiment
from hedflow.bundle import Bundle

MOST_PAIRS = 20  # of a drug, the largest errors first
WORST_DRUGS = 5  # of each method besides the high error drugs
TOP = 0.1  # share of a drug's pairs whose share of its error is given
DISAGREE = 0.2  # AUC: two measurements of a pair that lie further apart disagree

Floats = NDArray[np.float64]


def measured_again(bundle: Bundle, response: pd.DataFrame) -> pd.DataFrame:
    """What else is known of each row's measurement; row i is row i of the bundle's response.

    Args:
        response: the integrated table (`schemas.RESPONSE`) that the bundle was made from.

    Returns:
        replicates, auc_sd (over the source's own repeats; missing for a single one), n_others (other sources that
        measured the same pair), other_auc (their mean AUC), other_difference (AUC - other_auc), disagrees (another
        source, or a repeat, more than 0.2 away; missing for a pair that was measured once).
    """
    ids = ("cell", "drug")
    keys = response[["source", "auc_sd", "replicates", "auc"]].copy()
    for name in ids:
        keys[name] = pd.Index(getattr(bundle, f"{name}s")[f"{name}_id"]).get_indexer(response[f"{name}_id"])
    keys = keys[(keys["cell"] >= 0) & (keys["drug"] >= 0)]
    by_pair = keys.groupby([*ids])["auc"]
    keys["n_others"] = by_pair.transform("size") - 1
    others = keys["n_others"].where(keys["n_others"] > 0)
    keys["other_auc"] = (by_pair.transform("sum") - keys["auc"]) / others
    rows = bundle.response[["source", *ids, "auc"]].astype({"source": str})
    found = rows.merge(keys.drop(columns="auc").astype({"source": str}), on=["source", *ids], how="left")
    found["other_difference"] = found["auc"] - found["other_auc"]
    # Two repeats x and y have an SD of |x - y| / sqrt(2).
    apart = np.maximum(found["other_difference"].abs().fillna(0), found["auc_sd"].fillna(0) * np.sqrt(2))
    twice = found["other_auc"].notna() | found["auc_sd"].notna()
    found["disagrees"] = (apart > DISAGREE).astype("boolean").where(twice)
    return found[["replicates", "auc_sd", "n_others", "other_auc", "other_difference", "disagrees"]]


def pairs_tables(
    experiment: Experiment, drugs: pd.DataFrame, high: pd.DataFrame, again: pd.DataFrame, cells: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The pairs behind the worst drugs' errors, and of every drug how its error is spread over its pairs.

    Args:
        drugs: the table `drugs`; high: the table `high_error_drugs`; again: from `measured_again`; cells: the bundle's.

    Returns:
        pairs: of the reference's high error drugs and each method's 5 worst drugs at most 20 rows, the largest error
        first: method, drug, drug_id, drug_name, chosen (`high error` or `worst of method`), place (1..), row, cell_id,
        cell_name, tissue, source, auc, auc_pred, error, abs_error, share (of the drug's summed absolute error),
        share_cumulated, share_squared (of its squared error), and the columns of `measured_again`.

        concentration: a row a (method, drug): method, naive, drug, drug_id, drug_name, n, mae, n_half (fewest pairs
        that hold half of the absolute error), half_share (n_half / n), gini (of the absolute errors; 0 = all alike),
        top_share (share of the error in the worst tenth of the pairs), n_checked (rows whose pair another source
        measured too), disagree_share (of those, more than 0.2 AUC apart), mae_checked (the method's error there),
        second_mae (distance of the other sources' AUC there), and of the n_half worst pairs those that another source
        measured too: worst_checked (how many), worst_mae (the method's error there), worst_other (of the same
        predictions against the other sources' AUC) and worst_disagree (share more than 0.2 apart). They were picked by
        this measurement, not by the other: worst_other near worst_mae says that the model is wrong, one far below it
        that the measurement is.
    """
    known = drugs.drop_duplicates("drug").set_index("drug")[["drug_id", "drug_name"]]
    measured = again.iloc[experiment.rows["row"].to_numpy()].reset_index(drop=True)
    pairs, spread = [], []
    for name in experiment.frames:
        ordered = _ordered(experiment.frames[name])
        spread.append(_concentration(ordered, measured).assign(method=name, naive=name in experiment.naive))
        if name in experiment.methods:
            chosen = _chosen(experiment, name, drugs, high)
            top = ordered[ordered["drug"].isin(list(chosen)) & (ordered["place"] <= MOST_PAIRS)]
            found = top.join(measured, on="at").assign(method=name, chosen=top["drug"].map(chosen))
            pairs.append(found.drop(columns=["at", "n", "before"]))
    lines = cells[["cell_id", "cell_name", "tissue"]]
    listed = pd.concat(pairs, ignore_index=True).join(known, on="drug").join(lines, on="cell").drop(columns="cell")
    return listed, pd.concat(spread, ignore_index=True).join(known, on="drug")


def _chosen(experiment: Experiment, method: str, drugs: pd.DataFrame, high: pd.DataFrame) -> dict[int, str]:
    """The drugs of a method whose pairs are listed, and why."""
    own = drugs[drugs["method"] == method].nlargest(WORST_DRUGS, "mae")["drug"]
    chosen = dict.fromkeys(own, "worst of method")
    if method == experiment.reference:
        chosen |= dict.fromkeys(high["drug"], "high error")
    return chosen


def _ordered(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows by drug, the largest absolute error first, with shares of the drug's error.

    Columns: at (place in the frame), row, cell, drug, source, auc, auc_pred, error, abs_error, n (rows of the drug),
    place (1..n), share, share_cumulated, share_squared, before (share_cumulated less share).
    """
    auc, auc_pred = (frame[name].to_numpy(np.float64) for name in ("auc", "auc_pred"))
    table = frame[["row", "cell", "drug", "source"]].assign(auc=auc, auc_pred=auc_pred, error=auc_pred - auc)
    table["abs_error"] = table["error"].abs()
    # Rows of equal error keep the order of the bundle, whatever the order of the frame.
    order = np.lexsort((table["row"], -table["abs_error"], table["drug"]))
    table = table.iloc[order].assign(at=order)
    table = table[table["abs_error"].notna()].reset_index(drop=True)
    by = table.groupby("drug", sort=False)["abs_error"]
    table["n"], table["place"] = by.transform("size"), by.cumcount() + 1
    total = by.transform("sum")
    table["share"] = table["abs_error"] / total.where(total > 0)
    table["share_cumulated"] = by.cumsum() / total.where(total > 0)
    squared = table["abs_error"] ** 2
    table["share_squared"] = squared / squared.groupby(table["drug"]).transform("sum").where(total > 0)
    table["before"] = table["share_cumulated"] - table["share"]
    return table


def _concentration(ordered: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """`concentration` of one method, without its name and the drugs': see `pairs_tables`."""
    n, place = ordered["n"], ordered["place"]
    other = measured["other_auc"].to_numpy()[ordered["at"]]
    checked = pd.Series(np.isfinite(other), index=ordered.index)
    apart = (ordered["auc"] - other).abs()
    half = ordered["before"] < 0.5
    worst = half & checked
    rows = pd.DataFrame(
        {
            "drug": ordered["drug"],
            "mae": ordered["abs_error"],
            # The pairs before half of the error is reached, and the one that reaches it.
            "n_half": half.astype(float),
            "top_share": ordered["share"].where(place <= np.ceil(TOP * n), 0.0),
            # Gini = sum (2 rank - n - 1) x / (n sum x), ranks rising; places fall.
            "gini": (n + 1 - 2 * place) / n * ordered["share"],
            "n_checked": checked.astype(float),
            "disagree_share": (apart > DISAGREE).astype(float).where(checked),
            "mae_checked": ordered["abs_error"].where(checked),
            "second_mae": apart,
            "worst_checked": worst.astype(float),
            "worst_mae": ordered["abs_error"].where(worst),
            "worst_other": (ordered["auc_pred"] - other).abs().where(worst),
            "worst_disagree": (apart > DISAGREE).astype(float).where(worst),
        }
    )
    by = rows.groupby("drug", sort=True)
    counts = ["n_half", "n_checked", "worst_checked"]
    sums = [*counts, "top_share", "gini"]
    table = by[[name for name in rows if name not in ("drug", *sums)]].mean()
    table[counts] = by[counts].sum().astype(int)
    table[["top_share", "gini"]] = by[["top_share", "gini"]].sum(min_count=1)
    table.insert(0, "n", by.size())
    table["half_share"] = table["n_half"] / table["n"]
    return table.reset_index()
