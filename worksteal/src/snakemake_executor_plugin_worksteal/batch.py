"""Batch systems: a job is submitted through PSI/J; how it fares, and why, is asked of the batch system itself.

PSI/J makes the job script and the commands to submit and to cancel. Its own look at the queue is not used: it knows no
reason of a job that waits, and fails on reasons that it does not know.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from .allocation import pbs_jobs

START = "snakemake_executor_plugin_worksteal.start"
ASK_S = 60.0  # how long a command of the batch system may take
NEVER_POLL = 10**8  # seconds
# Slurm's words for a job that has not begun, for one that has, and for ends. While it is COMPLETING its processes are
# ended; if a node is gone, that lasts until Slurm has given it up.
SLURM_WAITS = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
SLURM_RUNS = {"RUNNING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED"}
SLURM_ENDS = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL"}
SLURM_ENDS |= {"OUT_OF_MEMORY", "PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT"}
# PBS's letters.
PBS_WORDS = {"B": "begun", "E": "ending", "F": "finished", "H": "held", "M": "moved", "Q": "queued", "R": "running"}
PBS_WORDS |= {"S": "suspended", "T": "in transit", "U": "suspended", "W": "waiting", "X": "finished"}


class BatchError(Exception):
    """A batch job cannot be submitted as it was asked for."""


class Look(NamedTuple):
    """How a job fares: the batch system's own word for it, and its reason ("" if it gives none)."""

    state: Literal["waits", "runs", "ends", "ended", "unknown"]
    word: str
    reason: str

    @property
    def held(self) -> bool:
        """Whether somebody has to let the job go first."""
        return "held" in f"{self.word} {self.reason}".lower()

    def __str__(self) -> str:
        return ", ".join(part for part in (self.word, self.reason) if part) or "not known to the batch system"


UNKNOWN = Look("unknown", "", "the batch system does not answer")
GONE = Look("ended", "", "the batch system knows it no more")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a batch job asks for. cores are those of each node, None for whole nodes; options are directives of the
    batch system, as a user writes them after #SBATCH or #PBS.
    """

    nodes: int
    walltime_s: float
    account: str | None = None
    queue: str | None = None
    cores: int | None = None
    options: tuple[str, ...] = ()


def wish_of(settings: Any, walltime_s: float | None) -> Wish:
    """What the executor's settings ask for. Raises BatchError."""
    if walltime_s is None:
        raise BatchError("a batch job needs a walltime: set walltime (worksteal-walltime), for example to 02:00:00")
    options = directives(settings.batch_options or "")
    return Wish(settings.nodes or 1, walltime_s, settings.account, settings.queue, settings.batch_cores, options)


def directives(options: str) -> tuple[str, ...]:
    """Options of sbatch or qsub, one each: a word that begins with a dash begins another.

    Raises BatchError if they do not begin so, or cannot be split.
    """
    try:
        words = shlex.split(options)
    except ValueError as error:
        raise BatchError(f"batch-options {options!r} cannot be split into words: {error}") from None
    found: list[list[str]] = []
    for word in words:
        if word.startswith("-"):
            found.append([])
        elif not found:
            raise BatchError(f"batch-options begin with {word!r}: expected options such as '--constraint=gpu'")
        found[-1].append(word if re.fullmatch(r"[\w@%+=:,./\[\]*&|!-]+", word) else f'"{word}"')
    return tuple(" ".join(each) for each in found)


