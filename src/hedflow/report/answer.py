"""The page that the report opens with (reStructuredText), and its numbers: the answer first, then what it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hedflow.analysis import TABLES
from hedflow.analysis.second_step import is_second_step
from hedflow.files import read_json
from hedflow.report import details
from hedflow.report.data import data_section
from hedflow.report.numbers import SURE, experiment_numbers
from hedflow.report.page import escaped, frame, image, list_table, raw_html
from hedflow.report.published import beside_ours, difference, read_published
from hedflow.report.second_step import second_step_page
from hedflow.report.summary import CERTAIN, CHOSEN, paragraph

TITLE = "What makes the ranking of potent drugs better?"
# Tables of which the page needs a few rows or none: they are large.
UNREAD = ("scores", "candidates", "cells", "cell_ranking", "pairs", "concentration")
# The lines whose candidates are on the page, by why they are shown; the others have a figure.
IN_TEXT = {"asked for": "A cell line that was asked for", "median": "A cell line in the middle"}
METHODS = (
    "**Methods.** Mean absolute error (MAE) over test rows, 95 % intervals over drugs. Bias is prediction minus truth: "
    "a loss can gain on potent pairs by predicting everything lower, which changes no ranking. Naive baselines learn "
    "from the training and the validation rows together."
)
CHANGES = (
    "Negative is better; the rest is what a gain costs. Last column: potent pairs against the naive baseline lowered "
    "by a constant until it costs the same on the rest: what predicting everything lower buys without a model."
)
NOISE = (
    "A floor is the error that a model would have that knew each pair's true AUC. By plates: the same source's curves "
    "of one pair on several plates. By repeats: pairs that the source lists more than once (in GDSC other screens, "
    "with other doses: more than noise; an R² below 0 is more than the source's whole spread). By other sources: what "
    "other laboratories confirm of it; rough with few sources, too low for GDSC, whose screens share a laboratory. "
    "*Again*: how far a second measurement lies from the first, for potent pairs / the rest; of these two parts there "
    "is no honest floor, since the noise itself decides what is called potent, but it lies below that."
)


def make_answer(
    results: str | Path, experiments: Sequence[str], published: str | Path, left_out: Sequence[str] = ()
) -> tuple[str, dict[str, Any]]:
    """The opening page and its numbers, from the tables below `results`.

    Args:
        published: table of the published figures (resources/published_hed.csv).
        left_out: structure tables that could not be had with this configuration.
    """
    results = Path(results)
    pages, numbers = [TITLE, "=" * len(TITLE), ""], {}
    for name in experiments:
        page, numbers[name] = _experiment(results / name, name, read_published(published))
        pages += page
    return "\n".join([*pages, *data_section(results, left_out)]) + "\n", numbers


def _experiment(folder: Path, name: str, published: pd.DataFrame) -> tuple[list[str], dict[str, Any]]:
    wanted = [table for table in TABLES if table not in UNREAD]
    tables = {table: pd.read_parquet(folder / "tables" / f"{table}.parquet") for table in wanted}
    numbers = experiment_numbers(tables)
    title = f"Experiment {escaped(name)}"
    lines = [title, "-" * len(title), ""]
    if is_second_step(folder):
        second, numbers["second_step"] = second_step_page(folder)
        lines += second
    lines += [f"   {escaped(paragraph(tables, numbers))}", ""]
    lines += image(folder / "figures" / "tradeoff.png")
    lines += [f"`Every drug and every cell line, to click through <#explorer-{escaped(name)}>`__", ""]
    lines += _compared(tables, numbers)
    lines += _unused(read_json(folder / "audit.json"))
    lines += _ranked(tables, numbers["reference"])
    lines += ["**How much of the error is the measurement's own?**", "", *list_table(details.floors(tables)), NOISE, ""]
    lines += _published(published, tables, numbers)
    lines += _high_error(tables["high_error_drugs"], numbers["reference"])
    lines += raw_html([f'<h3 id="explorer-{name}">Every drug and every cell line</h3>'])
    lines += raw_html(frame((folder / "explorer.html").read_text(encoding="utf-8"), f"Explorer of {name}"))
    return lines, numbers


def _compared(tables: dict[str, pd.DataFrame], numbers: dict[str, Any]) -> list[str]:
    """Methods, and what they change against the reference."""
    lines = [METHODS, "", *list_table(details.methods(tables))]
    lines += [escaped(line) + "\n" for line in details.missing(tables["methods"], numbers["reference"])]
    lines += [escaped(details.naive_sentence(tables)), ""]
    changes = details.changes(tables, numbers["reference"])
    if len(changes) and numbers["split"] != CHOSEN:
        lines += [f"**Against {escaped(numbers['reference'])}.** {CERTAIN} {CHANGES}", "", *list_table(changes)]
    return [*lines, *(escaped(line) + "\n" for line in details.trained(tables))]


def _unused(audits: list[dict[str, Any]]) -> list[str]:
    """How many rows the parts of a split leave out, and why; nothing where they leave none out."""
    left = [record for record in audits if record["unused"]]
    if not left:
        return []
    fewest, most = (pick(record["unused"] for record in left) for pick in (min, max))
    count = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    return [f"Used nowhere, by part of the split: {count} rows ({left[0]['unused_because']}).", ""]


def _ranked(tables: dict[str, pd.DataFrame], reference: str) -> list[str]:
    """Rankings by source, and candidates: of a line in the middle, and of those asked for (in the longest list)."""
    k = int(tables["comparison"]["top_k"].iloc[0])
    if tables["ranking"].empty:
        return ["**Ranking.** No source has cell lines with enough tested drugs to rank.", ""]
    rankings = details.rankings(tables, reference, k)
    if tables["comparison"]["split_kind"].iloc[0] == CHOSEN:
        rankings = rankings[[name for name in rankings if not str(name).startswith(("better", "by NDCG", "best"))]]
    lead = (
        f"Share of a line's {k} truly best drugs among the {k} predicted best, 95 % intervals over drugs. Better: the "
        f"interval of the difference to {reference} lies above 0, and its p after Holm, over all methods and sources, "
        f"below {SURE:g} (normal, with the spread of the resamples)."
    )
    lines = [f"**Ranking.** {escaped(lead)}", "", *list_table(rankings)]
    shown = tables["shown_lines"].query(
        "method == @reference and why in @text", local_dict={"reference": reference, "text": list(IN_TEXT)}
    )
    lists = shown.drop_duplicates(["why", "source", "cell"]).sort_values("n", ascending=False, kind="stable")
    for one in lists.drop_duplicates(["why", "cell"]).sort_index().to_dict("records"):
        line = f"{IN_TEXT[one['why']]}: {one['cell_name']} ({one['source']})"
        said = f"{line}, {reference}: the {k} predicted best of {one['n']} drugs."
        drugs = shown[(shown["source"] == one["source"]) & (shown["cell"] == one["cell"])]
        lines += [escaped(said), "", *list_table(details.shown_line(drugs, k))]
    return lines


def _published(published: pd.DataFrame, tables: dict[str, pd.DataFrame], numbers: dict[str, Any]) -> list[str]:
    """The published figures beside ours; nothing where no loss is shared."""
    both = beside_ours(published, tables)
    if both.empty:
        return []
    return [
        "**Beside the published figures.** MAE:",
        "",
        *list_table(both),
        escaped(difference(published, numbers)),
        "",
    ]


def _high_error(table: pd.DataFrame, reference: str) -> list[str]:
    count = f"{len(table)} of them, the worst {details.SHOWN_DRUGS}" if len(table) > details.SHOWN_DRUGS else "all"
    lines = [f"**High error drugs** of {escaped(reference)} ({count}):", ""]
    return lines + (list_table(details.drugs(table)) if len(table) else ["None.", ""])
