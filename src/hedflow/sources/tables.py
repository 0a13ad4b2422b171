"""Reading tables so that a broken file is named in one sentence, and none is read as something that it is not."""

from __future__ import annotations

import gzip
import io
import re
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from hedflow import HedflowError

# How files begin that are often saved in a table's place.
_OTHER_KINDS = (
    (re.compile(rb"version https://git-lfs"), "a git-LFS pointer; fetch the file itself (git lfs pull)"),
    (re.compile(rb"\s*<(!doctype|html|\?xml|head|body)", re.IGNORECASE), "a web page; download the file anew"),
    (re.compile(rb"\x1f\x8b"), "a gzip file; unpack it"),
    (re.compile(rb"PK\x03\x04"), "a zip file or a workbook; unpack it, or save the table as text"),
    (re.compile(rb"\xd0\xcf\x11\xe0"), "an old Excel workbook; save the table as text"),
    (re.compile(rb"\xff\xfe|\xfe\xff"), "text in UTF-16; save it in UTF-8"),
)


def one_line(error: object) -> str:
    """A library's message as a part of a sentence."""
    return " ".join(str(error).split()).rstrip(".")[:300] or type(error).__name__


def other_kind(content: bytes) -> str | None:
    """What a file is that should be a table of text, and what to do; None where its beginning says nothing."""
    return next((what for begin, what in _OTHER_KINDS if begin.match(content)), None)


def read_bytes(path: Path) -> bytes:
    """A file's content.

    Raises:
        HedflowError: no such file, a folder, or no right to read it.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise HedflowError(f"{path}: no such file.") from None
    except OSError as error:
        raise HedflowError(f"{path}: expected a file that can be read, but {one_line(error.strerror)}.") from None


def read_table(
    path: Path, columns: Sequence[str], sep: str = ",", numbers: Sequence[str] = (), optional: Sequence[str] = ()
) -> pd.DataFrame:
    """The named columns of a delimited UTF-8 file (packed if .gz): text (a line may be 697), `numbers` as floats.

    Columns `optional` are taken where they are there.

    Empty fields and those that a short row lacks become missing values; names such as `NA` or `None` stay text.

    Raises:
        HedflowError: no file or one of another kind, not UTF-8, rows longer than the header, a line break within a
            field, a column missing or there twice, or text where a number should be.
    """
    content = read_bytes(path)
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise HedflowError(f"{path}: expected a whole gzip file, but {one_line(error)}; get it anew.") from None
    return parse_table(path, content, columns, sep, numbers, optional)


def parse_table(
    path: Path,
    content: bytes,
    columns: Sequence[str],
    sep: str = ",",
    numbers: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> pd.DataFrame:
    """`read_table` of bytes; `path` is what the sentences name."""
    expected = f"{path}: expected a table in UTF-8 separated by {sep!r}, but "
    if what := other_kind(content):
        raise HedflowError(f"{expected}this is {what}.")
    if b"\0" in content:
        raise HedflowError(
            f"{expected}it has NUL bytes; it is damaged, or in UTF-16: get it anew, or save it in UTF-8."
        )
    try:
        # The header is read as a row: else pandas takes a row of one field more for an index, and shifts its names.
        table = pd.read_csv(
            io.BytesIO(content), sep=sep, dtype=str, header=None, keep_default_na=False, na_values=[""],
            encoding="utf-8-sig",
        )  # fmt: skip
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise HedflowError(
            f"{expected}line {line} is in another encoding (latin-1?); save the file in UTF-8."
        ) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise HedflowError(f"{expected}{one_line(error)}; get the file anew or mend that line.") from None
    names = table.iloc[0].fillna("").str.strip().tolist()
    table = table.iloc[1:].reset_index(drop=True)
    _check_names(path, names, columns)
    for position, name in enumerate(names):
        broken = table[position].str.contains(r"[\r\n]", regex=True, na=False)
        if broken.any():
            raise HedflowError(
                f"{path}: column {name!r} has a line break in data row {int(broken.to_numpy().argmax()) + 1}; expected "
                "one row a line: a quotation mark that is not closed has swallowed the lines after it."
            )
    wanted = [*columns, *(name for name in optional if name in names)]
    table = table[[names.index(name) for name in wanted]].set_axis(wanted, axis=1)
    for name in (name for name in numbers if name in wanted):
        table[name] = _as_numbers(path, table[name])
    return table


def _check_names(path: Path, names: list[str], columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in names]
    if missing:
        found = " ".join(", ".join(names[:12]).splitlines())[:300]
        raise HedflowError(
            f"{path}: expected the columns {', '.join(columns)}; {', '.join(missing)} missing. Found: {found}."
        )
    for name in columns:
        if names.count(name) > 1:
            raise HedflowError(
                f"{path}: the column {name!r} is there {names.count(name)} times, expected once; which one counts "
                "cannot be known: delete the others."
            )


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


def read_sheets(path: Path, sheets: Mapping[str, Sequence[str]]) -> list[pd.DataFrame]:
    """Sheets of an Excel workbook as text, each with at least the columns named for it.

    Raises:
        HedflowError: no file, no workbook, or a sheet or column missing.
    """
    content = read_bytes(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an unknown extension in the provider's file
            tables = pd.read_excel(io.BytesIO(content), sheet_name=list(sheets), dtype=str)
    except Exception as error:  # openpyxl's own, zipfile's, ValueError for a sheet that is not there
        names = " and ".join(f"'{name}'" for name in sheets)
        raise HedflowError(f"{path}: expected an Excel sheet {names}, but {one_line(error)}.") from None
    for name, columns in sheets.items():
        missing = [column for column in columns if column not in tables[name]]
        if missing:
            raise HedflowError(f"{path}: expected the columns {', '.join(missing)} in the sheet '{name}'.")
    return [tables[name] for name in sheets]
