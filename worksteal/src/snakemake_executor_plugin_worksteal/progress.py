"""How far the run is: one live line on a terminal, a plain line now and then in a file."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TextIO

WINDOW_S = 30.0  # the rate is that of this time, or longer:
WINDOW_TASKS = 20  # until so many tasks have finished in it, since long tasks finish rarely
SPACING_S = 0.5  # of the moments that are kept for the rate
_ERASE = "\r\x1b[K"
_Emit = Callable[[logging.LogRecord], None]


class _Counts(NamedTuple):
    done: int
    running: int
    queued: int
    failed: int
    later: int = 0


def duration(seconds: float) -> str:
    """A duration for people: "12 s", and from a minute on hours, minutes and seconds: "1:05:03"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


class Progress:
    """Shows counts on a stream. `update` may be called from any thread at any rate, `tick` a few times a second.

    interactive None: live if the stream is a terminal that can erase a line. interval and log_interval are the seconds
    between redraws of the live line and between plain lines. A stream that is gone ends the display, not the run.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        interactive: bool | None = None,
        interval: float = 0.2,
        log_interval: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream, self._clock = stream, clock
        self._interactive = _is_terminal(stream) if interactive is None else interactive
        self._interval = interval if self._interactive else log_interval
        self._lock = threading.RLock()
        self._counts = self._written = _Counts(0, 0, 0, 0)
        self._history: deque[tuple[float, int]] = deque()  # moments at which the number of finished tasks had changed
        self._next = clock() + (0.0 if self._interactive else log_interval)
        self._shown = self._closed = False
        self._handlers: list[tuple[logging.Handler, _Emit, _Emit]] = []  # with what it did before, and does now

    def update(self, done: int, running: int, queued: int, failed: int, later: int = 0) -> None:
        """The counts of now; done are those that ended well, later those that go on in another run."""
        self._counts = _Counts(done, running, queued, failed, later)

    def tick(self) -> None:
        """Draw or write if it is time to."""
        now, counts = self._clock(), self._counts
        with self._lock:
            if self._closed:
                return
            self._remember(now, counts)
            if now < self._next:
                return
            self._next = now + self._interval
            if self._interactive:
                text = self._line(now, counts, _width(self._stream) - 1)  # one less: the last column would wrap
                self._write(f"{_ERASE}{text}")
                self._shown = True
            elif counts != self._written:
                self._write_line(now, counts)

    def clear(self) -> None:
        """Take the live line away; the next tick draws it again."""
        with self._lock:
            if self._shown:
                self._write(_ERASE)
                self._shown = False
                self._next = self._clock()

    def attach(self, logger: logging.Logger, *handlers: logging.Handler) -> None:
        """Let the logger's handlers, and those named, take the live line away before they write to the same place."""
        found = [*handlers]
        ancestor: logging.Logger | None = logger
        while ancestor is not None:
            found += ancestor.handlers
            ancestor = ancestor.parent if ancestor.propagate else None
        for handler in found:
            if self._interactive and _same_place(getattr(handler, "stream", None), self._stream):
                self._wrap(handler)

    def close(self) -> None:
        """Take the live line away, or write the last plain line; let the handlers go."""
        with self._lock:
            if self._closed:
                return
            self.clear()
            now, counts = self._clock(), self._counts
            if not self._interactive and counts != self._written:
                self._remember(now, counts)
                self._write_line(now, counts)
            self._closed = True
        for handler, emit, wrapper in self._handlers:
            if vars(handler).get("emit") is wrapper:  # else somebody has wrapped it since, and calls ours
                vars(handler)["emit"] = emit
        self._handlers.clear()

    def _wrap(self, handler: logging.Handler) -> None:
        if any(handler is known for known, _, _ in self._handlers):
            return
        emit = handler.emit

        def clear_and_emit(record: logging.LogRecord) -> None:
            with self._lock:  # held over both, or a tick might draw in between
                self.clear()
                emit(record)

        vars(handler)["emit"] = clear_and_emit
        self._handlers.append((handler, emit, clear_and_emit))

    def _remember(self, now: float, counts: _Counts) -> None:
        """Keep the moments that the rate needs, and no older ones."""
        finished = counts.done + counts.failed
        history = self._history
        if not history or history[-1][1] != finished:
            if len(history) > 1 and now - history[-2][0] < SPACING_S:
                history.pop()
            history.append((now, finished))
        while len(history) > 2 and now - history[1][0] > WINDOW_S and finished - history[1][1] >= WINDOW_TASKS:
            history.popleft()

    def _rate(self, now: float) -> float:
        """Finished tasks a second, of late; 0 while unknown."""
        (since, before), (_, finished) = self._history[0], self._history[-1]
        return (finished - before) / (now - since) if now > since else 0.0

    def _line(self, now: float, counts: _Counts, width: int) -> str:
        rate = self._rate(now)
        left = duration((counts.running + counts.queued) / rate) if rate else "?"
        speed = "" if not rate else f"{rate:,.1f}/s" if rate >= 1 else f"{rate * 60:.1f}/min"
        parts = {
            "done": f"{counts.done:,} of {sum(counts):,} done",
            "running": f"{counts.running:,} running",
            "queued": f"{counts.queued:,} queued",
            "failed": f"{counts.failed:,} failed" if counts.failed else "",
            "later": f"{counts.later:,} to go on later" if counts.later else "",
            "rate": speed,
            "left": f"{left} left" if counts.running + counts.queued else "",
        }
        for superfluous in ("", "rate", "queued", "running", "later", "left", "failed"):
            parts.pop(superfluous, None)
            text = "worksteal: " + ", ".join(filter(None, parts.values()))
            if len(text) <= width:
                break
        return text[: max(0, width)]

    def _write_line(self, now: float, counts: _Counts) -> None:
        self._write(self._line(now, counts, 1000) + "\n")
        self._written = counts

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # the terminal has gone, the file was closed
            self._closed = True


def _is_terminal(stream: TextIO) -> bool:
    with suppress(AttributeError, ValueError):
        return stream.isatty() and os.environ.get("TERM", "") != "dumb"
    return False


def _width(stream: TextIO) -> int:
    with suppress(OSError, ValueError, AttributeError):
        return os.get_terminal_size(stream.fileno()).columns or 80
    return 80


def _same_place(one: object, other: TextIO) -> bool:
    """Whether two streams write to one file or terminal, as stdout and stderr often do."""
    if one is other:
        return True
    with suppress(OSError, ValueError, AttributeError):
        return os.path.sameopenfile(one.fileno(), other.fileno())  # type: ignore[attr-defined]
    return False
