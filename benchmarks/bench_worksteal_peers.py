"""Agent to agent, without Snakemake: worksteal against mpi4py.futures, Parsl and dask-mpi, each with 8 workers.

    python benchmarks/bench_worksteal_peers.py [--tasks 20000] [--rounds 3] [--sides worksteal,mpi4py.futures]

Two things are timed, in rounds in which every side has its turn in a process of its own. (1) Empty tasks a second,
from the first submission to the last result. worksteal's are orders of nothing: what moving a task to an agent,
stealing and reporting cost, with no process made, like the peers' functions in long-lived workers. What it takes with
a fork for each (a script `pass`, isolated as jobs are) is said apart. (2) The time of 200 log-normal sleeps over 8
workers: by an ideal queue 1.614 s in file order and 1.251 s longest first. The peers get them in file order; worksteal
gets them as its executor hands jobs over, sorted by expected duration, to one agent with 8 slots, and runs them in
forks that are used again (`--worksteal-reuse`); the median of 3. What it takes with a fork for each is said apart
(`forks`), and what it takes without expected durations, in file order (`unknown`), for sleeps 8 times as long
(`stretched`), and with four agents of two slots each under mpiexec (`mpi`), which tasks reach later. Every pool is up
and warm before.
The peers are optional (pip install './worksteal[mpi,peers]'): one that is not installed is left out, and named so.

The last line is JSON: `ratio` is worksteal's tasks/s over the fastest peer's, `bound_over_makespan` how near each came
to the ideal queue, longest first.
"""

from __future__ import annotations

import argparse
import heapq
import importlib.metadata
import itertools
import json
import os
import pickle
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

WORKERS = 8
AGENTS = 4
BOUND_S = 1.251
# The same sleeps so many times as long: what a fork for each costs where tasks take 0.4 s in the mean instead of 0.05.
STRETCH = 8
# As the executor hands jobs over: in batches that double up to this.
BATCH = 64
REUSE = 1000
REPEATS = 3
WARM_UP = 200
PEERS = {
    "mpi4py.futures": ("mpi4py", ("-n", str(WORKERS + 1)), ("-m", "mpi4py.futures")),
    "parsl": ("parsl", (), ()),
    # The scheduler and this client are ranks too.
    "dask-mpi": ("dask-mpi", ("-n", str(WORKERS + 2)), ()),
}
SIDES = ("worksteal", *PEERS)
LIMIT_S = 300


def ideal(sleeps: Iterable[float]) -> float:
    """Seconds that a queue which costs nothing takes over the workers, in this order."""
    free = [0.0] * WORKERS
    for sleep in sleeps:
        heapq.heapreplace(free, free[0] + sleep)
    return max(free)


def make_sleeps(count: int = 200) -> list[float]:
    """Log-normal sleeps in seconds (mu 0, sigma 1, seed 42), scaled so that the ideal takes BOUND_S longest first."""
    source = random.Random(42)
    drawn = [source.lognormvariate(0.0, 1.0) for _ in range(count)]
    scale = BOUND_S / ideal(sorted(drawn, reverse=True))
    return [scale * value for value in drawn]


# What the peers' workers run


def empty() -> None:
    """Nothing."""


def nap(seconds: float) -> None:
    """Sleep."""
    import time  # Parsl sends the function without its module

    time.sleep(seconds)


def time_peer(submit: Callable[..., Any], wait: Callable[[list[Any]], Any], tasks: int) -> dict[str, float]:
    """Figures of an executor with `submit(function, *arguments)`; `wait` waits for all its futures."""

    def seconds(calls: list[tuple[Any, ...]]) -> float:
        begun = time.perf_counter()
        wait([submit(*call) for call in calls])
        return time.perf_counter() - begun

    for _ in range(2):
        seconds([(empty,)] * WARM_UP + [(nap, 0.01)] * WORKERS * 4)
    makespan = seconds([(nap, sleep) for sleep in make_sleeps()])
    return {"tasks_per_s": tasks / seconds([(empty,)] * tasks), "makespan_s": makespan}


