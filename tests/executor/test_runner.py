"""Laws of the runner: what is asked is run as asked, every outcome is told once, and nothing of a task outlives it."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import random
import re
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest
from conftest import wait_for
from snakemake.benchmark import BenchmarkRecord
from snakemake.iocontainers import InputFiles, Log, OutputFiles, Params, ResourceList, Snakemake, Wildcards
from snakemake.script import PythonScript
from snakemake.sourcecache import LocalSourceFile
from snakemake_executor_plugin_worksteal import processes, runner
from snakemake_executor_plugin_worksteal import warm as warm_module
from snakemake_executor_plugin_worksteal.runner import Runner, RunnerDied, read_journal
from snakemake_executor_plugin_worksteal.tasks import Back, Benchmark, Order, Result, Script

PATIENCE_S = 20.0  # for what should come at once; only a failing test waits so long
PACKAGE = Path(runner.__file__).parents[1]


class Bench:
    """A runner and what it has said."""

    def __init__(self, kind: Literal["plain", "warm"], folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.pool = f"test-{os.getpid()}-{folder.name}"
        self.journal = folder / f"{kind}.jsonl"
        environment = {**os.environ, "WORKSTEAL_POOL": self.pool, "GREETING": "of the pool"}
        settings = {"grace_s": 5.0, "patience": 0.05, **settings}
        self.runner = Runner(
            kind, rank=7, workdir=str(folder), environment=environment, journal=self.journal, **settings
        )
        self.warnings: list[str] = []
        self.results: dict[int, Result] = {}
        self.back: list[int] = []
        self.next = 0

    def start(self, order: Order) -> int:
        self.next += 1
        self.runner.start(self.next, order, (0,), ())
        return self.next

    def hear(self, number: int) -> Result:
        """The result of a task."""
        self.listen(lambda: number in self.results, f"no result of task {number}")
        return self.results[number]

    def listen(self, holds: Callable[[], bool], otherwise: str) -> None:
        """Read what the runner says until something holds."""
        deadline = time.monotonic() + PATIENCE_S
        poll = select.poll()
        while not holds():
            assert time.monotonic() < deadline, otherwise
            poll.register(self.runner, select.POLLIN | (select.POLLOUT if self.runner.wants_write else 0))
            poll.poll(1000)
            self.runner.flush()
            for found in self.runner.read():
                if isinstance(found, str):
                    self.warnings.append(found)
                elif isinstance(found, Back):
                    self.back += found.ids
                else:
                    assert found.id not in self.results
                    self.results[found.id] = found

    def run(self, command: str = "", **order: Any) -> Result:
        return self.hear(self.start(Order(command, **order)))

    def script(self, source: str, name: str = "script.py", **order: Any) -> Result:
        return self.hear(self.start(script_order(self.folder / name, source, **order)))


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Runners that are closed after the test, and that must leave nothing behind."""
    made: list[Bench] = []

    def new(kind: Literal["plain", "warm"] = "plain", **settings: Any) -> Bench:
        made.append(Bench(kind, tmp_path, **settings))
        return made[-1]

    yield new
    for bench in made:
        bench.runner.close(5)
        assert processes.leftovers(bench.pool) == []


def script_order(path: Path, source: str, **order: Any) -> Order:
    return Order(script=Script(str(path), source, (str(path.parent),), pickle.dumps(container(path.parent))), **order)


def container(folder: Path, **params: Any) -> Snakemake:
    """A job's `snakemake` object."""
    return Snakemake(
        InputFiles(["in.txt"]), OutputFiles(fromdict={"table": "out.txt"}), Params(fromdict={"alpha": 2, **params}),
        Wildcards(fromdict={"sample": "a"}), 2, ResourceList(fromdict={"mem_mb": 10}), Log(), {"key": "value"}, "rule",
        None, str(folder),
    )  # fmt: skip


def wait_for_file(path: Path) -> str:
    """The text of a file that a task writes with its last word."""
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists() or not path.read_text().endswith("\n"):
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.01)
    return path.read_text()


