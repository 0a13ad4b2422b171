"""Paired comparisons of methods over drugs: differences, p-values, Holm's adjustment, Friedman's ranks.

**The p-value of a difference** is that of a sign-flip permutation over drugs. If two methods were alike, their names
could be exchanged within any drug, which turns the sign of the drug's summed difference d_i. The statistic is the
reported difference itself, |sum s_i d_i| / n: rows of one drug move together, drugs with many rows weigh as they do in
the MAE, and nothing is assumed of the errors' distribution. It is exact under that hypothesis for any number of drugs,
and for the weaker one that the mean difference is 0 it is right for many drugs, however skewed the d_i (Canay, Romano
& Shaikh 2017, Econometrica 85:1013). A p from the bootstrap would be neither; its intervals are reported beside.
Wilcoxon's signed-rank test of the drugs' mean differences stands beside: each drug counts once there, however many
rows it has, and how large a difference is counts by its rank only.

**Holm** (1979, Scand J Stat 6:65): of m p-values in rising order, p_(i) (m - i + 1), made monotone; the chance that any
true hypothesis of the family is rejected stays below the level, whatever the dependence.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import f, friedmanchisquare, rankdata, studentized_range, wilcoxon

from hedflow.analysis.experiment import PARTS, Experiment, mask_of
from hedflow.intervals import holm, percentile_interval

# Sign flips drawn; with so few drugs that all flips are fewer, all are used.
FLIPS = 9999
RANKS = (
    "part", "method", "naive", "mean_rank", "n_drugs", "n_methods", "statistic", "p", "p_iman_davenport",
    "critical_difference",
)  # fmt: skip
ALPHA = 0.05  # of Nemenyi's critical difference
_TIE = 1e-9  # relative; a flipped sum that equals the observed one up to rounding is as extreme

Floats = NDArray[np.float64]


def contrasts_table(experiment: Experiment) -> pd.DataFrame:
    """Paired differences of mean absolute error over drugs.

    Each model against the reference and against the strongest naive baseline, the reference against every naive
    baseline, and all other pairs of models once (`against` is the one that comes first in the plan).

    Columns: method, against, against_naive, part (mae, mae_low, mae_rest), difference (negative = `method` errs less),
    lower, upper (95 %, over drugs), relative (difference / error of `against`), n, n_drugs, n_better (drugs on which
    `method` errs less), p (sign flips), p_wilcoxon, p_holm (of p, over all comparisons of the part), family (how
    many those are). A p is missing where fewer than two drugs, or no difference at all, are compared.
    """
    pairs, rows, sums = list(_pairs(experiment)), [], []
    boot, absolute = experiment.boot, {name: np.abs(experiment.error(name)) for name in experiment.frames}
    masks = {part: mask_of(experiment.rows, low) for part, low in PARTS.items()}
    for method, against in pairs:
        difference = absolute[method] - absolute[against]
        theirs = np.where(np.isfinite(difference), absolute[against], np.nan)
        for part, mask in masks.items():
            total, count = boot.drug_sums(difference, mask)
            rows.append(
                {
                    "method": method,
                    "against": against,
                    "against_naive": against in experiment.naive,
                    "part": part,
                    **_difference(total, count, boot.weights, boot.level),
                    "n": int(count.sum()),
                    "n_drugs": int((count > 0).sum()),
                    "n_better": int((total < 0).sum()),
                    "p_wilcoxon": _wilcoxon(total, count),
                }
            )
            error = boot.drug_sums(theirs, mask)[0].sum()
            rows[-1]["relative"] = total.sum() / error if error > 0 else np.nan
            sums.append(total)
    table = pd.DataFrame(rows)
    table["p"] = sign_flip_p(np.array(sums), experiment.settings.seed)
    table.loc[table["n_drugs"] < 2, "p"] = np.nan
    table["p_holm"] = table.groupby("part")["p"].transform(lambda p: holm(p.to_numpy()))
    table["family"] = table.groupby("part")["p"].transform("count").astype(int)
    return table


def _pairs(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """(method, against) of every comparison, the reference's first, then the strongest naive baseline's."""
    reference, strongest = experiment.reference, experiment.strongest
    models = list(experiment.methods)
    yield from ((name, reference) for name in models if name != reference)
    yield from ((name, strongest) for name in models)
    yield from ((reference, name) for name in experiment.naive if name != strongest)
    others = [name for name in models if name != reference]
    yield from ((name, other) for i, other in enumerate(others) for name in others[i + 1 :])


def _difference(total: Floats, count: NDArray[np.int64], weights: Floats, level: float) -> dict[str, float]:
    """Mean over rows from the drugs' sums (drugs,), with its percentile interval."""
    n = count.sum()
    lower = upper = float("nan")
    if np.count_nonzero(count) > 1:
        under = weights @ count
        lower, upper = percentile_interval(weights @ total / np.where(under > 0, under, np.nan), level)
    return {"difference": total.sum() / n if n else np.nan, "lower": lower, "upper": upper}


