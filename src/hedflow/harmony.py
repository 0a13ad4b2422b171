"""How well the sources agree on the same (cell line, drug), and what that says of the best error a model could have.

Estimates of the measurement's noise, all as the standard deviation of one AUC about its pair's own value:

* `plates`: from curves that one source measured on several plates, the same doses each time (GDSC2's wells).
* `repeats`: from pairs that one source lists more than once. In GDSC these are screens of their own, with other doses
  and years apart: more than noise.
* `other sources`: from pairs that several sources share. The sources' Pearson correlations r_ab = sqrt(q_a q_b) (the
  attenuation formula, Spearman 1904) give each source a reliability q, the share of its variance that others confirm.
  Another laboratory, other doses, other fits: what a prediction of the *pair* must get wrong on this source.

From a noise SD s: the best R2 on a source is 1 - s^2 / Var(AUC of the source); the best MAE is that of the noise
itself, whose mean absolute deviation is measured on plates and repeats relative to s (0.798 for a normal error; real
ones have heavier tails).

For potent pairs alone (AUC < 0.5) no such floor can be had: that a measured AUC is low says that its noise was, and
what the pair's own value is then, two measurements do not tell. What can be had is how far a *second measurement* of a
pair lies from one that was low. A model that knew the pairs' own values would do better than that, by how much is not
known: the floor lies below it.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from hedflow.intervals import DrugBootstrap

NORMAL_MAE = float(np.sqrt(2 / np.pi))
# Fewer shared pairs say nothing of two sources' correlation.
MIN_PAIRS = 30
AGREEMENT_COLUMNS = (
    "source", "other", "drug_id", "n", "pearson", "spearman", "bias", "mae", "sd"
)  # fmt: skip
LOW_AUC = 0.5
N_BOOT = 1000  # resamples of the drugs
SECOND_PARTS = ("second_mae", "second_mae_low", "second_mae_rest")
SECOND_COLUMNS = (
    "source", "estimate", "n", "n_low", "n_drugs",
    *(f"{part}{end}" for part in SECOND_PARTS for end in ("", "_lower", "_upper")),
)  # fmt: skip
NOISE_COLUMNS = ("source", "estimate", "n", "sd", "auc_sd", "best_r2", "best_mae")


def shared_pairs(response: pd.DataFrame) -> pd.DataFrame:
    """One row a (cell_id, drug_id) of more than one source, one column a source, AUC (0..1, low = potent) or NaN.

    Args:
        response: `schemas.RESPONSE`.
    """
    wide = response.pivot(index=["cell_id", "drug_id"], columns="source", values="auc")
    return wide[wide.notna().sum(axis=1) > 1]


def agreement(shared: pd.DataFrame) -> pd.DataFrame:
    """Agreement of each two sources, over all their drugs (`drug_id` empty) and for each drug they share.

    Args:
        shared: from `shared_pairs`.

    Returns:
        AGREEMENT_COLUMNS: `bias` = mean of source - other; `mae` and `sd` of that difference; correlations are
        missing for fewer than 3 pairs or without spread.
    """
    rows = []
    for source, other in itertools.combinations(shared.columns, 2):
        both = shared[[source, other]].dropna()
        if both.empty:
            continue
        rows.append((source, other, "", *_agree(both)))
        for drug_id, pairs in both.groupby(level="drug_id", sort=True):
            rows.append((source, other, str(drug_id), *_agree(pairs)))
    return pd.DataFrame(rows, columns=list(AGREEMENT_COLUMNS))


def _agree(both: pd.DataFrame) -> tuple[int, float, float, float, float, float]:
    first, second = both.iloc[:, 0], both.iloc[:, 1]
    difference = first - second
    spread = len(both) > 2 and first.max() > first.min() and second.max() > second.min()
    pearson = float(first.corr(second)) if spread else np.nan
    spearman = float(first.corr(second, method="spearman")) if spread else np.nan
    sd = float(difference.std()) if len(both) > 1 else np.nan
    return len(both), pearson, spearman, float(difference.mean()), float(difference.abs().mean()), sd


def noise(response: pd.DataFrame, shared: pd.DataFrame, agreed: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """Noise of each source, and the best R2 and MAE a model could reach there: see the module.

    Args:
        response: `schemas.RESPONSE`; shared, agreed: from `shared_pairs` and `agreement`; curves: from `integrate`.

    Returns:
        NOISE_COLUMNS: `estimate` (plates, repeats or other sources), `n` (pairs behind it), `sd` of the noise,
        `auc_sd` (SD of the source's AUC), `best_r2` (below 0: the estimate exceeds the source's whole spread) and
        `best_mae`. A source of which an estimate cannot be had has no row for it.
    """
    rows, heavy = [], []
    for source in response["source"].unique():
        repeated = response[(response["source"] == source) & (response["replicates"] > 1)]
        plates = _plates(curves[curves["source"] == source])
        for estimate, sd, count in (
            ("plates", plates["std"], plates["size"]),
            ("repeats", repeated["auc_sd"], repeated["replicates"]),
        ):
            if len(sd):
                pooled = float(np.sqrt((sd**2 * (count - 1)).sum() / (count - 1).sum()))
                # Two measurements differ by d = e1 - e2, E|d| is about sqrt(2) E|e|, and their SD is |d| / sqrt(2).
                twice = sd[count == 2]
                mae = float(twice.mean()) if len(twice) else NORMAL_MAE * pooled
                heavy.append(mae / pooled if pooled > 0 else NORMAL_MAE)
                rows.append((source, estimate, len(sd), pooled, mae))
    ratio = float(np.median(heavy)) if heavy else NORMAL_MAE
    for source, reliability in reliabilities(agreed).items():
        own = shared[source].dropna()
        between = float(own.std() * np.sqrt(1 - reliability))
        rows.append((source, "other sources", len(own), between, ratio * between))
    table = pd.DataFrame(rows, columns=["source", "estimate", "n", "sd", "best_mae"])
    table["auc_sd"] = table["source"].map(response.groupby("source")["auc"].std())
    table["best_r2"] = 1 - (table["sd"] / table["auc_sd"]) ** 2
    order = {source: i for i, source in enumerate(response["source"].unique())}
    return table.sort_values("source", key=lambda names: names.map(order), kind="stable", ignore_index=True)[
        list(NOISE_COLUMNS)
    ]


def _plates(curves: pd.DataFrame) -> pd.DataFrame:
    """`std` of the AUC over the tested doses and `size`, of each pair with several curves of one dose series."""
    if not curves["used"].any():
        return pd.DataFrame({"std": [], "size": []})
    used = curves[curves["used"].astype(bool)]
    spread = used.groupby(["cell_name", "drug_name"])["auc_tested"].agg(["std", "size"])
    return spread[spread["size"] > 1]


def second_errors(response: pd.DataFrame, shared: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """How far a second measurement of a pair lies from the first, by whether the first is low (AUC < 0.5).

    Each measurement is the first once; the second is another plate, the other of two repeats, or another source, their
    mean distance where there are several.

    Args:
        as of `noise`.

    Returns:
        SECOND_COLUMNS: n measurements (n_low of them low) of n_drugs drugs; mean absolute distances over all, the low
        and the rest, with 95 % intervals over drugs. A source of which an estimate cannot be had has no row for it.
    """
    found = []
    for source in response["source"].unique():
        tables = {
            "plates": _between_plates(curves[curves["source"] == source]),
            "repeats": _between_repeats(response[response["source"] == source]),
            "other sources": _between_sources(shared, source),
        }
        for estimate, table in tables.items():
            if len(table):
                found.append({"source": source, "estimate": estimate, **_by_level(table)})
    return pd.DataFrame(found, columns=list(SECOND_COLUMNS))


def _by_level(table: pd.DataFrame) -> dict[str, float]:
    """Mean distances of (drug, first, distance) over all, the low and the rest."""
    boot, low = DrugBootstrap(table["drug"], N_BOOT), (table["first"] < LOW_AUC).to_numpy()
    row: dict[str, float] = {"n": len(table), "n_low": int(low.sum()), "n_drugs": table["drug"].nunique()}
    for part, mask in zip(SECOND_PARTS, (None, low, ~low), strict=True):
        mean = boot.mean(table["distance"], mask)
        row |= {part: mean.estimate, f"{part}_lower": mean.low, f"{part}_upper": mean.high}
    return row


def _between_plates(curves: pd.DataFrame) -> pd.DataFrame:
    """(drug, first, distance): each curve of a pair with several, and its mean distance from the others."""
    empty = pd.DataFrame({"drug": [], "first": [], "distance": []})
    if not curves["used"].any():
        return empty
    used = curves[curves["used"].astype(bool)]
    parts = [empty]
    for (_, drug), pair in used.groupby(["cell_name", "drug_name"])["auc_tested"]:
        if len(pair) > 1:
            auc = pair.to_numpy(float)
            distance = np.abs(auc[:, None] - auc).sum(axis=1) / (len(auc) - 1)
            parts.append(pd.DataFrame({"drug": drug, "first": auc, "distance": distance}))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def _between_repeats(rows: pd.DataFrame) -> pd.DataFrame:
    """(drug, first, distance): both of two repeats, from their mean and SD; of three or more they cannot be had."""
    two = rows[rows["replicates"] == 2]
    half = two["auc_sd"] / np.sqrt(2)
    both = [
        pd.DataFrame({"drug": two["drug_id"], "first": two["auc"] + sign * half, "distance": 2 * half})
        for sign in (1, -1)
    ]
    return pd.concat(both, ignore_index=True)


def _between_sources(shared: pd.DataFrame, source: str) -> pd.DataFrame:
    """(drug, first, distance): the source's AUC of each shared pair, and its mean distance from the other sources'."""
    if source not in shared:
        return pd.DataFrame({"drug": [], "first": [], "distance": []})
    own = shared[shared[source].notna()]
    distance = own.drop(columns=source).sub(own[source], axis=0).abs().mean(axis=1)
    table = {"drug": own.index.get_level_values("drug_id"), "first": own[source], "distance": distance}
    return pd.DataFrame(table).reset_index(drop=True)


def reliabilities(agreed: pd.DataFrame) -> dict[str, float]:
    """Share of each source's variance that the others confirm, 0..1: least squares on log r_ab = (log q_a + log q_b)/2.

    Two sources alone share one value; a source with fewer than MIN_PAIRS shared pairs, or that does not correlate, has
    none.
    """
    whole = agreed[(agreed["drug_id"] == "") & (agreed["n"] >= MIN_PAIRS) & (agreed["pearson"] > 0)]
    names = sorted({*whole["source"], *whole["other"]})
    if not names:
        return {}
    design = np.zeros((len(whole), len(names)))
    for i, row in enumerate(whole.itertuples()):
        design[i, names.index(str(row.source))] = design[i, names.index(str(row.other))] = 0.5
    weight = np.sqrt(whole["n"].to_numpy(float))[:, None]
    # The least-norm solution: between two sources alone the burden is shared equally.
    logs = np.linalg.lstsq(design * weight, np.log(whole["pearson"].to_numpy()) * weight[:, 0], rcond=None)[0]
    return {name: float(min(1, np.exp(value))) for name, value in zip(names, logs, strict=True)}
