"""The end of an allocation: what would not be over by then is not begun, what runs is told to end in time."""

from __future__ import annotations

import sys
import time

import pytest
from conftest import Workflow
from hypothesis import given
from hypothesis import strategies as st
from slurm import Slurm
from snakemake_executor_plugin_worksteal.allocation import clock, end_of_allocation, pbs_left, seconds_of, slurm_left
from snakemake_executor_plugin_worksteal.core import Capacity, Core
from snakemake_executor_plugin_worksteal.messages import Save, Start, Withdrawn
from snakemake_executor_plugin_worksteal.tasks import Task

SNAKEFILE = f"""
rule all:
    input: "short.txt", "long.txt", "cut.txt", "plain.txt"
rule short:
    output: "short.txt"
    shell: "echo short >> begun; touch {{output}}"
rule long:
    output: "long.txt"
    resources: runtime=lambda w: config["minutes"]
    shell: "echo long >> begun; touch {{output}}"
rule cut:
    output: "cut.txt"
    priority: 1
    resources: runtime=60, resume="state"
    shell: "{sys.executable} cut.py {{output}}"
rule plain:
    output: "plain.txt"
    priority: 1
    shell: "echo plain >> begun; sleep {{config[seconds]}}; touch {{output}}"
"""
CUT = """
import pathlib, signal, sys, time
state = pathlib.Path("state")

def save(*_):
    state.write_text("saved")
    raise SystemExit(75)

signal.signal(signal.SIGTERM, save)
with open("begun", "a") as begun:
    print("cut", state.exists(), file=begun)
if not state.exists():
    time.sleep(300)
pathlib.Path(sys.argv[1]).touch()
"""


def write(workflow: Workflow) -> None:
    """A job of each sort."""
    workflow.write("Snakefile", SNAKEFILE)
    workflow.write("cut.py", CUT)


def check_first(workflow: Workflow, output: str) -> None:
    """All ends before the end of the allocation, and Snakemake says why."""
    assert "long is not begun: its runtime of 30 min does not fit" in output, output
    assert "running jobs are told to end, and no more are begun" in output, output
    assert "1 job did not fit into the rest of the allocation" in output, output
    assert "1 job will go on later" in output, output
    assert sorted(workflow.lines("begun")) == ["cut False", "plain", "short"]
    assert workflow.lines("state") == ["saved"]
    workflow.assert_nothing_left()


def check_second(workflow: Workflow) -> None:
    """With time enough the rest is done, and only that."""
    workflow.run("--rerun-incomplete", "--config", "minutes=30", "seconds=0")
    assert sorted(workflow.lines("begun")[3:]) == ["cut True", "long", "plain"]


def all_began(workflow: Workflow) -> bool:
    """Whether all jobs had begun by then that were to; else the machine was too busy, and what was done is undone."""
    if {"cut False", "plain", "short"} <= set(workflow.lines("begun")):
        return True
    for path in (workflow.folder / "begun", workflow.folder / "state", *workflow.folder.glob("*.txt")):
        path.unlink(missing_ok=True)
    return False


FIRST = ("--keep-going", "--rerun-incomplete", "--config", "minutes=30", "seconds=300")


def test_the_end_of_the_walltime(workflow):
    """On this machine the time is what the setting says."""
    write(workflow)
    slots = list(workflow.pool)
    slots[-1] = "4"
    workflow.pool = (*slots,)
    for seconds in (22, 60, 180):
        output = workflow.run(f"--worksteal-walltime=0:00:{seconds}", "--worksteal-margin=12", *FIRST, fails=True)
        if all_began(workflow):
            break
    check_first(workflow, output)
    check_second(workflow)