def wait_gone(pids: Sequence[int]) -> None:
    """Until the processes have ended."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ready, _, _ = select.select([descriptor], [], [], PATIENCE_S)
        os.close(descriptor)
        assert ready, f"process {pid} still lives: {psutil.Process(pid)}"


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


# ---- commands ----


@pytest.mark.parametrize(
    ("command", "status", "sign"),
    [("true", 0, 0), ("exit 3", 3, 0), ("kill -TERM $$", None, 15), ("kill -SEGV $$", None, 11), ("nonsense_", 127, 0)],
)
def test_status_and_signal_are_told(make: Callable[..., Bench], command: str, status: int | None, sign: int) -> None:
    bench = make()
    before = time.time()
    result = bench.run(command)
    assert (result.status, result.signal, result.ok) == (status, sign, status == 0)
    assert before <= result.started <= result.ended <= time.time()
    assert (result.rank, result.cores, result.devices) == (7, (0,), ())
    assert result.max_rss_mb > 0


def test_a_shell_that_is_not_there_is_told(make: Callable[..., Bench]) -> None:
    result = make().run("true", shell="/nowhere/sh")
    assert result.status == 127
    assert "/nowhere/sh" in result.reason


def test_output_is_kept_and_its_end_is_told(make: Callable[..., Bench], tmp_path: Path) -> None:
    bench, log = make(), tmp_path / "logs" / "deep" / "1.log"
    result = bench.run("for i in $(seq 100); do echo line $i; done; printf 'last \\xff' >&2", log=str(log))
    assert log.read_bytes() == b"".join(b"line %d\n" % i for i in range(1, 101)) + b"last \xff"
    assert result.tail.splitlines() == [f"line {i}" for i in range(82, 101)] + ["last \ufffd"]
    assert result.log == str(log)
    assert [path.name for path in log.parent.iterdir()] == ["1.log"]
    silent = bench.run("true", log=str(tmp_path / "silent" / "2.log"))
    assert (silent.log, silent.tail) == ("", "")
    assert not (tmp_path / "silent").exists()


def test_large_output_is_whole(make: Callable[..., Bench], tmp_path: Path) -> None:
    result = make().run("head -c 10000000 /dev/zero | tr '\\0' x", log=str(tmp_path / "1.log"))
    assert (tmp_path / "1.log").stat().st_size == 10_000_000
    assert len(result.tail) == 4096


def test_a_log_that_cannot_be_written_is_a_warning(make: Callable[..., Bench], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    bench = make()
    result = bench.run("echo x", log=str(tmp_path / "file" / "1.log"))
    assert (result.ok, result.log, result.tail) == (True, "", "x")
    assert any("could not be kept" in warning for warning in bench.warnings)


def test_a_command_longer_than_one_argument_may_be(make: Callable[..., Bench], tmp_path: Path) -> None:
    bench = make()
    result = bench.run(f": {'x' * 300_000}; echo $0", environment={"A": "1"})
    assert result.ok, result
    assert not Path(result.tail).exists()


def test_what_a_task_finds(make: Callable[..., Bench], tmp_path: Path) -> None:
    bench = make()
    command = "echo $OMP_NUM_THREADS $MKL_NUM_THREADS $GREETING $EXTRA $WORKSTEAL_TASK $PWD $(ps -o sid= $$) $$; cat"
    result = bench.run(command, threads=3, environment={"EXTRA": "extra", "MKL_NUM_THREADS": "1"})
    *words, session, own = result.tail.split()
    assert words == ["3", "1", "of", "the", "pool", "extra", f"{bench.pool}:7:1", str(tmp_path)]
    assert session == own
    _, blocked, _, ignored = bench.run("grep -E 'Sig(Ign|Blk)' /proc/self/status").tail.split()
    internal = 3 << 31  # signals 32 and 33, which libc keeps for itself
    assert (int(blocked, 16), int(ignored, 16) & ~internal) == (0, 0)


def test_five_hundred_commands_leave_nothing(make: Callable[..., Bench]) -> None:
    bench = make()
    # It keeps some empty files for the output of what comes.
    for number in [bench.start(Order("true")) for _ in range(100)]:
        bench.hear(number)
    process = psutil.Process(bench.runner.pid)
    before = process.num_fds(), len(process.children())
    assert before[0] < 100
    first = bench.start(Order("true"))
    last = [bench.start(Order("exit $((RANDOM % 2))")) for _ in range(500)][-1]
    bench.hear(last)
    assert [bench.hear(number).status in (0, 1) for number in range(first, last)] == [True] * 500
    assert (process.num_fds(), len(process.children())) == before


@pytest.mark.parametrize("kind", ["plain", "warm"])
def test_a_task_at_hand_begins_when_one_of_its_kind_ends(
    make: Callable[..., Bench], kind: Literal["plain", "warm"]
) -> None:
    bench = make(kind)
    need = (kind, 1, 0)

    def order(text: str) -> Order:
        if kind == "plain":
            return Order(
                f"[ ! -e {text} ] || exit 9; while [ ! -e go ]; do sleep 0.01; done; echo {text}", remove=(text,)
            )
        first = f"import os, time\nassert not os.path.exists('{text}')\n"
        wait = first + "while not os.path.exists('go'):\n    time.sleep(0.01)"
        return script_order(bench.folder / "s.py", f"{wait}\nprint('{text}')", remove=(text,))

    (bench.folder / "second").touch()  # its old output, which goes when it begins
    bench.runner.start(1, order("first"), (3,), (), need)
    bench.runner.start_ahead(2, order("second"), need)
    bench.runner.start_ahead(3, order("third"), need)
    bench.runner.start_ahead(4, order("fourth"), ("other", 1, 0))
    bench.runner.recall([3, 1, 99])
    bench.listen(lambda: len(bench.back) == 2, "two tasks do not come back")
    assert sorted(bench.back) == [3, 4]
    assert (bench.folder / "second").exists()
    (bench.folder / "go").touch()
    first, second = bench.hear(1), bench.hear(2)
    assert (first.successor, second.successor) == (2, None)
    assert (first.tail.strip(), second.tail.strip()) == ("first", "second")
    assert first.cores == second.cores == (3,)
    assert first.ended <= second.started
    results, _ = read_journal(bench.journal)
    assert [result.successor for result in results] == [2, None]
    bench.runner.start_ahead(5, order("fifth"), need)  # the last of its kind has ended
    bench.listen(lambda: bench.back[-1] == 5, "it does not come back")


def test_what_is_at_hand_does_not_begin_in_a_runner_that_closes(make: Callable[..., Bench]) -> None:
    bench = make()
    need = ("plain", 1, 0)
    bench.runner.start(1, Order("sleep 60"), (0,), (), need)
    bench.runner.start_ahead(2, Order("touch begun"), need)
    bench.runner.close(2)
    assert not (bench.folder / "begun").exists()


def test_an_idle_runner_sleeps(make: Callable[..., Bench]) -> None:
    bench = make("warm")
    bench.run("true")
    bench.script("pass")
    process = psutil.Process(bench.runner.pid)
    deadline = time.monotonic() + PATIENCE_S
    while len(process.children()) < 3:  # the guard and two spares
        assert time.monotonic() < deadline
        time.sleep(0.01)
    select.select([bench.runner], [], [], 0.2)  # lets the last fork return
    before = process.num_ctx_switches().voluntary, process.cpu_times()[:2]
    assert select.select([bench.runner], [], [], 0.5) == ([], [], [])
    assert (process.num_ctx_switches().voluntary, process.cpu_times()[:2]) == before


# ---- the end of a task ----


def test_what_a_task_leaves_is_ended_before_it_is_told(make: Callable[..., Bench], tmp_path: Path) -> None:
    bench = make()
    other = bench.start(Order("setsid sleep 300 & echo $! > other; read < never"))
    os.mkfifo(tmp_path / "never")
    others = int(wait_for_file(tmp_path / "other"))
    started = time.monotonic()
    result = bench.run(
        "sleep 300 & echo $!; setsid sleep 300 & echo $!; (trap '' TERM HUP; sleep 300) & echo $!;"
        " mkfifo f; (setsid bash -c 'sleep 300 & echo $! $$ > f; wait' &); cat f"
    )
    assert result.ok
    assert time.monotonic() - started < 5
    pids = [int(word) for word in result.tail.split()]
    assert len(pids) == 5
    assert not any(alive(pid) for pid in pids)
    assert alive(others), "what another task has started must live on"
    bench.runner.stop(other, "no longer needed")
    bench.hear(other)
    assert not alive(others)


def test_daemons_that_are_just_being_born_are_ended_too(make: Callable[..., Bench], tmp_path: Path) -> None:
    bench = make()
    other = bench.start(Order("exec sleep 300"))
    os.mkfifo(tmp_path / "pid")
    for _ in range(60):
        result = bench.run("(setsid bash -c 'sleep 300 & echo $! > pid' &); cat pid")
        assert result.ok
        assert not alive(int(result.tail))
    bench.runner.stop(other, "enough")
    bench.hear(other)


def test_a_task_that_is_killed_while_memory_runs_out_says_so(
    make: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = tmp_path / "memory.events"  # of a control group; the tasks write what the kernel would
    counter.write_text("oom 9\noom_kill 3\noom_group_kill 0\n")
    monkeypatch.setattr(processes, "_memory_counters", lambda: (str(counter),))
    assert processes.memory_kills() == 3
    bench = make()  # a fork of this process
    kill, status = "kill -KILL $$", "bash -c 'kill -KILL $$'; exit $?"
    rise = "sed -i 's/oom 9/oom 10/; s/oom_kill {}/oom_kill {}/' memory.events; "
    stranger = "was killed by SIGKILL, which the pool did not send"
    for command, result_is, reason in [
        (kill, (None, signal.SIGKILL), stranger),
        (status, (137, 0), ""),
        (rise.format(3, 4) + kill, (None, signal.SIGKILL), f"{stranger}; probably out of memory"),
        (kill, (None, signal.SIGKILL), stranger),  # what was told once is not told again
        (rise.format(4, 6) + status, (137, 0), "a process of it was killed by SIGKILL; probably out of memory"),
        (status, (137, 0), ""),
        (rise.format(6, 7) + "exit 1", (1, 0), ""),
    ]:
        result = bench.run(command)
        assert (result.status, result.signal, result.reason) == (*result_is, reason), command


def test_a_time_limit(make: Callable[..., Bench]) -> None:
    bench = make(grace_s=0.3)
    gentle = bench.run("sleep 300", limit_s=0.2)
    assert (gentle.status, gentle.signal) == (None, signal.SIGTERM)
    assert gentle.reason == "ran over its limit of 0.2 s (resource runtime)"
    stubborn = bench.run("trap '' TERM; while :; do read -t 1 < <(:); sleep 0.1; done", limit_s=0.2)
    assert (stubborn.signal, stubborn.reason) == (signal.SIGKILL, gentle.reason)
    assert 0.5 <= stubborn.ended - stubborn.started < 5


def test_a_memory_limit_counts_the_whole_tree(make: Callable[..., Bench]) -> None:
    bench = make()
    take = f"{sys.executable} -Sc 'import time; x = b\"x\" * 80_000_000; time.sleep(300)'"
    result = bench.run(f"{take} & {take} & wait", limit_mb=150)
    assert result.signal == signal.SIGKILL
    used = re.fullmatch(r"used (\d+) MB, more than its mem_mb=150", result.reason)
    assert used, result
    assert 150 <= int(used[1]) < 250  # rounded
    assert bench.run(f"timeout 0.5 {take}; true", limit_mb=150).ok


def test_a_fork_is_not_charged_for_what_is_preloaded(
    make: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ballast.py").write_text("data = b'x' * 300_000_000\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    bench = make("warm", preload=["ballast"])
    wait = "import select, ballast; assert ballast.data; select.select([], [], [], 0.4)"
    assert bench.script(wait, limit_mb=60).ok
    result = bench.script(f"x = b'x' * 100_000_000; {wait}", limit_mb=60)
    used = re.fullmatch(r"used (\d+) MB, more than its mem_mb=60", result.reason)
    assert used, result
    assert 60 <= int(used[1]) < 150  # rounded


def test_stop_lets_the_whole_tree_save_its_work(make: Callable[..., Bench], tmp_path: Path) -> None:
    bench = make()
    (tmp_path / "save.py").write_text(
        "import pathlib, signal, sys, time\n"
        "def save(*_):\n    time.sleep(0.3)\n    pathlib.Path('saved').write_text('yes')\n    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, save)\nprint(file=open('up', 'w'))\ntime.sleep(300)\n"
    )
    number = bench.start(Order(f"{sys.executable} save.py; echo never"))
    wait_for_file(tmp_path / "up")
    bench.runner.stop(number, "was asked to end")
    result = bench.hear(number)
    assert (result.signal, result.reason, result.tail) == (signal.SIGTERM, "was asked to end", "")
    assert (tmp_path / "saved").read_text() == "yes"
    bench.runner.stop(number, "has ended already")
    assert bench.run("true").ok


# ---- what can go on later ----

SAVES = """
import pathlib, signal, sys, time
def save(*_):
    pathlib.Path('saved').write_text('yes')
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
print(file=open('up', 'w'))
while True:  # not pause(): a signal just before it would go unseen until the next one
    time.sleep(0.05)