class BatchSystem:
    """One batch system. Methods may take a while; none is to be called by two threads at once."""

    name = ""
    title = ""
    mark = ""  # of a directive in a job script
    commands: tuple[str, ...] = ()
    cancel_command: tuple[str, ...] = ()

    def __init__(self, work: Path) -> None:
        """work: the folder for PSI/J's scripts, which all nodes see.

        Raises:
            BatchError: psij-python or a command is missing, or the folder's name is one that PSI/J cannot write down.
        """
        missing = [command for command in self.commands if shutil.which(command) is None]
        if missing:
            raise BatchError(f"submit is '{self.name}', and {missing[0]} is not on PATH: is this a login node?")
        if shlex.quote(str(work)) != str(work):
            raise BatchError(f"the folder {work} has characters in its name that job scripts cannot bear")
        self.work = work
        self._psij = self._executor()
        self.work = self._psij.work_directory

    def _executor(self) -> Any:
        raise NotImplementedError

    def submit(self, folder: Path, name: str, wish: Wish) -> str:
        """Submit a job that starts a pool; its number.

        Raises:
            BatchError: the batch system refuses it; the sentence has its reason.
        """
        import psij

        spec = psij.JobSpec(
            executable=sys.executable,
            arguments=["-m", START, str(folder)],
            environment=absolute_path(os.environ.get("PYTHONPATH")),
            stdout_path=folder / "launcher.out",
            stderr_path=folder / "launcher.err",
            resources=self._resources(psij, wish),
            attributes=psij.JobAttributes(
                duration=timedelta(seconds=wish.walltime_s), queue_name=wish.queue, account=wish.account
            ),
        )
        job = psij.Job(spec)
        self._psij.directives = (*self._own_directives(name), *wish.options)
        try:
            self._psij.submit(job)
        except psij.SubmitException as error:
            said = " / ".join(str(error).split("\n")).strip(" /")
            raise BatchError(f"{self.title} refuses the job: {said}") from None
        except OSError as error:
            raise BatchError(f"{self.title}: the job cannot be submitted: {error}") from None
        return str(job.native_id)

    def _resources(self, psij: Any, wish: Wish) -> Any:
        raise NotImplementedError

    def _own_directives(self, name: str) -> tuple[str, ...]:
        raise NotImplementedError

    def cancel(self, numbers: Iterable[str]) -> None:
        """Cancel jobs; one that has ended is none to worry about."""
        run([*self.cancel_command, *numbers])

    def look(self, numbers: Sequence[str]) -> dict[str, Look]:
        """How each of these jobs fares."""
        raise NotImplementedError


class Slurm(BatchSystem):
    """sbatch, squeue, scancel; sacct for jobs that have left the queue."""

    name, title, mark = "slurm", "Slurm", "#SBATCH"
    commands = ("sbatch", "squeue", "scancel")
    cancel_command = ("scancel", "-Q")

    def _executor(self) -> Any:
        return psij_executor("slurm", self.work, self.mark)

    def _resources(self, psij: Any, wish: Wish) -> Any:
        return psij.ResourceSpecV1(
            node_count=wish.nodes,
            processes_per_node=1,
            cpu_cores_per_process=wish.cores,
            exclusive_node_use=wish.cores is None,
        )

    def _own_directives(self, name: str) -> tuple[str, ...]:
        return (f"--job-name={name}", "--no-requeue")

    def look(self, numbers: Sequence[str]) -> dict[str, Look]:
        """squeue says it of jobs that wait, run or ended a few minutes ago."""
        status, printed, said = run(["squeue", "-h", "-t", "all", "-j", ",".join(numbers), "-o", "%i|%T|%r"])
        if status != 0 and "Invalid job id" not in said:
            return dict.fromkeys(numbers, UNKNOWN)
        found = self._parsed(printed)
        if older := [number for number in numbers if number not in found]:
            status, printed, _ = run(["sacct", "-X", "-n", "-P", "-j", ",".join(older), "-o", "JobID,State,Reason"])
            found.update(self._parsed(printed if status == 0 else ""))
        return {number: found.get(number, GONE) for number in numbers}

    def _parsed(self, printed: str) -> dict[str, Look]:
        found = {}
        for line in printed.splitlines():
            number, word, reason = (*line.split("|"), "", "")[:3]
            reason = "" if reason in ("None", "(null)") else reason
            first = word.split(" ")[0]  # "CANCELLED by 1000"
            state: Literal["waits", "runs", "ends", "ended", "unknown"] = "unknown"  # a newer Slurm's word
            if first in SLURM_ENDS:
                state = "ended"
            elif first in SLURM_WAITS:
                state = "waits"
            elif first in SLURM_RUNS:
                state = "runs"
            elif first == "COMPLETING":
                state = "ends"
            found[number] = Look(state, word, reason)
        return found


