"""The channel: what good peers exchange arrives whole; nothing else is believed, and no stranger harms them."""

from __future__ import annotations

import os
import pickle
import queue
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snakemake_executor_plugin_worksteal import channel as channel_module
from snakemake_executor_plugin_worksteal.channel import Channel, ChannelClosed, ChannelError, Listener, connect

SECRET = b"s" * 32
HELLO, PROOF, HEADER = 42, 32, 36  # bytes
PATIENCE = 10.0


class Service:
    """A listener that echoes what good peers send, and keeps the sentences about the others."""

    def __init__(self, address: str, timeout: float = PATIENCE) -> None:
        self.refused: queue.Queue[str] = queue.Queue()
        self.ended: queue.Queue[ChannelError] = queue.Queue()
        self.listener = Listener(SECRET, address, self.refused.put, timeout)
        self.address = self.listener.address
        self.thread = threading.Thread(target=self._accept)
        self.thread.start()

    def _accept(self) -> None:
        while True:
            try:
                channel = self.listener.accept(None)
            except ChannelClosed:
                return
            assert channel is not None
            threading.Thread(target=self._echo, args=(channel,), daemon=True).start()

    def _echo(self, channel: Channel) -> None:
        try:
            while True:
                channel.send(channel.recv())
        except ChannelError as error:
            self.ended.put(error)

    def close(self) -> None:
        self.listener.close()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


