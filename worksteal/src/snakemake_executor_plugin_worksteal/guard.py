"""Cancels batch jobs whose Snakemake has been killed.

    python -m snakemake_executor_plugin_worksteal.guard COMMAND...

Reads lines from Snakemake: `+ JOB`, `- JOB`, `remove FILE`. When they end, however Snakemake did, COMMAND is run with
the jobs that are left, and the files are removed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TextIO

CANCEL_S = 60.0


class Guard:
    """Snakemake's side."""

    def __init__(self, cancel: Iterable[str]) -> None:
        """Start the process; cancel is the command that, followed by job numbers, cancels them."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, *cancel],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def tell(self, word: str, what: str) -> None:
        """`+` a job that is to be cancelled, `-` one that need not be any more, `remove` a file."""
        assert self._process.stdin is not None
        with suppress(OSError, ValueError):  # it was killed: what it would have done is left undone
            self._process.stdin.write(f"{word} {what}\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """All jobs have ended: so does it."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(CANCEL_S)


def watch(lines: TextIO, cancel: list[str]) -> None:
    """Until Snakemake ends."""
    jobs: dict[str, None] = {}
    files = []
    for line in lines:
        word, _, what = line.rstrip("\n").partition(" ")
        if word == "+":
            jobs[what] = None
        elif word == "-":
            jobs.pop(what, None)
        elif word == "remove":
            files.append(what)
    if jobs:
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run([*cancel, *jobs], timeout=CANCEL_S, stdin=subprocess.DEVNULL)
    for path in files:
        with suppress(OSError):
            os.unlink(path)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watch(sys.stdin, sys.argv[1:])