class Pbs(BatchSystem):
    """qsub, qstat, qdel of PBS Pro and OpenPBS."""

    name, title, mark = "pbs", "PBS", "#PBS"
    commands = ("qsub", "qstat", "qdel")
    cancel_command = ("qdel",)

    def _executor(self) -> Any:
        return psij_executor("pbs", self.work, self.mark)

    def _resources(self, psij: Any, wish: Wish) -> Any:
        # PSI/J asks for as many cores of a node as processes; one agent is started there all the same.
        return psij.ResourceSpecV1(
            node_count=wish.nodes, processes_per_node=wish.cores or 1, exclusive_node_use=wish.cores is None
        )

    def _own_directives(self, name: str) -> tuple[str, ...]:
        return (f"-N {name}", "-r n")

    def look(self, numbers: Sequence[str]) -> dict[str, Look]:
        """qstat says it, with -x also of jobs that have ended, where PBS keeps their history."""
        status, printed, said = run(["qstat", "-x", "-f", *numbers])
        if status != 0 and "history" in said:
            status, printed, said = run(["qstat", "-f", *numbers])
        found = pbs_jobs(printed)
        looks = {}
        for number in numbers:
            if job := found.get(number.split(".")[0]):
                looks[number] = self._look_of(job)
            else:  # only what PBS itself says is gone is gone
                about = [line for line in said.splitlines() if number in line.split()]
                gone = any("Unknown Job" in line or "has finished" in line for line in about)
                looks[number] = GONE if gone else UNKNOWN
        return looks

    def _look_of(self, job: dict[str, str]) -> Look:
        letter = job.get("job_state", "")
        state: Literal["waits", "runs", "ended", "unknown"] = "unknown"
        if letter in PBS_WORDS:
            state = "ended" if letter in "FX" else "runs" if letter in "REBSU" else "waits"
        reason = job.get("comment", "")
        if state == "ended" and "Exit_status" in job:
            reason = f"{reason}; exit status {job['Exit_status']}".strip("; ")
        return Look(state, PBS_WORDS.get(letter, letter), reason)


def batch_system(name: str, work: Path) -> BatchSystem:
    """The one that the setting `submit` names. Raises BatchError."""
    systems = {system.name: system for system in (Slurm, Pbs)}
    if name not in systems:
        raise BatchError(f"submit is {name!r}; it must be 'slurm' or 'pbs'")
    return systems[name](work)


def psij_executor(name: str, work: Path, mark: str) -> Any:
    """PSI/J's executor, whose scripts have directives of ours too.

    PSI/J has no way to give an option that takes no value, and would quote some values twice.

    Raises BatchError if it is not installed.
    """
    try:
        from psij.executors.batch.pbs import PBSJobExecutor
        from psij.executors.batch.pbs_base import PBSExecutorConfig
        from psij.executors.batch.slurm import SlurmExecutorConfig, SlurmJobExecutor
    except ImportError as error:
        raise BatchError(
            f"submit needs psij-python: pip install 'snakemake-executor-plugin-worksteal[batch]' ({error})"
        ) from None
    base, config = {"slurm": (SlurmJobExecutor, SlurmExecutorConfig), "pbs": (PBSJobExecutor, PBSExecutorConfig)}[name]

    class Submitter(base):  # type: ignore[misc, valid-type]
        _NAME_ = name
        directives: tuple[str, ...] = ()

        def generate_submit_script(self, job: Any, context: dict[str, object], submit_file: IO[str]) -> None:
            text = io.StringIO()
            super().generate_submit_script(job, context, text)
            first, _, rest = text.getvalue().partition("\n")
            own = "".join(f"{mark} {directive}\n" for directive in self.directives)
            submit_file.write(f"{first}\n{own}{rest}")

        def _run_command(self, cmd: list[str]) -> str:
            """PSI/J's has no time limit, and Ctrl-C would reach the command."""
            status, printed, said = run(cmd)
            if status != 0:
                raise subprocess.CalledProcessError(status, cmd, output=f"{printed}\n{said}".strip())
            return printed

    made = config(work_directory=work, queue_polling_interval=NEVER_POLL, initial_queue_polling_delay=NEVER_POLL)
    return Submitter(config=made)


def absolute_path(path: str | None) -> dict[str, str | int] | None:
    """PYTHONPATH for a job, which begins in another folder; None where there is none."""
    if not path:
        return None
    return {"PYTHONPATH": os.pathsep.join(os.path.abspath(each) for each in path.split(os.pathsep) if each)}


def run(command: Sequence[str]) -> tuple[int, str, str]:
    """Status, output and errors of a command, out of Ctrl-C's reach; status -1: it is missing or does not end."""
    null = subprocess.DEVNULL
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=ASK_S, stdin=null, start_new_session=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return -1, "", str(error)
    return done.returncode, done.stdout, done.stderr