@pytest.fixture(params=["unix", "tcp"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"unix:{tmp_path}/private/socket" if request.param == "unix" else "tcp:127.0.0.1:0"


@pytest.fixture
def service(address: str) -> Iterator[Service]:
    made = Service(address)
    yield made
    made.close()


def dial(address: str) -> socket.socket:
    """A raw connection, as a stranger makes it."""
    kind, _, where = address.partition(":")
    if kind == "unix":
        raw = socket.socket(socket.AF_UNIX)
        raw.connect(where)
    else:
        host, port = where.split(":")
        raw = socket.create_connection((host, int(port)))
    raw.settimeout(PATIENCE)
    return raw


def exactly(raw: socket.socket, size: int) -> bytes:
    """That many bytes, fewer at the end of the connection."""
    data = b""
    while len(data) < size and (more := raw.recv(size - len(data))):
        data += more
    return data


def hello(version: int = channel_module.VERSION, nonce: bytes = b"n" * 32) -> bytes:
    return struct.pack(">8sH32s", b"wrksteal", version, nonce)


def read_all(channel: Channel) -> tuple[list[Any], ChannelError]:
    """All messages up to the failure or the end, as an event loop gets them."""
    messages: list[Any] = []
    while True:
        assert select.select([channel], [], [], PATIENCE)[0], "the descriptor should stay readable until the end"
        try:
            messages += channel.read()
        except ChannelError as error:
            assert channel.fileno() == -1
            return messages, error


# Good peers


@pytest.mark.parametrize("size", [0, 1, 36, 16_384, 16_400, 262_144, 5_000_000, 40_000_000])
def test_messages_of_any_size_arrive(service: Service, size: int) -> None:
    sent = os.urandom(size)
    channel = connect(service.address, SECRET, PATIENCE)
    channel.send(sent)
    assert channel.recv(PATIENCE) == sent
    channel.close()
    assert isinstance(service.ended.get(timeout=PATIENCE), ChannelClosed)


def test_an_event_loop_writes_and_reads_without_waiting(service: Service) -> None:
    sent = [(number, b"x" * (number * 997 % 60_000)) for number in range(400)]
    channel = connect(service.address, SECRET, PATIENCE)
    for message in sent:
        channel.queue(message)
    got: list[Any] = []
    while len(got) < len(sent):
        ready, _, _ = select.select([channel], [channel] if channel.wants_write else [], [], PATIENCE)
        assert channel.flush() is not channel.wants_write
        got += channel.read() if ready else []
    assert got == sent
    assert channel.read() == []
    channel.close()


def test_threads_send_side_by_side(service: Service) -> None:
    channel = connect(service.address, SECRET, PATIENCE)
    sent = {(thread, number): bytes(100 * number) for thread in range(4) for number in range(50)}
    with ThreadPoolExecutor(4) as threads:
        for thread in range(4):
            threads.submit(lambda mine: [channel.send(each) for each in sent.items() if each[0][0] == mine], thread)
        got = [channel.recv(PATIENCE) for _ in sent]
    assert dict(got) == sent
    for thread in range(4):
        assert [key for key, _ in got if key[0] == thread] == [(thread, number) for number in range(50)]
    channel.close()


def test_close_wakes_who_waits(service: Service) -> None:
    channel = connect(service.address, SECRET, PATIENCE)
    with ThreadPoolExecutor(2) as threads:
        reader = threads.submit(channel.recv)
        stuck = socket.socketpair()  # nobody reads at the other end, so a sender waits
        writing = Channel(stuck[0], (SECRET, SECRET), "nobody")
        writer = threads.submit(writing.send, bytes(50_000_000))
        assert select.select([stuck[1]], [], [], PATIENCE)[0]
        channel.close()
        writing.close()
        for waiting in (reader, writer):
            with pytest.raises(ChannelClosed):
                waiting.result(PATIENCE)
        stuck[1].close()
    with pytest.raises(ChannelClosed):
        channel.send(1)


def test_no_message_in_time(service: Service) -> None:
    channel = connect(service.address, SECRET, PATIENCE)
    with pytest.raises(TimeoutError):
        channel.recv(0.01)
    channel.send("still good")
    assert channel.recv(PATIENCE) == "still good"
    channel.close()


def test_a_message_over_the_limit_is_not_sent_and_not_received(address: str) -> None:
    refused: list[str] = []
    listener = Listener(SECRET, address, refused.append, max_frame=10_000)
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(connect, listener.address, SECRET, PATIENCE)
        here = listener.accept(PATIENCE)
        there = future.result()
    assert here is not None
    with pytest.raises(ChannelError, match=r"20,0\d\d bytes .* limit is 10,000"):
        here.send(bytes(20_000))
    here.send("fine")
    assert there.recv(PATIENCE) == "fine"
    there.send(bytes(20_000))
    with pytest.raises(ChannelError, match=r"20,0\d\d bytes, the limit is 10,000"):
        here.recv(PATIENCE)
    listener.close()


def peer_that_says(address: str, numbers: range, end: Callable[[Channel], None]) -> tuple[Channel, int]:
    """The channel to a process that sends numbers and ends, and the process."""
    listener = Listener(SECRET, address, print)
    pid = os.fork()
    if pid == 0:
        peer = connect(listener.address, SECRET, PATIENCE)
        for number in numbers:
            peer.queue(number)
        peer.flush()
        end(peer)
        os._exit(0)
    channel = listener.accept(PATIENCE)
    assert channel is not None
    listener.close()
    return channel, pid


def test_last_words_of_a_dead_peer_are_read(tmp_path: Path) -> None:
    # On one machine: over TCP a word to a dead peer may cost what was on its way, whatever the reader does.
    channel, pid = peer_that_says(f"unix:{tmp_path}/private/socket", range(100), lambda peer: None)
    os.waitpid(pid, 0)
    with pytest.raises(ChannelClosed):  # a write that fails must not lose what can still be read
        deque(map(channel.send, ["too late"] * 1000))
    messages, error = read_all(channel)
    assert messages == list(range(100))
    assert isinstance(error, ChannelClosed)


def test_an_orderly_end_loses_nothing_while_the_other_side_sends(address: str) -> None:
    channel, pid = peer_that_says(address, range(20_000), lambda peer: peer.finish(PATIENCE))
    for _ in range(1000):
        channel.send("what the peer will never read")
    messages, error = read_all(channel)
    assert messages == list(range(20_000))
    assert isinstance(error, ChannelClosed)
    assert os.waitpid(pid, 0)[1] == 0


def test_deep_folders_and_open_folders(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-long-name-of-a-folder"] * 8)
    service = Service(f"unix:{deep}/socket")
    channel = connect(service.address, SECRET, PATIENCE)
    channel.send(1)
    assert channel.recv(PATIENCE) == 1
    channel.close()
    service.close()
    assert deep.stat().st_mode & 0o777 == 0o700
    assert list(deep.iterdir()) == []
    deep.chmod(0o755)
    with pytest.raises(ChannelError, match="mode 0755"):
        Listener(SECRET, f"unix:{deep}/socket", print)


@pytest.mark.parametrize("wrong", ["unix:relative", "tcp:host", "tcp:host:x", "pipe:/x", ""])
def test_an_address_that_is_none(wrong: str) -> None:
    with pytest.raises(ChannelError, match="expected unix:/absolute/path or tcp:host:port"):
        Listener(SECRET, wrong, print)
    with pytest.raises(ChannelError, match="expected unix:/absolute/path or tcp:host:port"):
        connect(wrong, SECRET, 1.0)


def test_nobody_listens_and_short_secrets(address: str, tmp_path: Path) -> None:
    listener = Listener(SECRET, address, print)
    listener.close()
    with pytest.raises(ChannelError, match="cannot be reached"):
        connect(listener.address, SECRET, PATIENCE)
    with pytest.raises(ValueError, match="at least 16"):
        Listener(b"guess", address, print)


def test_accept_gives_up_and_close_wakes_it(address: str) -> None:
    listener = Listener(SECRET, address, print)
    assert listener.accept(0) is None
    assert listener.accept(0.01) is None
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(listener.accept, None)
        listener.close()
        with pytest.raises(ChannelClosed):
            waiting.result(PATIENCE)


# Strangers


def expect_refusal(service: Service, *words: str) -> None:
    sentence = service.refused.get(timeout=PATIENCE)
    assert service.address in sentence
    assert ("of user" if service.address.startswith("unix") else "127.0.0.1:") in sentence
    for word in words:
        assert word in sentence


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_silent_strangers_delay_nobody(service: Service) -> None:
    strangers = [dial(service.address) for _ in range(20)]
    for stranger in strangers[:10]:
        stranger.sendall(hello()[:30])
    began = time.monotonic()
    channel = connect(service.address, SECRET, PATIENCE)
    channel.send("good")
    assert channel.recv(PATIENCE) == "good"
    assert time.monotonic() - began < PATIENCE / 2
    channel.close()
    for stranger in strangers:
        stranger.close()
        expect_refusal(service, "closed the connection before")


def test_silence_ends_at_the_timeout_and_a_flood_gives_way(address: str) -> None:
    service = Service(address, timeout=0.3)
    stranger = dial(service.address)
    expect_refusal(service, "was silent", "0.3 s")
    stranger.close()
    service.close()

    service = Service(address)
    flood = [dial(service.address) for _ in range(70)]
    for _ in range(6):
        expect_refusal(service, "too many handshakes")
    channel = connect(service.address, SECRET, PATIENCE)
    channel.send(1)
    assert channel.recv(PATIENCE) == 1
    for stranger in flood:
        stranger.close()
    channel.close()
    service.close()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "does not speak"),
        (b"\xff" * 1000, "does not speak"),
        (hello(version=2), "speaks version 2 of the channel and this side version 1"),
        (hello() + bytes(PROOF), "wrong proof"),
        (hello() + struct.pack(">I", 2**32 - 1) * 100, "wrong proof"),
    ],
)
def test_garbage_is_refused_and_good_peers_go_on(service: Service, words: bytes, reason: str) -> None:
    good = connect(service.address, SECRET, PATIENCE)
    stranger = dial(service.address)
    good.send("before")
    stranger.sendall(words)
    expect_refusal(service, reason)
    good.send("after")
    assert [good.recv(PATIENCE), good.recv(PATIENCE)] == ["before", "after"]
    assert exactly_or_reset(stranger) <= HELLO + PROOF
    good.close()
    stranger.close()