def results_of(futures: list[Any]) -> None:
    """Wait for futures of the standard library's kind."""
    for future in futures:
        future.result()


def side_mpi4py(tasks: int) -> dict[str, float]:
    """mpi4py.futures, one rank the master."""
    from mpi4py.futures import MPIPoolExecutor

    with MPIPoolExecutor() as pool:
        return time_peer(pool.submit, results_of, tasks)


def side_parsl(tasks: int) -> dict[str, float]:
    """Parsl's HighThroughputExecutor on this machine."""
    import parsl
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    executor = HighThroughputExecutor(
        address="127.0.0.1",
        max_workers_per_node=WORKERS,
        cores_per_worker=1e-3,
        provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1),
    )
    with parsl.load(Config(executors=[executor], run_dir=tempfile.mkdtemp(dir="."))):
        apps = {function: parsl.python_app(function) for function in (empty, nap)}
        return time_peer(lambda function, *given: apps[function](*given), results_of, tasks)


def side_dask(tasks: int) -> dict[str, float]:
    """dask-mpi; only the rank of the client comes back from `initialize`."""
    import dask_mpi
    from distributed import Client, wait

    dask_mpi.initialize(nthreads=1, dashboard=False, local_directory=".")
    with Client() as client:
        client.wait_for_workers(WORKERS)
        return time_peer(lambda *call: client.submit(*call, pure=False), wait, tasks)


# worksteal


class Counter:
    """A user of a pool that counts results."""

    def __init__(self) -> None:
        self.up = threading.Event()
        self.done = threading.Event()
        self.left = 0
        self.failure = ""

    def started(self, nodes: list[dict[str, Any]]) -> None:
        """The agents are there."""
        self.up.set()

    def finished(self, task: Any, result: Any) -> None:
        """One less."""
        if not result.ok:
            self.failure = f"task {task.id} ended with status {result.status}: {result.reason} {result.tail}"
        self.left -= 1
        if self.left == 0 or self.failure:
            self.done.set()

    def broken(self, error: Exception) -> None:
        """Nothing more will come."""
        self.failure = str(error)
        self.up.set()
        self.done.set()

    def impossible(self, task: Any, why: str) -> None:
        """No agent can run a task."""
        self.broken(RuntimeError(why))

    def log(self, text: str, *, warning: bool = False) -> None:
        """What a pool has to say is a warning."""
        print(text, file=sys.stderr)

    def withdrawn(self, tasks: list[Any]) -> None:
        """Nothing is taken back here."""

    def event(self, name: str, rank: int, when: float, details: dict[str, Any]) -> None:
        """Not used."""

    def running(self, running: int) -> None:
        """Not used."""

    def tick(self) -> None:
        """Not used."""


