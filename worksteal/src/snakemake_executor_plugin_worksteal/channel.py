"""The channel between Snakemake, which listens, and the pool, which connects: both prove that they know one secret.

Each side sends a hello (magic, version, nonce), then a proof: HMAC-SHA256 by the secret over its role and both hellos,
so that a proof can neither be replayed (fresh nonces) nor reflected (roles). The keys of the frames, one a direction,
are derived from the secret and both hellos. The handshake has a fixed size, so no stranger's length is ever believed.
"""

from __future__ import annotations

import hmac
import secrets
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .endpoints import ChannelClosed, ChannelError, dial, listen, peer_name
from .frames import MAX_FRAME, Channel

__all__ = ["MAX_FRAME", "Channel", "ChannelClosed", "ChannelError", "Listener", "connect"]

VERSION = 1
_MAGIC = b"wrksteal"
_HELLO = struct.Struct(">8sH32s")  # magic, version, nonce
_PROOF_SIZE = 32
_SECRET_LEAST = 16  # bytes
_STRANGERS = 64  # handshakes at one time; more make the oldest give way
_LISTENER, _CONNECTOR = b"listener", b"connector"


class _Handshake:
    """One side of the handshake, without I/O: send `hello`, then `feed` what arrives, at most `wanted` bytes."""

    def __init__(self, secret: bytes, role: bytes) -> None:
        if len(secret) < _SECRET_LEAST:
            raise ValueError(f"The secret has {len(secret)} bytes, expected at least {_SECRET_LEAST} random ones.")
        self._secret = secret
        self._role, self._other = (role, _LISTENER if role == _CONNECTOR else _CONNECTOR)
        self.hello = _HELLO.pack(_MAGIC, VERSION, secrets.token_bytes(32))
        self._theirs = b""
        self._proof = b""

    @property
    def wanted(self) -> int:
        """Bytes that are still missing of the peer's hello or else of its proof; 0 when the peer is authenticated."""
        if len(self._theirs) < _HELLO.size:
            return _HELLO.size - len(self._theirs)
        return _PROOF_SIZE - len(self._proof)

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the peer, return what to answer; ChannelError with the reason if the peer is to be refused."""
        if len(self._theirs) == _HELLO.size:
            self._proof += data
            if not self.wanted and not hmac.compare_digest(self._proof, self._prove(self._other)):
                raise ChannelError(
                    "gave a wrong proof: it does not know this pool's secret, or replays another's words"
                )
            return b""
        self._theirs += data
        if self._theirs[: len(_MAGIC)] != _MAGIC[: len(self._theirs)]:
            raise ChannelError(f"does not speak worksteal's protocol: it began with {self._theirs[:8]!r}")
        if len(self._theirs) < _HELLO.size:
            return b""
        version = _HELLO.unpack(self._theirs)[1]
        if version != VERSION:
            raise ChannelError(
                f"speaks version {version} of the channel and this side version {VERSION}: install the same release of "
                "snakemake-executor-plugin-worksteal on both sides"
            )
        return self._prove(self._role)

    def keys(self) -> tuple[bytes, bytes]:
        """The keys to send and to receive with."""
        session = hmac.digest(self._secret, b"worksteal session" + self._hellos(), "sha256")
        return tuple(hmac.digest(session, b"from " + role, "sha256") for role in (self._role, self._other))  # type: ignore[return-value]

    def _hellos(self) -> bytes:
        ours_first = self._role == _LISTENER
        return self.hello + self._theirs if ours_first else self._theirs + self.hello

    def _prove(self, role: bytes) -> bytes:
        return hmac.digest(self._secret, b"worksteal proof of the " + role + self._hellos(), "sha256")


@dataclass(slots=True)
class _Stranger:
    """A peer in the middle of its handshake; deadline by the monotonic clock."""

    connection: socket.socket
    name: str
    deadline: float
    handshake: _Handshake


class Listener:
    """Waits for peers that know the secret.

    address is "unix:/path" (the folder is made with mode 0700; one that others may enter is refused) or "tcp:host:port"
    (no host: all interfaces; port 0: any); `address` tells the real one. refuse is called with a sentence for each peer
    that is turned away; timeout is what a handshake may take in seconds. Handshakes go on side by side, but only while
    `accept` is being called. Raises ChannelError if the address cannot be used, ValueError if the secret is short.
    """

    def __init__(
        self,
        secret: bytes,
        address: str,
        refuse: Callable[[str], None],
        timeout: float = 10.0,
        max_frame: int = MAX_FRAME,
    ) -> None:
        _Handshake(secret, _LISTENER)  # a secret that is too short is found now, not at the first peer
        self._secret, self._refuse, self._timeout, self._max_frame = secret, refuse, timeout, max_frame
        self._socket, self.address = listen(address)
        self._socket.setblocking(False)
        self._strangers: dict[int, _Stranger] = {}  # by descriptor, oldest first
        self._accepted: deque[Channel] = deque()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._lock = threading.RLock()
        self._closed = False

    def accept(self, timeout: float | None) -> Channel | None:
        """The next authenticated channel, or None after timeout seconds (None: for ever). Raises ChannelClosed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            while True:
                if self._closed:
                    raise ChannelClosed(f"The listener at {self.address} was closed by this side.")
                if self._accepted:
                    return self._accepted.popleft()
                for key, _ in self._selector.select(self._patience(deadline)):
                    if key.fileobj is self._socket:
                        self._welcome()
                    elif key.fd in self._strangers:  # it may have had to give way a moment ago
                        self._advance(self._strangers[key.fd])
                now = time.monotonic()
                for stranger in [each for each in self._strangers.values() if each.deadline <= now]:
                    self._turn_away(stranger, f"was silent: no complete handshake within {self._timeout:g} s")
                if deadline is not None and now >= deadline and not self._accepted:
                    return None

    def fileno(self) -> int:
        """The descriptor that becomes readable when `accept` has something to do."""
        return self._selector.fileno()

    def close(self) -> None:
        """End it, unfinished handshakes and channels that nobody has taken; a thread in `accept` gets ChannelClosed."""
        self._closed = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes a thread in accept
        with self._lock:
            self._selector.close()
            self._socket.close()
            for channel in self._accepted:
                channel.close()
            for stranger in self._strangers.values():
                stranger.connection.close()
            self._strangers.clear()
            if self.address.startswith("unix:"):
                Path(self.address[len("unix:") :]).unlink(missing_ok=True)

    def _patience(self, deadline: float | None) -> float | None:
        moments = [each.deadline for each in self._strangers.values()]
        if deadline is not None:
            moments.append(deadline)
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _welcome(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return  # it has gone again
        except OSError as error:
            if self._closed:
                return
            raise ChannelError(f"{self.address} cannot take a connection: {error.strerror}.") from error
        if len(self._strangers) >= _STRANGERS:
            self._turn_away(next(iter(self._strangers.values())), "gave way: too many handshakes at one time")
        connection.setblocking(False)
        handshake = _Handshake(self._secret, _LISTENER)
        stranger = _Stranger(connection, peer_name(connection), time.monotonic() + self._timeout, handshake)
        self._strangers[connection.fileno()] = stranger
        self._selector.register(connection, selectors.EVENT_READ)
        self._reply(stranger, handshake.hello)

    def _advance(self, stranger: _Stranger) -> None:
        try:
            data = stranger.connection.recv(stranger.handshake.wanted)
            if not data:
                raise ConnectionResetError
            answer = stranger.handshake.feed(data)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._turn_away(stranger, "closed the connection before it had proved that it knows the secret")
        except ChannelError as error:
            self._turn_away(stranger, str(error))
        else:
            if answer:
                self._reply(stranger, answer)
            elif not stranger.handshake.wanted:
                self._part(stranger)
                keys = stranger.handshake.keys()
                self._accepted.append(Channel(stranger.connection, keys, stranger.name, self._max_frame))

    def _reply(self, stranger: _Stranger, data: bytes) -> None:
        # A fresh connection's buffer has room for a whole handshake: a peer without it is none of ours.
        try:
            complete = stranger.connection.send(data, socket.MSG_NOSIGNAL) == len(data)
        except OSError:
            complete = False
        if not complete:
            self._turn_away(stranger, "takes no answer")

    def _part(self, stranger: _Stranger) -> None:
        self._selector.unregister(stranger.connection)
        del self._strangers[stranger.connection.fileno()]

    def _turn_away(self, stranger: _Stranger, why: str) -> None:
        self._part(stranger)
        stranger.connection.close()
        self._refuse(f"Refused a connection to {self.address}: {stranger.name} {why}.")


def connect(address: str, secret: bytes, timeout: float, max_frame: int = MAX_FRAME) -> Channel:
    """Connect to a `Listener` and authenticate both ways, within timeout seconds.

    Raises ChannelError if nobody listens, the other side has another secret or another version, or time is up.
    """
    handshake = _Handshake(secret, _CONNECTOR)
    deadline = time.monotonic() + timeout
    connection = None
    try:
        connection = dial(address, timeout)
        connection.sendall(handshake.hello)
        while handshake.wanted:
            connection.settimeout(max(1e-3, deadline - time.monotonic()))
            data = connection.recv(handshake.wanted)
            if not data:
                raise ChannelError("closed the connection during the handshake: it says why in its own log")
            connection.sendall(handshake.feed(data))
    except (OSError, ChannelError) as error:
        if connection is not None:
            connection.close()
        if isinstance(error, TimeoutError):
            reason = f"gave no answer within {timeout:g} s"
        else:
            reason = str(error) if isinstance(error, ChannelError) else f"cannot be reached: {error.strerror or error}"
        raise ChannelError(f"No channel to Snakemake: {address} {reason}.") from error
    return Channel(connection, handshake.keys(), address, max_frame)