def exactly_or_reset(raw: socket.socket) -> int:
    """How many bytes a stranger gets until it is cut off."""
    try:
        return len(exactly(raw, 1 << 20))
    except ConnectionResetError:
        return 0


def test_a_wrong_secret_is_refused_on_both_sides(service: Service) -> None:
    with pytest.raises(ChannelError, match="wrong proof"):
        connect(service.address, b"t" * 32, PATIENCE)
    expect_refusal(service, "wrong proof")


def test_a_listener_of_another_version_or_kind_is_refused(tmp_path: Path) -> None:
    for words, reason in (
        (hello(version=7), "version 7"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak"),
        (b"", "closed"),
    ):
        path = tmp_path / f"socket{reason}"
        with socket.socket(socket.AF_UNIX) as listening, ThreadPoolExecutor(1) as threads:
            listening.bind(str(path))
            listening.listen()
            future = threads.submit(connect, f"unix:{path}", SECRET, PATIENCE)
            peer, _ = listening.accept()
            exactly(peer, HELLO)
            peer.sendall(words)
            peer.close()
            with pytest.raises(ChannelError, match=reason):
                future.result(PATIENCE)


def test_reflected_words_are_refused(service: Service) -> None:
    """Who has no secret can only say back what the listener itself said, in this connection or in another."""
    first, second = dial(service.address), dial(service.address)
    theirs = exactly(first, HELLO)
    first.sendall(theirs)
    first.sendall(exactly(first, PROOF))
    expect_refusal(service, "wrong proof")
    hellos = exactly(second, HELLO)
    third = dial(service.address)
    third.sendall(hellos)
    exactly(third, HELLO)
    second.sendall(hello())
    third.sendall(exactly(second, PROOF))
    expect_refusal(service, "wrong proof")
    for each in (first, second, third):
        each.close()


def test_a_pickle_bomb_of_a_stranger_never_runs(service: Service, tmp_path: Path) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    frame = struct.pack(">I32s", len(bomb), bytes(32)) + bomb
    for words in (bomb, frame, hello() + bomb, hello() + bytes(PROOF) + frame, hello()[:10] + frame):
        stranger = dial(service.address)
        with suppress(OSError):  # it may be refused before it has said all
            stranger.sendall(words)
            stranger.shutdown(socket.SHUT_WR)
        expect_refusal(service)
        stranger.close()
    here, raw = socket.socketpair()
    raw.sendall(frame)
    with pytest.raises(ChannelError, match="does not fit its authentication code"):
        Channel(here, (SECRET, SECRET), "a stranger").recv(PATIENCE)
    assert not (tmp_path / "exploded").exists()
    pickle.loads(bomb)
    assert (tmp_path / "exploded").exists(), "the bomb of this test must be a live one"


# A man in the middle


class Tap:
    """Sessions whose words from connector to listener pass through the test: `there` sends, `here` receives."""

    def __init__(self, folder: Path) -> None:
        self.refused: list[str] = []
        self.listener = Listener(SECRET, f"unix:{folder}/private/listener", self.refused.append)
        self.front = socket.socket(socket.AF_UNIX)
        self.front.bind(f"{folder}/private/relay")
        self.front.listen()
        self.relay = f"unix:{folder}/private/relay"

    def session(self) -> tuple[Channel, socket.socket, socket.socket, Channel, bytes]:
        """there, the raw ends beside it and beside here, here, and what the connector said in its handshake."""
        with ThreadPoolExecutor(2) as threads:
            there = threads.submit(connect, self.relay, SECRET, PATIENCE)
            here = threads.submit(self.listener.accept, PATIENCE)
            near, _ = self.front.accept()
            near.settimeout(PATIENCE)
            far = dial(self.listener.address)
            words = exactly(near, HELLO)
            far.sendall(words)
            near.sendall(exactly(far, HELLO + PROOF))
            proof = exactly(near, PROOF)
            far.sendall(proof)
            accepted = here.result(PATIENCE)
            assert accepted is not None
            return there.result(PATIENCE), near, far, accepted, words + proof

    def close(self) -> None:
        self.listener.close()
        self.front.close()


@pytest.fixture(scope="module")
def tap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tap]:
    made = Tap(tmp_path_factory.mktemp("tap"))
    yield made
    made.close()