def _wilcoxon(total: Floats, count: NDArray[np.int64]) -> float:
    """Signed-rank p of the drugs' mean differences; NaN for fewer than two drugs or no difference."""
    mean = total[count > 0] / count[count > 0]
    return float(wilcoxon(mean).pvalue) if len(mean) > 1 and mean.any() else float("nan")


def sign_flip_p(sums: ArrayLike, seed: int = 0, flips: int = FLIPS) -> Floats:
    """Two-sided p of each row of ``sums`` (comparisons, drugs): is the sum over the drugs other than 0?

    Each drug's sign is turned at random, the same turns for all comparisons. All 2^drugs turns are used where those
    are fewer than ``flips``, else ``flips`` drawn ones, the turn that was observed among them: p >= 1 / (flips + 1).
    NaN where every sum is 0.
    """
    values = np.asarray(sums, dtype=np.float64)
    drugs = values.shape[1]
    every = 2**drugs <= flips
    if every:
        bits = np.arange(2**drugs)[:, None] >> np.arange(drugs) & 1
    else:
        bits = np.random.default_rng(seed).integers(0, 2, (flips, drugs))
    flipped = np.abs((2.0 * bits - 1) @ values.T)
    observed = np.abs(values.sum(axis=1)) - _TIE * np.abs(values).sum(axis=1)
    extreme = (flipped >= observed).sum(axis=0)
    p = extreme / len(bits) if every else (extreme + 1) / (flips + 1)
    return np.where(values.any(axis=1), p, np.nan)


def ranks_table(experiment: Experiment) -> pd.DataFrame:
    """Friedman's test of all methods, naive baselines among them, with the drugs as blocks.

    In each drug the methods are ranked by its mean absolute error: each drug counts once, and how much better a
    method is does not count (in `contrasts` rows count, and so does the size of a difference).

    Columns: part, method, naive, mean_rank (1 = always the lowest error), n_drugs (blocks), n_methods, statistic
    (Friedman's chi-squared, ties corrected), p, p_iman_davenport (its less conservative F version, Iman & Davenport
    1980), critical_difference (Nemenyi at 0.05: mean ranks closer than that are not told apart; Demsar 2006, JMLR
    7:1). Tests are missing for fewer than 3 methods; a part with fewer than 2 drugs or 2 methods has no row. A drug
    that a method has no prediction of (its run failed) is no block; a method without any is left out.
    """
    absolute = {name: np.abs(experiment.error(name)) for name in experiment.frames}
    names, tables = [name for name, size in absolute.items() if np.isfinite(size).any()], []
    for part, low in PARTS.items():
        mask = mask_of(experiment.rows, low)
        sums, counts = zip(*(experiment.boot.drug_sums(absolute[name], mask) for name in names), strict=True)
        has = np.min(counts, axis=0) > 0
        if has.sum() < 2 or len(names) < 2:
            continue
        error = np.array(sums)[:, has] / np.array(counts)[:, has]
        tests = friedman(error)
        tables.append(
            pd.DataFrame(
                {
                    "part": part,
                    "method": names,
                    "naive": [name in experiment.naive for name in names],
                    "mean_rank": rankdata(error, axis=0).mean(axis=1),
                    "n_drugs": int(has.sum()),
                    "n_methods": len(names),
                    **tests,
                }
            )[list(RANKS)]
        )
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(RANKS))


def friedman(error: Floats) -> dict[str, float]:
    """Tests of (methods, blocks) errors: statistic, p, p_iman_davenport, critical_difference."""
    k, blocks = error.shape
    q = float(studentized_range.ppf(1 - ALPHA, k, np.inf))
    found = {"critical_difference": q / np.sqrt(2) * np.sqrt(k * (k + 1) / (6 * blocks))}
    if k < 3 or not np.ptp(error, axis=0).any():
        return {"statistic": np.nan, "p": np.nan, "p_iman_davenport": np.nan, **found}
    statistic, p = (float(value) for value in friedmanchisquare(*error))
    room = blocks * (k - 1) - statistic
    ratio = (blocks - 1) * statistic / room if room > 0 else np.inf
    davenport = float(f.sf(ratio, k - 1, (k - 1) * (blocks - 1)))
    return {"statistic": statistic, "p": p, "p_iman_davenport": davenport, **found}