"""
SAVING_COMMAND = f"{sys.executable} save.py; echo never"


@pytest.mark.parametrize("form", ["command", "script", "benchmark of a command", "benchmark of a script"])
def test_a_task_that_is_told_to_end_may_answer_that_it_is_to_go_on(
    make: Callable[..., Bench], tmp_path: Path, form: str
) -> None:
    bench = make("plain" if form == "command" else "warm")
    (tmp_path / "save.py").write_text(SAVES)
    order = Order(SAVING_COMMAND) if form.endswith("command") else script_order(tmp_path / "save.py", SAVES)
    benchmark = Benchmark(str(tmp_path / "bench.tsv")) if form.startswith("benchmark") else None
    number = bench.start(replace(order, benchmark=benchmark, resume="saved"))
    wait_for_file(tmp_path / "up")
    bench.runner.stop(number, "was asked to end")
    result = bench.hear(number)
    assert (result.status, result.signal, result.reason, result.tail) == (75, 0, "was asked to end", "")
    assert (result.later, result.progress, result.told, result.ok) == (True, True, False, False)
    assert not (tmp_path / "bench.tsv").exists()


def test_save_tells_only_what_can_go_on_later(make: Callable[..., Bench], tmp_path: Path) -> None:
    """Of those that are told, success and "later" are outcomes; how else they end is not theirs."""
    bench = make()
    (tmp_path / "save.py").write_text(SAVES)
    wait = "sleep 300 & wait"
    commands = {
        "saves": (SAVING_COMMAND, "saved"),
        "ends well": (f"trap 'exit 0' TERM; {wait}", "saved"),
        "fails": (f"trap 'exit 3' TERM; {wait}", "saved"),
        "dies": (wait, "saved"),
        "is let be": ("read -t 300 < <(sleep 300) || true", ""),
    }
    numbers = {
        name: bench.start(Order(f"echo > 'up {name}'; {text}", resume=path)) for name, (text, path) in commands.items()
    }
    for file in ("up", *(f"up {name}" for name in commands)):
        wait_for_file(tmp_path / file)
    bench.runner.save()
    results = {name: bench.hear(numbers[name]) for name in commands if name != "is let be"}
    assert {name: (each.status, each.ok, each.later, each.told) for name, each in results.items()} == {
        "saves": (75, False, True, True),
        "ends well": (0, True, False, True),
        "fails": (None, False, False, True),
        "dies": (None, False, False, True),
    }
    assert numbers["is let be"] in bench.runner.running
    bench.runner.stop(numbers["is let be"], "enough")
    assert bench.hear(numbers["is let be"]).told is False


def test_an_answer_to_the_batch_systems_own_signal_is_no_failure(make: Callable[..., Bench], tmp_path: Path) -> None:
    """A batch system signals all processes, before the agent has said a word; what succeeds then has succeeded."""
    bench = make("plain")
    wait = f"echo $$ > {tmp_path}/pid-$N; while :; do sleep 0.05; done"
    orders = {"answers": "trap 'exit 3' TERM; N=1; " + wait, "succeeds": "trap 'exit 0' TERM; N=2; " + wait}
    numbers = {name: bench.start(Order(command)) for name, command in orders.items()}
    pids = [int(wait_for_file(tmp_path / f"pid-{number}")) for number in (1, 2)]
    for pid in (bench.runner.pid, *pids):
        os.kill(pid, signal.SIGTERM)
    results = {name: bench.hear(number) for name, number in numbers.items()}
    assert {name: (each.status, each.ok, each.told) for name, each in results.items()} == {
        "answers": (None, False, True),
        "succeeds": (0, True, True),
    }


@pytest.mark.parametrize("kind", ["plain", "warm"])
def test_what_is_saved_when_the_pool_closes_is_in_the_journal(
    make: Callable[..., Bench], tmp_path: Path, kind: Literal["plain", "warm"]
) -> None:
    bench = make(kind)
    (tmp_path / "save.py").write_text(SAVES)
    number = bench.start(Order(SAVING_COMMAND) if kind == "plain" else script_order(tmp_path / "save.py", SAVES))
    wait_for_file(tmp_path / "up")
    bench.runner.close(5)
    (result,) = bench.runner.read()
    assert isinstance(result, Result)
    assert (result.id, result.status, result.later, result.told) == (number, 75, True, True)
    assert read_journal(bench.journal) == ([result], True)


def test_progress_is_a_change_of_what_a_task_goes_on_from(make: Callable[..., Bench], tmp_path: Path) -> None:
    bench = make()
    (tmp_path / "kept" / "deep").mkdir(parents=True)
    for change, progress in {
        "true": False,
        "echo 1 > kept/deep/1": True,
        "cat kept/deep/1": False,
        "echo 2 > new; mv new kept/deep/1": True,
        "rm kept/deep/1": True,
        "touch elsewhere": False,
    }.items():
        result = bench.run(f"{change}; exit 75", resume="kept")
        assert (result.later, result.progress) == (True, progress), change
    assert not bench.run("touch kept/deep/2; exit 75").progress


def test_a_kill_from_outside_is_told(make: Callable[..., Bench]) -> None:
    bench = make()
    result = bench.run("kill -KILL $$")
    assert (result.status, result.signal) == (None, signal.SIGKILL)
    assert result.reason.startswith("was killed by SIGKILL, which the pool did not send")
    assert bench.run("true").reason == ""


def test_signals_to_the_runner_are_the_agents_to_decide(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.run("true")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(bench.runner.pid, number)
    assert bench.run("true").ok


def test_close_ends_stubborn_tasks_and_says_so(make: Callable[..., Bench], tmp_path: Path) -> None:
    bench = make(grace_s=0.3)
    number = bench.start(Order("trap '' TERM; echo $$ > up; while :; do sleep 0.1; done"))
    pid = int(wait_for_file(tmp_path / "up"))
    bench.runner.close(5)
    assert not alive(pid)
    (result,) = bench.runner.read()
    assert isinstance(result, Result)
    assert (result.id, result.signal, result.reason) == (number, signal.SIGKILL, "was ended because the pool closes")
    assert read_journal(bench.journal) == ([result], True)
    with pytest.raises(RunnerDied, match="with status 0; its unfinished tasks: none"):
        bench.runner.read()


# ---- deaths ----

AGENT = """
import os, select, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from snakemake_executor_plugin_worksteal.runner import Runner
from snakemake_executor_plugin_worksteal.tasks import Order
runner = Runner("plain", rank=0, workdir=sys.argv[2], environment={**os.environ, "WORKSTEAL_POOL": sys.argv[3]},
                journal=Path(sys.argv[2], "journal"))
runner.start(1, Order("exit 4"), (0,), ())
while not select.select([runner], [], [])[0] or not runner.read():
    pass
