"""What the answer rests on: an experiment's tables, as tables for people."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hedflow.figures.style import short, shown
from hedflow.report.numbers import SURE, against, clear, incomplete, marked

SHOWN_DRUGS = 10
ESTIMATES = ("plates", "repeats", "other sources")
NO_INTERVAL = "no interval"


def interval(row: Any, name: str, digits: int = 4) -> str:
    """`0.1234 [0.1200, 0.1300]`; a dash where there is no number."""
    if pd.isna(row[name]):
        return "-"
    bounds = (row[f"{name}_lower"], row[f"{name}_upper"])
    return f"{row[name]:.{digits}f} {_brackets(*bounds, f'.{digits}f')}"


def _brackets(lower: float, upper: float, form: str) -> str:
    """`[0.12, 0.34]` in one piece: a line may end before it, not in it."""
    return f"[{NO_INTERVAL}]" if pd.isna(lower) else f"[{lower:{form}},\u00a0{upper:{form}}]"


def methods(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Every method's errors, the lowest on potent pairs first; those that lack predictions last, with a star."""
    partial = incomplete(tables)
    table = tables["methods"].query("source == 'all'").assign(partial=lambda t: t["method"].isin(partial))
    rows = table.sort_values(["partial", "mae_low", "mae"]).to_dict("records")
    titles = {"mae_low": "MAE, AUC < 0.5", "mae_rest": "MAE, the rest", "mae": "MAE"}
    return pd.DataFrame(
        {
            "method": [f"{marked(row['method'], partial)}{' (naive)' if row['naive'] else ''}" for row in rows],
            **{title: [interval(row, name) for row in rows] for name, title in titles.items()},
            "bias": ["-" if pd.isna(row["bias"]) else f"{row['bias']:+.3f}" for row in rows],
            "R²": [interval(row, "r2", 3) for row in rows],
            "R² over naive": [interval(row, "r2_normalised", 3) for row in rows],
        }
    )


def changes(tables: dict[str, pd.DataFrame], reference: str) -> pd.DataFrame:
    """What each method changes against the reference, on potent pairs and on the rest, and against a mere shift."""
    low = against(tables, reference, "mae_low")
    rest = against(tables, reference, "mae_rest")
    order = [*low["method"], *rest.loc[~rest["method"].isin(low["method"]), "method"]]
    partial = incomplete(tables)
    return pd.DataFrame(
        {
            "method": [marked(name, partial) for name in order],
            "potent pairs": [_change(low, name) for name in order],
            "the rest": [_change(rest, name) for name in order],
            "potent pairs, against naive less a constant": [_shifted(tables, name) for name in order],
        }
    )


def _change(table: pd.DataFrame, method: str) -> str:
    rows = table[table["method"] == method]
    if rows.empty:
        return "-"
    row = rows.iloc[0]
    word = ("better" if row["difference"] < 0 else "worse") if clear(row) else "unclear"
    p = "" if pd.isna(row["p_holm"]) else f", p\u00a0{row['p_holm']:.2g}"
    relative = "" if pd.isna(row["relative"]) else f" ({row['relative']:+.0%})"
    return f"{word}: {row['difference']:+.3f}{relative} {_brackets(row['lower'], row['upper'], '+.3f')}{p}"


def _shifted(tables: dict[str, pd.DataFrame], method: str) -> str:
    """A method against the lowered baseline that costs as much on the rest; a dash where there is none."""
    found, curve = tables["equal_cost"], tables["shift_curve"]
    found = found[found["method"] == method]
    if found.empty:
        own = tables["methods"].query("source == 'all' and coverage == 1").set_index("method")["mae_rest"]
        cheap = len(curve) and own.get(method, np.nan) <= curve["mae_rest"].min()
        return "costs no more than naive" if cheap else "-"
    row = found.iloc[0]
    word = "better" if row["upper"] < 0 else "worse" if row["lower"] > 0 else "not told apart"
    return f"{word}: {row['difference']:+.3f} {_brackets(row['lower'], row['upper'], '+.3f')}"


