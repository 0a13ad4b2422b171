"""Authenticated frames over a connected socket.

A frame is its length, a MAC (HMAC-SHA256) and a pickle. The MAC covers the frame's number and length too, so that a
frame which was altered, repeated, left out or moved is refused. Nothing is unpickled before its MAC was verified.
Messages are authenticated, not encrypted.
"""

from __future__ import annotations

import hmac
import pickle
import select
import socket
import struct
import threading
import time
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import Any

from .endpoints import ChannelClosed, ChannelError, tune

MAX_FRAME = 256 << 20  # bytes of one message; Listener, connect and Channel take another limit
_FRAME = struct.Struct(">I32s")  # length, MAC
_NUMBER = struct.Struct(">QI")  # what the MAC covers besides the payload: number of the frame, length
_CHUNK = 256 << 10  # bytes received by one call
_CHUNKS_A_READ = 64  # so that a busy peer cannot hold an event loop for ever
_JOINED = 16 << 10  # payloads up to this size are copied behind their header: cheaper than one more buffer
_BUFFERS = 256  # written by one call


class Channel:
    """An authenticated channel; made by `connect` or `Listener.accept`.

    An event loop uses `read`, `queue`, `flush` and `wants_write` with `fileno`; a program with threads `send` and
    `recv`. Any thread may send, and one at a time receive. After a ChannelError nothing more can be read.
    """

    def __init__(
        self, connection: socket.socket, keys: tuple[bytes, bytes], peer: str, max_frame: int = MAX_FRAME
    ) -> None:
        connection.setblocking(False)
        tune(connection)
        self._socket = connection
        self.peer = peer
        self.max_frame = max_frame
        self._seal, self._check = (hmac.new(key, digestmod="sha256") for key in keys)
        self._sent = self._received = 0  # frames: their numbers are never sent, each side counts
        self._out: deque[bytes | memoryview] = deque()
        self._out_lock, self._in_lock = threading.RLock(), threading.RLock()
        self._chunk = memoryview(bytearray(_CHUNK))
        self._arrived = bytearray()
        self._messages: deque[Any] = deque()
        self._failure: ChannelError | None = None
        self._closed = False

    def notice_silence(self, seconds: int) -> None:
        """How soon it is to end when nothing comes through any more, over TCP."""
        tune(self._socket, seconds)

    def fileno(self) -> int:
        """The descriptor to wait on; -1 once closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """End the channel; a thread that waits in send or recv gets a ChannelClosed. Unwritten messages are dropped."""
        self._closed = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes who waits; the number stays taken until they have left
        for lock in (self._in_lock, self._out_lock):
            with lock:
                pass
        self._socket.close()

    def finish(self, timeout: float) -> None:
        """The orderly end: write what is queued, wait until the peer has closed too (at most timeout seconds), close.

        Over TCP a mere `close` loses last words on their way when the peer happens to send something at that moment.
        What still comes of the peer is dropped.
        """
        deadline = time.monotonic() + timeout
        with suppress(ChannelError, OSError):  # the peer has gone, so there is nobody to wait for
            while True:
                if written := self.flush():
                    self._socket.shutdown(socket.SHUT_WR)
                # Reading goes on meanwhile: a peer that is stuck in a send of its own would never read ours
                if not _wait(self._socket, select.POLLIN | (0 if written else select.POLLOUT), deadline):
                    break
                with self._in_lock, suppress(BlockingIOError):
                    if not self._socket.recv_into(self._chunk):
                        break
        self.close()

    def send(self, message: Any) -> None:
        """Write a message and wait until the system has all of it. Raises ChannelClosed; ChannelError if too large."""
        payload = self._pickled(message)
        with self._out_lock:
            self._append(payload)
            while not self._write():
                _wait(self._socket, select.POLLOUT, None)

    def queue(self, message: Any) -> None:
        """Keep a message for `flush`. Raises ChannelError if it is larger than max_frame."""
        payload = self._pickled(message)
        with self._out_lock:
            self._append(payload)

    def flush(self) -> bool:
        """Write what can be written without waiting; True if nothing is left. Raises ChannelClosed."""
        with self._out_lock:
            return self._write()

    @property
    def wants_write(self) -> bool:
        """Whether messages wait for `flush`."""
        return bool(self._out)

    def recv(self, timeout: float | None = None) -> Any:
        """Wait at most timeout seconds (None: for ever) for a message. Raises TimeoutError, and what `read` raises."""
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            with self._in_lock:
                while not self._messages:
                    self._expect_open()
                    if not _wait(self._socket, select.POLLIN, deadline):
                        raise TimeoutError(f"No message came from {self.peer} within {timeout} s.")
                    self._take()
                return self._messages.popleft()
        except ChannelError:
            self.close()
            raise

    def read(self) -> list[Any]:
        """All messages that have arrived, without waiting.

        Once all good messages were handed out it raises ChannelClosed at the end of the connection and ChannelError for
        a bad frame, and closes the channel. After much data it returns early; the descriptor stays readable.
        """
        try:
            with self._in_lock:
                self._take()
                messages = list(self._messages)
                self._messages.clear()
                return messages
        except ChannelError:
            self.close()
            raise

    def _expect_open(self) -> None:
        if self._closed:
            raise ChannelClosed(f"The channel to {self.peer} was closed by this side.")

    def _pickled(self, message: Any) -> bytes:
        payload = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        if len(payload) > self.max_frame:
            raise ChannelError(
                f"A message of {len(payload):,} bytes was to be sent to {self.peer}, the limit is {self.max_frame:,}: "
                "send it in parts."
            )
        return payload

    def _append(self, payload: bytes) -> None:
        self._expect_open()
        mac = self._seal.copy()
        mac.update(_NUMBER.pack(self._sent, len(payload)))
        mac.update(payload)
        self._sent += 1
        header = _FRAME.pack(len(payload), mac.digest())
        if len(payload) <= _JOINED:
            self._out.append(header + payload)
        else:
            self._out.extend((header, payload))

    def _write(self) -> bool:
        # A failure leaves the receiving side alone: the last words of a peer that has died can still be read.
        self._expect_open()
        while self._out:
            try:
                sent = self._socket.sendmsg(islice(self._out, _BUFFERS), (), socket.MSG_NOSIGNAL)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                self._out.clear()
                raise ChannelClosed(f"Writing to {self.peer} failed: {error.strerror}.") from error
            while sent:
                first = self._out[0]
                if sent < len(first):
                    self._out[0] = memoryview(first)[sent:]
                    break
                sent -= len(first)
                self._out.popleft()
        return True

    def _take(self) -> None:
        """Receive and unpack; a failure is kept until the messages before it were handed out, then raised."""
        self._expect_open()
        if self._failure is None:
            try:
                try:
                    self._receive()
                finally:
                    self._unpack()
            except ChannelError as error:
                self._failure = error
                if isinstance(error, ChannelClosed) and self._arrived:
                    self._failure = ChannelClosed(f"{error} It ended in the middle of a message.")
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)  # keeps the descriptor readable for the next call
        if self._failure is not None and not self._messages:
            raise self._failure

    def _receive(self) -> None:
        for _ in range(_CHUNKS_A_READ):
            try:
                size = self._socket.recv_into(self._chunk)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                raise ChannelClosed(f"Reading from {self.peer} failed: {error.strerror}.") from error
            if size == 0:
                raise ChannelClosed(f"{self.peer} has closed the channel.")
            self._arrived += self._chunk[:size]
            if size < _CHUNK:
                return

    def _unpack(self) -> None:
        start, end = 0, len(self._arrived)
        with memoryview(self._arrived) as arrived:
            while end - start >= _FRAME.size:
                length, mac = _FRAME.unpack_from(arrived, start)
                if length > self.max_frame:
                    raise ChannelError(
                        f"{self.peer} announced a message of {length:,} bytes, the limit is {self.max_frame:,}."
                    )
                if end - start - _FRAME.size < length:
                    break
                start += _FRAME.size
                with arrived[start : start + length] as payload:
                    self._messages.append(self._opened(payload, mac))
                start += length
        del self._arrived[:start]  # from the front: the rest is not copied

    def _opened(self, payload: memoryview, mac: bytes) -> Any:
        expected = self._check.copy()
        expected.update(_NUMBER.pack(self._received, len(payload)))
        expected.update(payload)
        if not hmac.compare_digest(mac, expected.digest()):
            raise ChannelError(
                f"Message {self._received} from {self.peer} does not fit its authentication code: it was altered, "
                "repeated, left out or moved on its way. The channel was closed."
            )
        self._received += 1
        try:
            return pickle.loads(payload)
        except Exception as error:
            raise ChannelError(
                f"Message {self._received - 1} from {self.peer} is authentic, but cannot be unpickled ({error!r}): "
                "are the same packages installed on both sides?"
            ) from error


def _wait(connection: socket.socket, event: int, deadline: float | None) -> bool:
    """Wait for an event or the end of the connection; False if the deadline (monotonic clock) came first."""
    poll = select.poll()
    poll.register(connection, event)
    return bool(poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000))