runner.start(2, Order("sleep 300 & setsid sleep 300 & echo $$ $! > 2.pids; wait"), (0,), ())
runner.start(3, Order("trap '' TERM; echo $$ > 3.pids; while :; do sleep 0.1; done"), (0,), ())
print(runner.pid, flush=True)
select.select([], [], [])
"""


def test_tasks_end_with_their_agent_and_the_journal_is_whole(tmp_path: Path) -> None:
    pool = f"test-{os.getpid()}-agent"
    words = [sys.executable, "-c", AGENT, str(PACKAGE), str(tmp_path), pool]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        pid = int(agent.stdout.readline())
        pids = [int(word) for name in ("2.pids", "3.pids") for word in wait_for_file(tmp_path / name).split()]
        assert len(processes.leftovers(pool)) >= 4
        agent.kill()
    wait_gone([pid, *pids])
    assert processes.leftovers(pool) == []
    results, closed = read_journal(tmp_path / "journal")
    assert closed
    outcomes = {result.id: (result.status, result.signal) for result in results}
    assert outcomes == {1: (4, 0), 2: (None, signal.SIGTERM), 3: (None, signal.SIGKILL)}


@pytest.mark.parametrize("kind", ["plain", "warm"])
def test_tasks_end_with_their_runner(make: Callable[..., Bench], tmp_path: Path, kind: str) -> None:
    bench = make(kind)
    if kind == "plain":
        number = bench.start(Order("sleep 300 & setsid sleep 300 & echo $$ $! > pids; wait"))
    else:
        source = (
            "import os, time\nif not os.fork():\n    os.setsid()\n    if os.fork():\n        os._exit(0)\n"
            "    print(os.getpid(), os.getppid(), file=open('pids', 'w'))\ntime.sleep(300)"
        )
        number = bench.start(script_order(tmp_path / "s.py", source))
    pids = [int(word) for word in wait_for_file(tmp_path / "pids").split()]
    assert set(pids[:1]) <= set(processes.leftovers(bench.pool))
    os.kill(bench.runner.pid, signal.SIGKILL)
    with pytest.raises(RunnerDied, match=f"by signal 9; its unfinished tasks: {number}"):
        bench.hear(number)
    wait_gone(pids)
    assert processes.kill_leftovers(bench.pool) == []
    wait_for(lambda: read_journal(bench.journal) == ([], True))  # the guard's word that nothing of it lives any more


def test_last_words_and_the_end_of_a_runner_come_one_after_the_other(make: Callable[..., Bench]) -> None:
    """Also where both are there at once; who waits on the descriptor has to hear of either."""
    bench = make("plain")
    number = bench.start(Order("true"))
    assert select.select([bench.runner], [], [], PATIENCE_S)[0]
    os.kill(bench.runner.pid, signal.SIGKILL)
    os.waitid(os.P_PID, bench.runner.pid, os.WEXITED | os.WNOWAIT)
    (result,) = bench.runner.read()
    assert isinstance(result, Result)
    assert result.id == number
    assert select.select([bench.runner], [], [], PATIENCE_S)[0]
    with pytest.raises(RunnerDied, match="by signal 9; its unfinished tasks: none"):
        bench.runner.read()


def test_leftovers_are_found_by_whole_parts_of_their_marker() -> None:
    pool = f"test-{os.getpid()}-left"
    with subprocess.Popen(["sleep", "300"], env={**os.environ, processes.TASK: f"{pool}:1:12"}) as sleeper:
        for prefix in (pool, f"{pool}:", f"{pool}:1", f"{pool}:1:12"):
            assert processes.leftovers(prefix) == [sleeper.pid]
        for prefix in (f"{pool}:1:1", pool[:-1], f"{pool}:2"):
            assert processes.leftovers(prefix) == []
        assert processes.kill_leftovers(f"{pool}:1") == []
        assert sleeper.wait() == -signal.SIGKILL


def test_a_torn_journal_is_read_up_to_the_tear(tmp_path: Path) -> None:
    whole = Result(1, 0, cores=(0, 1), devices=(2,), tail="ü")
    line = json.dumps(whole.as_dict()).encode()
    path = tmp_path / "journal"
    for cut in range(len(line)):
        path.write_bytes(b'{"runner": "plain", "rank": 0, "pid": 1}\n' + line + b"\n" + line[:cut])
        assert read_journal(path) == ([whole], False)
    path.write_bytes(line + b'\n{"closed": true}\n')
    assert read_journal(path) == ([whole], True)


# ---- scripts ----

SCRIPTS = {
    "globals": """
        print(__name__, __file__, sys.argv[1:], snakemake.input[0], snakemake.output.table, snakemake.params.alpha)
        print(snakemake.wildcards.sample, snakemake.threads, snakemake.config, snakemake.scriptdir, Snakemake.__name__)
        print(sorted(name for name in globals() if name != "__warningregistry__"), os.path.basename(pickle.__file__))
        """.replace("os.path", "__import__('os').path"),
    "exit status": "print('before'); sys.exit(7)",
    "exit text": "sys.exit('a word at parting')",
    "exit none": "sys.exit()",
    "exception": """
        def inner(x):
            return 1 / x

        try:
            inner(0)
        except ZeroDivisionError as error:
            raise ValueError("worse", snakemake.rule) from error
        """,
    "interrupt": "raise KeyboardInterrupt",
    "interrupt by signal": "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
    "syntax error": "x = 1\nif x\n    pass\n",
    "sibling": "import sibling; print(sibling.VALUE, sibling.__name__)",
    "multiprocessing": """
        import multiprocessing

        def double(x):
            return 2 * x

        if __name__ == "__main__":
            with multiprocessing.get_context("fork").Pool(2) as pool:
                print(pool.map(double, range(4)))
        """,
    "pickle": """
        class Thing:
            pass

        thing = pickle.loads(pickle.dumps(Thing()))
        print(type(thing) is Thing, Thing.__module__)
        """,
    "logger": "logger.warning('careful'); logger.info('quiet'); import logging; logging.error('wrong')",
    "atexit": "import atexit; atexit.register(print, 'at exit'); print('body')",
    "threads": """
        import threading
        event = threading.Event()

        def work():
            event.wait(0.1)
            print("thread done", flush=True)

        threading.Thread(target=work).start()
        print("body done", flush=True)
        """,
    "relative path": "open('relative.txt', 'w').write('here')",
    "files left open": """
        import gzip
        left = open("left.txt", "w")
        left.write("x" * 10)
        zipped = gzip.open("left.gz", "wb")
        zipped.write(b"y")
        """,
    "temporary folder": "import tempfile; t = tempfile.TemporaryDirectory(dir='.'); print('made')",
    "shell": "from snakemake.shell import shell; shell('echo $OMP_NUM_THREADS {snakemake.output.table}; exit 0')",
    "shell fails": "from snakemake.shell import shell; shell('exit 5')",
    "hook": "sys.excepthook = lambda *_: print('hooked'); raise ValueError('x')",
    "crash": "import ctypes; ctypes.string_at(0)",
    "own exit": "import os; os._exit(9)",
    "c output": "import ctypes; ctypes.CDLL(None).puts(b'from C')",
    "stdin": "print(repr(sys.stdin.read()))",
}


def as_snakemake_runs_it(folder: Path, path: Path, source: str) -> tuple[int, str]:
    """Status and output of a separate interpreter with the preamble that Snakemake writes."""
    job = container(folder)
    script = PythonScript(
        LocalSourceFile(str(path)), None, source.encode(), str(folder), job.input, job.output, job.params,
        job.wildcards, job.threads, job.resources, job.log, job.config, job.rule,
        None, None, None, None, None, None, None, None, False, None, True, None,
    )  # fmt: skip
    preamble = script.get_preamble()
    program = folder / ".snakemake" / "scripts" / f"tmp.{path.name}"
    program.parent.mkdir(parents=True)
    program.write_text(preamble + source)
    done = subprocess.run(
        [sys.executable, program], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "2"},
    )  # fmt: skip
    shift = preamble.count("\n")

    def place(match: re.Match[str]) -> str:
        return f"{path}{match[1]}{int(match[2]) - shift}"

    return done.returncode, re.sub(re.escape(str(program)) + r"(\", line |:)(\d+)", place, done.stdout)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A warm runner for many scripts."""
    bench = Bench("warm", tmp_path_factory.mktemp("warm"), preload=["numpy"])
    yield bench
    bench.runner.close(5)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_in_a_fork_does_what_it_does_alone(warm: Bench, tmp_path: Path, name: str) -> None:
    source = textwrap.dedent(SCRIPTS[name])
    alone, forked = tmp_path / "alone", warm.folder
    for folder in (alone, forked):
        folder.mkdir(exist_ok=True)
        (folder / "sibling.py").write_text("VALUE = 5\n")
    path = alone / "script.py"
    path.write_text(source)
    status, output = as_snakemake_runs_it(alone, path, source)
    (forked / "script.py").write_text(source)
    before = set(forked.iterdir())
    result = warm.script(source, threads=2, log=str(tmp_path / "log"))
    assert (result.status if result.status is not None else -result.signal) == status
    text = Path(result.log).read_text() if result.log else ""
    marks = re.compile(r"^ +[\^~]+\n", re.MULTILINE)  # the interpreter's own printer puts some of them one column off
    assert marks.sub("", text.replace(str(forked), str(alone))) == marks.sub("", output)
    made = {path.name for path in set(forked.iterdir()) - before} - {"__pycache__"}
    assert made == {path.name for path in alone.iterdir()} - {".snakemake", "__pycache__", "sibling.py", "script.py"}
    for file in made:
        assert (forked / file).stat().st_size == (alone / file).stat().st_size > 0
        (forked / file).unlink()


