"""What a batch job runs: the launcher of the pool's agents over the nodes that it was given.

    python -m snakemake_executor_plugin_worksteal.start SESSION_FOLDER

It becomes the launcher. Nothing that is secret is on its command line: all is in the session's file.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from .allocation import end_of_allocation
from .launch import LaunchError, choose_launch
from .session import SessionError, read_session, task_environment

# Slurm's sbatch leaves these for srun: what was to reach the batch script is not what is to reach the agents.
FOR_THE_SCRIPT_ONLY = ("SLURM_EXPORT_ENV", "SBATCH_EXPORT")


# The file, beside the session's, that says why no agent is started.
REFUSED = "refused"


class PreambleError(Exception):
    """The commands that are to go before the agents have failed."""


def environment_after(preamble: str, environment: dict[str, str]) -> dict[str, str]:
    """The variables that bash has when it has run some commands, such as `module load`.

    Raises:
        PreambleError: the last of them ends with another status than 0.
    """
    # Not a login shell: it would begin with another PATH. `module` comes with the environment, as an exported function.
    # It talks on either stream; the variables are told in a file of their own. Not a pipe: what the commands leave
    # running in the background would keep that open.
    with os.fdopen(os.memfd_create("environment"), "w+b", buffering=0) as told:
        status = subprocess.run(
            ["/bin/bash", "-c", f"{preamble}\n[ $? = 0 ] || exit 1\nexec env -0 >&{told.fileno()}"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=2,
            pass_fds=(told.fileno(),),
        ).returncode
        told.seek(0)
        text = told.read()
    if status:
        raise PreambleError(f"the preamble {preamble!r} failed on {socket.gethostname()} (status {status})")
    found = (each.partition(b"=") for each in text.split(b"\0") if each)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in found}


def refuse(folder: Path, why: str) -> None:
    """Tell Snakemake why no agent is started: another batch job would end in the same way."""
    with suppress(OSError):
        temporary = folder / f"{REFUSED}.tmp"
        temporary.write_text(why)
        temporary.rename(folder / REFUSED)


def main(arguments: list[str]) -> None:
    """Never returns: the process is the launcher from then on, or ends with a sentence."""
    folder = Path(arguments[0])
    try:
        session = read_session(folder)
        # What the batch system has set here counts, such as the devices that this job may use.
        environment = {**task_environment({}, session.environment, same_machine=False), **os.environ}
        for name in FOR_THE_SCRIPT_ONLY:
            environment.pop(name, None)
        if session.preamble:
            environment = environment_after(session.preamble, environment)
            # Jobs are to have it too; only this job's agents read this file.
            replace(session, environment=environment).write(folder)
        launch = choose_launch(session.launcher, session.nodes, environment, leave_out=False)
    except (SessionError, LaunchError, PreambleError) as error:
        refuse(folder, str(error))
        sys.exit(f"worksteal: {error}")
    until = end_of_allocation(environment, session.walltime_s)
    command = launch.command(folder, until)
    os.chdir(session.workdir)
    sys.stdout.flush()
    os.execvpe(command[0], command, environment)


if __name__ == "__main__":
    main(sys.argv[1:])
