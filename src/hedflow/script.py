"""What every rule's script shares: its log, and errors as one sentence."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from hedflow import HedflowError
from hedflow.files import remove_partial


@contextmanager
def job(snakemake: Any) -> Iterator[None]:
    """Send what the script prints to the rule's log; end with one sentence where the user can mend it."""
    with Path(snakemake.log[0]).open("w", encoding="utf-8", buffering=1) as log:
        for path in snakemake.output:
            remove_partial(path)
        try:
            with redirect_stdout(log), redirect_stderr(log):
                yield
        except HedflowError as error:
            log.write(f"{error}\n")
            print(f"hedflow: {error}", file=sys.stderr)
            sys.exit(1)
        except Exception:
            traceback.print_exc(file=log)
            raise


def export_package() -> None:
    """Put this package's folder first on PYTHONPATH, which the scripts' processes inherit."""
    folders = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, folders)))


def staged(path: str | Path) -> Path:
    """The copy of a folder that the executor has put on this node's own disk, else the folder itself.

    The executor `worksteal` names the copies of what a rule names as resource `stage` in WORKSTEAL_STAGED, a JSON
    object from path to path.
    """
    copies: dict[str, str] = json.loads(os.environ.get("WORKSTEAL_STAGED", "{}"))
    return Path(copies.get(os.path.abspath(path), path))


def paths(values: str | Iterable[str]) -> list[Path]:
    """A rule's input as paths: Snakemake gives one file as a string and several as a list."""
    return [Path(values)] if isinstance(values, str) else [Path(value) for value in values]
