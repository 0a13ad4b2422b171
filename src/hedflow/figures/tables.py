"""An experiment's tables as all its figures need them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from hedflow.figures.style import GREY, family_styles, shades

MANY = 8  # methods; above it a figure has a panel for each loss, or shows those that matter


class _Read(dict[str, pd.DataFrame]):
    """Tables of a folder by name, read when first asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, name: str) -> pd.DataFrame:
        self[name] = pd.read_parquet(self.folder / f"{name}.parquet")
        return self[name]


class Tables:
    """An experiment's tables, read from its folder; methods in the plan's order, models before naive baselines."""

    def __init__(self, folder: Path) -> None:
        self.table = _Read(folder)
        whole = self.table["methods"].query("source == 'all'")
        self.methods = whole.loc[~whole["naive"], "method"].tolist()
        self.naive = whole.loc[whole["naive"], "method"].tolist()
        self.overall = whole.set_index("method")
        self.reference = str(self.table["comparison"]["reference"].iloc[0])
        self.strongest = str(self.table["comparison"]["strongest"].iloc[0])
        self.top_k = int(self.table["comparison"]["top_k"].iloc[0])

    @cached_property
    def axes(self) -> pd.DataFrame:
        """A row a method, in the plan's order: family (its model and loss) and alpha (missing where it has none)."""
        runs = self.table["runs"].drop_duplicates("method").set_index("method").loc[self.methods]
        alpha = pd.to_numeric(runs["alpha"], errors="coerce")
        return pd.DataFrame({"family": [family(str(n), a) for n, a in alpha.items()], "alpha": alpha}, index=runs.index)

    @cached_property
    def families(self) -> dict[str, list[str]]:
        """The methods of each family, by alpha."""
        ordered = self.axes.sort_values("alpha", kind="stable", na_position="first")
        names = dict.fromkeys(self.axes["family"])
        return {name: ordered.index[ordered["family"] == name].tolist() for name in names}

    @cached_property
    def style(self) -> dict[str, dict[str, Any]]:
        """Colour, marker and line of every method: a family has one colour, its alphas are shades; naive ones grey."""
        styles = family_styles(list(self.families))
        found: dict[str, dict[str, Any]] = {}
        for name, methods in self.families.items():
            for method, shade in zip(methods, shades(styles[name]["color"], len(methods)), strict=True):
                found[method] = {**styles[name], "color": shade}
        return found | {name: {"color": GREY, "marker": "D", "linestyle": "-"} for name in self.naive}

    @cached_property
    def colour(self) -> dict[str, Any]:
        """The colour of every method."""
        return {name: style["color"] for name, style in self.style.items()}

    @property
    def best_low(self) -> str:
        """The method with the lowest error on potent pairs."""
        return self._best("mae_low")

    def _best(self, column: str) -> str:
        whole = self.overall.loc[self.methods].query("coverage == 1")  # not of fewer, perhaps easier, rows
        errors = whole[column].dropna()
        return str(errors.idxmin()) if len(errors) else self.reference

    def few(self, most: int) -> list[str]:
        """At most `most` methods, in the plan's order: the reference, the best ones, then the best of each family."""
        if len(self.methods) <= most:
            return self.methods
        wanted = [self.reference, self.best_low, self._best("mae"), self._best("mae_macro")]
        errors = self.overall["mae_macro"].fillna(self.overall["mae"]).to_dict()
        best = sorted(
            (min(methods, key=lambda m: errors[m]) for methods in self.families.values()), key=errors.__getitem__
        )
        rest = sorted(self.methods, key=errors.__getitem__)
        chosen = set(list(dict.fromkeys([*wanted, *best, *rest]))[:most])
        return [name for name in self.methods if name in chosen]

    def said_few(self, chosen: list[str]) -> str:
        """What a figure of `chosen` methods leaves out, in words; nothing if it leaves none out."""
        left = len(self.methods) - len(chosen)
        return f"; {len(chosen)} of {len(self.methods)} methods" if left else ""


def family(method: str, alpha: float) -> str:
    """A method's name without its alpha: what is joined by a line. `mae_poly-2` -> `mae_poly`."""
    if pd.isna(alpha):
        return method
    tail = f"-{alpha:g}"
    at = method.rfind(tail)
    return method if at < 0 else method[:at] + method[at + len(tail) :]
