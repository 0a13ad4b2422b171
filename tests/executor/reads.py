"""Counts what processes read from files, by strace: nothing that is counted has a say in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

# Each way to get bytes out of a file; of mmap, which asks for whole pages, the length that is mapped.
CALLS = ("read", "pread64", "readv", "preadv", "preadv2", "mmap", "copy_file_range", "sendfile", "splice")


def mpiexec(ranks: int) -> list[str]:
    """The words before a command that start it as so many MPI ranks."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    program = shutil.which("mpiexec", path=places)
    if program is None:
        raise FileNotFoundError("mpiexec is not installed: pip install mpich")
    return [program, "-n", str(ranks)]


def bytes_read(command: Sequence[str | Path], files: Iterable[Path]) -> int:
    """Run a command to its end and count the bytes that it and all its children read from the files.

    Raises:
        RuntimeError: it failed.
    """
    names = [word for file in files for word in ("-P", str(file.resolve()))]
    with tempfile.TemporaryDirectory() as folder:
        # A file for each process: in one file the lines of several are cut into each other.
        watched = [
            "strace",
            "-ff",
            "-qq",
            "--seccomp-bpf",
            "-e",
            f"trace={','.join(CALLS)}",
            *names,
            "-o",
            f"{folder}/calls",
            *command,
        ]
        ended = subprocess.run(watched, capture_output=True, text=True)
        if ended.returncode:
            raise RuntimeError(f"{command} ended with {ended.returncode}: {ended.stdout}{ended.stderr}")
        lines = [line for path in Path(folder).iterdir() for line in path.read_text(errors="replace").splitlines()]
    return sum(map(_bytes, lines))


def _bytes(line: str) -> int:
    if line.startswith("mmap"):
        return int(line.split(", ")[1])
    found = re.search(r"= (\d+)$", line)
    return int(found.group(1)) if found else 0
