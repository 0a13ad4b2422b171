"""Processes that a run in a folder has left."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil


def processes_of(folder: Path) -> list[psutil.Process]:
    """Processes that work in a folder or have it on their command line; not this one."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # psutil lets some errors of a process that ends through
            mine = process.cwd() == str(folder) or str(folder) in " ".join(process.cmdline())
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE and mine:
                found.append(process)
    return found
