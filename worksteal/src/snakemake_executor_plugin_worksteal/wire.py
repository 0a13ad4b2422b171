"""Pickles over a socket pair between a process and its own fork, without waiting and without threads."""

from __future__ import annotations

import os
import pickle
import socket
import struct
from typing import Any

_LENGTH = struct.Struct(">Q")
_CHUNK = 1 << 20  # bytes
_PACKET = 1 << 16  # bytes; less than what a socket takes before anybody reads


def packets(message: Any) -> list[memoryview]:
    """A message as `hear` expects it."""
    payload = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    view = memoryview(_LENGTH.pack(len(payload)) + payload)
    return [view[at : at + _PACKET] for at in range(0, len(view), _PACKET)]


def tell(descriptor: int, parts: list[memoryview]) -> None:
    """Send `packets` over a socket that keeps them apart, waiting until they are taken; OSError if nobody will."""
    for packet in parts:
        os.write(descriptor, packet)


def hear(descriptor: int) -> Any:
    """Wait for a message of `tell`; None if the other end has been closed."""
    found = _read(descriptor)
    if not found:
        return None
    end = _LENGTH.size + _LENGTH.unpack_from(found)[0]
    parts = [found]
    size = len(found)
    while size < end:
        parts.append(_read(descriptor))
        if not parts[-1]:
            return None
        size += len(parts[-1])
    with memoryview(b"".join(parts)) as view:
        return pickle.loads(view[_LENGTH.size :])


def _read(descriptor: int) -> bytes:
    """A packet; empty if the connection has ended."""
    try:
        return os.read(descriptor, _PACKET)
    except ConnectionResetError:
        return b""


class Wire:
    """One end. A peer that is gone is no error: `ended` tells, and what is sent then is dropped."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._out = bytearray()
        self._arrived = bytearray()
        self.ended = False

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end."""
        self.ended = True
        self._out.clear()
        self._socket.close()

    @property
    def wants_write(self) -> bool:
        """Whether messages wait for `flush`."""
        return bool(self._out)

    def send(self, message: Any) -> None:
        """Keep a message for `flush`."""
        if not self.ended:
            payload = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
            self._out += _LENGTH.pack(len(payload)) + payload

    def flush(self) -> bool:
        """Write what the socket takes now; True if nothing is left to write."""
        try:
            while self._out:
                with memoryview(self._out) as view:
                    sent = self._socket.send(view[:_CHUNK])
                del self._out[:sent]
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError):
            self._out.clear()  # whether the peer has ended is for `receive` to say, after its last words
        return True

    def receive(self) -> list[Any]:
        """All messages that have arrived; sets `ended` at the end of the connection."""
        try:
            while data := self._socket.recv(_CHUNK):
                self._arrived += data
            self.ended = True
        except BlockingIOError:
            pass
        except ConnectionResetError:
            self.ended = True
        return self._whole()

    def _whole(self) -> list[Any]:
        messages, at = [], 0
        while len(self._arrived) - at >= _LENGTH.size:
            start = at + _LENGTH.size
            end = start + _LENGTH.unpack_from(self._arrived, at)[0]
            if end > len(self._arrived):
                break
            with memoryview(self._arrived) as view, view[start:end] as part:
                messages.append(pickle.loads(part))
            at = end
        del self._arrived[:at]
        return messages
