"""An agent's part of staging: what tasks name (`Order.stage`) is on this node's disk before they begin here.

The root looks at what tasks that Snakemake hands over name, and tells all agents to stage what is new or has changed.
All of them then stop and stage together, in the order in which the root says so; that is what makes its collective
calls safe. It hands the tasks to its core afterwards. A task that an agent has from another one cannot come too early
either: that one has been through the staging, which ends for nobody before all have begun it, and its gift is looked at
only afterwards.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from .archive import unpack
from .listing import ARCHIVES, Listing, StagingError, list_source
from .peers import fill_in
from .session import Session
from .staging import Outcome, stage
from .store import Store
from .tasks import Task
from .transport import Transport

AUTO, NONE = "auto", "none"
# Types of file systems that all nodes see.
SHARED = {
    "fuse.sshfs",
    "nfs",
    "nfs4",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "cifs",
    "smb3",
    "pvfs2",
    "afs",
    "dvs",
    "fuse.dfuse",
    "fuse.glusterfs",
    "9p",
    "panfs",
    "wekafs",
}
STAGED, SOFTWARE = "WORKSTEAL_STAGED", "WORKSTEAL_SOFTWARE"


class Stages:
    """What is staged on a node, by one agent or several of the node."""

    def __init__(
        self, session: Session, folder: Path, transport: Transport, hosts: list[str], warn: Callable[[str], None]
    ) -> None:
        """folder: of the session, which all nodes see. hosts: of all agents. warn: tells Snakemake's user a sentence.
        A collective call.
        """
        self._folder = folder
        self._unpacked: Path | None = None
        self._transport = transport
        self._warn = warn
        self._software = session.software
        # On Snakemake's own machine the shared disk is most likely the local one, so there it has to be asked for.
        self._on = session.stage_dir != NONE and (session.stage_dir != AUTO or len({*hosts, session.host}) > 1)
        self._seen: dict[str, str] = {}
        self._doubted: set[str] = set()  # that are staged, and could not be looked at since
        self._local: dict[str, str] = {}
        self.environment: dict[str, str] = {}  # what tasks get
        self._store: Store | StagingError = StagingError("nothing is staged")
        if session.stage_dir == NONE:
            if self._software:
                self.environment[SOFTWARE] = self._software
                self._software = ""
        elif self._on or self._software:
            folder = fill_in(own_disk() if session.stage_dir == AUTO else session.stage_dir, transport.rank)
            folder /= f"worksteal-{os.getuid()}"
            try:
                if "$" in str(folder):
                    raise StagingError(f"{folder}: a variable of --worksteal-stage-dir is not set on this node")
                if session.stage_dir == AUTO:
                    refuse_shared(folder)
                self._store = Store(folder)
            except StagingError as error:
                self._store = error
            self._among, self._here = transport.places(str(folder))

    def due(self, tasks: Iterable[Task]) -> list[Listing]:
        """At the root: what tasks name and is not staged, or has changed since. What is gone since stays staged."""
        found = []
        for path in dict.fromkeys(path for task in tasks for path in task.payload.stage) if self._on else ():
            try:
                listing = list_source(path)
            except StagingError as error:
                if path not in self._seen:
                    self._warn(f"{error}; jobs that name it get the path itself")
                    self._seen[path] = ""
                elif self._seen[path] and os.path.lexists(path) and path not in self._doubted:
                    self._warn(f"{error}; jobs that name it go on with the copy made before")
                    self._doubted.add(path)
                continue
            if self._seen.get(path) != listing.key:
                self._seen[path] = listing.key
                found.append(listing)
        return found

    def software(self) -> Outcome | None:
        """Stage the software that the session names, and unpack it if it is an archive. A collective call."""
        if not self._software:
            return None
        found: Listing | StagingError | None = None
        if self._transport.rank == 0:
            try:
                found = list_source(self._software, unpack=self._software.endswith(ARCHIVES))
            except StagingError as error:
                found = error
        found = self._transport.gather(found)[0]
        if not isinstance(found, Listing):
            if self._transport.rank == 0:
                self._warn(str(found))
            return None
        outcome = self.stage(found)
        local = self._local.pop(found.source, "")
        # Without a copy, a folder can be used where it is; an archive has to be unpacked first, where all nodes see it.
        elsewhere = found.source
        if found.unpack and not all(self._transport.gather(bool(local))):
            elsewhere = self._transport.gather(self._unpack(found) if self._transport.rank == 0 else "")[0]
        if local or elsewhere:
            self.environment[SOFTWARE] = local or elsewhere
        self._tell_tasks()
        return outcome

    def _unpack(self, listing: Listing) -> str:
        """At the root: unpack an archive in the folder that all nodes share; "" if that cannot be done."""
        self._unpacked = self._folder / "software"
        try:
            shutil.rmtree(self._unpacked, ignore_errors=True)  # of a pool that was killed
            unpack(Path(listing.source), self._unpacked)
        except (StagingError, OSError) as error:
            self._warn(f"{listing.source} cannot be unpacked in {self._folder} either ({error}): jobs go without it")
            return ""
        return str(self._unpacked)

    def stage(self, listing: Listing) -> Outcome | None:
        """Stage what a listing shows; what came of it, at the agent of each node that does the work. A collective
        call.
        """
        outcome = None
        if self._among is not None:
            outcome = stage(listing, self._among, self._store)
            outcomes: list[Outcome] = self._among.gather(outcome)
            failed = [each for each in outcomes if each.problem]
            if failed and self._transport.rank == 0:
                hosts = ", ".join(f"{each.host} ({each.problem})" for each in failed[:3])
                self._warn(
                    f"{listing.source} is not staged on {len(failed)} of {len(outcomes)} nodes: {hosts}"
                    f"{', ...' if len(failed) > 3 else ''}; jobs there read it "
                    f"{'unpacked in the run folder' if listing.unpack else 'where it is'}"
                )
        local = self._here.share(outcome.local if outcome else "")
        if local and isinstance(self._store, Store):
            with suppress(OSError):
                self._store.hold(Path(local))
        if local:
            self._local[listing.source] = local
        else:
            self._local.pop(listing.source, None)
        self._tell_tasks()
        return outcome

    def _tell_tasks(self) -> None:
        if self._local:
            self.environment[STAGED] = json.dumps(self._local)
        elif STAGED in self.environment:
            self.environment[STAGED] = "{}"

    def end(self, *, remove: bool) -> None:
        """Let go of the copies; remove: also remove those that nobody else on this node uses."""
        if isinstance(self._store, Store):
            with suppress(OSError):
                self._store.release(remove=remove)

    def clear(self) -> None:
        """Remove what the root has unpacked for others, once their tasks have ended."""
        if self._unpacked is not None:
            shutil.rmtree(self._unpacked, ignore_errors=True)


def file_system(path: str | Path, mounts: Iterable[tuple[str, str]] | None = None) -> str:
    """The type of the file system that a path is on, or would be. mounts: where each is mounted, and its type."""
    if mounts is None:
        mounts = ((each.mountpoint, each.fstype) for each in psutil.disk_partitions(all=True))
    real = Path(os.path.realpath(path))
    # Of two that are mounted at one place the later one is seen.
    found = [
        (len(Path(place).parts), number, kind)
        for number, (place, kind) in enumerate(mounts)
        if real.is_relative_to(place)
    ]
    return max(found)[2] if found else ""


def own_disk() -> str:
    """$TMPDIR, or /tmp where that is on a shared file system."""
    return tempfile.gettempdir() if file_system(tempfile.gettempdir()) not in SHARED else "/tmp"


def refuse_shared(folder: str | Path, mounts: Iterable[tuple[str, str]] | None = None) -> None:
    """StagingError if copies would lie on a shared file system, once for each node."""
    if (kind := file_system(folder, mounts)) in SHARED:
        raise StagingError(f"{folder} is itself on a shared file system ({kind}); say where, with stage-dir")


def as_event(outcome: Outcome, rank: int, source: str) -> dict[str, Any]:
    """What the trace is told of a node's staging. Bytes that all read together are the first node's."""
    return {
        "started": outcome.started,
        "ended": outcome.ended,
        "numbers": {"read_bytes": 0 if rank else outcome.read, "written_bytes": outcome.written},
        "source": source,
        "problem": outcome.problem,
    }
