"""Errors of slices of the test rows (source, tissue, mechanism, scaffold) and by distance to the training drugs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hedflow.analysis.experiment import PARTS, Experiment, mask_of
from hedflow.intervals import DrugBootstrap, Intervals, distinct, percentile_interval

# Tanimoto similarity to the nearest training drug; the same in every experiment, so that their tables can be compared.
EDGES = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
FEW = 5  # drugs: an interval over fewer means little

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Groups:
    """Groups of the test rows: the group of each row (n,), -1 for none, and what the groups are called."""

    of_row: Ints
    names: list[str]


def group_errors(experiment: Experiment, groups: Groups) -> pd.DataFrame:
    """Errors of every method in every group that has rows, with intervals over drugs.

    Columns: group (number), method, naive, n (rows with a prediction), n_low, n_drugs, n_drugs_low, n_cells, and mae,
    mae_low, mae_rest, bias, difference (MAE - MAE of the strongest naive baseline on the same rows), each with _lower
    and _upper.
    """
    rows, boot, size = experiment.rows, experiment.boot, len(groups.names)
    masks = {part: mask_of(rows, low) for part, low in PARTS.items()}
    n_cells = distinct(groups.of_row, rows["cell"].to_numpy(), size)
    strongest, tables = np.abs(experiment.error(experiment.strongest)), []
    for name in experiment.frames:
        error = experiment.error(name)
        found = {part: boot.means(np.abs(error), groups.of_row, size, mask) for part, mask in masks.items()}
        found["bias"] = boot.means(error, groups.of_row, size)
        found["difference"] = boot.means(np.abs(error) - strongest, groups.of_row, size)
        whole, low = found["mae"], found["mae_low"]
        counts = {"n": whole.n, "n_low": low.n, "n_drugs": whole.n_drugs, "n_drugs_low": low.n_drugs}
        columns = {"group": np.arange(size), **counts, "n_cells": n_cells, **_columns(found)}
        tables.append(pd.DataFrame(columns).assign(method=name, naive=name in experiment.naive))
    table = pd.concat(tables, ignore_index=True)
    return table[table["n"] > 0].reset_index(drop=True)


def _columns(found: dict[str, Intervals]) -> dict[str, Floats]:
    columns: dict[str, Floats] = {}
    for name, interval in found.items():
        columns |= {name: interval.estimate, f"{name}_lower": interval.low, f"{name}_upper": interval.high}
    return columns


def slices_table(experiment: Experiment, drugs: pd.DataFrame, tissue: pd.Series[str]) -> pd.DataFrame:
    """Errors by source, tissue of the line, mechanism of the drug, and whether training has the drug's scaffold.

    Args:
        drugs: drug (index in the bundle), mechanism and scaffold of every tested drug.
        tissue: of every cell of the bundle.

    Returns:
        axis, value, few (fewer than 5 drugs: such slices stay, marked), and the columns of `group_errors`.
    """
    rows, known = experiment.rows, drugs.drop_duplicates("drug").set_index("drug")
    drug = rows["drug"].to_numpy()
    axes = {
        "source": rows["source"].astype(str).to_numpy(),
        "tissue": tissue.to_numpy(dtype=str)[rows["cell"].to_numpy()],
        "mechanism": known["mechanism"].reindex(drug).to_numpy(dtype=str),
        "scaffold": known["scaffold"].reindex(drug).to_numpy(dtype=str),
    }
    tables = []
    for axis, values in axes.items():
        codes, names = pd.factorize(values, sort=True)
        table = group_errors(experiment, Groups(codes.astype(np.int64), [str(name) for name in names]))
        table.insert(0, "value", np.asarray(names)[table.pop("group")])
        table.insert(0, "axis", axis)
        tables.append(table)
    made = pd.concat(tables, ignore_index=True)
    return made.assign(few=made["n_drugs"] < FEW)


def distance_table(experiment: Experiment, similarity: pd.Series[float]) -> pd.DataFrame:
    """Errors by the similarity of the drug to its nearest training drug.

    Args:
        similarity: Tanimoto, 0..1, by drug (index in the bundle).

    Returns:
        bin (number), similarity_low, similarity_high (the last bin has its upper edge, the others not), and the
        columns of `group_errors`. Bins without a row are absent.
    """
    bins = np.clip(np.searchsorted(EDGES, similarity.to_numpy(), side="right") - 1, 0, len(EDGES) - 2)
    by_drug = pd.Series(bins, index=similarity.index)
    of_row = by_drug.reindex(experiment.rows["drug"]).to_numpy(np.int64)
    table = group_errors(experiment, Groups(of_row, [f"{edge:g}" for edge in EDGES[:-1]]))
    place = table.pop("group").to_numpy()
    edges = {"bin": place, "similarity_low": np.array(EDGES)[place], "similarity_high": np.array(EDGES)[place + 1]}
    return pd.concat([pd.DataFrame(edges), table], axis=1)


def distance_trend_table(experiment: Experiment, similarity: pd.Series[float]) -> pd.DataFrame:
    """Rank correlation, over drugs, of a drug's error with its similarity to the nearest training drug.

    Columns: method, naive, part (mae, mae_low, mae_rest; difference = MAE - that of the strongest naive baseline), rho
    (Spearman, average ranks in ties; negative = near drugs err less), lower, upper (95 %, over drugs), n_drugs. A drug
    counts once, however many rows it has. Missing where all drugs are equally far, or err alike.
    """
    boot, rows = experiment.boot, []
    near = similarity.reindex(boot.drugs).to_numpy(np.float64)
    masks = {part: mask_of(experiment.rows, low) for part, low in PARTS.items()}
    strongest = np.abs(experiment.error(experiment.strongest))
    for name in experiment.frames:
        absolute = np.abs(experiment.error(name))
        for part in (*masks, "difference"):
            value = absolute - strongest if part == "difference" else absolute
            sums, counts = boot.drug_sums(value, masks.get(part))
            has = counts > 0
            rho, lower, upper = spearman_interval(near[has], sums[has] / counts[has], boot, has)
            found = {"rho": rho, "lower": lower, "upper": upper, "n_drugs": int(has.sum())}
            rows.append({"method": name, "naive": name in experiment.naive, "part": part, **found})
    return pd.DataFrame(rows)


def spearman_interval(
    x: ArrayLike, y: ArrayLike, boot: DrugBootstrap, has: NDArray[np.bool_]
) -> tuple[float, float, float]:
    """Spearman correlation of x and y (drugs that ``has`` marks), and its interval from the resamples of the drugs.

    A drug drawn twice is two drugs of equal value in both, so that they tie.
    """
    pair = [np.asarray(values, dtype=np.float64) for values in (x, y)]
    if len(pair[0]) < 3 or min(np.ptp(values) for values in pair) == 0:
        return float("nan"), float("nan"), float("nan")
    weights = np.vstack([np.ones((1, len(pair[0]))), boot.weights[:, has]])
    a, b = (_weighted_ranks(values, weights) for values in pair)
    total = weights.sum(axis=1, keepdims=True)
    total = np.where(total > 0, total, np.nan)
    a, b = (ranks - (weights * ranks).sum(axis=1, keepdims=True) / total for ranks in (a, b))
    spread = (weights * a * a).sum(axis=1) * (weights * b * b).sum(axis=1)
    rho = (weights * a * b).sum(axis=1) / np.sqrt(np.where(spread > 0, spread, np.nan))
    return float(rho[0]), *percentile_interval(rho[1:], boot.level)


def _weighted_ranks(values: Floats, weights: Floats) -> Floats:
    """(resamples, drugs): average rank of each drug's value where drug j is there ``weights[:, j]`` times."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(values[order]) != 0])
    size = np.add.reduceat(weights[:, order], starts, axis=1)
    middle = np.cumsum(size, axis=1) - (size - 1) / 2
    group = np.empty(len(values), dtype=np.int64)
    group[order] = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(values)]))
    return middle[:, group]