class WorkstealPool:
    """A pool of agents in a temporary folder: `with WorkstealPool("mpiexec", agents, slots) as pool`."""

    def __init__(self, launcher: str, agents: int, slots: int, reuse: int = 1) -> None:
        from snakemake_executor_plugin_worksteal.channel import Listener
        from snakemake_executor_plugin_worksteal.launch import choose_launch
        from snakemake_executor_plugin_worksteal.pool import Pool
        from snakemake_executor_plugin_worksteal.session import Session, make_secret

        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        folder = Path(self._folder.name)
        session = Session(
            pool=folder.name,
            address=f"unix:{folder}/listen/socket",
            secret=make_secret(None),
            workdir=str(folder),
            environment=dict(os.environ),
            host=socket.gethostname(),
            nodes=agents,
            slots=slots,
            devices="0",
            reuse=reuse,
        )
        self.counter = Counter()
        listener = Listener(bytes.fromhex(session.secret), session.address, self.counter.log)
        self.pool = Pool(choose_launch(launcher, agents), session, folder, listener, self.counter)
        self._next = 0

    def __enter__(self) -> WorkstealPool:
        self.pool.start()
        if not self.counter.up.wait(60.0) or self.counter.failure:
            raise RuntimeError(f"worksteal's pool did not start within a minute: {self.counter.failure}")
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.stop(kill=False)
        self._folder.cleanup()

    def empty(self, count: int) -> float:
        """Seconds of `count` orders of nothing."""
        from snakemake_executor_plugin_worksteal.tasks import Order

        return self._run(((Order(), 0.0) for _ in range(count)), count)

    def scripts(self, source: str, values: list[Any], *, expected: bool = False) -> float:
        """Seconds of a script for each value, its `snakemake`.

        `expected`: the value is its duration, and known; the longest then goes first, as the executor has it.
        """
        from snakemake_executor_plugin_worksteal.tasks import Order, Script

        key = source.encode()  # as the executor gives one, so that the agent need not make it
        orders = (
            (Order(script=Script("bench.py", source, (), pickle.dumps(value), key=key)), value if expected else 0.0)
            for value in (sorted(values, reverse=True) if expected else values)
        )
        return self._run(orders, len(values))

    def _run(self, orders: Iterable[tuple[Any, float]], count: int) -> float:
        """Seconds from the making of the first of `count` orders to the last result."""
        from snakemake_executor_plugin_worksteal.tasks import Task

        begun = time.perf_counter()
        self.counter.done.clear()
        self.counter.left = count
        numbered = enumerate(orders, self._next)
        self._next += count
        size = 1
        while batch := list(itertools.islice(numbered, size)):
            self.pool.submit(Task(id=number, expected=known, payload=order) for number, (order, known) in batch)
            size = min(2 * size, BATCH)
        if not self.counter.done.wait(LIMIT_S) or self.counter.failure:
            raise RuntimeError(f"{self.counter.left} tasks did not end: {self.counter.failure}")
        return time.perf_counter() - begun


def warm_up(pool: WorkstealPool, sleep: str) -> None:
    """As the peers are before they are timed."""
    for _ in range(2):
        pool.empty(WARM_UP)
        pool.scripts(sleep, [0.01] * WORKERS * 4)