def missing(methods: pd.DataFrame, reference: str) -> list[str]:
    """What is to be known of methods whose runs failed; the first sentences go with the stars.

    Args:
        methods: the table.
    """
    lines = []
    for name, share in incomplete({"methods": methods}).items():
        if share:
            lines.append(
                f"* {shown(name)}: of only {share:.0%} of the test rows, since runs of it failed. Its errors are of "
                "other rows than the others', so it is not called the best; its differences are of the rows that both "
                "predict."
            )
        else:
            who = f"{shown(name)}, the reference," if name == reference else shown(name)
            lines.append(f"No run of {who} made a prediction.")
    return sorted(lines, key=lambda line: not line.startswith("*"))


def naive_sentence(tables: dict[str, pd.DataFrame]) -> str:
    """By squared error another baseline may be the strongest: AUC is skewed, medians win the one, means the other."""
    squared = shown(str(tables["comparison"]["strongest_squared"].iloc[0]))
    whole = tables["methods"].query("source == 'all' and not naive and coverage == 1")
    models = whole.set_index("method")["r2_normalised"]
    if not models.notna().any():
        return f"By squared error the strongest naive baseline is the {squared}."
    return (
        f"By squared error the strongest naive baseline is the {squared}; the best model, {models.idxmax()}, has an R² "
        f"over it of {models.max():+.3f} (above 0: better than it)."
    )


def rankings(tables: dict[str, pd.DataFrame], reference: str, k: int) -> pd.DataFrame:
    """Recall of a line's best drugs by source: the reference, the best method, chance, and who ranks better."""
    table, differences = tables["ranking"].query("metric == 'recall'"), tables["ranking_differences"]
    better = differences[(differences["low"] > 0) & (differences["p_holm"] < SURE)]
    rows = []
    for source, found in table.groupby("source"):
        own = found[found["method"] == reference].iloc[0]
        best = found.sort_values("estimate").iloc[-1]
        row = {
            "source": str(source),
            "lines / drugs": f"{int(own['n_cells'])} / {int(own['n_drugs'])}",
            f"recall@{k}, {reference}": f"{own['estimate']:.1%} {_brackets(own['low'], own['high'], '.1%')}",
            "best": f"{best['estimate']:.1%} ({shown(str(best['method']))})",
            "by chance": f"{own['random']:.1%}",
        }
        for metric, title in (("recall", f"better than {reference} by recall"), ("ndcg", "by NDCG")):
            names = better.loc[(better["source"] == source) & (better["metric"] == metric), "method"]
            row[title] = ", ".join(shown(str(name)) for name in names) or "none"
        rows.append(row)
    return pd.DataFrame(rows)


