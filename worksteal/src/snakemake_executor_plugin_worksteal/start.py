"""What a batch job runs: the launcher of the pool's agents over the nodes that it was given.

    python -m snakemake_executor_plugin_worksteal.start SESSION_FOLDER

It becomes the launcher. Nothing that is secret is on its command line: all is in the session's file.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .allocation import end_of_allocation
from .launch import LaunchError, choose_launch
from .session import SessionError, read_session, task_environment

# Slurm's sbatch leaves these for srun: what was to reach the batch script is not what is to reach the agents.
FOR_THE_SCRIPT_ONLY = ("SLURM_EXPORT_ENV", "SBATCH_EXPORT")


def main(arguments: list[str]) -> None:
    """Never returns: the process is the launcher from then on, or ends with a sentence."""
    folder = Path(arguments[0])
    try:
        session = read_session(folder)
        # What the batch system has set here counts, such as the devices that this job may use.
        environment = {**task_environment({}, session.environment, same_machine=False), **os.environ}
        for name in FOR_THE_SCRIPT_ONLY:
            environment.pop(name, None)
        launch = choose_launch(session.launcher, session.nodes, environment)
    except (SessionError, LaunchError) as error:
        sys.exit(f"worksteal: {error}")
    until = end_of_allocation(environment, session.walltime_s)
    command = launch.command(folder, until)
    os.chdir(session.workdir)
    sys.stdout.flush()
    os.execvpe(command[0], command, environment)


if __name__ == "__main__":
    main(sys.argv[1:])
