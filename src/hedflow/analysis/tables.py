"""Tables of an experiment: methods, AUC ranges, drugs, cells, ranking, high error drugs, shifts, row scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from hedflow.analysis.experiment import ALL, PARTS, Experiment, absolute_error, mask_of, spread
from hedflow.errors import (
    EDGES_2,
    EDGES_10,
    cell_errors,
    drug_errors,
    high_error_drugs,
    macro_mean,
    normalised_metrics,
    point_metrics,
    range_errors,
    row_scores,
)
from hedflow.intervals import DrugBootstrap, percentile_interval
from hedflow.ranking import ranking_comparison
from hedflow.ranking_lists import in_common

# Shifts that an interval at equal cost is found among, between 0 and 1.
SHIFTS = 201
# Resamples of a ranking reorder every list: fewer of them than of a mean.
RANKING_BOOTSTRAP = 200


def methods_table(experiment: Experiment) -> pd.DataFrame:
    """One row a (source, method), source `all` first: errors with intervals over drugs, scores over the naive.

    Columns: source, method, naive (bool), n, n_low, n_drugs, n_drugs_low (what is tested), coverage (share of n with a
    prediction; below 1, runs failed, and the numbers below are of the rest), rmse, spearman, bias; r2, mae,
    mae_low (AUC < 0.5), mae_rest, each with _lower and _upper; mae_macro (mean over the 10 AUC ranges);
    r2_normalised (1 - SSE/SSE of the naive baseline with the lowest squared error: positive = better than it), with
    _lower and _upper; pearson_normalised and spearman_normalised (of prediction and truth less that baseline).
    """
    rows = []
    strongest = experiment.naive[experiment.strongest_squared]
    sources = strongest["source"].astype(str).to_numpy()
    for source in (ALL, *sorted(set(sources))):
        chosen = np.ones(len(sources), bool) if source == ALL else sources == source
        for name, whole in experiment.frames.items():
            frame = whole[chosen].reset_index(drop=True)
            boot, absolute = experiment.bootstrap(frame), absolute_error(frame)
            row = {"source": source, "method": name, "naive": name in experiment.naive}
            metrics = point_metrics(frame["auc"], frame["auc_pred"])
            row |= {key: metrics[key] for key in ("n", "coverage", "rmse", "spearman", "bias")}
            row |= spread("r2", boot.r2(frame["auc"], frame["auc_pred"]))
            for part, low in PARTS.items():
                interval = boot.mean(absolute, mask_of(frame, low))
                row |= spread(part, interval)
            is_low = mask_of(frame, True)
            row |= {"n_low": int(is_low.sum()), "n_drugs_low": frame.loc[is_low, "drug"].nunique()}
            row["n_drugs"] = frame["drug"].nunique()
            row["mae_macro"] = macro_mean(range_errors(frame, EDGES_10))
            naive = strongest[chosen]
            over = normalised_metrics(frame["auc"], frame["auc_pred"], naive["auc_pred"].to_numpy())
            row |= {f"{key}_normalised": over[key] for key in ("pearson", "spearman")}
            more = boot.relative(absolute**2, absolute_error(naive) ** 2)  # squared error than the naive
            row |= spread("r2_normalised", replace(more, estimate=-more.estimate, low=-more.high, high=-more.low))
            rows.append(row)
    return pd.DataFrame(rows)


def ranges_table(experiment: Experiment) -> pd.DataFrame:
    """Errors by AUC range: method, ranges (how many: 10 or 2), low, high, n, n_drugs, mae, lower, upper, bias."""
    tables = []
    for name, frame in experiment.frames.items():
        boot, absolute = experiment.bootstrap(frame), absolute_error(frame)
        auc = frame["auc"].to_numpy()
        for ranges, edges in ((10, EDGES_10), (2, EDGES_2)):
            table = range_errors(frame, edges)
            bounds = []
            for low, high in zip(table["low"], table["high"], strict=True):
                # The last range is closed; float32 keeps a value on its edge on the same side as in range_errors.
                top = auc <= np.float32(high) if high == edges[-1] else auc < np.float32(high)
                inside = (auc >= np.float32(low)) & top
                interval = boot.mean(absolute, inside) if inside.any() else None
                bounds.append((interval.low, interval.high) if interval else (np.nan, np.nan))
            lower_upper = pd.DataFrame(bounds, columns=["lower", "upper"])
            tables.append(pd.concat([table, lower_upper], axis=1).assign(method=name, ranges=ranges))
    return pd.concat(tables, ignore_index=True)


def drugs_table(experiment: Experiment, drugs: pd.DataFrame, nearest: pd.DataFrame) -> pd.DataFrame:
    """`errors.drug_errors` of every method, with what is known of the drug and of what is near it in training.

    Args:
        drugs: the bundle's; drug_id, drug_name, target, mechanism and mechanism_from are taken.
        nearest: from `parts.describe_parts`: nearest, similarity, scaffold.
    """
    tables = [drug_errors(frame).assign(method=name) for name, frame in experiment.frames.items()]
    table = pd.concat(tables, ignore_index=True).merge(nearest, on="drug", how="left", validate="many_to_one")
    for column in ("drug_id", "drug_name", "target", "mechanism", "mechanism_from"):
        table[column] = drugs[column].to_numpy()[table["drug"]]
    return table


def cells_table(experiment: Experiment, cells: pd.DataFrame) -> pd.DataFrame:
    """`errors.cell_errors` of every method, with the line's id, name and tissue."""
    tables = [cell_errors(frame).assign(method=name) for name, frame in experiment.frames.items()]
    table = pd.concat(tables, ignore_index=True)
    for column in ("cell_id", "cell_name", "tissue"):
        table[column] = cells[column].to_numpy()[table["cell"]]
    return table


