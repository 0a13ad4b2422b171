"""hedflow.files: a file is either the old one or the new one, and the same content gives the same bytes."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hedflow import HedflowError
from hedflow.files import (
    atomic,
    digest,
    read_json,
    remove_partial,
    sha256,
    write_json,
    write_npy,
    write_parquet,
    write_text,
)

OLD = "the old content\n"
TABLE = {"cell": [3, 1, 2], "name": ["b", None, "ä"], "auc": [0.5, float("nan"), 1.0]}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail_inside(path: Path) -> None:
    with atomic(path) as temporary:
        temporary.write_text("half of the new con")
        raise KeyboardInterrupt


def write_nan(path: Path) -> None:
    write_json(path, {"mae": math.nan})


def write_objects(path: Path) -> None:
    write_npy(path, np.array([{"an": "object"}], dtype=object))


def write_mixed(path: Path) -> None:
    write_parquet(path, pd.DataFrame({"mixed": [1, "one", {}]}))


@pytest.mark.parametrize(
    ("fail", "error"),
    [
        (fail_inside, KeyboardInterrupt),
        (write_nan, ValueError),
        (write_objects, ValueError),
        (write_mixed, Exception),
    ],
)
def test_failure_leaves_the_old_file_and_no_temporary(
    tmp_path: Path, fail: Callable[[Path], None], error: type[BaseException]
) -> None:
    path = tmp_path / "result"
    path.write_text(OLD)
    with pytest.raises(error):
        fail(path)
    assert path.read_text() == OLD
    assert names(tmp_path) == ["result"]


def test_failure_makes_no_file_where_there_was_none(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fail_inside(tmp_path / "new" / "result")
    assert names(tmp_path / "new") == []


KILLED = """
import os, signal, sys
from hedflow.files import atomic
with atomic(sys.argv[1]) as temporary:
    temporary.write_text("half of the new con")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_sigkill_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    path.write_text(OLD)
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == OLD
    # Nobody is left to remove the temporary: it is hidden, and in nobody's way.
    left = [name for name in names(tmp_path) if name != path.name]
    assert all(name.startswith(f".{path.name}.") for name in left)
    write_text(path, "new\n")
    assert path.read_text() == "new\n"
    (tmp_path / "other").write_text("")
    remove_partial(path)  # as the next job does that makes it
    assert names(tmp_path) == ["other", path.name]


def test_success_replaces_and_leaves_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_text(OLD)
    with atomic(path) as temporary:
        assert temporary.parent == path.parent  # one file system, so that the rename is one step
        temporary.write_text("new")
        assert path.read_text() == OLD
    assert path.read_text() == "new"
    assert names(tmp_path) == ["result"]


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664), (0o077, 0o600)])
def test_permissions_follow_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    with umask(mask):
        write_text(tmp_path / "result", "x")
        assert os.umask(mask) == mask
    assert (tmp_path / "result").stat().st_mode & 0o777 == mode


WRITE = """
import sys
import pandas as pd
from hedflow.files import write_parquet
write_parquet(sys.argv[1], pd.DataFrame({table}))
"""


def run_python(code: str, *arguments: str, hash_seed: int) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def test_parquet_repeats_byte_by_byte(tmp_path: Path) -> None:
    here, again, elsewhere = (tmp_path / name for name in ("here", "again", "elsewhere"))
    table = pd.DataFrame(TABLE)
    write_parquet(here, table)
    write_parquet(again, table)
    run_python(WRITE.format(table=repr(TABLE).replace("nan", "float('nan')")), str(elsewhere), hash_seed=5)
    assert here.read_bytes() == again.read_bytes() == elsewhere.read_bytes()
    pd.testing.assert_frame_equal(pd.read_parquet(here), table)


def test_npy_repeats_and_holds_the_array(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T  # not contiguous
    write_npy(tmp_path / "a.npy", array)
    write_npy(tmp_path / "b.npy", np.ascontiguousarray(array))
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [1, {"a": math.nan}]])
def test_json_refuses_what_json_has_not(tmp_path: Path, value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", value)
    assert names(tmp_path) == []
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest(value)


def test_json_comes_back(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None], "a": "ä", "c": {"x": True}}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value


@pytest.mark.parametrize("content", [b'{"a": 1', b"", b"\xff\xfe{}"])
def test_broken_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(HedflowError, match=r"x\.json: expected JSON, .*delete the file and run again"):
        read_json(path)


DIGEST = """
import json, sys
from hedflow.files import digest
print(digest(*json.loads(sys.argv[1])))
"""


def test_digest_is_the_same_in_every_process() -> None:
    values = [{"b": 1, "a": [1.5, "ä", None], "c": {"z": True, "y": -0.0}}, "x", 3]
    found = {run_python(DIGEST, json.dumps(values), hash_seed=seed).strip() for seed in (0, 1, 12345)}
    assert found == {digest(*values)}


def test_digest_knows_values_and_not_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    different = [digest(v) for v in ({"a": 1}, {"a": 2}, {"a": "1"}, {"b": 1}, [1, 2], [2, 1], [[1], 2], None)]
    different += [digest(1, 2), digest()]
    assert len(set(different)) == len(different)


def test_sha256_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    # The standard's own example (FIPS 180-2).
    assert sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
