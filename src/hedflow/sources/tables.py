"""Reading delimited files so that a broken one is named in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hedflow import HedflowError


def read_table(
    path: Path, columns: Sequence[str], sep: str = ",", numbers: Sequence[str] = (), optional: Sequence[str] = ()
) -> pd.DataFrame:
    """The named columns of a delimited UTF-8 file, as text (a cell line may be called 697), `numbers` as floats.

    Columns `optional` are taken where they are there.

    Empty fields become missing values; names such as `NA` or `None` stay text.
    """
    try:
        table = pd.read_csv(path, sep=sep, dtype=str, keep_default_na=False, na_values=[""], encoding="utf-8-sig")
    except FileNotFoundError:
        raise HedflowError(f"{path}: no such file.") from None
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = str(error).strip().splitlines()[0]
        raise HedflowError(f"{path}: expected a table in UTF-8 separated by {sep!r}, but {reason}.") from None
    table.columns = table.columns.str.strip()
    missing = [name for name in columns if name not in table]
    if missing:
        raise HedflowError(
            f"{path}: expected the columns {', '.join(columns)}; {', '.join(missing)} missing. Found: "
            f"{', '.join(map(str, table.columns[:12]))}."
        )
    table = table[[*columns, *(name for name in optional if name in table)]].copy()
    for name in table.columns.intersection(list(numbers), sort=False):
        table[name] = _as_numbers(path, table[name])
    return table


def _as_numbers(path: Path, column: pd.Series[str]) -> pd.Series[float]:
    text = column.where(~column.isin(["NA", "NaN", "nan", "NULL"]))
    values = pd.to_numeric(text, errors="coerce")
    wrong = text.notna() & values.isna()
    if wrong.any():
        first = int(wrong.to_numpy().argmax())
        raise HedflowError(
            f"{path}: column '{column.name}' has {column.iloc[first]!r} in data row {first + 1}, expected a number "
            f"({int(wrong.sum())} such rows)."
        )
    return values.astype(float)
