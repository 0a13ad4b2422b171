"""The tables of an experiment: methods, contrasts, AUC ranges, drugs, cells, ranking, high error drugs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from hedflow import UNKNOWN
from hedflow.baselines import informed
from hedflow.config import Analysis
from hedflow.errors import (
    EDGES_2,
    EDGES_10,
    LOW_AUC,
    cell_errors,
    drug_errors,
    high_error_drugs,
    macro_mean,
    normalised_metrics,
    point_metrics,
    range_errors,
    row_scores,
)
from hedflow.intervals import DrugBootstrap, Interval
from hedflow.ranking import ranking_comparison, ranking_table

ALL = "all"
# Resamples of a ranking reorder every list: fewer of them than of a mean.
RANKING_BOOTSTRAP = 200
PARTS = {"mae": None, "mae_low": True, "mae_rest": False}  # of which rows: all, AUC < 0.5, the rest


@dataclass(frozen=True)
class Experiment:
    """What is analysed: prediction frames of the methods and of the naive baselines, on the same rows.

    reference: the method the others are compared with. split_kind: decides which baselines are legal.
    """

    methods: dict[str, pd.DataFrame]
    naive: dict[str, pd.DataFrame]
    reference: str
    split_kind: str
    settings: Analysis

    @property
    def frames(self) -> dict[str, pd.DataFrame]:
        return {**self.methods, **self.naive}

    @property
    def ranked(self) -> dict[str, pd.DataFrame]:
        """The frames as drugs are ranked by them: predictions less the training mean of their part of the split.

        A line's list joins drugs from several parts. Part i is predicted by a model whose training mean is low just
        where the drugs it tests are high, which alone puts lists into the wrong order. (The mean of the training
        means is added, to stay on the scale of AUC.) The global mean then ranks as a constant does, at random.
        """
        training_mean = self.naive["global_mean"]["auc_pred"].to_numpy(np.float64)
        offset = training_mean - training_mean.mean()
        return {name: frame.assign(auc_pred=frame["auc_pred"] - offset) for name, frame in self.frames.items()}

    @property
    def strongest(self) -> str:
        """The naive baseline with the lowest MAE: what a model has to beat in absolute error."""
        return min(self.naive, key=lambda name: _absolute(self.naive[name]).mean())

    @property
    def strongest_squared(self) -> str:
        """The naive baseline with the lowest squared error: what a model has to beat in R2."""
        return min(self.naive, key=lambda name: (_absolute(self.naive[name]) ** 2).mean())

    def bootstrap(self, frame: pd.DataFrame) -> DrugBootstrap:
        """Resamples of the frame's drugs: equal for equal drugs, so that methods are compared on the same ones."""
        return DrugBootstrap(frame["drug"], n_boot=self.settings.bootstrap, seed=self.settings.seed)


def legal_baselines(split_kind: str, tissue: pd.Series[str]) -> list[str]:
    """The baselines that mean something here: legal for the split, and tissue only where tissues are known."""
    names = list(informed(split_kind))
    return [name for name in names if name != "tissue_mean" or (tissue != UNKNOWN).any()]


def _absolute(frame: pd.DataFrame) -> np.ndarray:
    error: np.ndarray = np.abs(frame["auc_pred"].to_numpy(np.float64) - frame["auc"].to_numpy(np.float64))
    return error


def _mask(frame: pd.DataFrame, low: bool | None) -> np.ndarray:
    is_low = frame["auc"].to_numpy() < LOW_AUC
    return np.ones(len(frame), bool) if low is None else is_low if low else ~is_low


def _spread(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.estimate, f"{name}_lower": interval.low, f"{name}_upper": interval.high}


def methods_table(experiment: Experiment) -> pd.DataFrame:
    """One row a (source, method), source `all` first: errors with intervals over drugs, scores over the naive.

    Columns: source, method, naive (bool), n, n_low, n_drugs, n_drugs_low, coverage, rmse, r2, spearman, bias,
    mae, mae_low (AUC < 0.5), mae_rest, each with _lower and _upper; mae_macro (mean over the 10 AUC ranges);
    r2_normalised (1 - SSE/SSE of the naive baseline with the lowest squared error: positive = better than it).
    """
    rows = []
    strongest = experiment.naive[experiment.strongest_squared]
    sources = strongest["source"].astype(str).to_numpy()
    for source in (ALL, *sorted(set(sources))):
        chosen = np.ones(len(sources), bool) if source == ALL else sources == source
        for name, whole in experiment.frames.items():
            frame = whole[chosen].reset_index(drop=True)
            boot, absolute = experiment.bootstrap(frame), _absolute(frame)
            row = {"source": source, "method": name, "naive": name in experiment.naive}
            metrics = point_metrics(frame["auc"], frame["auc_pred"])
            row |= {key: metrics[key] for key in ("n", "coverage", "rmse", "r2", "spearman", "bias")}
            for part, low in PARTS.items():
                interval = boot.mean(absolute, _mask(frame, low))
                row |= _spread(part, interval)
                if part == "mae_low":
                    row |= {"n_low": interval.n, "n_drugs_low": interval.n_drugs}
            row["n_drugs"] = frame["drug"].nunique()
            row["mae_macro"] = macro_mean(range_errors(frame, EDGES_10))
            row["r2_normalised"] = normalised_metrics(
                frame["auc"], frame["auc_pred"], strongest["auc_pred"].to_numpy()[chosen]
            )["r2"]
            rows.append(row)
    return pd.DataFrame(rows)


