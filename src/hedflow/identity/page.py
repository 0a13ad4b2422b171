"""The identity report as one self-contained page."""

from __future__ import annotations

import html
import re

import pandas as pd

from hedflow.identity.sections import Annotation, Section, cell_sections, drug_sections

SHORT = 16  # characters of a value that is not broken into lines, such as an id
OPEN_ROWS = 40  # longer tables are folded
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 78rem; margin: 1.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .3rem; border-top: 1px solid #ddd;
  padding-top: 1rem; }
p { max-width: 60rem; margin: .3rem 0 .7rem; }
table { border-collapse: collapse; font-size: .82rem; margin: .4rem 0; }
th, td { text-align: left; vertical-align: top; padding: .2rem .7rem .2rem 0; border-bottom: 1px solid #eee; }
th { border-bottom: 1px solid #888; white-space: nowrap; } td { overflow-wrap: anywhere; min-width: 3.5rem; }
td.short { white-space: nowrap; } td.number, th.number { text-align: right; } tbody tr:hover { background: #f4f7fb; }
nav a { display: inline-block; margin: 0 1.1rem .25rem 0; } a { color: #1f5c99; text-decoration: none; }
nav h3 { font-size: 1rem; margin: .8rem 0 .2rem; } summary { cursor: pointer; color: #1f5c99; }
.none { color: #777; font-style: italic; }
"""


def make_page(cells: pd.DataFrame, drugs: pd.DataFrame, known: Annotation) -> str:
    """The page.

    Args:
        cells, drugs: cell_identity.parquet and drug_identity.parquet.
        known: the annotation that they were made with.
    """
    groups = {"Cell lines": cell_sections(cells, known), "Drugs": drug_sections(drugs, known)}
    lines = ["<!doctype html>", '<html lang="en"><head><meta charset="utf-8"><title>Who is who</title>']
    lines += [f"<style>{STYLE}</style></head><body>", "<h1>Who is who: cell lines and drugs</h1>", _lead(cells, drugs)]
    lines.append("<nav>")
    for name, sections in groups.items():
        lines.append(f"<h3>{name}</h3>")
        lines += [f'<a href="#{_anchor(s)}">{_text(s.title)} ({len(s.table)})</a>' for s in sections]
    lines.append("</nav>")
    for sections in groups.values():
        for section in sections:
            lines += _section(section)
    return "\n".join([*lines, "</body></html>"]) + "\n"


def _lead(cells: pd.DataFrame, drugs: pd.DataFrame) -> str:
    named, structured = int(cells["cell_id"].notna().sum()), int((drugs["status"] == "structure").sum())
    lines, kinds = cells["cell_id"].nunique(), drugs["drug_id"].nunique()
    return (
        f"<p>{named:,} of {len(cells):,} native names of cell lines have an id, {lines:,} lines; {structured:,} of "
        f"{len(drugs):,} native names of drugs have a structure, {kinds:,} drugs. A name is one source's spelling; "
        "<i>rows</i> are the measurements it has in its source's file. Why one name got its id: "
        "<code>hedflow identity NAME</code>.</p>"
    )


def _section(section: Section) -> list[str]:
    lines = [f'<h2 id="{_anchor(section)}">{_text(section.title)}</h2>', f"<p>{_text(section.text)}</p>"]
    if section.table.empty:
        return [*lines, '<p class="none">None.</p>']
    if len(section.table) <= OPEN_ROWS:
        return [*lines, *_table(section.table)]
    return [*lines, f"<details><summary>{len(section.table)} rows</summary>", *_table(section.table), "</details>"]


def _table(table: pd.DataFrame) -> list[str]:
    numbers = {name for name in table if pd.api.types.is_numeric_dtype(table[name])}

    def cell(tag: str, name: str, value: object) -> str:
        shown = f"{value:,}" if name in numbers and tag == "td" else _text(value)
        kind = "number" if name in numbers else "short" if len(shown) <= SHORT else ""
        return f'<{tag} class="{kind}">{shown}</{tag}>' if kind else f"<{tag}>{shown}</{tag}>"

    names = [str(name) for name in table]
    lines = ["<table><thead><tr>" + "".join(cell("th", n, n.replace("_", " ")) for n in names) + "</tr></thead><tbody>"]
    for row in table.itertuples(index=False):
        lines.append("<tr>" + "".join(cell("td", n, v) for n, v in zip(names, row, strict=True)) + "</tr>")
    return [*lines, "</tbody></table>"]


def _anchor(section: Section) -> str:
    return re.sub(r"[^a-z]+", "-", section.title.lower()).strip("-")


def _text(value: object) -> str:
    return "" if value is None or value is pd.NA or value != value else html.escape(str(value))