def test_snakemake_inside_an_allocation_of_slurm(slurm: Slurm, one: Workflow):
    """Two nodes, one agent each, found by themselves; Slurm says when the allocation ends."""
    write(one)
    one.environment = slurm.environment
    one.pool = ("--worksteal-slots", "2", "--worksteal-margin", "40")
    one.write("job.sh", f"#!/bin/bash\ncd {one.folder}\nexec {' '.join(one.command(*FIRST))}\n")
    for minutes in (1, 2, 4):
        asked = ("-N2", "--ntasks-per-node=1", "--exclusive", f"-t{minutes}", "-o", f"{one.folder}/out")
        slurm.run("sbatch", *asked, f"{one.folder}/job.sh")
        slurm.wait_for(lambda: not slurm.jobs(), "the job does not end", 300)
        if all_began(one):
            break
    output = (one.folder / "out").read_text()
    assert "worksteal: 2 nodes" in output, output
    assert "launcher: mpiexec" in output, output
    check_first(one, output)
    one.pool = ("--worksteal-slots", "2")
    check_second(one)


def starts(core: Core) -> tuple[list[int], list[int], bool]:
    """Numbers of the tasks that begin and that are given back as late; whether all are told to end."""
    effects = core.drain()
    begun = [effect.task.id for effect in effects if isinstance(effect, Start)]
    late = [number for effect in effects if isinstance(effect, Withdrawn) and effect.late for number in effect.ids]
    return begun, late, Save(True) in effects


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30), st.integers(1, 3), st.integers(0, 40))
def test_what_does_not_fit_into_the_time_never_begins(needs, cores, until):
    """Every task begins in time or is given back as late, and after the end nothing begins."""
    core = Core(0, [Capacity(cores)])
    core.until = float(until)
    core.submit(0.0, [Task(number, needs_s=float(each)) for number, each in enumerate(needs)])
    running: list[tuple[float, int]] = []
    now, seen = 0.0, []
    while True:
        begun, late, _ = starts(core)
        for number in begun:
            assert not needs[number] or now + needs[number] <= until
            running.append((now + max(1, needs[number]), number))
        assert all(now + needs[number] > until for number in late)
        seen += begun + late
        if not running:
            break
        running.sort()
        now, number = running.pop(0)
        core.finished(now, number, "done")
    assert sorted(seen) == list(range(len(needs)))
    core.submit(now, [Task(100), Task(101)])
    core.withdraw(now, stop=True)
    core.submit(now, [Task(102)])
    effects = core.drain()
    assert Save(True) in effects
    assert {effect.task.id for effect in effects if isinstance(effect, Start)} == {100, 101} - (
        {101} if cores == 1 else set()
    )
    given_up = [number for effect in effects if isinstance(effect, Withdrawn) for number in effect.ids]
    assert given_up == ([101, 102] if cores == 1 else [102])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45", 2700),
        ("0:45", 45),
        ("10:00", 600),
        ("01:02:03", 3723),
        ("1-02:03:04", 93784),
        ("2-6", 194400),
        ("100:00:00", 360000),
    ],
)
def test_durations_of_batch_systems(text, seconds):
    """As squeue, sbatch and qstat write them."""
    assert seconds_of(text) == seconds
    assert seconds_of(clock(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "UNLIMITED", "1:2:3:4", "-5", "1h"])
def test_what_is_no_duration(text):
    """Gets a sentence."""
    with pytest.raises(ValueError, match="is no duration"):
        seconds_of(text)
    assert slurm_left(text) is None


def test_the_end_by_pbs(tmp_path):
    """qstat says what a job may take and when it began; without an answer the setting counts."""
    began = time.strftime("%a %b %d %H:%M:%S %Y", time.localtime(time.time() - 100))
    job = "Job Id: 7.s\n    job_state = R\n    Resource_List.walltime = 00:10:00\n"
    assert abs(pbs_left(f"{job}    stime = {began}\n") - 500) < 3
    assert pbs_left(f"{job}    resources_used.walltime = 00:01:00\n") == 540
    assert pbs_left(f"{job}    resources_used.walltime = none\n") == 600
    assert pbs_left("") is None
    assert pbs_left("Job Id: 7.s\n    job_state = R\n") is None
    assert end_of_allocation({}) is None
    assert abs(end_of_allocation({"PBS_JOBID": "7.s"}, 60) - time.time() - 60) < 5
