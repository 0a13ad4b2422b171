"""The page that the report opens with (reStructuredText), and its numbers: the answer first, then what it rests on."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hedflow import HedflowError
from hedflow.analysis import TABLES
from hedflow.analysis.second_step import chosen_drugs
from hedflow.figures.style import shown
from hedflow.files import atomic, read_json
from hedflow.improve import CELL
from hedflow.second_step_page import second_step_page

SHOWN_DRUGS = 10
METHODS = (
    "**Methods.** Mean absolute error (MAE) over test rows, 95 % intervals over drugs. Bias is prediction minus truth: "
    "a loss can gain on potent pairs by predicting everything lower, which changes no ranking."
)
ESTIMATES = ("plates", "repeats", "other sources")
NOISE = (
    "A floor is the error that a model would have that knew each pair's true AUC. By plates: the same source's curves "
    "of one pair on several plates. By repeats: pairs that the source lists more than once (in GDSC other screens, "
    "with other doses: more than noise; an R² below 0 is more than the source's whole spread). By other sources: what "
    "other laboratories confirm of it; rough with few sources, too low for GDSC, whose screens share a laboratory."
)


def make_answer(
    results: str | Path, experiments: Sequence[str], left_out: Sequence[str] = ()
) -> tuple[str, dict[str, Any]]:
    """The opening page and its numbers, from the tables below `results`.

    Args:
        left_out: structure tables that could not be had with this configuration.
    """
    results = Path(results)
    pages, numbers = ["What makes the ranking of potent drugs better?", "=" * 46, ""], {}
    for name in experiments:
        page, found = _experiment(results / name, name, pd.read_parquet(results / "integration" / "noise.parquet"))
        pages += page
        numbers[name] = found
    return "\n".join([*pages, *_data(results, left_out)]) + "\n", numbers


def _experiment(folder: Path, name: str, noise: pd.DataFrame) -> tuple[list[str], dict[str, Any]]:
    tables = {table: pd.read_parquet(folder / "tables" / f"{table}.parquet") for table in TABLES}
    numbers = _numbers(tables)
    lines = [f"Experiment {name}", "-" * (11 + len(name)), ""]
    if chosen_drugs(pd.read_parquet(folder / "plan.parquet", columns=["spec"])):
        page, numbers["second_step"] = second_step_page(folder, _table)
        lines += page
    lines += [sentence + "\n" for sentence in _sentences(tables, numbers)]
    lines += _unused(read_json(folder / "audit.json"))
    lines += _image(folder / "figures" / "tradeoff.png")
    lines += ["", METHODS, ""]
    lines += _table(_methods(tables))
    lines += [_kept_epochs(tables["runs"]), ""]
    lines += ["", "**How much of the error is the measurement's own?** By source:", ""]
    lines += _table(_floors(tables["methods"], noise))
    lines += [NOISE, ""]
    lines += ["", f"**High error drugs** of {numbers['reference']}, the worst {SHOWN_DRUGS}:", ""]
    lines += _table(_drugs(tables["high_error_drugs"])) if len(tables["high_error_drugs"]) else ["None.", ""]
    return lines, numbers


def _unused(audits: list[dict[str, Any]]) -> list[str]:
    """How many rows the parts of a split leave out, and why; nothing where they leave none out."""
    left = [record for record in audits if record["unused"]]
    if not left:
        return []
    fewest, most = (pick(record["unused"] for record in left) for pick in (min, max))
    count = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    return [f"Used nowhere, by part of the split: {count} rows ({left[0]['unused_because']}).", ""]


def _numbers(tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """The figures an experiment is remembered by, as plain JSON; None where there are none."""
    comparison = tables["comparison"].iloc[0]
    reference, strongest = str(comparison["reference"]), str(comparison["strongest"])
    overall = tables["methods"].query("source == 'all'").set_index("method")
    contrasts = tables["contrasts"]
    against = contrasts[contrasts["against"] == reference]
    low = against[against["part"] == "mae_low"]
    low = low.dropna(subset="difference")  # without a potent pair there is nothing to say of them
    best = str(low.set_index("method")["difference"].idxmin()) if len(low) else None

    def contrast(method: str | None, part: str, other: str) -> dict[str, Any] | None:
        rows = contrasts.query("method == @method and part == @part and against == @other")
        if rows.empty:
            return None
        row = rows.iloc[0]
        return {key: _plain(row[key]) for key in ("difference", "lower", "upper", "relative", "n", "n_drugs")}

    models = overall[~overall["naive"]]
    closest = str(models["mae"].idxmin())
    return {
        "split": str(comparison["split_kind"]),
        "runs": len(tables["runs"]),
        "rows": int(overall["n"][reference]),
        "drugs": int(overall["n_drugs"][reference]),
        "reference": reference,
        "reference_mae_low": _plain(overall.loc[reference, "mae_low"]),
        "best_low": best,
        "low": contrast(best, "mae_low", reference),
        "rest": contrast(best, "mae_rest", reference),
        "strongest_naive": strongest,
        "strongest_naive_mae": _plain(overall.loc[strongest, "mae"]),
        "best_overall": closest,
        "best_overall_mae": _plain(overall.loc[closest, "mae"]),
        "against_naive": contrast(closest, "mae", strongest),
        "r2_normalised": _plain(overall.loc[closest, "r2_normalised"]),
        "high_error_drugs": len(tables["high_error_drugs"]),
    }


def _plain(value: Any) -> float | int | None:
    if pd.isna(value):
        return None
    return int(value) if float(value).is_integer() and abs(value) >= 1 else round(float(value), 6)


def _sentences(tables: dict[str, pd.DataFrame], numbers: dict[str, Any]) -> list[str]:
    """The answer: which losses help on potent pairs, by how much, what it costs, and whether naive is beaten."""
    reference = numbers["reference"]
    contrasts = tables["contrasts"].query("against == @reference", local_dict={"reference": reference})
    said = []
    if len(contrasts):
        low = contrasts[(contrasts["part"] == "mae_low") & (contrasts["n"] > 0)].sort_values("difference")
        helps, harms = low[low["upper"] < 0], low[low["lower"] > 0]
        said.append(
            f"**Which losses help on potent pairs (true AUC < 0.5)?** {_named(helps['method']) or 'None'} "
            f"{'have' if len(helps) > 1 else 'has'} a lower error there than {reference} by an interval that "
            f"excludes 0" + (f"; {_named(harms['method'])} a higher one." if len(harms) else ".")
        )
        rest = contrasts[contrasts["part"] == "mae_rest"].set_index("method")
        for row in low.to_dict("records"):
            said.append(
                f"* {row['method']}: potent pairs {_change(row)} on {row['n']:,} rows of {row['n_drugs']} drugs; "
                f"the rest {_change(rest.loc[row['method']])}."
            )
        if low.empty:
            said.append("No pair with a true AUC below 0.5 was tested.")
    said += _shift_sentences(tables["equal_cost"])
    said.append(_naive_sentence(tables, numbers))
    said += _ranking_sentence(tables, reference, int(tables["comparison"]["top_k"].iloc[0]))
    return said


def _shift_sentences(equal_cost: pd.DataFrame) -> list[str]:
    """Whether a method's gain on potent pairs is more than what lowering every prediction buys."""
    if equal_cost.empty:
        return []
    said = ["**Is that more than predicting everything lower?** On potent pairs, at the same error on the rest:"]
    for row in equal_cost.to_dict("records"):
        verdict = "better" if row["upper"] < 0 else "worse" if row["lower"] > 0 else "no different"
        said.append(
            f"* {row['method']} is {verdict} than the naive {shown(row['naive'])} less {row['shift']:.3f}: "
            f"{row['difference']:+.4f} [{row['lower']:+.4f} to {row['upper']:+.4f}]."
        )
    return said


