"""The command `worksteal`: what goes with a pool and needs no Snakemake.

    worksteal doctor --profile slurm
    worksteal figure .snakemake/worksteal/RUN
    mpiexec -n 4 worksteal stage data env.tar.zst /local/scratch
    worksteal COMMAND --help

Each command is the `main` of a module of this package, imported when it is asked for.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

# Command: module, and what it does, for `worksteal --help`.
COMMANDS = {
    "doctor": ("doctor", "whether a pool can work here: launcher, MPI, devices, disk, network"),
    "figure": ("figure", "draw how busy a pool was"),
    "stage": ("staging", "copy files from a shared file system to the disk of each node"),
    "staged": ("staged", "print where a job finds what was staged for it"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="worksteal", description="Tools of the executor worksteal.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, purpose) in COMMANDS.items():
        # A command's own options, --help too, are its module's.
        commands.add_parser(name, help=purpose, add_help=False)
    given, rest = parser.parse_known_args(arguments)
    module = import_module(f".{COMMANDS[given.command][0]}", __package__)
    status: int = module.main(rest)
    return status


if __name__ == "__main__":
    sys.exit(main())