def test_siblings_draw_different_numbers(warm: Bench) -> None:
    source = "import random, numpy\nprint(random.random(), numpy.random.random(), numpy.random.default_rng().random())"
    drawn = [warm.script(source).tail.split() for _ in range(4)]
    assert len({number for numbers in drawn for number in numbers}) == 12


def test_threads_of_libraries_that_are_loaded_already(make: Callable[..., Bench]) -> None:
    bench = make("warm", preload=["torch"], spares=1)
    source = """
        import os, threadpoolctl, torch
        print({pool["num_threads"] for pool in threadpoolctl.threadpool_info()}, torch.get_num_threads(),
              os.environ["OMP_NUM_THREADS"], torch.rand(1).item())
        """
    first, second = (bench.script(textwrap.dedent(source), threads=3).tail.split() for _ in range(2))
    assert first[:3] == second[:3] == ["{3}", "3", "3"]
    assert first[3] != second[3]


def test_a_preload_that_fails_is_a_warning(make: Callable[..., Bench]) -> None:
    bench = make("warm", preload=["no_such_module_"])
    result = bench.script("import no_such_module_")
    assert (result.status, result.tail.splitlines()[-1]) == (
        1,
        "ModuleNotFoundError: No module named 'no_such_module_'",
    )
    assert "could not import no_such_module_ (ModuleNotFoundError" in bench.warnings[0]


def test_a_plain_runner_refuses_a_script(make: Callable[..., Bench]) -> None:
    result = make().script("pass")
    assert result.status == 126
    assert "only the warm runner" in result.reason


def test_a_script_leaves_no_process(warm: Bench, tmp_path: Path) -> None:
    source = """
        import os, time
        read, write = os.pipe()
        if not os.fork():
            os.setsid()
            if os.fork():
                os._exit(0)
            os.write(write, str(os.getpid()).encode())
            time.sleep(300)
        print(os.read(read, 10).decode())
        """
    other = warm.start(script_order(tmp_path / "s.py", "import time; time.sleep(300)"))
    for _ in range(20):  # the daemon may be anywhere between its birth and its new parent when the script ends
        result = warm.script(textwrap.dedent(source))
        assert result.ok
        assert not alive(int(result.tail))
    warm.runner.stop(other, "enough")
    assert warm.hear(other).signal == signal.SIGTERM


def test_kill_9_of_a_script_ends_that_script_only(warm: Bench) -> None:
    other = warm.start(script_order(warm.folder / "o.py", "import sys; sys.exit(4)"))
    assert warm.script("import os; os.kill(os.getpid(), 9)").signal == signal.SIGKILL
    assert warm.hear(other).status == 4


# ---- benchmark ----


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("form", ["script", "command"])
def test_a_benchmark_file_is_as_snakemake_writes_it(warm: Bench, tmp_path: Path, form: str, extended: bool) -> None:
    path = tmp_path / "bench.tsv"
    job = container(tmp_path)
    facts = {
        "jobid": 3, "rule_name": "fit", "wildcards": job.wildcards, "params": job.params, "resources": job.resources,
        "input": job.input, "threads": 2,
    }  # fmt: skip
    (warm.folder / "in.txt").write_text("x")
    benchmark = Benchmark(str(path), 2, extended, pickle.dumps(facts))
    if form == "script":
        result = warm.script("print('iteration', snakemake.bench_iteration)", benchmark=benchmark)
        assert result.tail.split() == ["iteration", "0", "iteration", "1"]
    else:
        result = warm.run("echo $OMP_NUM_THREADS", benchmark=benchmark, threads=5)
        assert result.tail.split() == ["5", "5"]
    assert result.ok, result
    header, *rows = (line.split("\t") for line in path.read_text().splitlines())
    assert header == BenchmarkRecord.get_header(extended)
    assert len(rows) == 2
    assert all(len(row) == len(header) and float(row[0]) >= 0 for row in rows)
    if extended:
        assert rows[0][header.index("rule_name")] == "fit"


def test_a_task_that_fails_has_no_benchmark(warm: Bench, tmp_path: Path) -> None:
    benchmark = Benchmark(str(tmp_path / "bench.tsv"), 3)
    assert warm.run("echo once; exit 6", benchmark=benchmark).status == 6
    failed = warm.script("print('once'); raise SystemExit(4)", benchmark=benchmark)
    assert (failed.status, failed.tail) == (4, "once")
    assert warm.run("kill -SEGV $$", benchmark=benchmark).status == 128 + signal.SIGSEGV
    assert list(tmp_path.iterdir()) == []


# ---- reuse of forks ----

WHO = "import os, builtins\nprint(os.getpid(), builtins.__dict__.setdefault('first_of_fork', os.getpid()))\n"


def forks_of(bench: Bench, sources: Sequence[str]) -> list[int]:
    """The process of each script, one after the other; a script prints WHO first."""
    return [int(bench.script(source).tail.split()[0]) for source in sources]


def test_a_fork_runs_as_many_scripts_as_it_may(make: Callable[..., Bench]) -> None:
    bench = make("warm", reuse=3)
    a, b, c, d = (forks_of(bench, [WHO])[0] for _ in range(4))
    assert a == b == c != d
    results, _ = read_journal(bench.journal)
    assert [result.id for result in results] == [1, 2, 3, 4]
    assert results == [bench.results[number] for number in (1, 2, 3, 4)]
    assert all(result.ok and result.max_rss_mb > 0 and result.started <= result.ended for result in results)


def test_without_reuse_each_script_has_a_fork(make: Callable[..., Bench]) -> None:
    assert len(set(forks_of(make("warm"), [WHO] * 4))) == 4


def test_scripts_that_differ_in_text_or_config_never_share(make: Callable[..., Bench]) -> None:
    bench = make("warm", reuse=100)
    first, second = forks_of(bench, [WHO, WHO + "1"])
    assert first != second
    assert forks_of(bench, [WHO, WHO + "1"]) == [first, second]
    order = script_order(bench.folder / "script.py", WHO)
    assert order.script is not None
    configured = Order(script=replace(order.script, config=pickle.dumps({"key": "other"})))
    assert int(bench.hear(bench.start(configured)).tail.split()[0]) not in (first, second)


