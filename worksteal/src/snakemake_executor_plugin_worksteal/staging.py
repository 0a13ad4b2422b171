"""Copies files and folders from a shared file system to each node's own disk; each byte is read once in all.

    mpiexec -n NODES -ppn 1 worksteal stage SOURCE... FOLDER

Every SOURCE is then at FOLDER/NAME on each node, checked by SHA-256: a link to a read-only copy in FOLDER/.worksteal.
What is there already, and is intact, is not copied again. Without mpiexec it does the same on this node. In FOLDER,
{rank} and {host} are filled in, and $NAMES of variables.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import socket
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .launch import OTHER_MPI
from .listing import File, Listing, StagingError, list_source, unpacked_name
from .peers import Peers, Solo, fill_in, leaders
from .store import Copy, Store

STORE = ".worksteal"
# How many processes a launcher has started, as Slurm, MPICH and its relatives, Open MPI say.
LAUNCHED = ("SLURM_STEP_NUM_TASKS", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE")


@dataclass(slots=True)
class Outcome:
    """What came of staging on one node: where the copy is ("" if there is none: why not is in `problem`).

    Times are seconds since the epoch; read are the bytes that all nodes together read from the shared file system,
    written those that this node wrote to its disk (0 if it had the copy).
    """

    host: str
    local: str = ""
    problem: str = ""
    started: float = 0.0
    ended: float = 0.0
    read: int = 0
    written: int = 0


def stage(listing: Listing, peers: Peers, store: Store | StagingError) -> Outcome:
    """Copy what a listing shows to this node's store, together with the peers, who give the same listing.

    A node whose disk is full or fails reads on with the others, for their sake, and has a problem in its outcome.
    store: the error that making it gave, at a node that has none.
    """
    outcome = Outcome(socket.gethostname(), started=time.time())
    copy: Copy | None = None
    try:
        if isinstance(store, StagingError):
            raise store
        found = store.find(listing)
        if found is None:
            copy = store.copy(listing)
        outcome.local = str(found or "")
    except StagingError as error:
        outcome.problem = str(error)
    except OSError as error:
        outcome.problem = _said(error)
    if any(peers.gather(copy is not None)):
        _copy(listing, peers, copy, outcome)
    outcome.ended = time.time()
    return outcome


def _copy(listing: Listing, peers: Peers, copy: Copy | None, outcome: Outcome) -> None:
    """Read all files together and finish this node's copy, if it makes one."""
    contents: dict[str, str] = {}
    try:
        for file in listing.files:
            contents[file.name] = _copy_file(listing, file, peers, copy, outcome)
        outcome.read = listing.size
        if peers.share(_is_changed(listing) if peers.rank == 0 else None):
            raise StagingError(f"{listing.source} was changed while it was read")
        contents = peers.share(contents)
        if copy is not None and not outcome.problem:
            outcome.local = str(copy.finish(contents))
            outcome.written = listing.size
    except StagingError as error:
        outcome.problem = outcome.problem or str(error)
    except OSError as error:
        outcome.problem = _said(error)
    if copy is not None:
        copy.discard()


def _copy_file(listing: Listing, file: File, peers: Peers, copy: Copy | None, outcome: Outcome) -> str:
    """Read a file together and write it; at the first rank, the SHA-256 of what was read. All ranks come to its end.

    The others learn of damage on the way, or on their disk, when they read their copies again.
    """
    sums = hashlib.sha256()

    def attempt(step: Any, *given: Any) -> None:
        if copy is not None and not outcome.problem:
            try:
                step(copy, *given)
            except OSError as error:
                outcome.problem = _said(error)
                copy.discard()

    attempt(Copy.begin, file)
    for part in peers.read(listing.path(file), file.size):
        if peers.rank == 0:
            sums.update(part)
        attempt(Copy.write, part)
    attempt(Copy.end, file)
    return sums.hexdigest()


def _is_changed(listing: Listing) -> bool:
    try:
        return list_source(listing.source, unpack=listing.unpack) != listing
    except StagingError:
        return True


