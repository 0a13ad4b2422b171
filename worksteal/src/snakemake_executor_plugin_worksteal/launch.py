"""How a pool is started: the command for a launcher, and what an allocation of a batch system says."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from .session import OVERLAP

AGENT = "snakemake_executor_plugin_worksteal.agent"
DOWN = ("down", "drained", "fail", "error", "unknown", "powered_down")
ASK_S = 30.0  # how long Slurm may take to answer
OTHER_MPI = (
    "mpi4py uses another MPI than the launcher: use the launcher of mpi4py's MPI, or point mpi4py to the launcher's "
    "(variables MPI4PY_MPIABI and MPI4PY_LIBMPI), or build it there (pip install --no-binary mpi4py mpi4py)"
)


class LaunchError(Exception):
    """A pool cannot be started as it was asked for."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A way to start the agents: its name for people, the number of nodes, the words before the agent's command.

    environment are variables that differ from Snakemake's, gone nodes of the allocation that are left out. in_slurm is
    whether there are several nodes, and Slurm says which of them are up.
    """

    name: str
    nodes: int
    prefix: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    in_slurm: bool = False

    @property
    def is_local(self) -> bool:
        """Whether the pool is one process of this machine, without MPI."""
        return not self.prefix

    def command(self, folder: Path, until: float | None = None) -> list[str]:
        """The whole command; until: when the allocation ends, in seconds since the epoch."""
        agent = [sys.executable, "-m", AGENT, str(folder)]
        end = [] if until is None else ["--until", f"{until:.0f}"]
        return [*self.prefix, *agent, *([] if self.is_local else ["--mpi"]), *end]


def allocated_nodes(environment: Mapping[str, str] = os.environ) -> int:
    """Number of nodes of the batch allocation that this process is in; 0 outside one.

    Raises:
        LaunchError: PBS_NODEFILE names a file that cannot be read.
    """
    if "SLURM_JOB_ID" in environment:
        return int(environment.get("SLURM_JOB_NUM_NODES") or environment.get("SLURM_NNODES") or 1)
    if node_file := environment.get("PBS_NODEFILE"):
        try:
            return len(set(Path(node_file).read_text().split())) or 1
        except OSError as error:
            raise LaunchError(f"PBS_NODEFILE names {node_file}, which cannot be read: {error}") from error
    return 0


def slurm_nodes(environment: Mapping[str, str]) -> dict[str, bool]:
    """The nodes of an allocation of Slurm of several nodes, and whether they are still its and up; empty where Slurm
    does not say.
    """
    if "SLURM_JOB_NODELIST" not in environment or allocated_nodes(environment) < 2:
        return {}
    own = {name: value for name, value in environment.items() if not name.startswith(("SINFO_", "SQUEUE_"))}

    def ask(*command: str) -> list[str]:
        said = subprocess.run(command, capture_output=True, text=True, timeout=ASK_S, check=True, env=own)
        return said.stdout.split("\n")

    found: dict[str, bool] = {}
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        names = ask("scontrol", "show", "hostnames", environment["SLURM_JOB_NODELIST"])
        # Slurm takes a lost node from the job, for good: it may be up again, and another's.
        still = ask("squeue", "--noheader", f"--jobs={environment['SLURM_JOB_ID']}", "--format=%N")[0].strip()
        kept = set(ask("scontrol", "show", "hostnames", still)) if still else set()
        lines = map(str.split, ask("sinfo", "--noheader", "--all", "--Node", f"--nodes={still}", "--format=%N %T"))
        down = {words[0] for words in lines if len(words) == 2 and is_down(words[1])}
        found = {name: name in kept and name not in down for name in names if name}
    return found


def is_down(state: str) -> bool:
    """Whether a node of which Slurm says this can run nothing; a mark after the word tells more."""
    word = state.rstrip("*~#!%$@^-+")
    return word in DOWN or state[len(word) :].startswith(("*", "~", "%"))


def several_nodes(environment: Mapping[str, str]) -> str:
    """The launcher for several nodes: srun inside Slurm, unless Python's own environment has an MPI and so an mpiexec;
    else mpiexec.
    """
    own = Path(sys.executable).parent / "mpiexec"
    inside = "SLURM_JOB_ID" in environment and shutil.which("srun", path=environment.get("PATH", os.defpath))
    return "srun" if inside and not own.exists() else "mpiexec"


def need_mpi4py(who: str) -> None:
    """LaunchError if this Python has no mpi4py."""
    if importlib.util.find_spec("mpi4py") is None:
        raise LaunchError(
            f"{who} needs mpi4py in {sys.executable}: "
            "pip install 'snakemake-executor-plugin-worksteal[mpi]', or mpi4py built against the site's MPI"
        )


def choose_launch(
    launcher: str, nodes: int | None, environment: Mapping[str, str] = os.environ, *, leave_out: bool = True
) -> Launch:
    """The launch for the settings `launcher` and `nodes`; leave_out: only on those nodes of an allocation that are up.

    Raises:
        LaunchError: the launcher is missing, or one process is asked to be several nodes.
    """
    allocated = allocated_nodes(environment)
    count = nodes or allocated or 1
    states = slurm_nodes(environment) if leave_out and count > 1 else {}
    left = [name for name, up in states.items() if up]
    gone = [name for name, up in states.items() if not up] if left else []
    changes: dict[str, str] = {}
    if gone:
        count = min(count, len(left))
        changes = dict.fromkeys(("SLURM_JOB_NODELIST", "SLURM_NODELIST"), ",".join(left))  # what an mpiexec looks at
        changes |= dict.fromkeys(("SLURM_JOB_NUM_NODES", "SLURM_NNODES"), str(len(left)))
        changes["SLURM_TASKS_PER_NODE"] = f"1(x{len(left)})"
        # The step that had the lost node holds the others until Slurm has given up waiting for it.
        changes[OVERLAP] = "1"
    if launcher == "auto":
        launcher = "local" if count == 1 and not gone else several_nodes(environment)
    if launcher == "local":
        if count > 1 and nodes:
            raise LaunchError(
                f"launcher 'local' is one process of this machine; it cannot be {nodes} nodes: use mpiexec or srun"
            )
        return Launch("local", 1)
    if launcher == "mpiexec":
        # One rank a node; outside an allocation all ranks are on this machine.
        prefix = ["mpiexec", "-n", str(count), *(["-ppn", "1"] if allocated else [])]
    elif launcher == "srun":
        prefix = ["srun", f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
        # One agent has the whole node: srun would otherwise bind it, and so its tasks, to one core.
        prefix += ["--cpu-bind=none", f"--cpus-per-task={environment.get('SLURM_CPUS_ON_NODE', '1')}"]
        prefix += [f"--exclude={','.join(gone)}"] if gone else []
    else:
        try:
            prefix = shlex.split(launcher.format(nodes=count))
        except (KeyError, IndexError, ValueError) as error:
            raise LaunchError(f"launcher {launcher!r} is no command: {error}; only {{nodes}} is filled in") from error
    # An MPI that was installed into Python's own environment is found though that environment is not on PATH.
    places = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    program = shutil.which(prefix[0], path=places)
    if program is None:
        raise LaunchError(
            f"launcher {prefix[0]!r} is not on PATH; install an MPI "
            "(pip install 'snakemake-executor-plugin-worksteal[mpi]'), load the site's module, or set another launcher "
            "(--worksteal-launcher)"
        )
    need_mpi4py(f"launcher {prefix[0]!r}")
    return Launch(Path(prefix[0]).name, count, (program, *prefix[1:]), changes, tuple(gone), bool(states))