def contrasts_table(experiment: Experiment) -> pd.DataFrame:
    """Paired differences of mean absolute error: each method against the reference and the strongest naive one.

    Columns: method, against, part (mae, mae_low, mae_rest), difference (negative = `method` errs less), lower,
    upper (95 %, over drugs), relative (difference / error of `against`), n, n_drugs.
    """
    rows = []
    for against in (experiment.reference, experiment.strongest):
        other = experiment.frames[against]
        boot, theirs = experiment.bootstrap(other), _absolute(other)
        for name, frame in experiment.methods.items():
            if name == against:
                continue
            for part, low in PARTS.items():
                mask = _mask(frame, low)
                found = boot.difference(_absolute(frame), theirs, mask)
                rows.append(
                    {
                        "method": name,
                        "against": against,
                        "part": part,
                        "difference": found.estimate,
                        "lower": found.low,
                        "upper": found.high,
                        "relative": boot.relative(_absolute(frame), theirs, mask).estimate,
                        "n": found.n,
                        "n_drugs": found.n_drugs,
                    }
                )
    return pd.DataFrame(rows)


def ranges_table(experiment: Experiment) -> pd.DataFrame:
    """Errors by AUC range: method, ranges (how many: 10 or 2), low, high, n, n_drugs, mae, lower, upper, bias."""
    tables = []
    for name, frame in experiment.frames.items():
        boot, absolute = experiment.bootstrap(frame), _absolute(frame)
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
    """`errors.drug_errors` of every method, with the drug's id and name and its nearest training drug."""
    tables = [drug_errors(frame).assign(method=name) for name, frame in experiment.frames.items()]
    table = pd.concat(tables, ignore_index=True).merge(nearest, on="drug", how="left", validate="many_to_one")
    for column in ("drug_id", "drug_name"):
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
        shift, difference (negative = the method errs less), lower, upper, n, n_drugs.
    """
    name = experiment.strongest_squared
    frame = experiment.naive[name]
    error = frame["auc_pred"].to_numpy(np.float64) - frame["auc"].to_numpy(np.float64)
    low, rest = _mask(frame, True), _mask(frame, False)
    columns = ["method", "naive", "shift", "difference", "lower", "upper", "n", "n_drugs"]
    if not low.any() or not rest.any():
        return pd.DataFrame(columns=["naive", "shift", "mae_low", "mae_rest"]), pd.DataFrame(columns=columns)

    def cost(shift: float, rows: np.ndarray) -> float:
        return float(np.abs(error[rows] - shift).mean())

    shifts = np.linspace(0, 0.4, 41)
    curve = pd.DataFrame({"naive": name, "shift": shifts})
    curve["mae_low"], curve["mae_rest"] = [cost(s, low) for s in shifts], [cost(s, rest) for s in shifts]
    boot, found = experiment.bootstrap(frame), []
    cheapest = max(0.0, float(np.median(error[rest])))  # from here on a larger shift costs more
    for method, rows in experiment.methods.items():
        target = _absolute(rows)[rest].mean()
        if not cost(cheapest, rest) < target < cost(1.0, rest):
            continue
        shift = brentq(lambda s, target=target: cost(s, rest) - target, cheapest, 1.0, xtol=1e-6)
        difference = boot.difference(_absolute(rows), np.abs(error - shift), low)
        numbers = (difference.estimate, difference.low, difference.high, difference.n, difference.n_drugs)
        found.append((method, name, shift, *numbers))
    return curve, pd.DataFrame(found, columns=columns)


def ranking_tables(experiment: Experiment) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ranking of the drugs of each cell line: a summary of every method, and differences to the reference.

    A source whose lines have too few tested drugs to rank is left out of both (its cells are counted in
    n_cells_excluded).
    """
    settings = experiment.settings
    summary, differences = ranking_comparison(
        experiment.ranked,
        experiment.reference,
        k=settings.top_k,
        n_boot=min(RANKING_BOOTSTRAP, settings.bootstrap),
        seed=settings.seed,
        min_drugs=2 * settings.top_k,
    )
    return summary[summary["n_cells"] > 0], differences[differences["n_cells"] > 0]


def cell_ranking_table(experiment: Experiment, cells: pd.DataFrame) -> pd.DataFrame:
    """`ranking.ranking_table` of every method: a row a (source, cell line, method), with the line's id and name."""
    k = experiment.settings.top_k
    tables = [ranking_table(f, k=k, min_drugs=2 * k).assign(method=name) for name, f in experiment.ranked.items()]
    table = pd.concat(tables, ignore_index=True)
    for column in ("cell_id", "cell_name"):
        table[column] = cells[column].to_numpy()[table["cell"]]
    return table


def scores_table(experiment: Experiment) -> pd.DataFrame:
    """`errors.row_scores` of every method (not of the baselines): the z-scores, row by row."""
    tables = []
    for name, frame in experiment.methods.items():
        scored = row_scores(frame)
        floats = scored.select_dtypes(np.floating).columns
        tables.append(scored.astype(dict.fromkeys(floats, np.float32)).assign(method=name))
    return pd.concat(tables, ignore_index=True)
