"""Staging: bytes read from the shared folder by 1, 2, 4 and 8 nodes, and its throughput against `cp` by each rank.

    python benchmarks/bench_worksteal_staging.py [--mb 256] [--counted-mb 80] [--rounds 3]

The nodes are MPI ranks of this machine with a folder each. Bytes are counted by strace, not timed: `cp` by each rank
reads them once a node, staging once in all. Both sides are timed in turn in one run, over the same files, into the same
disk. Here the shared folder is in this machine's page cache, so that reading it n times costs next to nothing, which is
the best case for `cp`, of which the launcher's start is taken off: on a parallel file system that is what takes the
time. `cp` checks nothing and leaves the data in memory; so it is timed once as it is, and once with what staging also
does: all on the disk, and checked by SHA-256.

The last line is JSON: `read` are bytes read over bytes of the files, by nodes; `ratio` is the time of `cp` with the
same guarantees over that of staging, `ratio_to_bare_cp` that of `cp` alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "executor"))

from reads import bytes_read, mpiexec

STAGE = [sys.executable, "-m", "snakemake_executor_plugin_worksteal.cli", "stage"]
NODES = (1, 2, 4, 8)
TIMED_NODES = 4
BARE = 'mkdir -p "$2/$PMI_RANK" && cp -r "$1" "$2/$PMI_RANK/"'
CHECKED = f'{BARE} && cd "$2/$PMI_RANK/data" && sync * && sha256sum --quiet -c SHA256SUMS'


def make_source(folder: Path, mb: int) -> Path:
    """A folder as a bundle is: one file with nearly all bytes and some small ones; and their digests."""
    folder.mkdir(parents=True)
    block = os.urandom(1 << 20)
    with (folder / "large.npy").open("wb") as file:
        for number in range(mb):
            file.write(number.to_bytes(8, "little") + block[8:])
    for number in range(10):
        (folder / f"small{number}.parquet").write_bytes(os.urandom(50_000))
    sums = subprocess.check_output(["sha256sum", *sorted(path.name for path in folder.iterdir())], cwd=folder)
    (folder / "SHA256SUMS").write_bytes(sums)
    return folder


def counted(source: Path, disks: Path) -> dict[int, float]:
    """Bytes read over bytes of the files, by number of nodes."""
    files = list(source.iterdir())
    size = sum(path.stat().st_size for path in files)
    found = {}
    for nodes in NODES:
        found[nodes] = bytes_read([*mpiexec(nodes), *STAGE, source, f"{disks}/{{rank}}"], files) / size
        print(f"{nodes} nodes: {found[nodes]:.4f} x the files' bytes read", flush=True)
        shutil.rmtree(disks)
    return found


def staged(source: Path, disks: Path) -> float:
    """Seconds that staging says it took, as in a pool, whose processes run already."""
    words = [*mpiexec(TIMED_NODES), *STAGE, source, f"{disks}/{{rank}}"]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    found = re.search(r", ([0-9.]+) s$", said.strip())
    if found is None:
        raise RuntimeError(f"staging said {said!r}")
    return float(found.group(1))


def copied(script: str, source: Path, disks: Path) -> float:
    """Seconds of a script on each rank, without the launcher's own."""
    begun = time.perf_counter()
    subprocess.run([*mpiexec(TIMED_NODES), "sh", "-c", "true"], check=True)
    ready = time.perf_counter()
    subprocess.run([*mpiexec(TIMED_NODES), "sh", "-c", script, "sh", source, disks], check=True)
    return time.perf_counter() - ready - (ready - begun)


def main() -> None:
    """Count, then time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=256, help="size of what is timed")
    parser.add_argument("--counted-mb", type=int, default=80, help="size of what is counted")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the files are made (the temporary folder)")
    given = parser.parse_args()
    seconds: dict[str, list[float]] = {"staging": [], "cp": [], "cp, sync, sha256sum": []}
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        disks = Path(name, "disks")
        read = counted(make_source(Path(name, "counted", "data"), given.counted_mb), disks)
        source = make_source(Path(name, "timed", "data"), given.mb)
        steps = {"staging": staged, "cp": copied, "cp, sync, sha256sum": copied}
        scripts = {"staging": (), "cp": (BARE,), "cp, sync, sha256sum": (CHECKED,)}
        for _ in range(given.rounds):
            for side, step in steps.items():
                seconds[side].append(step(*scripts[side], source, disks))
                shutil.rmtree(disks)
                os.sync()  # what one leaves to be written is not to slow down the next
            print({side: round(values[-1], 3) for side, values in seconds.items()}, flush=True)
    median = {side: statistics.median(values) for side, values in seconds.items()}
    report = {
        "benchmark": "worksteal_staging",
        "cores": len(os.sched_getaffinity(0)),
        "read": read,
        "nodes_timed": TIMED_NODES,
        "mb": given.mb,
        "mb_per_s_and_node": {side: round(given.mb / value, 1) for side, value in median.items()},
        "ratio_to_bare_cp": round(median["cp"] / median["staging"], 3),
        "ratio": round(median["cp, sync, sha256sum"] / median["staging"], 3),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