def _said(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else f"the disk cannot be written: {error.strerror}"


# The command


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="worksteal stage", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", nargs="+", help="files and folders on the shared file system")
    parser.add_argument("folder", help="a folder on each node's own disk; made if need be")
    parser.add_argument(
        "--unpack", action="store_true", help="the sources are archives (tar, tar.zst, ...): unpack them"
    )
    given = parser.parse_args(arguments)
    comm = _world()
    try:
        return _stage_all(given.source, fill_in(given.folder, comm.Get_rank() if comm else 0), given.unpack, comm)
    except BaseException:
        if comm is None or comm.Get_size() == 1:
            raise
        # One that ended by itself would leave the others waiting for it for ever.
        traceback.print_exc()
        comm.Abort(1)
        raise


def _stage_all(given: list[str], folder: Path, unpack: bool, comm: Any) -> int:
    among, _ = leaders(comm, folder) if comm else (Solo(), None)
    if among is None:
        return 0  # another process of this node does it
    try:
        sources = [_listed(among, source, unpack) for source in given]
        names = [_name(listing) for listing in sources]
        if len(set(names)) < len(names):
            raise StagingError(f"two sources would have one name in {folder}: {', '.join(sorted(names))}")
    except StagingError as error:
        if among.rank == 0:
            print(f"worksteal: {error}", file=sys.stderr)
        return 1
    return max([_stage_to(folder, listing, among) for listing in sources])


def _world() -> Any:
    """All ranks of this launch; None without MPI."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):  # no mpi4py, or no MPI that it could load
        launched = any(name in os.environ for name in ("PMI_SIZE", "PMIX_RANK", "OMPI_COMM_WORLD_SIZE", "PALS_RANKID"))
        if launched or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
            sys.exit("worksteal: this was started by an MPI launcher, and mpi4py or an MPI that it can load is missing")
        return None
    processes = max(int(os.environ.get(name) or 1) for name in LAUNCHED)
    if processes > 1 and MPI.COMM_WORLD.Get_size() == 1:  # each would read all by itself
        sys.exit(f"worksteal: one of {processes} processes of a launcher is alone in its MPI world: {OTHER_MPI}")
    return MPI.COMM_WORLD


def _listed(peers: Peers, source: str, unpack: bool) -> Listing:
    """The first process looks, the others are told."""
    found: Listing | StagingError
    try:
        found = list_source(source, unpack=unpack) if peers.rank == 0 else StagingError()
    except StagingError as error:
        found = error
    found = peers.share(found)
    if isinstance(found, StagingError):
        raise found
    return found


def _name(listing: Listing) -> str:
    return unpacked_name(listing.name) if listing.unpack else listing.name


def _stage_to(folder: Path, listing: Listing, peers: Peers) -> int:
    """Stage one source and link to it; tell at the first process what came of it on all; the exit status."""
    store: Store | StagingError
    try:
        store = Store(folder / STORE)
    except StagingError as error:
        store = error
    outcome = stage(listing, peers, store)
    if outcome.local and isinstance(store, Store):
        try:
            _link(folder / _name(listing), Path(outcome.local), store)
        except OSError as error:
            outcome.problem = f"{folder / _name(listing)} cannot be made: {error.strerror}"
        store.release(remove=False)
    outcomes: list[Outcome] = peers.gather(outcome)
    if peers.rank == 0:
        for line in describe(listing, outcomes):
            print(line, file=sys.stderr if line.startswith("worksteal:") else sys.stdout)
    return int(any(each.problem for each in outcomes))


def _link(link: Path, copy: Path, store: Store) -> None:
    """Point a link to a copy, in one step, and remove the copy that it pointed to before, unless a pool uses that."""
    before = Path(os.readlink(link)) if link.is_symlink() else None
    ours = before is not None and len(before.parts) == 3 and before.parts[0] == STORE and ".." not in before.parts
    if not ours and os.path.lexists(link):
        raise FileExistsError(17, "something that was not staged has that name")
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(os.path.relpath(copy, link.parent))
    temporary.rename(link)
    if before is not None and (old := link.parent / before) != copy:
        store.drop(old.parent)


def describe(listing: Listing, outcomes: list[Outcome]) -> list[str]:
    """Lines for people: what was read and where it is, and of each node that has no copy why not."""
    good = [each for each in outcomes if not each.problem]
    seconds = max(each.ended for each in outcomes) - min(each.started for each in outcomes)
    return [
        f"{listing.source}: {listing.size:,} bytes ({len(listing.files):,} files) on {len(good)} of {len(outcomes)} "
        f"nodes, new on {sum(each.written > 0 for each in good)}; {max(each.read for each in outcomes):,} bytes read, "
        f"{seconds:.2f} s",
        *(f"worksteal: {each.host}: {each.problem}" for each in outcomes if each.problem),
    ]


if __name__ == "__main__":
    sys.exit(main())