def test_a_reused_fork_finds_what_a_fresh_one_finds(make: Callable[..., Bench], tmp_path: Path) -> None:
    source = """
        import json, logging, random, signal, tempfile, time
        names = sorted(globals())
        print(json.dumps({
            "own": snakemake.params.own, "cwd": os.getcwd(), "argv": sys.argv, "path": sys.path, "names": names,
            "environment": sorted(os.environ.items()), "umask": oct(os.umask(0o22)), "temporary": tempfile.gettempdir(),
            "signals": [str(signal.getsignal(n)) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)],
            "mask": str(signal.pthread_sigmask(signal.SIG_BLOCK, [])), "handlers": len(logging.root.handlers),
            "hook": sys.excepthook is sys.__excepthook__, "stdin": sys.stdin.read(), "zone": time.strftime("%Z"),
            "marker": os.environ["WORKSTEAL_TASK"], "streams": [str(sys.stdout), sys.stdout.errors, sys.stderr.errors],
            "threads": os.environ["OMP_NUM_THREADS"],
        }))
        sys.stdout.flush()
        os.system("echo of a child: $OWN $WORKSTEAL_TASK $TZ")
        left = open(f"left-{snakemake.params.own}", "w")
        left.write("x" * 10)
        # And leaves nothing as it was
        logging.basicConfig(filename=f"log-{snakemake.params.own}")
        logging.warning("of %s", snakemake.params.own)
        os.environ.update(OWN="changed", MORE="more", TZ="Asia/Tokyo")
        del os.environ["GREETING"]
        os.environ = {}
        os.putenv("OWN", "put")
        time.tzset()
        os.mkdir(f"folder-{snakemake.params.own}")
        os.chdir(f"folder-{snakemake.params.own}")
        os.umask(0o77)
        sys.argv.append("x")
        sys.path = ["nowhere"]
        sys.excepthook = print
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        sys.stdin.close()
        os.close(0)
        sys.stderr = open(f"err-{snakemake.params.own}", "w")
        print("to err", file=sys.stderr)
        os.dup2(sys.stderr.fileno(), 2)
        sys.stdout.reconfigure(errors="ignore")
        """
    bench = make("warm", reuse=10)
    source = WHO + textwrap.dedent(source)
    found, pids = [], set()
    for own in range(4):
        log = str(tmp_path / f"{own}.log")
        order = script_order(tmp_path / "script.py", source, environment={"OWN": str(own)}, log=log)
        assert order.script is not None
        given = container(tmp_path, own=own)
        numbered = replace(order, script=replace(order.script, snakemake=pickle.dumps(given)), threads=own % 2 + 1)
        result = bench.hear(bench.start(numbered))
        assert result.ok, result
        who, text, child = Path(result.log).read_text().splitlines()  # more than a result's tail holds
        pids.add(who)
        facts = json.loads(text)
        marker = f"{bench.pool}:7:{result.id}"
        assert (facts.pop("own"), facts.pop("marker"), facts.pop("threads")) == (own, marker, str(own % 2 + 1))
        assert child.strip() == f"of a child: {own} {marker}"
        same = {"OWN", "WORKSTEAL_TASK", *warm_module.THREAD_VARIABLES}
        facts["environment"] = [pair for pair in facts["environment"] if pair[0] not in same]
        facts["streams"] = [re.sub("0x[0-9a-f]+", "", word) for word in facts["streams"]]
        found.append(facts)
        assert (tmp_path / f"left-{own}").stat().st_size == 10
        assert (tmp_path / f"folder-{own}" / f"err-{own}").read_text() == "to err\n"
        assert (tmp_path / f"log-{own}").read_text() == f"WARNING:root:of {own}\n"
    assert len(pids) == 1
    assert found[0] == found[1] == found[2] == found[3]
    assert found[0]["cwd"] == str(tmp_path)


# Ahead of a script: waits until its fork has been told what follows, which it then finds at the end of its channel.
TOLD = """
import json, os, select, signal, socket, stat, sys, time
def is_socket(number):
    try:
        return stat.S_ISSOCK(os.fstat(number).st_mode)
    except OSError:
        return False
if snakemake.params.told:
    channel, = filter(is_socket, range(3, 100))
    assert select.select([channel], [], [], 60)[0], "nothing follows"
print(snakemake.params.own, os.getpid(), flush=True)
"""
NEED = ("warm", 1, 0)


class Chain:
    """Scripts of one text that begin in each other's place. `then` is what each does, after TOLD."""

    def __init__(self, bench: Bench, then: str) -> None:
        self.bench = bench
        self.source = TOLD + then

    def order(self, own: int, told: bool, **order: Any) -> Order:
        given = script_order(self.bench.folder / "chain.py", self.source, **order)
        assert given.script is not None
        pickled = pickle.dumps(container(self.bench.folder, own=own, told=told))
        return replace(given, script=replace(given.script, snakemake=pickled))

    def start(self, own: int, told: bool, **order: Any) -> None:
        self.bench.runner.start(own, self.order(own, told, **order), (own,), (), NEED)

    def ahead(self, own: int, told: bool = False, **order: Any) -> None:
        self.bench.runner.start_ahead(own, self.order(own, told, **order), NEED)
        self.bench.runner.flush()

    def pid(self, own: int) -> int:
        """The process of a script that has ended, whose output is its own only."""
        number, pid = self.bench.hear(own).tail.split()
        assert int(number) == own
        return int(pid)


def test_a_fork_goes_on_to_what_it_has_been_told(make: Callable[..., Bench], tmp_path: Path) -> None:
    bench = make("warm", reuse=4)
    chain = Chain(bench, "")
    chain.start(1, True)
    for own in range(2, 8):
        chain.ahead(own, own % 4 != 0 and own < 7, log=str(tmp_path / f"{own}.log"))  # the fourth is a fork's last
    pids = [chain.pid(own) for own in range(1, 8)]
    assert pids == [pids[0]] * 4 + [pids[4]] * 3
    assert pids[0] != pids[4]
    results = [bench.results[own] for own in range(1, 8)]
    assert [result.successor for result in results] == [2, 3, 4, 5, 6, 7, None]
    assert all(result.ok and result.cores == (1,) for result in results)
    waited = [after.started - before.ended for before, after in itertools.pairwise(results)]
    assert [wait > 0 for wait in waited] == [False, False, False, True, False, False]
    assert (tmp_path / "7.log").read_text().split() == ["7", str(pids[6])]
    assert read_journal(bench.journal)[0] == results


@pytest.mark.parametrize(
    ("then", "status"),
    [
        ("if own == 1: sys.exit(3)", 3),
        ("if own == 1: os.kill(os.getpid(), signal.SIGKILL)", None),
        ("if own == 1: import threading; threading.Thread(target=time.sleep, args=(0.2,)).start()", 0),
    ],
)
def test_what_a_fork_has_been_told_begins_elsewhere_if_it_exits(
    make: Callable[..., Bench], then: str, status: int | None
) -> None:
    chain = Chain(make("warm", reuse=10), "own = snakemake.params.own\n" + then)
    chain.start(1, True)
    chain.ahead(2)
    assert chain.pid(1) != chain.pid(2)
    first, second = chain.bench.results[1], chain.bench.results[2]
    assert (first.status, first.successor, second.status) == (status, 2, 0)


def test_a_limit_ends_the_task_and_not_what_follows(make: Callable[..., Bench]) -> None:
    chain = Chain(make("warm", reuse=10), "time.sleep(300 * (snakemake.params.own == 1))")
    chain.start(1, True, limit_s=0.5)
    chain.ahead(2)
    assert chain.pid(1) != chain.pid(2)
    first, second = chain.bench.results[1], chain.bench.results[2]
    assert (first.signal, first.successor, second.ok) == (signal.SIGTERM, 2, True)
    assert "over its limit" in first.reason


def test_what_a_fork_has_been_told_comes_back(make: Callable[..., Bench], tmp_path: Path) -> None:
    text = "open(f'at-{snakemake.params.own}', 'w').write('\\n')\nwhile not os.path.exists('go'): time.sleep(0.01)"
    bench = make("warm", reuse=10)
    chain = Chain(bench, text)
    chain.start(1, True)
    chain.ahead(2)
    wait_for_file(tmp_path / "at-1")
    bench.runner.recall([2])
    bench.listen(lambda: bench.back == [2], "it does not come back")
    (tmp_path / "go").touch()
    assert bench.hear(1).successor is None
    chain.start(3, False)
    assert chain.pid(3) == chain.pid(1)
    assert not (tmp_path / "at-2").exists()


