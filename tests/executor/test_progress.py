"""The live line keeps to its line, on a real terminal; a file gets plain lines now and then."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pty
import queue
import re
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from snakemake_executor_plugin_worksteal.progress import Progress, duration

END = "\x05"


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal:
    """A pseudo-terminal; `screen` is what a person would see, one string a line."""

    def __init__(self, columns: int = 100) -> None:
        self.master, slave = pty.openpty()
        self.stream = open(slave, "w", encoding="utf-8")  # noqa: SIM115 (closed with the terminal)
        self.resize(columns)
        self.lines, self.column, self.wrapped = [""], 0, False
        self.read: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self._read)  # or the terminal's small buffer would be full
        self.reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other side was closed
            while data := os.read(self.master, 65536):
                self.read.put(data.decode())

    def resize(self, columns: int) -> None:
        self.columns = columns
        termios.tcsetwinsize(self.stream.fileno(), (24, columns))

    def screen(self) -> list[str]:
        self.stream.write(END)
        self.stream.flush()
        text = ""
        while not text.endswith(END):
            text += self.read.get(timeout=10)
        for piece in re.findall(r"\x1b\[K|[\r\n]|[^\x1b\r\n]+", text.removesuffix(END)):
            if piece == "\r":
                self.column = 0
            elif piece == "\n":
                self.lines.append("")
            elif piece == "\x1b[K":
                self.lines[-1] = self.lines[-1][: self.column]
            else:
                line = self.lines[-1]
                self.lines[-1] = line[: self.column] + piece + line[self.column + len(piece) :]
                self.column += len(piece)
                self.wrapped |= self.column >= self.columns
        return self.lines

    def close(self) -> None:
        self.stream.close()
        self.reader.join(10)
        os.close(self.master)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    made = Terminal()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (12.4, "12 s"), (59.6, "0:01:00"), (65, "0:01:05"), (3903, "1:05:03"), (360000, "100:00:00")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_one_live_line_with_rate_and_time_left(terminal: Terminal) -> None:
    clock = Clock()
    progress = Progress(terminal.stream, clock=clock)
    progress.update(0, 8, 1992, 0)
    progress.tick()
    assert terminal.screen() == ["worksteal: 0 of 2,000 done, 8 running, 1,992 queued, ? left"]
    for second in range(1, 101):
        clock.now += 1
        progress.update(10 * second - 1, 8, 1993 - 10 * second - 1, 1)
        progress.tick()
    assert terminal.screen() == ["worksteal: 999 of 2,000 done, 8 running, 992 queued, 1 failed, 10.0/s, 0:01:40 left"]
    progress.update(1999, 0, 0, 1)
    clock.now += 1
    progress.tick()
    assert "left" not in terminal.screen()[0]
    progress.close()
    assert terminal.screen() == [""]


def test_the_rate_is_a_recent_one(terminal: Terminal) -> None:
    clock = Clock()
    progress = Progress(terminal.stream, clock=clock)
    done = 0
    for rate, seconds in ((100, 200), (2, 120)):
        for _ in range(seconds * 4):
            clock.now += 0.25
            done += rate / 4
            progress.update(int(done), 1, 99, 0)
            progress.tick()
    assert re.search(r", 2\.\d/s, \d+ s left", terminal.screen()[0])
    for _ in range(30):  # long tasks: one in ten minutes
        clock.now += 600
        done += 1
        progress.update(int(done), 1, 2, 0)
        progress.tick()
    assert re.search(r", 0\.1/min, 0:\d\d:\d\d left", terminal.screen()[0])


def test_redrawn_only_as_often_as_wanted(terminal: Terminal) -> None:
    clock = Clock()
    progress = Progress(terminal.stream, interval=1.0, clock=clock)
    for number in range(10):
        progress.update(number, 0, 0, 0)
        progress.tick()
        clock.now += 0.25
    assert "done" in terminal.screen()[0]
    assert "8 of 8" in terminal.screen()[0]


def test_what_goes_on_later_is_counted_and_not_waited_for() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream, clock=clock)
    progress.update(5, 0, 0, 1, 2)
    clock.now += 61
    progress.tick()
    assert stream.getvalue() == "worksteal: 5 of 8 done, 0 running, 0 queued, 1 failed, 2 to go on later\n"


def test_the_line_fits_any_terminal(terminal: Terminal) -> None:
    clock = Clock()
    progress = Progress(terminal.stream, clock=clock)
    for columns in [200, 80, 60, 50, 40, 30, 20, 10, 2, 300]:
        terminal.resize(columns)
        clock.now += 10
        progress.update(1000 + columns, 888, 77777, 6, 33)
        progress.tick()
        (line,) = terminal.screen()
        assert len(line) < columns
        assert columns < 70 or "left" in line
        assert columns < 45 or "6 failed" in line
    assert not terminal.wrapped


def test_log_lines_are_whole_and_above(terminal: Terminal) -> None:
    clock = Clock()
    logger = logging.Logger("test")
    handler = logging.StreamHandler(terminal.stream)
    elsewhere = logging.StreamHandler(io.StringIO())
    logger.addHandler(handler)
    logger.addHandler(elsewhere)
    second = logging.StreamHandler(os.fdopen(os.dup(terminal.stream.fileno()), "w"))  # stdout beside stderr
    progress = Progress(terminal.stream, clock=clock)
    progress.attach(logger, second)
    progress.attach(logger)
    progress.update(1, 2, 3, 0)
    progress.tick()
    logger.warning("short")
    progress.tick()
    logger.warning("two\nlines")
    second.handle(logging.makeLogRecord({"msg": "from the second"}))
    second.stream.flush()
    progress.tick()
    *log, live = terminal.screen()
    assert log == ["short", "two", "lines", "from the second"]
    assert live.startswith("worksteal: 1 of 6 done")
    progress.close()
    logger.warning("after")
    assert terminal.screen() == ["short", "two", "lines", "from the second", "after", ""]
    assert "\x1b" not in elsewhere.stream.getvalue()
    second.stream.close()


def test_plain_lines_in_a_file(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "log"
    with path.open("w") as stream:
        progress = Progress(stream, log_interval=60, clock=clock)
        for second in range(1, 301):
            clock.now += 1
            progress.update(min(second, 120), 1, 179, 0)
            progress.tick()
        progress.clear()
        progress.update(299, 0, 0, 1)
        progress.close()
        progress.close()
    lines = path.read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "worksteal: 60 of 240 done",
        "worksteal: 120 of 300 done",
        "worksteal: 299 of 300 done",
    ]
    assert "1.0/s, 0:03:00 left" in lines[0]
    assert "1 failed" in lines[-1]
    assert "\r" not in path.read_text()
    assert "\x1b" not in path.read_text()


def test_a_dumb_terminal_gets_plain_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    progress = Progress(terminal.stream)
    progress.update(3, 0, 0, 0)
    progress.close()
    line, rest = terminal.screen()
    assert line.startswith("worksteal: 3 of 3 done")
    assert rest == ""


def test_a_stream_that_is_gone_harms_nobody() -> None:
    clock = Clock()
    read, write = os.pipe()
    stream = os.fdopen(write, "w")
    os.close(read)
    progress = Progress(stream, interactive=True, clock=clock)
    for number in range(3):
        clock.now += 1
        progress.update(number, 0, 0, 0)
        progress.tick()
    progress.close()
    with pytest.raises(BrokenPipeError):
        stream.close()
