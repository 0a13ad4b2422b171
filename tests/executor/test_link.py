"""A link: in order and exactly once, whatever becomes of the channels under it."""

from __future__ import annotations

import random
import socket
import threading

from hypothesis import given, settings
from hypothesis import strategies as st
from snakemake_executor_plugin_worksteal.channel import Channel, ChannelError, Listener
from snakemake_executor_plugin_worksteal.link import UNWANTED, WELCOME, Dialler, Link, NotWanted

KEYS = (b"one" * 11, b"two" * 11)


def joined(one: Link, other: Link) -> tuple[Channel, Channel]:
    """Connect two links anew; each learns how much the other has had."""
    left, right = socket.socketpair()
    channels = Channel(left, KEYS, "other"), Channel(right, KEYS[::-1], "one")
    received = one.received, other.received
    one.attach(channels[0], received[1])
    other.attach(channels[1], received[0])
    return channels


def exchange(link: Link, got: list[int]) -> None:
    """Write and read what is possible."""
    if link.channel is None:
        return
    try:
        link.tick()
        link.channel.flush()
        got += link.read()
    except ChannelError:
        link.detach()


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("abxyc"), st.integers(1, 40)), max_size=60), st.integers(0, 2**32))
def test_every_message_arrives_once_and_in_order(steps, seed):
    """Sends by either side, exchanges in any order, and cuts at any moment, also with messages on their way."""
    rng = random.Random(seed)
    one, other = Link(), Link()
    joined(one, other)
    sent: tuple[list[int], list[int]] = ([], [])
    got: tuple[list[int], list[int]] = ([], [])
    for what, number in steps:
        if what in "ab":
            side = "ab".index(what)
            for _ in range(number):
                sent[side].append(len(sent[side]))
                (one, other)[side].queue(sent[side][-1])
        elif what in "xy":
            side = "xy".index(what)
            exchange((one, other)[side], got[1 - side])
        else:
            # One side notices first, or both at once; what the kernel holds is lost
            for link in rng.sample([one, other], 2):
                link.detach()
            joined(one, other)
    while sent[0] != got[0] or sent[1] != got[1] or one.unacknowledged or other.unacknowledged:
        before = len(got[0]) + len(got[1]) - one.unacknowledged - other.unacknowledged
        for _ in range(3):
            exchange(one, got[1])
            exchange(other, got[0])
        assert len(got[0]) + len(got[1]) - one.unacknowledged - other.unacknowledged > before, (sent, got)
    one.detach()
    other.detach()


def test_what_is_sent_while_there_is_no_channel_arrives_with_the_next():
    """Nothing is lost between two connections."""
    one, other = Link(), Link()
    one.queue("early")
    got: list[str] = []
    joined(one, other)
    exchange(one, [])
    exchange(other, got)  # type: ignore[arg-type]
    other.detach()
    one.detach()
    one.queue("between")
    joined(one, other)
    exchange(one, [])
    exchange(other, got)  # type: ignore[arg-type]
    assert got == ["early", "between"]


SECRET = b"0123456789abcdef"


def dial(address: str, patience: float) -> Dialler:
    """A dialler that has ended."""
    dialler = Dialler(address, SECRET, ("hello", 1), patience)
    dialler.start()
    dialler.join(30)
    assert not dialler.is_alive()
    return dialler


def test_dialling():
    """A welcome is waited for; one that hangs up is dialled again; not to be wanted, or nobody there, is no hope."""
    listener = Listener(SECRET, "tcp:127.0.0.1:0", print)

    def answer(word: str) -> None:
        for hangs_up in (True, False):
            channel = listener.accept(10)
            assert channel is not None
            assert channel.recv(10) == ("hello", 1)
            if not hangs_up:
                channel.send((word, 7))
            channel.close()

    for word in (WELCOME, UNWANTED):
        answering = threading.Thread(target=answer, args=(word,))
        answering.start()
        found = dial(listener.address, 20)
        answering.join()
        if word == WELCOME:
            assert found.received == 7
            assert found.channel is not None
        else:
            assert isinstance(found.failure, NotWanted)
    listener.close()
    assert "cannot be reached" in str(dial(listener.address, 60).failure), "a refusal ends it long before its patience"
