"""Files: atomic writes (temporary name, fsync, rename) and digests. Nothing here knows of drugs."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hedflow import HedflowError


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success fsync it and rename it to `path`, else remove it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes 0600 files; results are for the whole group to read.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with temporary.open("rb") as f:
            os.fsync(f.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_partial(path: str | Path) -> None:
    """Remove what killed processes have left of `atomic` writes of `path`; for who alone writes it."""
    path = Path(path)
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????{glob.escape(path.suffix)}"):
        left.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN is refused: JSON has none."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a broken one is named in the error."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise HedflowError(f"{path}: expected JSON, but {error}; delete the file and run again.") from error


def write_parquet(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as parquet, atomically. The same table gives the same bytes (one library version)."""
    with atomic(path) as temporary:
        table.to_parquet(temporary, index=False, compression="zstd")


def write_npy(path: str | Path, array: np.ndarray) -> None:
    """Write a NumPy array, atomically."""
    with atomic(path) as temporary, temporary.open("wb") as f:
        np.save(f, np.ascontiguousarray(array), allow_pickle=False)


def sha256(path: str | Path) -> str:
    """Hex sha256 of a file's bytes."""
    with Path(path).open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def digest(*values: Any) -> str:
    """Hex sha256 of values written as canonical JSON: the same values give the same digest anywhere."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