def _named(names: pd.Series[str]) -> str:
    return ", ".join(shown(str(name)) for name in names)


def _change(row: Any) -> str:
    interval = "no interval: one drug" if pd.isna(row["lower"]) else f"{row['lower']:+.4f} to {row['upper']:+.4f}"
    return f"{row['difference']:+.4f} [{interval}], {row['relative']:+.0%}"


def _naive_sentence(tables: dict[str, pd.DataFrame], numbers: dict[str, Any]) -> str:
    naive = numbers["strongest_naive"]
    contrasts = tables["contrasts"].query("against == @naive and part == 'mae'", local_dict={"naive": naive})
    beats = contrasts[contrasts["upper"] < 0]["method"]
    loses = contrasts[contrasts["lower"] > 0]["method"]
    said = f"**Does any model beat the naive ones?** By absolute error the strongest is the {shown(naive)}"
    said += f" (MAE {numbers['strongest_naive_mae']:.4f}). "
    said += f"{_named(beats)} beat{'s' if len(beats) == 1 else ''} it" if len(beats) else "No model beats it"
    said += " by an interval that excludes 0"
    said += f"; {_named(loses)} {'is' if len(loses) == 1 else 'are'} worse than it" if len(loses) else ""
    best = contrasts.query("method == @m", local_dict={"m": numbers["best_overall"]}).iloc[0]
    said += f". The closest, {numbers['best_overall']}: {_change(best)}. "
    # AUC is skewed: predicting medians lowers the absolute error, predicting means the squared one, for nothing.
    squared = shown(str(tables["comparison"]["strongest_squared"].iloc[0]))
    models = tables["methods"].query("source == 'all' and not naive").set_index("method")["r2_normalised"]
    return said + (
        f"By squared error the strongest is the {squared}, and the best model {models.idxmax()} has an R² over it of "
        f"{models.max():+.3f} (above 0: better than it)."
    )


