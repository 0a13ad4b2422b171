"""Where a job finds what was staged for it.

In a script: `staged("data/genome.fa")`; in a shell command: `$(worksteal staged data/genome.fa)`. Without a pool, or
where it was not staged, that is the path itself.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path


def staged(path: str | Path) -> Path:
    """The copy of a file or folder on this node's disk if there is one, else the path as it is.

    The path may lie in a folder that was staged.
    """
    copies: dict[str, str] = json.loads(os.environ.get("WORKSTEAL_STAGED", "{}"))
    whole = Path(os.path.abspath(path))
    for source in (whole, *whole.parents):
        if str(source) in copies:
            return Path(copies[str(source)], whole.relative_to(source))
    return Path(path)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="worksteal staged", description="Print where a job finds a staged path.")
    parser.add_argument("path")
    print(staged(parser.parse_args(arguments).path))
    return 0