def record(there: Channel, near: socket.socket, messages: list[Any]) -> list[bytes]:
    """The frames that carry the messages."""
    frames = []
    for message in messages:
        there.send(message)
        header = exactly(near, HEADER)
        frames.append(header + exactly(near, struct.unpack(">I", header[:4])[0]))
    return frames


MESSAGES = [{"task": number, "text": "x" * (50 * number)} for number in range(5)]


@st.composite
def tampering(draw: st.DrawFn) -> tuple[str, int, int]:
    kinds = ["flip", "truncate", "duplicate", "swap", "drop", "insert", "foreign", "earlier", "garbage"]
    return draw(st.sampled_from(kinds)), draw(st.integers(0, 10**6)), draw(st.integers(0, 10**6))


def tampered(frames: list[bytes], foreign: list[bytes], how: tuple[str, int, int]) -> bytes:
    """The stream with one change; what lies before the change is as it was."""
    kind, one, two = how
    whole, first, second = b"".join(frames), one % len(frames), two % len(frames)
    at = one % len(whole)
    changed = list(frames)
    if kind == "flip":
        return whole[:at] + bytes([whole[at] ^ (1 << two % 8)]) + whole[at + 1 :]
    if kind == "truncate":
        return whole[:at]
    if kind == "insert":
        return whole[:at] + two.to_bytes(4, "big") + whole[at:]
    if kind == "garbage":
        return whole + (two.to_bytes(4, "big") + bytes(HEADER)) * 3
    if kind == "duplicate":
        changed.insert(first, frames[first])
    elif kind == "swap":
        changed[first], changed[second] = frames[second], frames[first]
    elif kind == "drop":
        del changed[first]
    elif kind == "foreign":
        changed[first] = foreign[first]
    else:
        changed[first] = frames[second]
    return b"".join(changed)


