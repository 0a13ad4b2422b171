"""The second step of an experiment against its control and its first step: high error drugs and the others.

The drugs were chosen because they had high errors in the first step. Part of such an error is luck (the seed's), and
would be smaller on any second look: regression to the mean. So a method is compared with a *control*, trained in the
same way with the same new seeds, and its change since the first step is shown beside, never instead.

And part of it is the reference's own: the drugs are where *its* loss does worst, so a loss that is exactly as good on
the whole errs less on them, with any seed. A difference between losses on drugs that were chosen by one of them is no
evidence, and has no p. Its change since the first step is: (method - control) now less the same difference then, on the
same drugs. (The reference's luck with its first seed is still in the latter, and counts against the other methods.)
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hedflow.analysis.paired import sign_flip_p
from hedflow.config import Analysis
from hedflow.errors import LOW_AUC
from hedflow.files import write_parquet
from hedflow.high_error import read_drug_errors
from hedflow.intervals import DrugBootstrap, Interval, holm
from hedflow.models import find
from hedflow.plan import HOW
from hedflow.ranking import ranking_comparison
from hedflow.ranking_lists import in_common

HIGH, OTHERS, ALL = "high error", "others", "all"
PARTS = {"mae": None, "mae_low": True, "mae_rest": False}  # of which rows: all, AUC < 0.5, the rest
RANKING_BOOTSTRAP = 200


@dataclass(frozen=True)
class Step:
    """One step's plan, and its predictions: row, cell, drug, source, auc, auc_pred (float64), method, offset.

    offset: what a row's prediction is lowered by before lists are ranked, `ranked` of `analysis.tables.Experiment`.
    """

    plan: pd.DataFrame
    scores: pd.DataFrame
    reference: str

    @property
    def methods(self) -> list[str]:
        """Names of the methods, in the plan's order."""
        return [str(name) for name in dict.fromkeys(self.plan["method"])]

    def frame(self, method: str) -> pd.DataFrame:
        """Predictions of a method by row."""
        own = self.scores[self.scores["method"] == method]
        return pd.DataFrame(own.set_index("row"))


def read_step(folder: str | Path) -> Step:
    """A step from its experiment's folder: plan, tables, baselines."""
    folder = Path(folder)
    columns = ["row", "cell", "drug", "source", "auc", "auc_pred", "method"]
    scores = pd.read_parquet(folder / "tables" / "scores.parquet", columns=columns)
    naive = pd.read_parquet(folder / "baselines.parquet", columns=["row", "global_mean"])
    mean = naive.groupby("row")["global_mean"].mean().astype(np.float64)
    scores["offset"] = (mean - mean.mean()).reindex(scores["row"]).to_numpy()
    reference = pd.read_parquet(folder / "tables" / "comparison.parquet", columns=["reference"])["reference"].iloc[0]
    return Step(pd.read_parquet(folder / "plan.parquet"), scores.astype({"auc_pred": np.float64}), str(reference))


def controls(plan: pd.DataFrame) -> dict[str, str | None]:
    """What each method is compared with: the same with all rows counting alike, else its model's reference loss.

    The reference itself is compared with nothing.
    """
    methods = plan.drop_duplicates("method").set_index("method")
    found: dict[str, str | None] = {}
    for name, row in methods.iterrows():
        alike = methods[methods["factor"] == 1]
        if row["factor"] != 1:
            alike = alike[(alike["model"] == row["model"]) & (alike["loss"] == row["loss"])]
        else:
            own = alike[alike["reference"] & (alike["model"] == row["model"])]
            alike = own if len(own) else alike[alike["reference"]]
        control = str(alike.index[0]) if len(alike) else None
        found[str(name)] = None if control == name else control
    return found


def chosen_drugs(plan: pd.DataFrame) -> list[str]:
    """Ids of the high error drugs that a plan holds out or weighs."""
    for spec in map(json.loads, plan["spec"]):
        if spec["weights"] is not None:
            return list(spec["weights"]["drugs"])
        if spec["split"]["kind"] == "high_error":
            return list(spec["split"]["drugs"])
    return []


