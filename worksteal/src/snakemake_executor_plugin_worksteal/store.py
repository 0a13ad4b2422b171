"""Staged copies on a node's own disk: written whole or not at all, named by digest, shared by the pools of one user.

    FOLDER/DIGEST/NAME              a copy: a file, a folder, or what was in an archive
    FOLDER/DIGEST/.worksteal.json   what it was copied from, and the digest of each file
    FOLDER/partial-XXXX/            a copy that is being written, or removed

Whoever uses a copy holds a shared lock (flock) on its folder, whoever writes or removes one an exclusive lock; the
kernel lets go of it when the process ends, in whatever way. So what a killed pool left half written is known by having
no lock, and the last user of a copy can tell that it is the last.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from .archive import unpack
from .listing import File, Listing, StagingError, shape_of, unpacked_name

RECORD = ".worksteal.json"
PARTIAL = "partial-"
BLOCK = 4 << 20  # bytes read at a time when a copy is checked
SPARE = 16 << 20  # bytes that staging leaves free on the disk


class Store:
    """A node's copies. One process may use several copies; all are let go of by `release`."""

    def __init__(self, folder: Path) -> None:
        """Make the folder, for this user only, and remove what a killed process left half written.

        Raises:
            StagingError: it cannot be made, or belongs to somebody else.
        """
        self.folder = folder
        self._held: dict[Path, int] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
                raise StagingError(f"{folder} is not a folder of yours that only you can write")
            for path in folder.glob(f"{PARTIAL}*"):
                self._remove(path)
        except OSError as error:
            raise StagingError(f"{folder} cannot be used: {error.strerror}") from error

    def find(self, listing: Listing) -> Path | None:
        """An intact copy of what a listing shows, held from now on; None if there is none. A damaged one is removed."""
        for entry, record in self._entries():
            if listing.key not in record["keys"]:
                continue
            found = self.hold(entry / record["name"])
            if found is not None and is_intact(entry, record):
                return found
            self.drop(entry)
        return None

    def hold(self, path: Path) -> Path | None:
        """Keep others from removing the copy at a path of this store; None if it is gone."""
        entry = path.parent
        if entry not in self._held:
            lock = _lock(entry, fcntl.LOCK_SH)
            if lock is None:
                return None
            self._held[entry] = lock
        return path

    def copy(self, listing: Listing) -> Copy:
        """Begin a copy.

        Raises:
            StagingError: there is no room for it, or the disk cannot be written.
        """
        try:
            free = shutil.disk_usage(self.folder).free
            if free < listing.size + SPARE:
                raise StagingError(f"{self.folder} has {free >> 20} MB free, {listing.size >> 20} MB are to be staged")
            return Copy(self, listing)
        except OSError as error:
            raise StagingError(f"{self.folder} cannot be written: {error.strerror}") from error

    def keep(self, partial: Path, lock: int, listing: Listing, record: dict[str, Any], digest: str) -> Path:
        """Give a finished copy its name and hold it; if there is an intact one of that name, use that."""
        entry = self.folder / digest
        for _ in range(2):
            try:
                partial.rename(entry)
            except OSError:
                known = self.hold(entry / record["name"])
                there = read_record(entry)
                if known is not None and there is not None and is_intact(entry, there):
                    write_record(entry, {**there, "keys": sorted({*there["keys"], listing.key})})
                    return known
                self.drop(entry)
                continue
            sync(self.folder)
            fcntl.flock(lock, fcntl.LOCK_SH)
            if not is_at(lock, entry):  # between the two locks there is none: another pool that ends may remove it
                raise StagingError(f"{entry} was removed as it was finished, by another pool that ended")
            self._held[entry] = os.dup(lock)
            return entry / str(record["name"])
        raise StagingError(f"{entry} is damaged, and in use")

    def drop(self, entry: Path) -> bool:
        """Let go of a copy, and remove it unless somebody else uses it; whether it was removed."""
        lock = self._held.pop(entry, None)
        if lock is not None:
            os.close(lock)
        return self._remove(entry)

    def release(self, *, remove: bool) -> None:
        """Let go of all copies; remove: all that nobody uses are removed, those of killed pools too, and the folder."""
        for entry in list(self._held):
            if remove:
                self.drop(entry)
            else:
                os.close(self._held.pop(entry))
        if remove:
            with suppress(OSError):
                for entry in list(self.folder.iterdir()):
                    self._remove(entry)
                self.folder.rmdir()

    def partial(self) -> tuple[Path, int]:
        """A new folder for a copy, and its lock (a file descriptor)."""
        while True:
            self.folder.mkdir(mode=0o700, exist_ok=True)  # another pool may have ended, and removed it empty
            path = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=self.folder))
            lock = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock is not None:  # else another process took it for a dead one's
                return path, lock

    def _remove(self, entry: Path) -> bool:
        lock = _lock(entry, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock is None:
            return False
        try:
            # Under another name first: a copy is never seen half removed.
            dying = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=self.folder))
            entry.rename(dying)
            remove_tree(dying)
        finally:
            os.close(lock)
        return True

    def _entries(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        for entry in sorted(self.folder.iterdir()) if self.folder.exists() else ():
            if not entry.name.startswith(PARTIAL) and (record := read_record(entry)) is not None:
                yield entry, record


class Copy:
    """A copy that is being written: `begin` a file, `write` it, `end` it; then `finish`, or `discard` at any time."""

    def __init__(self, store: Store, listing: Listing) -> None:
        self._store = store
        self._listing = listing
        self._partial, self._lock = store.partial()
        self._place = self._partial / listing.name
        self._file = -1
        try:
            for folder in listing.folders:
                (self._place / folder).mkdir(parents=True)
        except OSError:
            self.discard()
            raise

    def begin(self, file: File) -> None:
        """The next file."""
        self._file = os.open(self._at(file), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, data: memoryview) -> None:
        """The next bytes of the file."""
        while data:
            data = data[os.write(self._file, data) :]

    def end(self, file: File) -> None:
        """All of the file has been written: bring it to the disk. Nobody is to write to it any more."""
        os.fsync(self._file)
        os.fchmod(self._file, 0o555 if file.executable else 0o444)
        os.utime(self._file, ns=(file.mtime_ns, file.mtime_ns))
        # What is checked is then what the disk has, not what the kernel remembers.
        os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(self._file)
        self._file = -1

    def finish(self, contents: dict[str, str]) -> Path:
        """Compare all files with the digests of what was read, unpack an archive, and give the copy its name.

        Raises:
            StagingError: the disk has something else than what was written, or the archive cannot be unpacked.
        """
        listing = self._listing
        for file in listing.files:
            if sha256(self._at(file)) != contents[file.name]:
                raise StagingError(f"{self._at(file)} is not what was read for it: the disk may be failing")
        record: dict[str, Any] = {"keys": [listing.key], "source": listing.source, "name": listing.name}
        if listing.unpack:
            record["name"] = unpacked_name(listing.name)
            unpack(self._place, self._partial / record["name"])
            self._place.unlink()
            record["shape"] = shape_of(self._partial / record["name"])
        else:
            record["files"] = {file.name: contents[file.name] for file in listing.files}
            record["single"] = not listing.folders
        write_record(self._partial, record)
        for folder, _, _ in os.walk(self._partial):
            sync(Path(folder))
        place = self._store.keep(self._partial, self._lock, listing, record, listing.digest(contents))
        self.discard()
        return place

    def discard(self) -> None:
        """Remove what has been written, if it has not got its name; nothing is done twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._lock >= 0:
            with suppress(OSError):
                remove_tree(self._partial)
            os.close(self._lock)
            self._lock = -1

    def _at(self, file: File) -> Path:
        return self._place / file.name if self._listing.folders else self._place


def is_intact(entry: Path, record: dict[str, Any]) -> bool:
    """Whether a copy is what it was when it was made: content by content, or as to names, sizes and times if it was
    unpacked.
    """
    place = entry / record["name"]
    try:
        if "shape" in record:
            return shape_of(place) == str(record["shape"])
        return all(
            sha256(place if record["single"] else place / name) == digest for name, digest in record["files"].items()
        )
    except (OSError, KeyError):
        return False


def read_record(entry: Path) -> dict[str, Any] | None:
    """What a copy was copied from; None if it is no copy."""
    try:
        record: dict[str, Any] = json.loads((entry / RECORD).read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and {"keys", "name"} <= record.keys() else None


def write_record(entry: Path, record: dict[str, Any]) -> None:
    """Whole or not at all."""
    temporary = entry / f"{RECORD}.{os.getpid()}"
    temporary.write_text(json.dumps(record))
    sync(temporary)
    temporary.rename(entry / RECORD)


def sha256(path: Path) -> str:
    """Digest of a file's content."""
    sums, block = hashlib.sha256(), memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as file:
        while got := file.readinto(block):
            sums.update(block[:got])
    return sums.hexdigest()


def sync(path: Path) -> None:
    """Bring a file or folder to the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def remove_tree(folder: Path) -> None:
    """Remove a folder, also one with folders in it that were made read-only."""
    for here, folders, _ in os.walk(folder):
        for name in folders:
            if not os.path.islink(path := os.path.join(here, name)):
                os.chmod(path, 0o700)
    shutil.rmtree(folder)


def is_at(opened: int, folder: Path) -> bool:
    """Whether an open folder has this name (still)."""
    try:
        return os.path.samestat(os.fstat(opened), os.stat(folder))
    except FileNotFoundError:
        return False


def _lock(folder: Path, how: int) -> int | None:
    """Lock a folder; a file descriptor, or None if it is locked by others, gone, or another one by now."""
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(opened, how)
        if is_at(opened, folder):
            return opened
    except BlockingIOError:
        pass
    os.close(opened)
    return None
