"""Packing: Snakemake's own report over everything that the workflow made, as one self-contained page."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hedflow import HedflowError
from hedflow.files import atomic


def pack_report(config: dict[str, Any], out: str | Path, target: str, stylesheet: str | Path) -> None:
    """Have Snakemake pack the results that `target` asks for into one self-contained page.

    It is a run of Snakemake inside a run: it reads metadata and writes the page, so it needs no lock. It gets
    the outer run's configuration as a file, whatever that was put together from.
    """
    with tempfile.TemporaryDirectory() as folder, atomic(out) as page:
        configuration = Path(folder) / "config.json"
        configuration.write_text(json.dumps(config))
        command = [sys.executable, "-m", "snakemake", target, "--nolock", "--cores", "1"]
        command += ["--configfile", str(configuration), "--report", str(page)]
        command += ["--report-stylesheet", str(stylesheet)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        print(done.stdout)
        if done.returncode != 0:
            last = done.stdout.strip().splitlines()[-1:] or ["no message"]
            raise HedflowError(f"snakemake --report failed: {last[0]}")