def floors(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The best model and the best naive baseline of each source beside what the measurement's noise allows."""
    rows = []
    for source, table in tables["methods"].groupby("source", sort=False):
        own = tables["floors"].query("source == @source", local_dict={"source": source}).set_index("estimate")
        row = {"source": str(source)}
        for kind, naive in (("model", False), ("naive", True)):
            part = table[(table["naive"] == naive) & (table["coverage"] == 1)].sort_values("mae")
            least = part.to_dict("records")[0] if len(part) else None
            row[f"MAE, best {kind}"] = f"{least['mae']:.3f} ({shown(str(least['method']))})" if least else "-"
        best = table.loc[~table["naive"] & (table["coverage"] == 1), "r2"].max()
        row["R², best model"] = "-" if pd.isna(best) else f"{best:.3f}"
        for estimate in ESTIMATES:
            row[f"floor by {estimate}"] = _floor(own.loc[estimate]) if estimate in own.index else "none"
        rows.append(row)
    return pd.DataFrame(rows)


def _floor(row: Any) -> str:
    said = f"MAE {row['best_mae']:.3f}, R² {row['best_r2']:.2f}"
    if pd.isna(row["second_mae_low"]):
        return said
    return f"{said}; again: {row['second_mae_low']:.3f} / {row['second_mae_rest']:.3f}"


def trained(tables: dict[str, pd.DataFrame]) -> list[str]:
    """How long each method's kept weights were trained, and the runs that did not converge."""
    runs, classes = tables["runs"], tables["convergence"]
    kept = (runs["best_epoch"].dropna() + 1).astype(int).groupby(runs["method"], sort=False)
    said = [f"{name} {epochs.min()} to {epochs.max()}" for name, epochs in kept]
    lines = [f"Epochs behind the kept weights, over the runs: {'; '.join(said)}."] if said else []
    odd = classes[~classes["class"].isin(["converged", "not iterative"])]
    counts = odd.groupby("class", sort=False)["method"].value_counts(sort=False).reset_index()
    words = [f"{row['class']} {row['count']} of {row['method']}" for row in counts.to_dict("records")]
    iterative = (classes["class"] != "not iterative").sum()
    without = f"; {_runs(len(classes) - iterative)} no epochs" if iterative < len(classes) else ""
    if words:
        lines.append(f"Runs that did not converge: {'; '.join(words)} (of {iterative} runs{without}).")
    elif iterative:
        lines.append(f"All {iterative} runs with epochs converged{without}.")
    else:
        lines.append("The runs have no epochs.")
    lines += _seeds(runs)
    failed = runs[runs["status"] == "failed"]
    lines += [f"Failed, without predictions: {run.run} ({run.reason})." for run in failed.itertuples()]
    return lines


def _runs(count: int) -> str:
    return "1 run has" if count == 1 else f"{count} runs have"


def _seeds(runs: pd.DataFrame) -> list[str]:
    """Of how many seeds a prediction is the mean, where they are several."""
    seeds = runs.groupby(["method", "split"], sort=False)["seed"].nunique().groupby("method", sort=False).max()
    several = [f"{n} seeds ({', '.join(names)})" for n, names in seeds[seeds > 1].groupby(seeds).groups.items()]
    if not several:
        return []
    said = f"A prediction is the mean prediction of {' or '.join(several)}: an ensemble's, not one run's."
    trained = seeds[seeds.index.isin(runs.loc[runs["best_epoch"].notna(), "method"])]
    if trained.min() < trained.max():
        said += " A mean of more seeds errs less for that alone: methods with other numbers of seeds do not compare."
    return [said]


def drugs(table: pd.DataFrame) -> pd.DataFrame:
    """The worst high error drugs."""
    worst = table.head(SHOWN_DRUGS).to_dict("records")
    return pd.DataFrame(
        {
            "drug": [short(str(row["drug_name"])) for row in worst],
            "mechanism": [short(str(row.get("mechanism", "unknown")), 24) for row in worst],
            "MAE": [f"{row['mae']:.3f}" for row in worst],
            "z": [f"{row['mae_z']:.1f}" for row in worst],
            "bias": [f"{row['bias']:+.3f}" for row in worst],
            "pairs": [f"{row['n']:,}" for row in worst],
            "AUC mean (SD)": [f"{row['auc_mean']:.2f} ({row['auc_sd']:.2f})" for row in worst],
            "AUC < 0.5": [f"{row['low_share']:.0%}" for row in worst],
            "nearest training drug": [f"{short(str(row['nearest']))} ({row['similarity']:.2f})" for row in worst],
        }
    )


def shown_line(lines: pd.DataFrame, k: int) -> pd.DataFrame:
    """The k predicted best drugs of one cell line under one method."""
    first = lines.sort_values("rank_pred").head(k).to_dict("records")
    return pd.DataFrame(
        {
            "place": [str(row["rank_pred"]) for row in first],
            "drug": [short(str(row["drug_name"])) for row in first],
            "predicted AUC": [f"{row['auc_pred']:.3f}" for row in first],
            "true AUC": [f"{row['auc']:.3f}" for row in first],
            "true place": [f"{row['rank_true']} of {row['n']}" for row in first],
            "": ["hit" if row["hit"] else "miss" for row in first],
        }
    )