@settings(max_examples=1000, deadline=None)
@given(how=tampering())
def test_tampering_is_found_and_what_came_before_it_is_whole(tap: Tap, how: tuple[str, int, int]) -> None:
    there, near, far, here, _ = tap.session()
    frames = record(there, near, MESSAGES)
    other_there, other_near, other_far, other_here, _ = tap.session()
    stream = tampered(frames, record(other_there, other_near, MESSAGES), how)
    far.sendall(stream)
    far.shutdown(socket.SHUT_WR)
    got, error = read_all(here)
    whole = b"".join(frames)
    same = next(
        (at for at, (a, b) in enumerate(zip(stream, whole, strict=False)) if a != b), min(len(stream), len(whole))
    )
    complete = sum(1 for n in range(1, len(frames) + 1) if len(b"".join(frames[:n])) <= same)
    assert got == MESSAGES[:complete]
    assert isinstance(error, ChannelClosed) or stream != whole
    for each in (there, near, far, other_there, other_near, other_far, other_here):
        each.close()


def test_each_byte_of_a_frame_counts(tap: Tap) -> None:
    for at in range(0, 80, 3):
        there, near, far, here, _ = tap.session()
        (frame,) = record(there, near, ["a message that is long enough for eighty bytes of frame"])
        far.sendall(frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :])
        far.shutdown(socket.SHUT_WR)
        assert read_all(here)[0] == []
        for each in (there, near, far):
            each.close()


def test_a_frame_sent_back_to_its_sender_is_refused(tap: Tap) -> None:
    there, near, far, here, _ = tap.session()
    (frame,) = record(there, near, ["order"])
    near.sendall(frame)
    with pytest.raises(ChannelError, match="does not fit its authentication code"):
        there.recv(PATIENCE)
    for each in (near, far, here):
        each.close()


def test_a_recorded_session_cannot_be_replayed(tap: Tap) -> None:
    there, near, far, here, words = tap.session()
    frames = record(there, near, MESSAGES)
    tap.refused.clear()
    replaying = dial(tap.listener.address)
    replaying.sendall(words + b"".join(frames))
    assert tap.listener.accept(0.2) is None
    assert "replays another's words" in tap.refused[0]
    for each in (there, near, far, here, replaying):
        each.close()


def test_an_announced_length_is_not_believed(tap: Tap) -> None:
    there, near, far, here, _ = tap.session()
    far.sendall(struct.pack(">I32s", 2**32 - 1, bytes(32)))
    with pytest.raises(ChannelError, match="4,294,967,295 bytes, the limit is 268,435,456"):
        here.recv(PATIENCE)
    for each in (there, near, far):
        each.close()


def test_a_message_that_cannot_be_unpickled_is_a_sentence(tap: Tap) -> None:
    there, near, far, here, _ = tap.session()
    there._append(b"not a pickle")
    there.flush()
    far.sendall(exactly(near, HEADER + 12))
    with pytest.raises(ChannelError, match="is authentic, but cannot be unpickled"):
        here.recv(PATIENCE)
    for each in (there, near, far):
        each.close()
