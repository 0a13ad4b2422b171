"""kill -9 of a task, an agent, the launcher or Snakemake: nothing finished is lost or run again, nothing is left."""

from __future__ import annotations

import random
import re
import signal
import time
from contextlib import suppress

import psutil
import pytest
from conftest import Workflow, wait_for, workflow_in

JOBS = 10
SNAKEFILE = f"""
rule all:
    input: expand("{{n}}.txt", n=range({JOBS}))
rule by_shell:
    output: "{{n,[0-4]}}.txt"
    params: seconds=lambda wildcards: 0.1 + 0.05 * int(wildcards.n)
    shell:
        "date +'begin {{wildcards.n}} %s.%N' >> log; sleep {{params.seconds}}; touch {{output}}; "
        "date +'end {{wildcards.n}} %s.%N' >> log"
rule by_script:
    output: "{{n,[5-9]}}.txt"
    script: "task.py"
"""
SCRIPT = """
import time
n = snakemake.wildcards.n
def note(word):
    with open("log", "a") as log:
        log.write(f"{word} {n} {time.time()}\\n")
note("begin")
time.sleep(0.05 * int(n))
open(snakemake.output[0], "w").close()
note("end")
"""
# A task that has ended is known to the pool (its runner's journal) after at most this many seconds.
MARGIN_S = 1.0


def seed_is_even(rng: random.Random) -> bool:
    """One of two, by seed."""
    return rng.random() < 0.5


def times(workflow: Workflow, word: str) -> dict[str, list[float]]:
    """When each job began or ended."""
    found: dict[str, list[float]] = {}
    for line in workflow.lines("log"):
        kind, n, when = line.split()
        if kind == word:
            found.setdefault(n, []).append(float(when))
    return found


def tree(process: psutil.Process) -> list[psutil.Process]:
    """A process's descendants, none if it is gone."""
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def victims(kind: str, snakemake: psutil.Process) -> list[psutil.Process]:
    """Processes of one kind below Snakemake."""
    found = []
    for process in tree(snakemake):
        try:
            words = process.cmdline()
            parent = process.parent()
            agent = any("worksteal.agent" in word for word in words)
            launcher = bool(words) and words[0].endswith("mpiexec")
            inside = parent is not None and any("worksteal.agent" in word for word in parent.cmdline())
        except psutil.Error:
            continue
        is_agent = agent and not launcher and not inside and "hydra" not in words[0]
        is_task = not agent and inside
        if (kind == "agent" and is_agent) or (kind == "launcher" and launcher) or (kind == "task" and is_task):
            found.append(process)
    return found


@pytest.mark.parametrize("seed", range(50))
def test_kill(tmp_path, seed):
    """One kill at a random moment of a random kind of process."""
    rng = random.Random(seed)
    pool = ("one", "mpi")[seed % 2]
    kinds = ["task", "agent", "snakemake", *(["launcher"] if pool == "mpi" else [])]
    kind = kinds[seed // 2 % len(kinds)]
    reuse = 1 + seed % 3 * 5
    with workflow_in(tmp_path, pool) as workflow:
        kill_and_check(workflow, kind, rng, reuse)


def kill_and_check(workflow: Workflow, kind: str, rng: random.Random, reuse: int) -> None:
    """Start the workflow, kill, and look at what was run."""
    tmp_path = workflow.folder
    workflow.write("Snakefile", SNAKEFILE)
    workflow.write("task.py", SCRIPT)
    process = workflow.start("--retries", "2", "--keep-going", "--worksteal-reuse", str(reuse))
    wait_for(lambda: workflow.lines("log") or process.poll() is not None)
    time.sleep(rng.uniform(0, 1.0))
    targets = []
    with suppress(psutil.NoSuchProcess):  # it may have ended by then
        snakemake = psutil.Process(process.pid)
        targets = [snakemake] if kind == "snakemake" else victims(kind, snakemake)
        if targets:
            # An agent can also be told to end: its tasks are then ended by the pool, and no outcome of theirs counts.
            rng.choice(targets).send_signal(signal.SIGTERM if kind == "agent" and seed_is_even(rng) else signal.SIGKILL)
    killed = time.time()
    output, _ = process.communicate(timeout=90)
    ended = {n for n, when in times(workflow, "end").items() if when[0] < killed - MARGIN_S}
    if kind == "snakemake" and targets:
        workflow.assert_nothing_left()
        # What Snakemake knew to be finished: its own record, not the job's.
        numbers = dict(re.findall(r"    output: (\d)\.txt\n(?:    .*\n)*?    jobid: (\d+)\n", output))
        recorded = set(re.findall(r"Finished jobid: (\d+) ", output))
        ended = {n for n, number in numbers.items() if number in recorded}
        after = workflow.run("--rerun-incomplete", "--keep-going", "--nolock")
        output += after
    else:
        assert process.returncode == 0, output
    assert all((tmp_path / f"{n}.txt").exists() for n in range(JOBS)), output
    begun = times(workflow, "begin")
    again = {n for n in ended if len(begun[n]) > 1}
    assert not again, (
        f"jobs {sorted(again)} had ended well before the {kind} was killed at {killed} and ran again:\n{output}"
    )
    assert all(len(when) <= 2 for when in begun.values()), begun
    workflow.assert_nothing_left()