def high_error_table(experiment: Experiment, drugs: pd.DataFrame) -> pd.DataFrame:
    """The high error drugs of the reference, worst first, with the other methods' errors beside (mae:<method>)."""
    own = drugs[drugs["method"] == experiment.reference]
    found = high_error_drugs(own, experiment.settings.high_error_z)
    wide = drugs.pivot(index="drug", columns="method", values="mae").add_prefix("mae:")
    others = [f"mae:{name}" for name in experiment.frames if name != experiment.reference]
    return found.merge(wide[others], left_on="drug", right_index=True, how="left")


def shift_tables(experiment: Experiment) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What a mere shift buys: the strongest naive baseline (by squared error) lowered by a constant.

    A loss that leans toward low AUC can gain on potent pairs by predicting everything lower. That needs no model.

    Returns:
        The curve (naive, shift, mae_low, mae_rest), and for each method that costs more on the rest than the
        baseline, its difference on potent pairs to the baseline shifted until it costs the same: method, naive,
        shift, difference (negative = the method errs less), lower, upper, n, n_drugs. Each resample of the drugs has
        its own shift: the interval holds what is not known of it, too.
    """
    name = experiment.strongest_squared
    frame = experiment.naive[name]
    error = frame["auc_pred"].to_numpy(np.float64) - frame["auc"].to_numpy(np.float64)
    low, rest = mask_of(frame, True), mask_of(frame, False)
    columns = ["method", "naive", "shift", "difference", "lower", "upper", "n", "n_drugs"]
    if not low.any() or not rest.any():
        return pd.DataFrame(columns=["naive", "shift", "mae_low", "mae_rest"]), pd.DataFrame(columns=columns)

    def cost(shift: float, rows: np.ndarray) -> float:
        return float(np.abs(error[rows] - shift).mean())

    shifts = np.linspace(0, 0.4, 41)
    curve = pd.DataFrame({"naive": name, "shift": shifts})
    curve["mae_low"], curve["mae_rest"] = [cost(s, low) for s in shifts], [cost(s, rest) for s in shifts]
    boot, found = experiment.bootstrap(frame), []
    for method, rows in experiment.methods.items():
        own = absolute_error(rows)
        known = rest & np.isfinite(own)
        if not known.any() or not (low & np.isfinite(own)).any():
            continue
        target = own[known].mean()
        cheapest = max(0.0, float(np.median(error[known])))  # from here on a larger shift costs more
        if not cost(cheapest, known) < target < cost(1.0, known):
            continue
        shift = brentq(lambda s, t=target, k=known: cost(s, k) - t, cheapest, 1.0, xtol=1e-6)
        difference = boot.difference(own, np.abs(error - shift), low)
        bounds = _equal_cost_interval(boot, own, error, known, low & np.isfinite(own))
        numbers = (difference.estimate, *bounds, difference.n, difference.n_drugs)
        found.append((method, name, shift, *numbers))
    return curve, pd.DataFrame(found, columns=columns)


def _equal_cost_interval(
    boot: DrugBootstrap, own: np.ndarray, error: np.ndarray, rest: np.ndarray, low: np.ndarray
) -> tuple[float, float]:
    """Interval of the difference at equal cost, the shift found anew in each resample; NaN for a single drug.

    Args:
        own, error: absolute error of the method, and error of the baseline (n,). rest, low: rows of either kind.
    """
    if (boot.drug_sums(own, low)[1] > 0).sum() < 2:
        return np.nan, np.nan
    shifts = np.linspace(0, 1, SHIFTS)

    def means(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each resample: the method's error, and the baseline's at each shift (resamples, shifts)."""
        at = np.array([boot.drug_sums(np.abs(error - shift), rows)[0] for shift in shifts])
        total, count = boot.drug_sums(own, rows)
        under = boot.weights @ count
        under = np.where(under > 0, under, np.nan)
        return boot.weights @ total / under, boot.weights @ at.T / under[:, None]

    (target, cost), (method, lowered) = means(rest), means(low)
    draws = []
    for one, costs, of_method, of_baseline in zip(target, cost, method, lowered, strict=True):
        from_ = int(np.nanargmin(costs)) if np.isfinite(costs).any() else 0  # from here on a larger shift costs more
        shift = np.interp(one, costs[from_:], shifts[from_:])
        draws.append(of_method - np.interp(shift, shifts, of_baseline))
    return percentile_interval(np.array(draws), boot.level)