def is_second_step(folder: Path) -> bool:
    """Whether an experiment's folder holds a second step: its tables, and a plan that still is one."""
    has = (folder / "tables" / "second_step_about.parquet").is_file()
    return has and bool(chosen_drugs(pd.read_parquet(folder / "plan.parquet", columns=["spec"])))


def earlier_methods(plan: pd.DataFrame, first: Step) -> dict[str, str]:
    """The method of the first step that each one continues: its own name's, its control's, or else the reference."""
    control = controls(plan)
    found = {}
    for name in control:
        known = [other for other in (name, control[name]) if other in first.methods]
        found[name] = str(known[0]) if known else first.reference
    return found


def arm_of(plan: pd.DataFrame) -> str:
    """Which arm a plan is: move or weigh."""
    return "move" if (plan["split_kind"] == "high_error").all() else "weigh"


def about_table(second: Step, first: Step, name: str, high: set[int]) -> pd.DataFrame:
    """One row: first (the experiment `name`), arm (move or weigh), reference and first_reference (methods), drugs
    (number of high error drugs), runs, repeated (how many of them are runs of the first step over again, with the same
    seed of a model that has use for one; with those a control is none), differs (in words, what besides its seeds sets
    the control apart from the first step; empty where nothing does, and its change is chance).
    """
    again = second.plan[second.plan["digest"].isin(set(first.plan["digest"]))]
    repeated = sum(find(json.loads(spec)["model"]["kind"]).seeded for spec in again["spec"])
    row = {"first": name, "arm": arm_of(second.plan), "reference": second.reference, "first_reference": first.reference}
    counts = {"drugs": len(high), "runs": len(second.plan), "repeated": repeated}
    return pd.DataFrame([{**row, **counts, "differs": "; ".join(_differs(second, first, repeated))}])


def _differs(second: Step, first: Step, repeated: int) -> list[str]:
    """What besides the seeds sets the second step's control apart from the method that it continues."""
    earlier = earlier_methods(second.plan, first)[second.reference]
    now = second.plan[second.plan["method"] == second.reference]
    then = first.plan[first.plan["method"] == earlier]
    found = []
    if arm_of(second.plan) == "move":
        found.append("these drugs are all absent from training, and all other drugs are in it")
    elif set(now["split"]) != set(then["split"]) or _settings(now, "split") != _settings(then, "split"):
        found.append("it is tested on other parts of the split")
    if repeated:
        found.append(f"{repeated} runs repeat a seed of the first step")
    seeds = [plan.groupby("split")["seed"].nunique().max() for plan in (now, then)]
    if seeds[0] != seeds[1]:
        found.append(f"it is the mean of {seeds[0]} seed{'s' if seeds[0] > 1 else ''}, not of {seeds[1]}")
    if earlier != second.reference:
        found.append(f"it is another method than {earlier}")
    elif any(_settings(now, key) != _settings(then, key) for key in ("model", "training")):
        found.append("model or training have other settings")
    return found


def _settings(plan: pd.DataFrame, key: str) -> set[str]:
    """The distinct settings of a plan's runs by a key of their specs; how a run is trained fast does not count."""
    found = [json.loads(spec).get(key, {}) for spec in plan["spec"]]
    return {json.dumps({k: v for k, v in one.items() if k not in HOW}, sort_keys=True) for one in found}


def analyse_second_step(
    folder: str | Path, first_folder: str | Path, drugs: pd.DataFrame, settings: Analysis, out: str | Path
) -> None:
    """Write `SECOND_STEP_TABLES` of the experiment in `folder`, the second step of that in `first_folder`, to `out`.

    Args:
        drugs: the bundle's.
    """
    second, first = read_step(folder), read_step(first_folder)
    chosen = np.flatnonzero(drugs["drug_id"].isin(chosen_drugs(second.plan)))
    high = set(chosen.tolist())
    errors = read_drug_errors(Path(first_folder) / "tables")
    made = {
        "second_step": errors_table(second, first, high, settings),
        "second_step_drugs": drugs_table(second, first, high, drugs, errors),
        "second_step_ranking": ranking_table(second, first, high, settings),
        "second_step_about": about_table(second, first, Path(first_folder).name, high),
    }
    for name, table in made.items():
        write_parquet(Path(out) / f"{name}.parquet", table)


