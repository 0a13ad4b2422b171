"""What is to be staged: a file, or a folder with all that is in it, as it lies on the shared file system."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ARCHIVES = (".tar.zst", ".tzst", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar")


class StagingError(Exception):
    """Something cannot be staged; one sentence."""


@dataclass(frozen=True, slots=True)
class File:
    """A file: its name relative to what is staged, its size in bytes, when it was changed, whether it is a program."""

    name: str
    size: int
    mtime_ns: int
    executable: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies at a path. A single file has no folders, and its own name; a folder has "." among its folders.

    unpack: it is an archive, and what is wanted is what is in it.
    """

    source: str
    name: str
    files: tuple[File, ...]
    folders: tuple[str, ...] = ()
    unpack: bool = False

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def key(self) -> str:
        """Changes with the path, with any name, size or time of change, and with nothing else."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()

    def path(self, file: File) -> str:
        """Where a file lies."""
        return os.path.join(self.source, file.name) if self.folders else self.source

    def digest(self, contents: dict[str, str]) -> str:
        """The name that all this goes by, from the SHA-256 of each file's content: names, contents, programs."""
        files = sorted((file.name, contents[file.name], file.executable) for file in self.files)
        return hashlib.sha256(json.dumps([self.name, self.unpack, self.folders, files]).encode()).hexdigest()


def list_source(path: str, *, unpack: bool = False) -> Listing:
    """Look at a path; links in it are followed, as a copy would not find what they point to.

    Raises:
        StagingError: it is missing, cannot be read, is neither file nor folder, or is no archive and to be unpacked.
    """
    source = os.path.abspath(path)
    name = os.path.basename(source)
    try:
        found = os.stat(source)
        if unpack and (not name.endswith(ARCHIVES) or not stat.S_ISREG(found.st_mode)):
            raise StagingError(f"{source} is to be unpacked, which needs a file that ends in {', '.join(ARCHIVES)}")
        if not stat.S_ISDIR(found.st_mode):
            return Listing(source, name, (_file(source, name, found),), unpack=unpack)
        files, folders = [], []
        for folder, names in _walk(source):
            folders.append(os.path.relpath(folder, source))
            for each in names:
                place = os.path.join(folder, each)
                files.append(_file(place, os.path.relpath(place, source), os.stat(place)))
    except OSError as error:
        raise StagingError(f"{error.filename or source} cannot be staged: {error.strerror}") from error
    return Listing(source, name, tuple(files), tuple(folders))


def _walk(source: str) -> Iterator[tuple[str, list[str]]]:
    """Folders with the sorted names of what is in each and is no folder."""
    above: dict[str, frozenset[str]] = {}  # of each folder to come, the real ones that it is in

    def fail(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(source, followlinks=True, onerror=fail):
        real = os.path.realpath(folder)
        parents = above.pop(folder, frozenset())
        if real in parents:
            raise StagingError(f"{folder} cannot be staged: its links lead round to {real}, which it lies in")
        folders.sort()
        above.update((os.path.join(folder, name), parents | {real}) for name in folders)
        yield folder, sorted(names)


def _file(path: str, name: str, found: os.stat_result) -> File:
    if not stat.S_ISREG(found.st_mode):
        raise StagingError(f"{path} cannot be staged: it is neither a file nor a folder")
    return File(name, found.st_size, found.st_mtime_ns, bool(found.st_mode & 0o111))


def unpacked_name(name: str) -> str:
    """An archive's name without what says that it is one."""
    return next(name.removesuffix(suffix) for suffix in ARCHIVES if name.endswith(suffix))


def shape_of(folder: Path) -> str:
    """A digest of all names, sizes and times under a folder, contents not read: whether anything has been touched.

    What Python has compiled is left out: it comes with use.
    """
    sums = hashlib.sha256()
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__")  # Python writes there when it is used
        for name in sorted((*folders, *names)):
            path = os.path.join(here, name)
            found = os.lstat(path)
            kept = (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else ()
            sums.update(f"{os.path.relpath(path, folder)}\0{found.st_mode}\0{kept}\n".encode(errors="surrogateescape"))
    return sums.hexdigest()
