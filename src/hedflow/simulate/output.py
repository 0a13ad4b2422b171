"""Writing the world: every file atomic, and the same bytes for the same content."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import rdata

from hedflow.files import atomic

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip member can have


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content`, packed where the name ends in .gz."""
    packed = gzip.compress(content, mtime=0) if path.suffix == ".gz" else content
    with atomic(path) as temporary:
        temporary.write_bytes(packed)


def write_table(path: Path, table: pd.DataFrame, newline: str = "\n", **options: Any) -> None:
    """Write a delimited table without its index; `options` are those of `DataFrame.to_csv`."""
    text = table.to_csv(index=False, lineterminator=newline, **options)
    write_bytes(path, text.encode())


def write_rdata(path: Path, frames: dict[str, pd.DataFrame]) -> None:
    """Write R data frames as R's `save` does: gzip under the name .RData."""
    with atomic(path) as temporary:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of column types that are written as intended
            # Packed here and not by rdata, whose gzip header has the time and the temporary name.
            rdata.write_rda(temporary, {name: _for_r(f) for name, f in frames.items()}, compression=None)
        temporary.write_bytes(gzip.compress(temporary.read_bytes(), mtime=0))


def _for_r(table: pd.DataFrame) -> pd.DataFrame:
    """Rows numbered from 1, and text in the one dtype that rdata can write."""
    text = table.select_dtypes(include=["str", "object"]).columns
    table = table.astype(dict.fromkeys(text, pd.StringDtype("python")))
    return table.set_axis(pd.RangeIndex(1, len(table) + 1), axis=0)


def write_workbook(path: Path, sheets: Mapping[str, Iterable[Sequence[Any]]]) -> None:
    """Write an Excel workbook of the named sheets' rows, with no time of writing in it."""
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(list(row))
    written = io.BytesIO()
    book.save(written)
    fixed = io.BytesIO()
    with zipfile.ZipFile(written) as old, zipfile.ZipFile(fixed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in sorted(old.namelist()):
            # openpyxl sets the time of writing in docProps/core.xml and cannot be told another.
            content = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", b"1980-01-01T00:00:00Z", old.read(name))
            new.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED)
    write_bytes(path, fixed.getvalue())


def write_registry(out: Path, datasets: dict[str, str], seed: int) -> pd.DataFrame:
    """Write `datasets.csv`, one row for each `path in out -> dataset`.

    `sha256` and `size` are of the content of a .gz; an .RData, though packed inside, is taken as it is.
    """
    rows = []
    for place, dataset in datasets.items():
        content = (out / place).read_bytes()
        if place.endswith(".gz"):
            content = gzip.decompress(content)
        rows.append(
            {
                "dataset": dataset,
                "file": Path(place).name.removesuffix(".gz"),
                "version": "sim",
                "kind": "mirror",
                "locator": place,
                "mirror": place,
                "sha256": hashlib.sha256(content).hexdigest(),
                "size": len(content),
                "licence": "CC0 (simulated)",
                "citation": "simulated by hedflow",
                "origin": f"hedflow.simulate seed={seed}",
            }
        )
    registry = pd.DataFrame(rows)
    write_table(out / "datasets.csv", registry)
    return registry
