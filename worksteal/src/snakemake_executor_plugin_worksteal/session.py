"""A session: what Snakemake leaves for its pool in one folder that all nodes see, and what the pool leaves for it."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

FILE = "session.json"
SOCKET_FOLDER = "worksteal-"
MIN_SECRET = 16

# Variables of one host: a task has those of the node it runs on.
HOST_VARIABLES = (
    "HOSTNAME",
    "HOST",
    "TMPDIR",
    "TMP",
    "TEMP",
    "TEMPDIR",
    "SSH_",
    "XDG_RUNTIME_DIR",
    "DISPLAY",
    "SLURM_",
    "PBS_",
)
OVERLAP = "SLURM_OVERLAP"  # is for the launch alone, where a node is left out
# Variables of one process of one MPI launch: never given to a task, whose own MPI would take them for its own.
LAUNCH_VARIABLES = (
    "PMI_",
    "PMIX_",
    "PALS_",
    "OMPI_",
    "PRTE_",
    "MPIR_",
    "HYDI_",
    "HYDRA_",
    "MPI_LOCAL",
    "MPIEXEC_",
    "GFORTRAN_UNBUFFERED",
)


class SessionError(Exception):
    """A session's file is missing, unsafe or not understood."""


@dataclass(slots=True)
class Session:
    """What an agent must know before it starts MPI. `secret` is hexadecimal; times are in seconds, memory in MB."""

    pool: str
    address: str
    secret: str
    workdir: str
    run: str = ""  # the run's folder, in which a pool by batch job has one of its own
    environment: dict[str, str] = field(default_factory=dict)
    host: str = ""
    nodes: int = 1
    slots: int | None = None
    devices: str = "auto"
    memory_mb: int | None = None
    preload: list[str] = field(default_factory=list)
    grace_s: float = 10.0
    launcher: str = "auto"  # how a batch job starts the agents
    preamble: str = ""  # what a batch job does before that
    walltime_s: float | None = None  # of a batch job
    linked: bool = False  # whether it is a batch job's, which may find Snakemake again when the connection is lost
    reconnect_s: float = 0.0  # how long the pool tries to find Snakemake again when the connection is lost
    margin_s: float = 40.0  # so long before the end of the allocation running tasks are told to end
    reuse: int = 1
    stage_dir: str = "none"
    software: str = ""
    epoch: int = 0

    def write(self, folder: Path) -> Path:
        """Write the file, for its owner only (0600)."""
        path = folder / FILE
        temporary = path.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            json.dump(asdict(self), out)
            out.flush()
            os.fsync(out.fileno())
        temporary.rename(path)
        return path


def read_session(folder: Path) -> Session:
    """The session of a folder.

    Raises:
        SessionError: the file is missing, readable by others, or not a session.
    """
    path = folder / FILE
    text = read_private(path)
    try:
        return Session(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise SessionError(f"{path} is not the session file of this version of worksteal: {error}") from error


def read_private(path: Path) -> str:
    """A file's text, refused unless only its owner can read and write it and the owner is this user."""
    try:
        with path.open(encoding="utf-8") as source:
            found = os.fstat(source.fileno())
            if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
                raise SessionError(
                    f"{path} can be read or written by others; it holds a secret and must be yours with mode 0600"
                )
            return source.read()
    except (OSError, UnicodeDecodeError) as error:
        raise SessionError(f"cannot read {path}: {error}") from error


def make_secret(file: Path | None) -> str:
    """The secret of a file (its bytes, hexadecimal), or a new one.

    Raises:
        SessionError: the file is open to others, or too short.
    """
    if file is None:
        return secrets.token_hex(32)
    text = read_private(file).strip()
    if len(text) < MIN_SECRET:
        raise SessionError(f"{file} holds {len(text)} characters; a secret needs {MIN_SECRET} or more")
    return text.encode().hex()


def remove_socket(address: str) -> None:
    """Remove a Unix socket and the folder that was made for it."""
    folder = Path(address.removeprefix("unix:")).parent
    if address.startswith("unix:") and folder.name.startswith(SOCKET_FOLDER):
        shutil.rmtree(folder, ignore_errors=True)


def task_environment(own: Mapping[str, str], given: Mapping[str, str], *, same_machine: bool) -> dict[str, str]:
    """What tasks get: Snakemake's environment (`given`), but on another machine what belongs to a host from there
    (`own`).
    """
    own = {name: value for name, value in own.items() if name != OVERLAP}
    environment = {name: value for name, value in given.items() if not name.startswith(LAUNCH_VARIABLES)}
    if not same_machine:
        environment = {name: value for name, value in environment.items() if not name.startswith(HOST_VARIABLES)}
        environment.update((name, value) for name, value in own.items() if name.startswith(HOST_VARIABLES))
    return environment


def parse_variables(text: str) -> dict[str, str]:
    """Variables of the setting `environment`: `A=1,B=x y`.

    Raises:
        SessionError: a part has no name or no equals sign.
    """
    parts = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    for name, equals, _ in parts:
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise SessionError(f"environment has {name + equals!r}; expected NAME=VALUE, several separated by commas")
    return {name: value for name, _, value in parts}


def journals(folder: Path) -> list[Path]:
    """The journals that runners have left, of every launch of the session."""
    return sorted(folder.glob("journal-*.jsonl"))
