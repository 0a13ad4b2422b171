"""What a batch system says of the allocation that this process is in: when it ends."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress

ASK_S = 20.0  # how long a batch system may take to answer


def seconds_of(text: str) -> float:
    """Seconds of a duration as batch systems write it: [[D-]HH:]MM:SS, D-HH, D-HH:MM, or a number of minutes.

    Raises ValueError if it is none.
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+(?::\d+){0,2})", text.strip())
    if not found:
        raise ValueError(f"{text!r} is no duration: expected HH:MM:SS, D-HH:MM:SS or a number of minutes")
    days, numbers = int(found[1] or 0), [int(each) for each in found[2].split(":")]
    if found[1] is not None:  # after days: hours, then minutes, then seconds
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
    else:
        hours, minutes, seconds = {1: (0, *numbers, 0), 2: (0, *numbers), 3: tuple(numbers)}[len(numbers)]
    return days * 86400.0 + hours * 3600 + minutes * 60 + seconds


def clock(seconds: float) -> str:
    """HH:MM:SS, with as many hours as there are."""
    whole = round(seconds)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def end_of_allocation(environment: Mapping[str, str] = os.environ, walltime_s: float | None = None) -> float | None:
    """When the allocation ends that this process is in, in seconds since the epoch; None outside one, or if unknown.

    Slurm is asked how much time is left, since a limit can be changed while a job runs. PBS is asked what the job may
    take and has taken. walltime_s, counted from now, is used where neither answers.
    """
    left = None
    if "SLURM_JOB_ID" in environment:
        left = slurm_left(ask("squeue", "-h", "-j", environment["SLURM_JOB_ID"], "-o", "%L"))
        if left is None and environment.get("SLURM_JOB_END_TIME", "").isdigit():
            return float(environment["SLURM_JOB_END_TIME"])
    elif "PBS_JOBID" in environment:
        left = pbs_left(ask("qstat", "-f", environment["PBS_JOBID"]))
    if left is None:
        left = walltime_s
    return None if left is None else time.time() + left


def slurm_left(answer: str) -> float | None:
    """Seconds that are left, by squeue's %L; None for UNLIMITED, INVALID, or no answer."""
    try:
        return seconds_of(answer)
    except ValueError:
        return None


def pbs_left(answer: str) -> float | None:
    """Seconds that are left, by `qstat -f`: Resource_List.walltime less what has passed since stime."""
    job = next(iter(pbs_jobs(answer).values()), {})
    try:
        walltime = seconds_of(job["Resource_List.walltime"])
    except (ValueError, KeyError):
        return None
    used = 0.0
    try:
        used = time.time() - time.mktime(time.strptime(job["stime"]))
    except (KeyError, ValueError):
        with suppress(ValueError):
            used = seconds_of(job.get("resources_used.walltime", ""))
    return walltime - used


def pbs_jobs(answer: str) -> dict[str, dict[str, str]]:
    """Attributes of each job, by `qstat -f`, under the job's number without its server.

    Not by its JSON: that has the job's whole environment in it, and PBS writes it in ways that are no JSON where a
    variable has backslashes, quotes or a function in it (OpenPBS issues 1255 and 2541).
    """
    found: dict[str, dict[str, str]] = {}
    for block in re.split(r"^Job Id: *", answer, flags=re.MULTILINE)[1:]:
        first, _, rest = block.partition("\n")
        job = found.setdefault(first.strip().split(".")[0], {})
        # A long value goes on in the next line, behind a tab.
        for line in rest.replace("\n\t", "").split("\n"):
            if attribute := re.fullmatch(r" {4}([\w.]+) = (.*)", line):
                job.setdefault(attribute[1], attribute[2])  # what comes later may be a line of some variable's
    return found


def ask(*command: str) -> str:
    """What a command prints; empty where it is missing, fails, or does not end."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