def ranking_tables(experiment: Experiment, cells: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Ranking of the drugs of each cell line: see `ranking.ranking_comparison` for the columns.

    Returns:
        A summary of every method; differences to the reference; and a row a (source, cell line, method), with the
        line's id and name. A source whose lines have too few tested drugs to rank is left out of the first two (its
        cells are counted in n_cells_excluded). A method without predictions is in none; if it is the reference, all
        are empty.
    """
    settings = experiment.settings
    summary, differences, lines = ranking_comparison(
        in_common(experiment.ranked, experiment.reference),
        experiment.reference,
        k=settings.top_k,
        n_boot=min(RANKING_BOOTSTRAP, settings.bootstrap),
        seed=settings.seed,
        min_drugs=2 * settings.top_k,
    )
    for column in ("cell_id", "cell_name"):
        lines[column] = cells[column].to_numpy()[lines["cell"].to_numpy(np.int64)]
    return summary[summary["n_cells"] > 0], differences[differences["n_cells"] > 0], lines


def scores_table(experiment: Experiment) -> pd.DataFrame:
    """`errors.row_scores` of every method (not of the baselines): the z-scores, row by row."""
    tables = []
    for name, frame in experiment.methods.items():
        scored = row_scores(frame)
        floats = scored.select_dtypes(np.floating).columns
        tables.append(scored.astype(dict.fromkeys(floats, np.float32)).assign(method=name))
    return pd.concat(tables, ignore_index=True)