def errors_table(second: Step, first: Step, high: set[int], settings: Analysis) -> pd.DataFrame:
    """Errors of every method on the high error drugs, on the others, and on all; 95 % intervals over drugs.

    One row a (method, drugs, part): drugs (`high error`, `others`, `all`; a group without rows is left out), part
    (mae, mae_low: true AUC < 0.5, mae_rest), n, n_drugs; mae; control, difference (method - control, negative: errs
    less), p (sign flips over drugs, `analysis.paired`; none where the drugs were chosen by the control's loss, and the
    method has another), p_holm (over the methods of the group and part); earlier (the method of the first step),
    mae_first (its error on the same rows), change (second step - first, negative: errs less now); difference_first and
    difference_change: the first step's difference on the same rows, and the second's less that one (negative: the
    method gained more than the control; where the first step has both). mae, difference, change and difference_change
    with _lower and _upper.
    """
    control, earlier = controls(second.plan), earlier_methods(second.plan, first)
    some = second.frame(second.reference)
    size = {name: _error(second.frame(name)).reindex(some.index) for name in second.methods}
    before = {name: _error(first.frame(name)).reindex(some.index) for name in set(earlier.values())}
    low = (some["auc"] < LOW_AUC).to_numpy()
    rows: list[dict[str, Any]] = []
    sums: dict[str, list[np.ndarray]] = {}
    for group, among in _groups(some, high).items():
        boot = DrugBootstrap(some["drug"][among], n_boot=settings.bootstrap, seed=settings.seed)
        for name in second.methods:
            own, old = size[name][among], before[earlier[name]][among]
            for part, is_low in PARTS.items():
                mask = np.ones(len(own), bool) if is_low is None else low[among] == is_low
                found = boot.mean(own, mask)
                row = {"method": name, "drugs": group, "part": part, "n": found.n, "n_drugs": found.n_drugs}
                row |= _spread("mae", found)
                row["control"] = control[name]
                against = size.get(control[name] or "")
                other = np.full(len(own), np.nan) if against is None else against[among]
                row |= _spread("difference", boot.difference(own, other, mask))
                sums.setdefault(group, []).append(boot.drug_sums(own - other, mask)[0])
                row["earlier"] = earlier[name]
                row["mae_first"] = boot.mean(old, mask & np.isfinite(own)).estimate
                row |= _spread("change", boot.difference(own, old, mask))
                then = np.full(len(own), np.nan)
                if {name, control[name]} <= set(before):
                    then = (before[name] - before[str(control[name])])[among].to_numpy()
                row["difference_first"] = boot.mean(then, mask & np.isfinite(own - other)).estimate
                row |= _spread("difference_change", boot.difference(own - other, then, mask))
                rows.append(row)
    table = pd.DataFrame(rows)
    table["p"] = np.concatenate([sign_flip_p(np.array(own), settings.seed) for own in sums.values()])
    chosen = _against_another_loss(second.plan, table)
    if arm_of(second.plan) == "weigh":
        chosen &= table["drugs"] != ALL
    table.loc[(table["n_drugs"] < 2) | chosen, "p"] = np.nan
    table["p_holm"] = table.groupby(["drugs", "part"])["p"].transform(lambda p: holm(p.to_numpy()))
    return table


def _against_another_loss(plan: pd.DataFrame, table: pd.DataFrame) -> pd.Series[bool]:
    """Whether a row's method and its control differ in model or loss, and not only in how drugs weigh."""
    methods = plan.drop_duplicates("method").set_index("method")
    key = (methods["model"].astype(str) + " " + methods["loss"].astype(str)).to_dict()
    pairs = zip(table["method"], table["control"], strict=True)
    return pd.Series([key[m] != key.get(c, key[m]) for m, c in pairs], index=table.index, dtype=bool)