def _ranking_sentence(tables: dict[str, pd.DataFrame], reference: str, k: int) -> list[str]:
    table = tables["ranking"].query("metric == 'recall'")
    if table.empty:
        return ["**Ranking.** No source has cell lines with enough tested drugs to rank."]
    parts = []
    for source, rows in table.groupby("source"):
        best = rows.sort_values("estimate").iloc[-1]
        own = rows[rows["method"] == reference].iloc[0]
        parts.append(
            f"{source}: {reference} {own['estimate']:.1%} [{own['low']:.1%}, {own['high']:.1%}], "
            f"best {shown(str(best['method']))} {best['estimate']:.1%}, random {own['random']:.1%} "
            f"({int(own['n_cells'])} lines, {int(own['n_drugs'])} drugs)"
        )
    lead = f"**Ranking.** Share of a line's {k} truly best drugs among the {k} predicted best (recall\\@{k}): "
    return [lead + "; ".join(parts) + ".", _ranks_better(tables["ranking_differences"], reference, k)]


def _ranks_better(differences: pd.DataFrame, reference: str, k: int) -> str:
    """Whether any method ranks better than the reference: a lower error on potent pairs alone does not say so."""
    said = []
    for metric, shown_as in (("recall", f"recall\\@{k}"), ("ndcg", f"NDCG\\@{k}")):
        rows = differences[(differences["metric"] == metric) & (differences["low"] > 0)]
        found = [f"{shown(str(m))} ({s})" for m, s in zip(rows["method"], rows["source"], strict=True)]
        said.append(f"{', '.join(found) or 'no method'} by {shown_as}")
    return (
        f"A line's drugs are ranked better than by {reference}, by an interval that excludes 0, with {'; '.join(said)}."
    )


