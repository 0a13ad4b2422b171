"""kill -9 of any part of a pool, or of Snakemake: nothing finished is lost or run again, nothing is left."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import time
from typing import NamedTuple

import pytest
from conftest import Workflow, wait_for, workflow_in
from snakemake_executor_plugin_worksteal import processes
from snakemake_executor_plugin_worksteal.runner import read_journal
from victims import catch, has_ended, let_go, parts

JOBS = 16
SNAKEFILE = f"""
rule all:
    input: expand("{{n}}.txt", n=range({JOBS}))
rule by_shell:
    output: r"{{n,\\d*[02468]}}.txt"
    params: seconds=lambda wildcards: 0.08 + 0.02 * (5 * int(wildcards.n) % 8)
    shell:
        "date +'begin {{wildcards.n}} %s.%N '$WORKSTEAL_TASK >> log; "
        "sleep {{params.seconds}}; echo $(({{wildcards.n}} * {{wildcards.n}})) > {{output}}; "
        "date +'end {{wildcards.n}} %s.%N '$WORKSTEAL_TASK >> log"
rule by_script:
    output: r"{{n,\\d*[13579]}}.txt"
    script: "task.py"
"""
SCRIPT = """
import os
import time
n = int(snakemake.wildcards.n)
def note(word):
    with open("log", "a") as log:
        log.write(f"{word} {n} {time.time()} {os.environ['WORKSTEAL_TASK']}\\n")
note("begin")
time.sleep(0.08 + 0.02 * (5 * n % 8))
with open(snakemake.output[0], "w") as output:
    output.write(f"{n * n}\\n")
note("end")
"""
# A task that has ended is in the journal of its runner after at most this many seconds.
MARGIN_S = 1.0
PATIENCE_S = 60.0
# So many jobs at least are open when the kill is prepared.
OPEN = 5

# How often each part is killed in each kind of pool.
TIMES = {
    "one": {"shell": 4, "script": 4, "runner": 4, "guard": 3, "agent": 6, "snakemake": 3},
    "mpi": {"shell": 3, "script": 3, "runner": 4, "guard": 2, "agent": 5, "proxy": 3, "launcher": 3, "snakemake": 3},
}


class Kill(NamedTuple):
    """What is killed. held: when its runners have written down results that Snakemake cannot have heard of."""

    pool: str
    kind: str
    held: bool = False
    sign: signal.Signals = signal.SIGKILL


KILLS = [
    Kill(pool, kind, held=kind in ("agent", "runner") and turn % 2 == 0)
    for pool, kinds in TIMES.items()
    for kind, times in kinds.items()
    for turn in range(times)
]
# An agent can also be told to end: its tasks are then ended by the pool, and no outcome of theirs counts.
TOLD = [Kill(pool, "agent", held, signal.SIGTERM) for pool, held in (("one", True), ("mpi", True), ("mpi", False))]

WITHOUT_JOURNALS = """
from snakemake_executor_plugin_worksteal.pool import Pool

Pool._read_journals = lambda self: None
"""


def test_enough():
    """At least 50 parts are killed."""
    assert len(KILLS) >= 50


@pytest.mark.parametrize(
    ("seed", "kill"),
    [pytest.param(seed, kill, id=f"{seed}-{kill.pool}-{kill.kind}") for seed, kill in enumerate(KILLS + TOLD)],
)
def test_kill(tmp_path, seed, kill):
    """One kill at a random moment of a part that lives and, if it is a task, has not ended."""
    with workflow_in(tmp_path, kill.pool) as workflow:
        kill_and_check(workflow, kill, seed)


def test_without_journals(tmp_path):
    """A pool that does not read its journals when it has died is caught."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_JOURNALS)
    folder = tmp_path / "workflow"
    folder.mkdir()
    with workflow_in(folder, "one") as workflow:
        workflow.environment["PYTHONPATH"] = str(tmp_path)
        with pytest.raises(AssertionError, match=r"had ended before .* and ran again"):
            kill_and_check(workflow, Kill("one", "agent", held=True), seed=0)


class Line(NamedTuple):
    """What a job writes into the log when it begins and when it ends. marker: pool:agent:rank:id of its task."""

    word: str
    n: int
    when: float
    marker: str


def lines(workflow: Workflow, word: str) -> list[Line]:
    """All lines with this word."""
    found = (line.split() for line in workflow.lines("log"))
    return [Line(kind, int(n), float(when), marker) for kind, n, when, marker in found if kind == word]


def running(workflow: Workflow, marker: str | None) -> int | None:
    """The job of a task that has begun and not ended."""
    found = [line.n for line in lines(workflow, "begin") if line.marker == marker]
    return found[0] if found and marker not in {line.marker for line in lines(workflow, "end")} else None


def written_down(workflow: Workflow, agent: int | str = "*") -> set[int]:
    """Jobs of which the journals, or those of one agent (its process id), say that they have ended well."""
    paths = workflow.folder.glob(f".snakemake/worksteal/*/journal-*-{agent}-*.jsonl")
    ids = {result.id for path in paths for result in read_journal(path)[0] if result.ok}
    return {line.n for line in lines(workflow, "end") if int(line.marker.rpartition(":")[2]) in ids}