def drugs_table(second: Step, first: Step, high: set[int], drugs: pd.DataFrame, errors: pd.DataFrame) -> pd.DataFrame:
    """Every drug before and after, a row a (drug, method): what the figure shows.

    Columns: drug, drug_id, drug_name, high_error, n (rows), low_share (of them with true AUC < 0.5), method, control,
    mae, bias, mae_control, earlier, mae_first (of `earlier`, same rows), z_first (of the drug's error in the first
    step, by which it was chosen; NaN for a drug that the first step did not test).
    """
    control, earlier = controls(second.plan), earlier_methods(second.plan, first)
    by_drug = {name: _by_drug(second.frame(name)) for name in second.methods}
    rows = second.frame(second.reference).index
    before = {name: _by_drug(first.frame(name).reindex(rows).dropna(subset="auc")) for name in set(earlier.values())}
    z = errors.set_index("drug_id")["mae_z"]
    tables = []
    for name, table in by_drug.items():
        own = table.assign(method=name, control=control[name], earlier=earlier[name])
        against = by_drug.get(control[name] or "")
        own["mae_control"] = np.nan if against is None else against["mae"]
        own["mae_first"] = before[earlier[name]]["mae"]
        tables.append(own.rename_axis("drug").reset_index())
    joined = pd.concat(tables, ignore_index=True)
    index = joined["drug"].to_numpy(np.int64)
    joined.insert(1, "drug_id", drugs["drug_id"].to_numpy()[index])
    joined.insert(2, "drug_name", drugs["drug_name"].to_numpy()[index])
    joined.insert(3, "high_error", np.isin(index, list(high)))
    joined["z_first"] = z.reindex(joined["drug_id"]).to_numpy()
    return joined


def ranking_table(second: Step, first: Step, high: set[int], settings: Analysis) -> pd.DataFrame:
    """Ranking of the high error drugs among themselves, cell line by cell line: `ranking.ranking_comparison`.

    Columns: source, metric (recall, ndcg, spearman), method (`<reference>, first step` too), estimate, low, high,
    random, n_cells, n_drugs, difference, difference_low, difference_high (to the reference of the second step;
    positive: ranks better). A source whose lines have too few of these drugs to rank is left out.
    """
    before = f"{first.reference}, first step"
    frames = {name: second.frame(name) for name in second.methods} | {before: first.frame(first.reference)}
    keys = ["source", "metric", "method"]
    columns = ["estimate", "low", "high", "random", "n_cells", "n_drugs"]
    differences = {"difference": "difference", "low": "difference_low", "high": "difference_high"}
    ranked = {}
    for name, frame in frames.items():
        own = frame[frame["drug"].isin(high)]
        ranked[name] = own.assign(auc_pred=own["auc_pred"] - own["offset"]).reset_index()
    k = settings.top_k
    summary, gaps, _ = ranking_comparison(
        in_common(ranked, second.reference),
        second.reference,
        k=k,
        n_boot=min(RANKING_BOOTSTRAP, settings.bootstrap),
        seed=settings.seed,
        min_drugs=2 * k,
    )
    shown = summary["metric"].isin(["recall", "ndcg", "spearman"]) & (summary["n_cells"] > 0)
    gaps = gaps[[*keys, *differences]].rename(columns=differences)
    return summary.loc[shown, [*keys, *columns]].merge(gaps, on=keys, how="left").reset_index(drop=True)


def _error(frame: pd.DataFrame) -> pd.Series[float]:
    return (frame["auc_pred"] - frame["auc"].astype(np.float64)).abs()


def _by_drug(frame: pd.DataFrame) -> pd.DataFrame:
    """n, low_share, mae and bias of each drug."""
    error = frame["auc_pred"] - frame["auc"].astype(np.float64)
    rows = pd.DataFrame({"low": frame["auc"] < LOW_AUC, "mae": error.abs(), "bias": error})
    groups = rows.groupby(frame["drug"])
    return pd.DataFrame({"n": groups.size(), "low_share": groups["low"].mean(), **groups[["mae", "bias"]].mean()})


def _groups(frame: pd.DataFrame, high: set[int]) -> dict[str, np.ndarray]:
    """True where a row is of the group's drugs; groups that have rows."""
    is_high = frame["drug"].isin(high).to_numpy()
    if is_high.all():
        return {HIGH: is_high}
    groups = {HIGH: is_high, OTHERS: ~is_high, ALL: np.ones(len(frame), bool)}
    return {name: among for name, among in groups.items() if among.any()}


def _spread(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.estimate, f"{name}_lower": interval.low, f"{name}_upper": interval.high}