def side_worksteal(tasks: int) -> dict[str, float]:
    """One agent with eight slots, as on one machine, and four with two each, as ranks of mpiexec."""
    sleep = "import time; time.sleep(snakemake)"
    forks = max(1, tasks // 10)
    sleeps = make_sleeps()

    def sweep(pool: WorkstealPool, **how: Any) -> float:
        return statistics.median(pool.scripts(sleep, sleeps, **how) for _ in range(REPEATS))

    with WorkstealPool("local", 1, WORKERS, REUSE) as pool:
        warm_up(pool, sleep)
        figures = {"makespan_s": sweep(pool, expected=True), "makespan_unknown_s": sweep(pool)}
    with WorkstealPool("local", 1, WORKERS) as pool:
        warm_up(pool, sleep)
        figures |= {
            "makespan_forks_s": sweep(pool, expected=True),
            "makespan_forks_unknown_s": sweep(pool),
            "makespan_forks_stretched_s": pool.scripts(sleep, [STRETCH * value for value in sleeps], expected=True),
        }
    with WorkstealPool("mpiexec", AGENTS, WORKERS // AGENTS, REUSE) as pool:
        warm_up(pool, sleep)
        figures |= {
            "makespan_mpi_s": sweep(pool, expected=True),
            "scripts_per_s": forks / pool.scripts("pass", [None] * forks),
            "tasks_per_s": tasks / pool.empty(tasks),
        }
    with WorkstealPool("mpiexec", AGENTS, WORKERS // AGENTS) as pool:
        warm_up(pool, sleep)
        return figures | {"forks_per_s": forks / pool.scripts("pass", [None] * forks)}


RUN = {
    "worksteal": side_worksteal,
    "mpi4py.futures": side_mpi4py,
    "parsl": side_parsl,
    "dask-mpi": side_dask,
}


# The comparison


def version_of(side: str) -> str:
    """The installed version; empty where there is none."""
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(
            "snakemake-executor-plugin-worksteal" if side == "worksteal" else PEERS[side][0]
        )
    return ""


def measure(side: str, tasks: int) -> dict[str, float]:
    """The figures of one side, from a process of its own; raises RuntimeError with its last words if it fails."""
    _, ranks, module = PEERS.get(side, ("", (), ()))
    launcher = [str(Path(sys.executable).parent / "mpiexec"), *ranks] if ranks else []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        # Into files: a pipe stays open as long as any process that a peer leaves behind.
        out, words = Path(folder) / "figures.json", Path(folder) / "words"
        command = [*launcher, sys.executable, *module, str(Path(__file__).resolve())]
        command += ["--only", side, "--tasks", str(tasks), "--out", str(out)]
        with words.open("wb") as said:
            process = subprocess.Popen(
                command,
                cwd=folder,
                # Peers start programs of their own from this Python's environment.
                env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
            try:
                process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                print(f"{side} has not ended within {LIMIT_S} s", flush=True)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if not out.exists():
            raise RuntimeError(f"{side} gave no figures; its last words: {words.read_text(errors='replace')[-2000:]}")
        figures: dict[str, float] = json.loads(out.read_text())
        return figures


def write_figures(side: str, tasks: int, out: Path) -> None:
    """Measure in this process; the file appears when it is whole."""
    figures = RUN[side](tasks)
    temporary = out.with_suffix(".tmp")
    temporary.write_text(json.dumps(figures))
    temporary.rename(out)


def report(rounds: list[dict[str, dict[str, float]]], tasks: int) -> dict[str, Any]:
    """Medians over the rounds, and what they come to."""
    sides = {
        side: {name: round(statistics.median(each[side][name] for each in rounds), 3) for name in figures}
        for side, figures in rounds[0].items()
    }
    peers = {side: figures for side, figures in sides.items() if side != "worksteal"}
    own = sides.get("worksteal", {})
    found: dict[str, Any] = {
        "benchmark": "worksteal_peers",
        "cores": len(os.sched_getaffinity(0)),
        "workers": WORKERS,
        "tasks": tasks,
        "batch": BATCH,
        "rounds": len(rounds),
        "versions": {side: version_of(side) for side in sides},
        "left_out": [side for side in SIDES if side not in sides],
        "ideal_file_order_s": round(ideal(make_sleeps()), 3),
        "ideal_longest_first_s": BOUND_S,
        "medians": sides,
        "bound_over_makespan": {side: round(BOUND_S / each["makespan_s"], 3) for side, each in sides.items()},
    }
    if own and peers:
        found["bound_over_makespan_unknown"] = round(BOUND_S / own["makespan_unknown_s"], 3)
        found["bound_over_makespan_mpi"] = round(BOUND_S / own["makespan_mpi_s"], 3)
        found["bound_over_makespan_forks"] = round(BOUND_S / own["makespan_forks_s"], 3)
        found["bound_over_makespan_forks_unknown"] = round(BOUND_S / own["makespan_forks_unknown_s"], 3)
        found["bound_over_makespan_forks_stretched"] = round(STRETCH * BOUND_S / own["makespan_forks_stretched_s"], 3)
        found["ratio"] = round(own["tasks_per_s"] / max(each["tasks_per_s"] for each in peers.values()), 3)
        found["ratio_makespan"] = round(min(each["makespan_s"] for each in peers.values()) / own["makespan_s"], 3)
    return found


def main() -> None:
    """Time the sides in turn, print each figure and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", default=",".join(SIDES), help=f"of {', '.join(SIDES)}")
    parser.add_argument("--only", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        write_figures(given.only, given.tasks, given.out)
        return
    sides = [side for side in given.sides.split(",") if side in SIDES]
    for side in [side for side in sides if not version_of(side)]:
        print(f"{side} is left out: it is not installed for {sys.executable}")
        sides.remove(side)
    rounds = []
    for number in range(given.rounds):
        figures = {}
        for side in sides:
            figures[side] = measure(side, given.tasks)
            words = ", ".join(f"{name} {value:,.3f}" for name, value in figures[side].items())
            print(f"round {number + 1}: {side}: {words}", flush=True)
        rounds.append(figures)
    print(json.dumps(report(rounds, given.tasks)))


if __name__ == "__main__":
    main()