def recorded(workflow: Workflow, output: str | None = None) -> set[str]:
    """Snakemake's numbers of the jobs that it has said to be finished: its own record, not the jobs'."""
    texts = [path.read_text() for path in workflow.folder.glob(".snakemake/log/*.log")] if output is None else [output]
    return {number for text in texts for number in re.findall(r"Finished jobid: (\d+) ", text)}


class Held(NamedTuple):
    """An agent that stands still, and its runner that has written down a result since, which waits for the agent."""

    agent: int
    runner: int


def hold_an_agent(workflow: Workflow, process: subprocess.Popen[str], rng: random.Random) -> Held:
    """Catch an agent that has a running task, and wait until its runner has written down that this has ended."""
    while True:
        assert process.poll() is None, f"no task was found running:\n{process.communicate()[0]}"
        found = parts(process.pid)
        tasks = found["shell"] + found["script"]
        task = rng.choice(tasks) if tasks else 0
        marker = processes.variable(task, processes.TASK) or ""
        runners = [pid for pid in found["runner"] if task in processes.with_descendants([pid])]
        if marker and runners and catch(agent := int(marker.split(":")[1])):
            job = running(workflow, marker)
            if job is not None:
                break
            let_go(agent)
        time.sleep(0.01)
    wait_for(lambda: job in written_down(workflow, agent))
    return Held(agent, runners[0])


def find_victim(
    workflow: Workflow, process: subprocess.Popen[str], kind: str, rng: random.Random
) -> tuple[int, int | None]:
    """Catch a part of this kind. A task is amidst its work; its job is told."""
    while True:
        assert process.poll() is None, f"no {kind} was found alive:\n{process.communicate()[0]}"
        found = parts(process.pid)[kind]
        for pid in rng.sample(found, len(found)):
            if not catch(pid):
                continue
            if kind not in ("shell", "script"):
                return pid, None
            job = running(workflow, processes.variable(pid, processes.TASK))
            if job is not None:
                return pid, job
            let_go(pid)
        time.sleep(0.01)


def kill_and_check(workflow: Workflow, kill: Kill, seed: int) -> None:
    """Start the workflow, kill, and look at what was run."""
    rng = random.Random(seed)
    kind = kill.kind
    workflow.write("Snakefile", SNAKEFILE)
    workflow.write("task.py", SCRIPT)
    process = workflow.start("--retries", "2", "--keep-going", "--worksteal-reuse", str(1 + seed % 3 * 5))
    # Anywhere in the sweep, but when something has ended.
    enough = rng.randint(1, JOBS - OPEN)
    known = recorded if kind == "snakemake" else written_down
    wait_for(lambda: len(known(workflow)) >= enough or process.poll() is not None)
    time.sleep(rng.uniform(0, 0.1))
    held = hold_an_agent(workflow, process, rng) if kill.held else None
    if held:
        victim, job = getattr(held, kind), None
        assert victim == held.agent or catch(victim)
    else:
        victim, job = find_victim(workflow, process, kind, rng)
    ended = written_down(workflow)
    killed = time.time()
    processes.send([victim], kill.sign)
    if kill.sign == signal.SIGKILL:
        wait_for(lambda: has_ended(victim))  # before the agent goes on, which finds result and end together then
    for pid in {victim, *(held or ())}:
        let_go(pid)
    told = f"the {kind} {victim} was killed at {killed} ({kill})"
    try:
        output, _ = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"{told}, and Snakemake did not end:\n{process.communicate()[0]}")

    forgotten = {line.n for line in lines(workflow, "end") if line.when < killed - MARGIN_S} - ended
    assert not forgotten, f"jobs {sorted(forgotten)} had ended before {told} and were in no journal:\n{output}"
    if kind == "snakemake":
        workflow.assert_nothing_left()
        numbers = dict(re.findall(r"    output: (\d+)\.txt\n(?:    .*\n)*?    jobid: (\d+)\n", output))
        ended = {int(n) for n, number in numbers.items() if number in recorded(workflow, output)}
        output += workflow.run("--rerun-incomplete", "--keep-going", "--nolock")
    else:
        assert process.returncode == 0, output
    assert ended, f"nothing had ended before {told}:\n{output}"
    begun = [line.n for line in lines(workflow, "begin")]
    again = {n for n in begun if begun.count(n) > 1}
    assert not again & ended, f"jobs {sorted(again & ended)} had ended before {told} and ran again:\n{output}"
    assert all(begun.count(n) <= 2 for n in begun), begun
    if kind in ("shell", "script", "guard"):  # nothing but the task has died
        assert again == ({job} if job is not None else set()), f"jobs {sorted(again)} ran again when {told}:\n{output}"
    if kind in ("agent", "runner") and len(ended) < JOBS - OPEN:
        assert "it is started again" in output, f"{told}, and nothing came of it:\n{output}"
    for n in range(JOBS):
        assert workflow.lines(f"{n}.txt") == [str(n * n)], f"{n}.txt is wrong after {told}:\n{output}"
    workflow.assert_nothing_left()
