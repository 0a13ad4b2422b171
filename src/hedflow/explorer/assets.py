"""The files beside this module that become part of the explorer's page: HTML, style and JavaScript."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
ASSETS = ("explorer.html", "explorer.css", "explorer.js", "loader.js")


def asset_texts() -> dict[str, str]:
    """Their text by name; a rule watches it, since digests of code are of Python only."""
    return {name: (HERE / name).read_text(encoding="utf-8") for name in ASSETS}