def _methods(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    rows = tables["methods"].query("source == 'all'").sort_values("mae_low")

    def spread(name: str) -> list[str]:
        return [
            f"{row[name]:.4f} [{row[f'{name}_lower']:.4f}, {row[f'{name}_upper']:.4f}]" for _, row in rows.iterrows()
        ]

    return pd.DataFrame(
        {
            "method": [
                f"{shown(row['method'])}{' (naive)' if row['naive'] else ''}" for row in rows.to_dict("records")
            ],
            "MAE, AUC < 0.5": spread("mae_low"),
            "MAE, the rest": spread("mae_rest"),
            "MAE": spread("mae"),
            "bias": [f"{value:+.3f}" for value in rows["bias"]],
            "R²": [f"{value:.3f}" for value in rows["r2"]],
            "R² over naive": [f"{value:+.3f}" for value in rows["r2_normalised"]],
        }
    )


def _floors(methods: pd.DataFrame, noise: pd.DataFrame) -> pd.DataFrame:
    """The best model and the best naive baseline of each source beside what the measurement's noise allows."""
    rows = []
    for source, table in methods[methods["source"] != "all"].groupby("source", sort=False):
        own = noise[noise["source"] == source].set_index("estimate")
        row = {"source": str(source)}
        for kind, naive in (("model", False), ("naive", True)):
            part = table[table["naive"] == naive]
            least, highest = part.sort_values("mae").iloc[0], part.sort_values("r2").iloc[-1]
            row[f"MAE, best {kind}"] = f"{least['mae']:.4f} ({shown(str(least['method']))})"
            row[f"R², best {kind}"] = f"{highest['r2']:.3f} ({shown(str(highest['method']))})"
        for estimate in ESTIMATES:
            found = estimate in own.index
            row[f"floor by {estimate}"] = (
                f"MAE {own['best_mae'][estimate]:.3f}, R² {own['best_r2'][estimate]:.2f}" if found else "none"
            )
        rows.append(row)
    return pd.DataFrame(rows)


def _kept_epochs(runs: pd.DataFrame) -> str:
    """How long each method's kept weights were trained: a hardly trained loss is not compared for what it is."""
    runs = runs[runs["epochs"] > 0]  # only networks have some
    if runs.empty:
        return ""
    kept = (runs["best_epoch"] + 1).groupby(runs["method"], sort=False)
    said = [f"{name} {epochs.min()} to {epochs.max()}" for name, epochs in kept]
    return f"Epochs behind the kept weights, over the runs: {'; '.join(said)}."


def _drugs(table: pd.DataFrame) -> pd.DataFrame:
    worst = table.head(SHOWN_DRUGS)
    return pd.DataFrame(
        {
            "drug": worst["drug_name"],
            "MAE": worst["mae"].map("{:.3f}".format),
            "z": worst["mae_z"].map("{:.1f}".format),
            "bias": worst["bias"].map("{:+.3f}".format),
            "rows": worst["n"].astype(str),
            "AUC mean (SD)": [f"{row.auc_mean:.2f} ({row.auc_sd:.2f})" for row in worst.itertuples()],
            "AUC < 0.5": worst["low_share"].map("{:.0%}".format),
            "nearest training drug": [f"{row.nearest} ({row.similarity:.2f})" for row in worst.itertuples()],
        }
    )


def _table(table: pd.DataFrame) -> list[str]:
    """A reStructuredText list table."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in [list(table.columns), *table.to_numpy().tolist()]:
        lines += [f"   {'*' if i == 0 else ' '} - {_escaped(str(cell))}" for i, cell in enumerate(row)]
    return [*lines, ""]


def _escaped(text: str) -> str:
    """Text that reStructuredText and Jinja, which renders the page, leave as it is."""
    for sign in "\\*`|_":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("{", "(").replace("}", ")")


def _image(path: Path) -> list[str]:
    # docutils refuses lines over 10,000 characters; browsers pass over line ends in an address.
    encoded = textwrap.wrap(base64.b64encode(path.read_bytes()).decode(), 5_000)
    opening = f'<img alt="{path.stem}" style="max-width:46rem" src="data:image/png;base64,'
    return [".. raw:: html", "", *(f"   {line}" for line in (opening, *encoded, '">')), ""]


def _data(results: Path, left_out: Sequence[str]) -> list[str]:
    manifest = read_json(results / "bundle" / "manifest.json")
    losses = pd.read_parquet(results / "integration_report.parquet")
    cells = pd.read_parquet(results / "integration" / "cell_identity.parquet")
    ids = pd.read_parquet(results / "integration" / "drug_identity.parquet", columns=["drug_id"])["drug_id"]
    kept = "connectivity and stereochemistry" if ids.dropna().str.contains("-").any() else "connectivity"
    start = losses.groupby("source", sort=False)["rows_before"].max()
    sources = "; ".join(f"{s} {n:,} of {start[s]:,}" for s, n in manifest["sources"].items())
    by_name = (cells["route"] == "name").any()
    by_csa = (cells["route"] == CELL).all()
    identity = (
        "Cell lines are matched by exact name in capitals without punctuation, since the wheel-only edition has no "
        f"annotation tables; {int((cells['route'] == 'ambiguous name').sum())} names that then collapse are left out"
        if by_name
        else "Cell lines and drugs are those of a folder in the layout of IMPROVE's csa data, by its own ids"
        if by_csa
        else "Cell lines are DepMap models, found by CCLE name, COSMIC id, Cellosaurus accession or normalised name"
    )
    return [
        "The data",
        "--------",
        "",
        f"{manifest['rows']:,} rows (one a cell line, drug and source) of {manifest['cells']} cell lines and "
        f"{manifest['drugs']} drugs: {sources}. {identity}. A drug is its parent structure ({kept}). "
        f"Features: {_views(manifest['views'])}. Bundle {manifest['digest']}.",
        "",
        _clipped(results),
        "",
        *([] if by_csa else [_fitted(results), ""]),
        *(
            [f"Not to be had without a mirror, so drugs they name may be missing: {', '.join(left_out)}.", ""]
            if left_out
            else []
        ),
        "AUC is as the csa folder gives it, low = potent: in IMPROVE's data the area under the fitted curve over 4 to "
        "10 of -log10 M, divided by 6, the same for every study."
        if by_csa
        else "AUC is each provider's own on a scale of 0 to 1, low = potent; dose ranges differ between sources, so a "
        "row of one is not comparable with a row of another to the last digit.",
        "",
    ]


def pack_report(config: dict[str, Any], out: str | Path, target: str, stylesheet: str | Path) -> None:
    """Have Snakemake pack the results that `target` asks for into one self-contained page.

    It is a run of Snakemake inside a run: it reads metadata and writes the page, so it needs no lock. It gets
    the outer run's configuration as a file, whatever that was put together from.
    """
    with tempfile.TemporaryDirectory() as folder, atomic(out) as page:
        configuration = Path(folder) / "config.json"
        configuration.write_text(json.dumps(config))
        command = [sys.executable, "-m", "snakemake", target, "--nolock", "--cores", "1"]
        command += ["--configfile", str(configuration), "--report", str(page)]
        command += ["--report-stylesheet", str(stylesheet)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        print(done.stdout)
        if done.returncode != 0:
            last = done.stdout.strip().splitlines()[-1:] or ["no message"]
            raise HedflowError(f"snakemake --report failed: {last[0]}")


def _fitted(results: Path) -> str:
    """Which sources' AUC are of curves that were fitted here."""
    curves = pd.read_parquet(results / "integration" / "curves.parquet", columns=["source", "status", "used"])
    if curves.empty:
        return "No dose points were at hand: every AUC is the provider's."
    curves["converged"] = curves["status"] == "converged"
    counts = curves.astype({"used": bool}).groupby("source", sort=False)[["converged", "used"]].agg(["size", "sum"])
    said = [
        f"{source!s} {row['used', 'size']:,} ({row['converged', 'sum']:,} converged, {row['used', 'sum']:,} used)"
        for source, row in counts.iterrows()
    ]
    return (
        f"Hill curves fitted to dose points: {'; '.join(said)}. CCLE's AUC is over the fixed range 1e-10 to 1e-4 "
        "M; the others' over the tested doses, as their providers'. All other AUCs are the provider's."
    )


def _views(views: dict[str, dict[str, Any]]) -> str:
    """Each view with its number of columns, and how many cell lines have none of it."""
    said = []
    for name, view in views.items():
        imputed = view.get("cells_imputed")
        lacking = f" (training means for {imputed} cell lines without them)" if imputed else ""
        said.append(f"{name} {len(view['columns']):,}{lacking}")
    return ", ".join(said)


def _clipped(results: Path) -> str:
    response = pd.read_parquet(
        results / "integration" / "response.parquet", columns=["source", "clipped", "replicates"]
    )
    sums = response.groupby("source", sort=False)[["clipped", "replicates"]].sum()
    said = [
        f"{name} {row.clipped:,} ({row.clipped / row.replicates:.1%})" for name, row in sums.iterrows() if row.clipped
    ]
    return f"Measurements with an AUC above 1, set to 1: {', '.join(said) or 'none'}."


def headline(results: str | Path) -> str:
    """What `make run` ends with: where the report is, and the three numbers that matter most."""
    results = Path(results)
    lines = [f"The report: {results / 'report.html'}"]
    if not (results / "report" / "answer.json").is_file():
        raise HedflowError(f"{results / 'report' / 'answer.json'}: no such file; run `snakemake` first.")
    for name, found in read_json(results / "report" / "answer.json").items():
        size = f"{found['runs']} runs, {found['rows']:,} test rows, {found['drugs']} drugs"
        lines.append(f"{name} ({found['split']}, {size}):")
        reference, best = found["reference"], found["best_low"]
        if found["low"]:
            lines.append(f"  1. error on potent pairs (AUC < 0.5), {best} against {reference}: {_said(found['low'])}")
            lines.append(f"  2. its cost on the rest: {_said(found['rest'])}")
        else:
            lines.append(f"  1. error on potent pairs (AUC < 0.5), {reference}: {found['reference_mae_low']}")
            lines.append(f"  2. high error drugs: {found['high_error_drugs']} of {found['drugs']}")
        against = f"{found['best_overall']} against the strongest naive baseline ({found['strongest_naive']})"
        lines.append(f"  3. {against}: {_said(found['against_naive'])}")
    return "\n".join(lines)


def _said(contrast: dict[str, Any]) -> str:
    interval = "no interval" if contrast["lower"] is None else f"{contrast['lower']:+.4f} to {contrast['upper']:+.4f}"
    return f"MAE {contrast['difference']:+.4f} [{interval}] ({contrast['relative']:+.0%})"
