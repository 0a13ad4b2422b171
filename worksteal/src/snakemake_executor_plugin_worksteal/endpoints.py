"""Addresses of the channel between Snakemake and the pool: Unix sockets in a private folder, and TCP."""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UNIX_PATH_MOST = 107  # bytes, sockaddr_un


class ChannelError(Exception):
    """The channel cannot be made or trusted; the sentence says what was read and what was expected."""


class ChannelClosed(ChannelError):
    """The peer, the network or this side has ended the channel."""


def _split(address: str) -> tuple[str, str, int]:
    """Path, "", 0 of a Unix address; "", host, port of a TCP one. Raises ChannelError."""
    kind, _, rest = address.partition(":")
    if kind == "unix" and rest.startswith("/"):
        return rest, "", 0
    host, colon, port = rest.rpartition(":")
    if kind != "tcp" or not colon or not port.isdecimal():
        raise ChannelError(f"The address {address!r} is none: expected unix:/absolute/path or tcp:host:port.")
    return "", host.strip("[]"), int(port)


@contextmanager
def _short(path: str) -> Iterator[str]:
    """A name of the path that fits a socket address: folders of batch jobs are often deeper than its 107 bytes."""
    if len(os.fsencode(path)) <= _UNIX_PATH_MOST:
        yield path
        return
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)


def listen(address: str) -> tuple[socket.socket, str]:
    path, host, port = _split(address)
    listening = None
    try:
        if path:
            _private_folder(Path(path).parent)
            listening = socket.socket(socket.AF_UNIX)
            with _short(path) as short:
                listening.bind(short)
        else:
            family, kind, protocol, _, where = socket.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listening = socket.socket(family, kind, protocol)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(where)
            host, port = listening.getsockname()[:2]
            address = f"tcp:[{host}]:{port}" if ":" in host else f"tcp:{host}:{port}"
        listening.listen(128)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise ChannelError(f"Cannot listen at {address}: {error.strerror or error}. Choose another address.") from error
    return listening, address


def _private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ChannelError(
            f"The folder {folder} of the socket has mode {stat.S_IMODE(found.st_mode):04o} and owner {found.st_uid}: "
            f"expected 0700 and {os.geteuid()}, so that nobody else can enter."
        )


def dial(address: str, timeout: float) -> socket.socket:
    path, host, port = _split(address)
    if not path:
        return socket.create_connection((host or "localhost", port), timeout)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout)
        with _short(path) as short:
            connection.connect(short)
    except OSError:
        connection.close()
        raise
    return connection


def tune(connection: socket.socket, silence_s: int = 120) -> None:
    """Send small messages at once, and notice within so many seconds that a node has vanished. TCP only."""
    if connection.family == socket.AF_UNIX:
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    often = silence_s // 12
    for option, value in ((socket.TCP_KEEPIDLE, 6 * often), (socket.TCP_KEEPINTVL, often), (socket.TCP_KEEPCNT, 6)):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    # Keep-alive does not watch a connection on which something waits to be acknowledged; this does (milliseconds).
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, silence_s * 1000)


def peer_name(connection: socket.socket) -> str:
    """Who is at the other end, for people."""
    if connection.family == socket.AF_UNIX:
        size = struct.calcsize("3i")
        pid, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        return f"process {pid} of user {user}"
    try:
        host, port = connection.getpeername()[:2]
    except OSError:
        return "a peer that has gone"
    return f"{host}:{port}"