def test_another_that_ends_first_takes_what_a_fork_has_been_told(make: Callable[..., Bench], tmp_path: Path) -> None:
    text = """
own = snakemake.params.own
open(f"at-{own}", "w").write("\\n")
while not os.path.exists(f"go-{own}"):
    time.sleep(0.01)
"""
    bench = make("warm", reuse=10)
    chain = Chain(bench, text)
    chain.start(1, True)
    chain.start(2, False)
    chain.ahead(3)
    wait_for_file(tmp_path / "at-1")
    wait_for_file(tmp_path / "at-2")
    (tmp_path / "go-3").touch()
    (tmp_path / "go-2").touch()
    assert bench.hear(2).successor == 3
    assert bench.hear(3).cores == (2,)
    (tmp_path / "go-1").touch()
    assert bench.hear(1).successor is None


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_an_order_begins_elsewhere_if_its_fork_was_killed_while_it_waited(
    make: Callable[..., Bench], size: int
) -> None:
    bench = make("warm", reuse=10)
    first = forks_of(bench, [WHO])[0]
    order = script_order(bench.folder / "script.py", WHO)
    assert order.script is not None
    large = replace(order, environment={"A": "x"}, script=replace(order.script, search_paths=("x" * size,)))
    os.kill(bench.runner.pid, signal.SIGSTOP)  # so that it hears of both at once
    try:
        os.kill(first, signal.SIGKILL)
        wait_gone([first])
        number = bench.start(large)
    finally:
        os.kill(bench.runner.pid, signal.SIGCONT)
    result = bench.hear(number)
    assert result.ok, result
    assert int(result.tail.split()[0]) != first


