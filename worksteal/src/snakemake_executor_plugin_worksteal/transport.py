"""How agents talk to each other: MPI, or not at all where there is one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, NoReturn, Protocol

from .peers import Peers, Solo, leaders


class Transport(Protocol):
    """Messages between agents, in order between each pair."""

    rank: int
    size: int
    # Seconds that an idle agent may sleep before it looks for messages again; None: it has no peers to look for.
    idle_s: float | None

    def gather(self, own: Any) -> list[Any]: ...
    def places(self, folder: str) -> tuple[Peers | None, Peers]: ...
    def send(self, to: int, message: Any) -> None: ...
    def flush(self) -> bool: ...
    def receive(self) -> Iterator[tuple[int, Any]]: ...
    def close(self) -> None: ...
    def abort(self, why: str) -> NoReturn: ...


class Alone:
    """One agent."""

    rank = 0
    size = 1
    idle_s: float | None = None

    def gather(self, own: Any) -> list[Any]:
        """The agents' values, by rank."""
        return [own]

    def places(self, folder: str) -> tuple[Peers | None, Peers]:
        """Who stages together, one agent a node and folder, and the agents of this one's."""
        return Solo(), Solo()

    def send(self, to: int, message: Any) -> None:
        """There is nobody to send to."""
        raise RuntimeError(f"an agent without peers sent a message to {to}")

    def flush(self) -> bool:
        """All is sent."""
        return True

    def receive(self) -> Iterator[tuple[int, Any]]:
        """There is nobody to hear from."""
        return iter(())

    def close(self) -> None:
        """Nothing is open."""

    def abort(self, why: str) -> NoReturn:
        """End this process."""
        sys.exit(f"worksteal: {why}")


class Mpi:
    """Agents as the ranks of one MPI launch. MPI is started here, so whatever must be forked is forked before."""

    idle_s: float | None = 0.05

    def __init__(self) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        self._comm = MPI.COMM_WORLD.Dup()
        self.rank: int = self._comm.Get_rank()
        self.size: int = self._comm.Get_size()
        self._outgoing: dict[int, list[Any]] = {}
        self._sending: list[Any] = []

    def gather(self, own: Any) -> list[Any]:
        """The agents' values, by rank; a collective call."""
        found: list[Any] = self._comm.allgather(own)
        return found

    def places(self, folder: str) -> tuple[Peers | None, Peers]:
        """Who stages together, one agent a node and folder (None at others), and the agents of this one's; a collective
        call.
        """
        return leaders(self._comm, folder)

    def send(self, to: int, message: Any) -> None:
        """Keep a message for `flush`."""
        self._outgoing.setdefault(to, []).append(message)

    def flush(self) -> bool:
        """Send without waiting, to each agent all that is kept for it in one MPI message; True if MPI has sent all.

        MPI's queue between two ranks is short, and what does not fit into it moves on only in calls of MPI at both:
        many small messages would wait for the polls of two agents that sleep in between.
        """
        for to, messages in self._outgoing.items():
            self._sending.append(self._comm.isend(messages, dest=to))
        self._outgoing.clear()
        if self._sending:
            self._sending = [request for request in self._sending if not request.test()[0]]
        return not self._sending

    def receive(self) -> Iterator[tuple[int, Any]]:
        """What has arrived, with its source."""
        status = self._mpi.Status()
        # Improbe takes the message out of the queue at once, so the receive below is of just that message.
        while (found := self._comm.improbe(status=status)) is not None:
            source = status.Get_source()
            for message in found.recv():
                yield source, message

    def close(self) -> None:
        """Send what is kept, leave MPI; every rank must come here."""
        self.flush()
        self._comm.Barrier()
        self._mpi.Finalize()

    def abort(self, why: str) -> NoReturn:
        """End the whole launch: the other agents are killed, and their runners end their tasks."""
        print(f"worksteal: {why}", file=sys.stderr, flush=True)
        self._comm.Abort(1)
        sys.exit(1)
