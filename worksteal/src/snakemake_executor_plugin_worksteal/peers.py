"""How several processes read one file together: each byte comes from the shared file system once, the rest is MPI.

Up to READERS of the processes open the file and read it by collective MPI-IO, a chunk each; each chunk is then sent to
all others by a broadcast. So neither the number of opened files nor that of bytes read grows with the number of nodes.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from .listing import StagingError

CHUNK = 32 << 20  # bytes
READERS = 8


class Peers(Protocol):
    """Processes that stage together. All must make the same calls in the same order."""

    rank: int
    size: int

    def gather(self, own: Any) -> list[Any]: ...
    def share(self, value: Any) -> Any: ...
    def read(self, path: str, size: int) -> Iterator[memoryview]: ...


class Solo:
    """A process that has none."""

    rank = 0
    size = 1

    def gather(self, own: Any) -> list[Any]:
        """The values of all, by rank."""
        return [own]

    def share(self, value: Any) -> Any:
        """The value of the first."""
        return value

    def read(self, path: str, size: int) -> Iterator[memoryview]:
        """The `size` bytes of a file, in parts. StagingError if they are not there."""
        block = memoryview(bytearray(min(CHUNK, size)))
        try:
            with open(path, "rb", buffering=0) as file:
                left = size
                while left:
                    got = file.readinto(block[:left])
                    if not got:
                        raise StagingError(f"{path} has become shorter while it was read")
                    yield block[:got]
                    left -= got
        except OSError as error:
            raise StagingError(f"{path} cannot be read: {error.strerror}") from error


class Collective:
    """The ranks of an MPI communicator."""

    def __init__(self, comm: Any) -> None:
        """comm: an mpi4py communicator that nobody else uses."""
        from mpi4py import MPI

        self._mpi = MPI
        self._comm = comm
        self.rank: int = comm.Get_rank()
        self.size: int = comm.Get_size()
        self._groups: dict[int, Any] = {}

    def gather(self, own: Any) -> list[Any]:
        """The values of all, by rank."""
        found: list[Any] = self._comm.allgather(own)
        return found

    def share(self, value: Any) -> Any:
        """The value of the first."""
        return self._comm.bcast(value)

    def read(self, path: str, size: int) -> Iterator[memoryview]:
        """The `size` bytes of a file, in parts, at every rank; each part is to be used before the next is asked for.

        All ranks must ask for all parts. StagingError at all of them if one of them cannot read its chunk.
        """
        readers = min(self.size, READERS, -(-size // CHUNK))
        group = self._group(readers) if readers else None
        file, problem = None, ""
        own = bytearray(min(CHUNK, size) if self.rank < readers else 0)
        other = memoryview(bytearray(min(CHUNK, size)))
        if group is not None:
            try:
                file = self._mpi.File.Open(group, path, self._mpi.MODE_RDONLY)
            except self._mpi.Exception as error:
                problem = f"{path} cannot be read: {error.Get_error_string()}"
            if problems := [each for each in group.allgather(problem) if each]:
                # To read it, or to close it where it could be opened, would be to wait for those where it could not.
                file, problem = None, problems[0]
        problems = []
        for begin in range(0, size, max(1, readers) * CHUNK):
            lengths = [max(0, min(CHUNK, size - begin - reader * CHUNK)) for reader in range(readers)]
            if file is not None:
                problem = self._read_own(file, path, begin + self.rank * CHUNK, memoryview(own)[: lengths[self.rank]])
            if problems := [each for each in self.gather(problem) if each]:
                break
            for reader, length in enumerate(filter(None, lengths)):
                part = memoryview(own)[:length] if reader == self.rank else other[:length]
                self._comm.Bcast([part, length, self._mpi.BYTE], root=reader)
                yield part
        # Collective, so not in a `finally`: a rank that fails would wait there for the others, and they for it.
        if file is not None:
            file.Close()
        if problems:
            raise StagingError(problems[0])

    def _read_own(self, file: Any, path: str, offset: int, part: memoryview) -> str:
        """Read a rank's own chunk, a collective call of the readers; what went wrong, or nothing."""
        status = self._mpi.Status()
        try:
            file.Read_at_all(offset, [part, len(part), self._mpi.BYTE], status)
        except self._mpi.Exception as error:
            return f"{path} cannot be read: {error.Get_error_string()}"
        got = status.Get_count(self._mpi.BYTE)
        return "" if got == len(part) else f"{path} has become shorter while it was read"

    def _group(self, readers: int) -> Any:
        """A communicator of the first ranks; None at the others. A collective call of all."""
        if readers not in self._groups:
            inside = self.rank < readers
            found = self._comm.Split(0 if inside else self._mpi.UNDEFINED, self.rank)
            self._groups[readers] = found if inside else None
        return self._groups[readers]


def fill_in(folder: str, rank: int) -> Path:
    """A folder of this node: {rank}, {host} and variables filled in, absolute."""
    text = os.path.expandvars(folder.replace("{rank}", str(rank)).replace("{host}", socket.gethostname()))
    return Path(os.path.abspath(text))


def leaders(comm: Any, folder: str | Path) -> tuple[Peers | None, Peers]:
    """Who stages, one process for each node and folder (None at the others), and the processes of that node and folder,
    the one that stages first. A collective call.
    """
    places = comm.allgather((socket.gethostname(), str(folder)))
    mine = places.index(places[comm.Get_rank()])
    leads = mine == comm.Get_rank()
    among = comm.Split(0 if leads else 1, comm.Get_rank())
    return (Collective(among) if leads else None), Collective(comm.Split(mine, comm.Get_rank()))
