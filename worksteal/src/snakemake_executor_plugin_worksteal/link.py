"""A link: messages in order and exactly once between two processes, whatever connections carry them.

A channel ends when the network does, and nobody knows then which of the last messages have arrived. A link numbers its
messages and keeps each until the other side has said that it has it; over the next channel it sends again what the
other side lacks. Nothing is waited for, and there is no thread in it but the one that dials.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

from .channel import Channel, ChannelClosed, ChannelError, connect

ACKNOWLEDGE = 32  # messages after which they are acknowledged at once; else with the next message or `tick`
DIAL_S = 10.0  # how long one try may take
AGAIN_S = 1.0  # between two tries
# So often in a row, for so long at least, nobody may listen where Snakemake did until it is taken for gone. A network
# that is cut off refuses nothing.
REFUSALS, REFUSED_S = 3, 5.0
SILENCE_S = 30  # after which a connection is taken for lost: another costs little
WELCOME, UNWANTED = "welcome", "unwanted"


class Link:
    """One side. Used as a `Channel` is in an event loop; while there is no channel, messages are kept."""

    def __init__(self) -> None:
        self.channel: Channel | None = None
        self.received = 0
        self._sent = 0
        self._kept: deque[tuple[int, Any]] = deque()
        self._told = 0

    @property
    def unacknowledged(self) -> int:
        """Messages that the other side may lack."""
        return len(self._kept)

    def attach(self, channel: Channel, received: int) -> None:
        """Go on over a new channel; received: how many messages the other side has had."""
        if self.channel is not None:
            self.channel.close()
        self._forget(received)
        channel.notice_silence(SILENCE_S)
        self.channel = channel
        self._told = self.received
        for number, message in self._kept:
            channel.queue((number, self.received, message))

    def detach(self) -> None:
        """The channel has ended, or is to."""
        if self.channel is not None:
            self.channel.close()
        self.channel = None

    def queue(self, message: Any) -> None:
        """Keep a message, and send it with the next `flush`. Raises ChannelError only if it is too large for any
        channel.
        """
        self._sent += 1
        self._kept.append((self._sent, message))
        if self.channel is not None:
            self._told = self.received
            with suppress(ChannelClosed):  # `read` will say so
                self.channel.queue((self._sent, self.received, message))

    def read(self) -> list[Any]:
        """What has arrived. Raises ChannelError when the channel has ended: `detach` then."""
        if self.channel is None:
            return []
        found = []
        for number, received, message in self.channel.read():
            self._forget(received)
            if number == self.received + 1:
                self.received = number
                found.append(message)
        if self.received - self._told >= ACKNOWLEDGE:
            self.tick()
        return found

    def tick(self) -> None:
        """Acknowledge what has arrived, if that was not done with a message."""
        if self.channel is not None and self._told < self.received:
            self._told = self.received
            with suppress(ChannelClosed):
                self.channel.queue((0, self.received, None))

    def _forget(self, received: int) -> None:
        while self._kept and self._kept[0][0] <= received:
            self._kept.popleft()


class Dialler(threading.Thread):
    """Connects to Snakemake (again) beside an event loop: look at `channel` and `failure` now and then.

    hello is the first message of the pool; the other side answers (WELCOME or UNWANTED, how many messages it has had).
    patience is for how many seconds it is tried.
    """

    def __init__(self, address: str, secret: bytes, hello: Any, patience: float) -> None:
        super().__init__(name="worksteal-dial", daemon=True)
        self.channel: Channel | None = None
        self.received = 0
        self.failure: ChannelError | None = None
        self._where, self._hello, self._patience = (address, secret), hello, patience

    def run(self) -> None:
        """Try until it works, there is no hope, or time is up."""
        began, refusals = time.monotonic(), 0
        while True:
            try:
                self.channel = self._once()
            except ChannelError as error:
                waited = time.monotonic() - began
                refusals = refusals + 1 if refused(error) else 0
                gone = refusals >= REFUSALS and waited >= REFUSED_S
                if gone or waited >= self._patience or isinstance(error, NotWanted):
                    self.failure = error
                    return
                time.sleep(AGAIN_S)
            else:
                return

    def _once(self) -> Channel:
        channel = connect(*self._where, DIAL_S)
        try:
            channel.send(self._hello)
            word, self.received = channel.recv(timeout=DIAL_S)
        except (ChannelClosed, TimeoutError) as error:
            channel.close()
            raise ChannelError(f"Snakemake gave no welcome: {error}") from error
        if word != WELCOME:
            channel.close()
            raise NotWanted("Snakemake does not want this pool any more")
        return channel


class NotWanted(ChannelError):
    """The other side is there, and has given this pool up."""


def refused(error: ChannelError) -> bool:
    """Whether an address was reached and nobody listened there."""
    return isinstance(error.__cause__, (ConnectionRefusedError, FileNotFoundError))
