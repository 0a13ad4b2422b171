"""Parts of a page in reStructuredText: tables, escaped text, pictures."""

from __future__ import annotations

import base64
import html
import textwrap
from pathlib import Path

import pandas as pd

# Of a frame: as wide as the window beside the report's menu allows, so high until the page in it says how high it is.
SIZE = "width:max(100%,min(1180px,100vw - 22rem));height:95rem"


def list_table(table: pd.DataFrame) -> list[str]:
    """A reStructuredText list table."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in [list(table.columns), *table.to_numpy().tolist()]:
        # The escaped space is none on the page: after it nothing is markup of a line's beginning.
        cells = [escaped(str(cell)) for cell in row]
        lines += [f"   {'*' if i == 0 else ' '} -" + (f" \\ {cell}" if cell else "") for i, cell in enumerate(cells)]
    return [*lines, ""]


def escaped(text: str) -> str:
    """Text in one line that reStructuredText and Jinja, which renders the page, leave as it is."""
    text = " ".join(text.split())
    for sign in "\\*`|_@":
        text = text.replace(sign, f"\\{sign}")
    if text.endswith("::"):  # would make what follows a literal block
        text = f"{text[:-2]}\\::"
    return text.replace("{", "(").replace("}", ")")


def image(path: Path) -> list[str]:
    # docutils refuses lines over 10,000 characters; browsers pass over line ends in an address.
    encoded = textwrap.wrap(base64.b64encode(path.read_bytes()).decode(), 5_000)
    opening = f'<img alt="{path.stem}" style="max-width:46rem" src="data:image/png;base64,'
    return [".. raw:: html", "", *(f"   {line}" for line in (opening, *encoded, '">')), ""]


def raw_html(lines: list[str]) -> list[str]:
    """HTML as it is, which neither reStructuredText nor Jinja, which renders the page, touches."""
    return ["{% raw %}", ".. raw:: html", "", *(f"   {line}" for line in lines), "{% endraw %}", ""]


def frame(page: str, title: str) -> list[str]:
    """The page as a frame inside another page: lines of HTML, none of them long.

    `srcdoc`, not a data address, which browsers refuse above 2 MB.
    """
    opening = f'<iframe title="{html.escape(title)}" loading="lazy" style="border:0;{SIZE}" srcdoc="'
    return [opening, *html.escape(page).splitlines(), '"></iframe>']