def test_a_task_whose_forks_all_die_fails(
    make: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = "import os, sys, types\nm = sys.modules['numpy.random'] = types.ModuleType('m')\n"
    (tmp_path / "bad.py").write_text(f"{bad}m.seed = lambda: os._exit(70)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for reuse in (1, 10):
        assert make("warm", reuse=reuse, preload=["bad"]).script(WHO).status == 70


def test_descriptors_are_the_owners_after_a_fork_was_killed_while_it_waited(make: Callable[..., Bench]) -> None:
    bench = make("warm", reuse=10, spares=1)
    first = forks_of(bench, [WHO])[0]
    wait = script_order(bench.folder / "wait.py", "import time\ntime.sleep(0.2)\nprint('end')")
    os.kill(bench.runner.pid, signal.SIGSTOP)
    try:
        os.kill(first, signal.SIGKILL)
        wait_gone([first])
        started = [bench.start(order) for order in (script_order(bench.folder / "script.py", WHO), wait, wait)]
    finally:
        os.kill(bench.runner.pid, signal.SIGCONT)
    tails = [bench.hear(number).tail.split() for number in started]
    assert [len(words) for words in tails] == [2, 1, 1]
    assert all(bench.results[number].ok for number in started)


def test_a_task_that_a_fork_has_not_heard_does_not_begin_in_a_runner_that_closes(
    make: Callable[..., Bench], tmp_path: Path
) -> None:
    bench = make("warm", reuse=10)
    source = WHO + "open(f'begun-{os.getpid()}', 'w').close()"
    first = forks_of(bench, [source])[0]
    os.kill(first, signal.SIGSTOP)  # so that it hears nothing before SIGTERM, which waits for it
    number = bench.start(script_order(bench.folder / "script.py", source))
    bench.runner.begin_close(8)
    deadline = time.monotonic() + PATIENCE_S
    while not int(re.findall(r"ShdPnd:\s(\w+)", Path(f"/proc/{first}/status").read_text())[0], 16):
        assert time.monotonic() < deadline, "it was not told to end"
        time.sleep(0.01)
    os.kill(first, signal.SIGCONT)
    assert bench.hear(number).signal == signal.SIGTERM
    bench.runner.close(8)
    assert [path.name for path in tmp_path.glob("begun-*")] == [f"begun-{first}"]


def test_a_fork_that_dies_before_its_last_task_is_told_is_not_used(
    make: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = processes.send  # an orphan that takes its time to die of SIGKILL, as one with gigabytes to unmap does
    monkeypatch.setattr(processes, "send", lambda pids, sign: None if sign == signal.SIGKILL else send(pids, sign))
    then = """
own = snakemake.params.own
if own == 1:
    if not os.fork():
        os.setsid()
        if os.fork():
            os._exit(0)
        open("orphan", "w").write(f"{os.getpid()}\\n")
        time.sleep(300)
    os.wait()
if own == 2:
    open("second", "w").write(f"{os.getpid()}\\n")
"""
    bench = make("warm", reuse=10)
    chain = Chain(bench, then)
    chain.start(1, True)
    chain.ahead(2)
    fork, orphan = int(wait_for_file(tmp_path / "second")), int(wait_for_file(tmp_path / "orphan"))
    for pid in (fork, orphan):
        os.kill(pid, signal.SIGKILL)
        wait_gone([pid])
    assert chain.pid(1) == fork
    bench.hear(2)
    chain.start(3, False)
    assert chain.pid(3) != fork
    bench.runner.close(5)
    with pytest.raises(RunnerDied, match="with status 0; its unfinished tasks: none"):
        bench.runner.read()


def test_chains_of_scripts_that_misbehave(make: Callable[..., Bench], tmp_path: Path) -> None:
    then = """
own = snakemake.params.own
time.sleep(own % 7 / 1000)
if own % 5 == 1:
    sys.exit(own % 50)
if own % 11 == 2:
    os.kill(os.getpid(), signal.SIGKILL)
if own % 13 == 3:
    if not os.fork():  # a daemon, which the runner ends
        os.setsid()
        if os.fork():
            os._exit(0)
        time.sleep(300)
    os.wait()
print("last of", own)
"""
    bench = make("warm", reuse=20)
    chain = Chain(bench, then)
    rng = random.Random(5)
    for own in range(1, 5):
        chain.start(own, False)
    given, back = 4, 0
    while len(bench.results) < 300:
        while given < 300 and given - len(bench.results) < 8:
            given += 1
            chain.ahead(given)
        heard = len(bench.results) + len(bench.back)
        bench.listen(lambda heard=heard: len(bench.results) + len(bench.back) > heard, "nothing ends")
        if rng.random() < 0.1:
            bench.runner.recall([given, given - 1, given - 2])
        while back < len(bench.back):
            own = bench.back[back]
            back += 1
            chain.start(own, False)
    assert sorted(bench.results) == list(range(1, 301))
    successors = [result.successor for result in bench.results.values() if result.successor is not None]
    assert len(successors) == len(set(successors)) > 100
    for own, result in bench.results.items():
        number, _, *last = result.tail.split()
        assert number == str(own)
        if own % 5 == 1:
            assert (result.status, last) == (own % 50, [])
        elif own % 11 == 2:
            assert (result.signal, last) == (signal.SIGKILL, [])
        else:
            assert (result.status, last) == (0, ["last", "of", str(own)])


def test_output_is_each_scripts_own(make: Callable[..., Bench], tmp_path: Path) -> None:
    bench = make("warm", reuse=10)
    source = WHO + "import ctypes\nprint('x' * os.stat('size').st_size, end='')\nctypes.CDLL(None).puts(b'from C')"
    pids = set()
    for size in (10_000, 0, 5):
        (tmp_path / "size").write_bytes(b"x" * size)
        log = tmp_path / f"{size}.log"
        assert bench.script(source, log=str(log)).ok
        who, text = log.read_text().split("\n", 1)
        pids.add(who)
        assert sorted(text.replace("\n", "")) == sorted("x" * size + "from C")
    assert len(pids) == 1
    assert bench.script("pass", log=str(tmp_path / "silent")).log == ""


def test_random_states_of_a_reused_fork_differ(make: Callable[..., Bench]) -> None:
    bench = make("warm", preload=["numpy"], reuse=10)
    source = WHO + (
        "import random, numpy\nprint(random.random(), numpy.random.random())\nrandom.seed(1); numpy.random.seed(1)"
    )
    outputs = [bench.script(source).tail.split() for _ in range(4)]
    assert len({output[0] for output in outputs}) == 1
    assert len({number for output in outputs for number in output[2:]}) == 8


LEAVES = {
    "an exit status": "sys.exit(3)",
    "an exception": "raise ValueError",
    "a signal": "os.kill(os.getpid(), 9)",
    "an exit of its own": "os._exit(0)",
    "a thread": "import threading, time\nthreading.Thread(target=time.sleep, args=(300,), daemon=True).start()",
    "a child": "import subprocess\nkept = os.posix_spawn('/bin/sleep', ['sleep', '300'], os.environ)",
    "a zombie": "import time\nif not os.fork(): os._exit(0)",
    "a fork that falls through": "os.fork()",
    "a daemon": """
if not (child := os.fork()):
    os.setsid()
    if os.fork():
        os._exit(0)
    import time
    time.sleep(300)
os.waitpid(child, 0)
""",
    "an affinity": "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})",
    "a limit": "import resource\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))",
    "a wish at exit": "import atexit\natexit.register(lambda: print('at exit of', os.getpid()))",
    "closed descriptors": "os.closerange(3, 100)",
}


@pytest.mark.parametrize("name", LEAVES)
def test_what_a_script_leaves_ends_its_fork(make: Callable[..., Bench], name: str) -> None:
    bench = make("warm", reuse=10)
    source = (
        WHO
        + "sys.stdout.flush()\nif not os.path.exists('quiet'):\n    "
        + "\n    ".join(textwrap.dedent(LEAVES[name]).strip().splitlines())
    )
    (bench.folder / "quiet").touch()
    before = forks_of(bench, [source] * 2)
    (bench.folder / "quiet").unlink()
    result = bench.script(source)
    leaver = int(result.tail.split()[0])
    assert result.ok == (name not in ("an exit status", "an exception", "a signal"))
    assert {leaver} == set(before)
    assert ("at exit of" in result.tail) == (name == "a wish at exit")
    assert set(processes.leftovers(f"{bench.pool}:7:{result.id}")) <= {leaver}
    (bench.folder / "quiet").touch()
    after = forks_of(bench, [source] * 2)
    assert after[0] == after[1] != leaver
    wait_gone([leaver])


@pytest.mark.parametrize("end", ["a stop", "a limit of time", "a limit of memory"])
def test_a_script_that_is_ended_takes_its_fork_along(make: Callable[..., Bench], end: str) -> None:
    bench = make("warm", reuse=10)
    source = WHO + (
        "import signal, time\nif os.path.exists('stay'):\n    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "    kept = bytearray(300_000_000)\n    print(os.getpid(), file=open('up', 'w'))\n    time.sleep(300)"
    )
    (first,) = forks_of(bench, [source])
    (bench.folder / "stay").touch()
    limits = {"a limit of time": {"limit_s": 0.3}, "a limit of memory": {"limit_mb": 200}}.get(end, {})
    number = bench.start(script_order(bench.folder / "script.py", source, **limits))
    if end == "a stop":
        assert int(wait_for_file(bench.folder / "up")) == first
        bench.runner.stop(number, "enough")
    result = bench.hear(number)
    assert not result.ok
    assert result.reason
    (bench.folder / "stay").unlink()
    assert forks_of(bench, [source])[0] != first
    wait_gone([first])


def test_idle_forks_are_few_and_end_with_their_exit_handlers(make: Callable[..., Bench], tmp_path: Path) -> None:
    bench = make("warm", reuse=10, spares=1)
    (tmp_path / "parting.py").write_text(
        "import atexit, os\n@atexit.register\ndef part():\n"
        "    with open(f'gone-{os.getpid()}', 'w') as file:\n        print(os.getpid(), file=file)\n"
    )
    source = WHO + "import parting"
    first, second = forks_of(bench, [source, source + "\n1"])
    wait_gone([first])
    assert int(wait_for_file(tmp_path / f"gone-{first}")) == first
    assert alive(second)
    bench.runner.close(5)
    assert not alive(second)
    assert int(wait_for_file(tmp_path / f"gone-{second}")) == second
    assert read_journal(bench.journal)[1]


def test_an_idle_fork_that_is_killed_or_will_not_leave_harms_nobody(make: Callable[..., Bench]) -> None:
    bench = make("warm", reuse=10, grace_s=0.2)
    source = WHO + "import atexit, time\natexit.register(time.sleep, 300)"
    (first,) = forks_of(bench, [source])
    os.kill(first, signal.SIGKILL)
    wait_gone([first])
    (second,) = forks_of(bench, [source])
    assert first != second
    bench.runner.close(5)
    assert not alive(second)
    assert read_journal(bench.journal)[1]


def test_a_benchmark_has_a_fork_of_its_own(make: Callable[..., Bench], tmp_path: Path) -> None:
    bench = make("warm", reuse=10)
    (first,) = forks_of(bench, [WHO])
    measured = bench.script(WHO, benchmark=Benchmark(str(tmp_path / "bench.tsv")))
    assert int(measured.tail.split()[0]) != first
    assert forks_of(bench, [WHO]) == [first]


def test_usage_is_of_one_script(make: Callable[..., Bench]) -> None:
    bench = make("warm", reuse=10)
    source = WHO + (
        "import time\nif os.path.exists('much'):\n    large = bytearray(200_000_000)\n    del large\n"
        "    while time.process_time() < 0.5:\n        pass"
    )
    little = bench.script(source)
    (bench.folder / "much").touch()
    much = bench.script(source)
    (bench.folder / "much").unlink()
    again = bench.script(source)
    assert len({result.tail for result in (little, much, again)}) == 1
    # The fork begins with what the runner's parent had, which may be much.
    assert much.max_rss_mb > little.max_rss_mb + 150
    assert again.max_rss_mb < little.max_rss_mb + 50
    assert much.cpu_s > 0.3 > max(little.cpu_s, again.cpu_s)


def test_idle_forks_end_with_a_runner_or_agent_that_is_killed(tmp_path: Path) -> None:
    pool = f"test-{os.getpid()}-idle"
    (tmp_path / "s.py").write_text(WHO)
    program = AGENT.split("runner = ")[0] + (
        "from snakemake_executor_plugin_worksteal.tasks import Script\n"
        "runner = Runner('warm', rank=0, workdir=sys.argv[2], environment={**os.environ, 'WORKSTEAL_POOL':"
        " sys.argv[3]}, journal=Path(sys.argv[2], 'journal'), reuse=10)\n"
        "source = 'import os; print(os.getpid())'\n"
        "runner.start(1, Order(script=Script('s.py', source, (), b'N.')), (0,), ())\n"
        "while not (select.select([runner], [], [])[0] and (found := runner.read())):\n    pass\n"
        "print(runner.pid, found[0].tail, flush=True)\nselect.select([], [], [])\n"
    )
    words = [sys.executable, "-c", program, str(PACKAGE), str(tmp_path), pool]
    for victim in ("agent", "runner"):
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as agent:
            assert agent.stdout is not None
            pids = [int(word) for word in agent.stdout.readline().split()]
            assert alive(pids[1])
            os.kill(agent.pid if victim == "agent" else pids[0], signal.SIGKILL)
            if victim == "runner":
                wait_gone(pids[1:])
                agent.kill()
        wait_gone(pids)
        assert processes.leftovers(pool) == []


def test_an_idle_runner_with_idle_forks_uses_no_cpu(make: Callable[..., Bench]) -> None:
    bench = make("warm", reuse=10, spares=2)
    (fork,) = forks_of(bench, [WHO])
    family = [psutil.Process(pid) for pid in (bench.runner.pid, fork)]
    bench.run("true", benchmark=Benchmark("bench.tsv"))  # the spares have been made by then, or soon
    select.select([], [], [], 0.3)
    before = [process.cpu_times()[:2] for process in family]
    select.select([], [], [], 1.0)
    assert [process.cpu_times()[:2] for process in family] == before
