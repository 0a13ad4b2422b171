"""Pools that are batch jobs, with a real Slurm: from the login node to the end, and all that may come between."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from conftest import Workflow, wait_for
from slurm import Slurm
from snakemake_executor_plugin_worksteal.trace import read_trace
from test_walltime import CUT

MANY = """
rule all:
    input: expand("{n}.txt", n=range(12))
rule make:
    output: "{n}.txt"
    shell: "echo {wildcards.n} >> begun; sleep {config[seconds]}; echo {wildcards.n} >> ended; touch {output}"
"""
# Jobs have no variables of Slurm's; the agents above them do.
WHERE = """
import psutil
for process in psutil.Process().parents():
    if node := process.environ().get("SLURMD_NODENAME"):
        print(node)
        break
"""
CUT_RULE = f"""
rule cut:
    output: "cut.txt"
    priority: 1
    resources: runtime=60, resume="state"
    shell: "{sys.executable} cut.py {{output}}"
"""


def submitting(workflow: Workflow, slurm: Slurm, **settings: object) -> None:
    """Have the workflow submit its pools to this Slurm."""
    given = {"submit": "slurm", "walltime": "5", "nodes": 2, "slots": 1, "follow_ups": 3, **settings}
    workflow.environment = slurm.environment
    workflow.pool = tuple(f"--worksteal-{name.replace('_', '-')}={value}" for name, value in given.items())


def nothing_left(workflow: Workflow, slurm: Slurm) -> None:
    """No process, no batch job, no secret."""
    workflow.assert_nothing_left()
    slurm.wait_for(lambda: not slurm.jobs(), f"batch jobs are left: {slurm.jobs()}")
    assert not list(workflow.folder.glob(".snakemake/worksteal/**/session.*"))


@pytest.mark.parametrize("launcher", ["auto", "srun"])
def test_from_the_login_node_to_the_end(slurm: Slurm, one: Workflow, launcher: str):
    """Jobs run on both nodes of one batch job, which ends with the workflow."""
    one.write("where.py", WHERE)
    one.write("Snakefile", MANY.replace("sleep", f"{sys.executable} where.py >> nodes; sleep"))
    submitting(one, slurm, launcher=launcher)
    one.environment = {**one.environment, "SLURM_MPI_TYPE": "pmi2"}  # what MPICH speaks with srun
    output = one.run("--config", "seconds=0.2")
    assert re.search(r"worksteal: pool 1 \(Slurm job \d+\): 2 nodes", output), output
    assert sorted(one.lines("ended"), key=int) == [str(n) for n in range(12)]
    assert set(one.lines("nodes")) == {"n1", "n2"}
    nothing_left(one, slurm)


def wait_until_begun(workflow: Workflow, number: int) -> None:
    """So many jobs have begun."""
    wait_for(lambda: len(workflow.lines("begun")) >= number, 240, lambda: f"only {workflow.lines('begun')} have begun")


def test_a_node_that_dies(slurm: Slurm, one: Workflow):
    """What it ran begins again in another batch job, what had finished does not, and no job is lost."""
    one.write("Snakefile", MANY)
    submitting(one, slurm)
    process = one.start("--config", "seconds=0.7")
    wait_until_begun(one, 4)
    slurm.kill_node("n2")
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "handed out again" in output, output
    assert "pool 2 (Slurm job" in output, output
    assert "a node does not answer any more" in output or "NODE_FAIL" in output, output
    assert set(one.lines("ended")) == {str(n) for n in range(12)}
    assert 12 < len(one.lines("begun")) <= 14, one.lines("begun")
    one.assert_nothing_left()


def test_the_only_node_dies(slurm: Slurm, one: Workflow):
    """Is reported with Slurm's word for it."""
    one.write("Snakefile", MANY)
    submitting(one, slurm, nodes=1)
    process = one.start("--config", "seconds=0.5")
    wait_until_begun(one, 2)
    slurm.kill_node("n1")
    slurm.run("scontrol", "update", "nodename=n1", "state=down", "reason=test")  # else Slurm takes long to see it
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert re.search(r"pool 1 \(Slurm job \d+\) has ended: NODE_FAIL", output), output
    assert set(one.lines("ended")) == {str(n) for n in range(12)}
    one.assert_nothing_left()


def test_a_batch_job_whose_time_ends(slurm: Slurm, one: Workflow):
    """By Slurm itself, before its agents are up: its word for it is what the run ends with."""
    one.write("Snakefile", MANY)
    submitting(one, slurm, nodes=1, preamble="sleep 100", restarts=0)
    process = one.start("--config", "seconds=0")
    slurm.wait_for(lambda: slurm.run("squeue", "-h", "-o", "%T") == "RUNNING", "the job does not begin", 60)
    (number,) = slurm.jobs()
    slurm.run("scontrol", "update", f"jobid={number}", "EndTime=now+1")
    output, _ = process.communicate(timeout=240)
    assert process.returncode != 0, output
    assert re.search(rf"pool 1 \(Slurm job {number}\) has ended before its agents were up: TIMEOUT", output), output
    nothing_left(one, slurm)


def test_a_node_of_an_allocation_that_dies(slurm: Slurm, one: Workflow):
    """Snakemake runs inside the allocation, which Slurm keeps (--no-kill): the pool goes on without that node."""
    one.write("Snakefile", MANY)
    one.environment = slurm.environment
    one.pool = ("--worksteal-slots", "1")
    command = " ".join(one.command("--config", "seconds=0.7"))
    one.write("job.sh", f"#!/bin/bash\ncd {one.folder}\nexec {command}\n")
    asked = ("-N2", "--ntasks-per-node=1", "--exclusive", "--no-kill", "-t10", "-o", f"{one.folder}/out")
    slurm.run("sbatch", *asked, f"{one.folder}/job.sh")
    wait_until_begun(one, 4)
    slurm.kill_node("n2")
    slurm.wait_for(lambda: not slurm.jobs(), "the job does not end", 300)
    output = (one.folder / "out").read_text()
    assert "worksteal: without n2, which Slurm says is gone" in output, output
    assert "worksteal: 1 node" in output, output
    assert set(one.lines("ended")) == {str(n) for n in range(12)}, output
    one.assert_nothing_left()


def test_a_walltime_that_is_too_short(slurm: Slurm, one: Workflow):
    """The first job's time ends with work left: what runs is told to end, and a second job does the rest. A job that
    has saved its state goes on there.
    """
    one.write("Snakefile", MANY.replace("range(12))", "range(12)), 'cut.txt'") + CUT_RULE)
    one.write("cut.py", CUT)
    submitting(one, slurm, walltime="0:01:00", margin=40, follow_ups=8)
    output = one.run("--config", "seconds=4")
    assert "the time of pool 1" in output, output
    assert "cut has saved its state" in output, output
    assert "pool 2 (Slurm job" in output, output
    assert [line for line in one.lines("begun") if "cut" in line] == ["cut False", "cut True"]
    assert set(one.lines("ended")) == {str(n) for n in range(12)}
    assert len(one.lines("ended")) == 12
    nothing_left(one, slurm)


def test_two_pools_share_the_work(slurm: Slurm, one: Workflow):
    """Two batch jobs of one node run jobs at the same time; a job runs in one of them."""
    one.write("Snakefile", MANY)
    submitting(one, slurm, nodes=1, pools=2, slots=2)
    output = one.run("--config", "seconds=1.5", "--worksteal-trace")
    assert sorted(one.lines("begun"), key=int) == [str(n) for n in range(12)]
    (folder,) = (one.folder / ".snakemake" / "worksteal").glob("2*")
    tasks = [event for event in read_trace(folder / "trace.json") if event.get("cat") == "task"]
    assert {event["args"]["rank"] for event in tasks} == {0, 1}, output
    assert len(tasks) == 12
    nothing_left(one, slurm)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_snakemake_is_stopped(slurm: Slurm, one: Workflow, sign: signal.Signals):
    """The batch job ends with it, and so does one that waits; the next run does the rest."""
    one.write("Snakefile", MANY)
    submitting(one, slurm, nodes=2, pools=3)  # the third has to wait for nodes
    process = one.start("--config", f"seconds={1 if sign == signal.SIGTERM else 30}")
    wait_until_begun(one, 2)
    slurm.wait_for(lambda: len(slurm.jobs()) == 3, "not all jobs are submitted")
    process.send_signal(sign)
    output, _ = process.communicate(timeout=240)
    assert process.returncode != 0, output
    assert "Traceback" not in output, output
    slurm.wait_for(lambda: not slurm.jobs(), "batch jobs are left")
    nothing_left(one, slurm)
    if sign == signal.SIGTERM:
        assert sorted(one.lines("begun")) == sorted(one.lines("ended")), output
    if sign == signal.SIGINT:
        assert re.search(r"pool 3 \(Slurm job \d+\) is cancelled; it had not begun: PENDING, \w+", output), output
    if sign == signal.SIGKILL:
        one.run("--unlock")
        again = one.run("--rerun-incomplete", "--config", "seconds=0")
        assert "pool 1 (Slurm job" in again
        assert set(one.lines("ended")) == {str(n) for n in range(12)}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"queue": "nowhere"}, "Slurm refuses the job: .*[Ii]nvalid partition"),
        ({"batch_options": "--hold", "queue_wait": "0:00:03"}, "has not begun within .*JobHeldUser"),
    ],
)
def test_a_job_that_never_starts(slurm: Slurm, one: Workflow, settings, reason):
    """The run ends with Slurm's reason, and the job does not stay in the queue."""
    one.write("Snakefile", MANY)
    submitting(one, slurm, **settings)
    output = one.run("--config", "seconds=0", fails=True)
    assert re.search(reason, output), output
    assert "Traceback" not in output, output
    nothing_left(one, slurm)


def test_a_batch_job_that_somebody_cancels(slurm: Slurm, one: Workflow):
    """Is reported with Slurm's word for it, and the pool beside it does the rest."""
    one.write("Snakefile", MANY)
    submitting(one, slurm, nodes=1, pools=2, follow_ups=0)
    process = one.start("--config", "seconds=0.7")
    wait_until_begun(one, 4)
    number = min(slurm.jobs(), key=int)
    slurm.run("scancel", number)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert re.search(rf"pool 1 \(Slurm job {number}\) has ended: CANCELLED", output), output
    assert set(one.lines("ended")) == {str(n) for n in range(12)}
    nothing_left(one, slurm)


def test_no_more_batch_jobs_than_are_allowed(slurm: Slurm, one: Workflow):
    """What is left goes on with the next run; jobs that could never fit fail at once."""
    one.write(
        "Snakefile",
        MANY.replace("range(12))", "range(12)), 'long.txt'")
        + "rule long:\n    output: 'long.txt'\n    resources: runtime=60\n    shell: 'touch {output}'\n",
    )
    submitting(one, slurm, nodes=1, walltime="0:01:00", margin=40, follow_ups=0)
    output = one.run("--keep-going", "--config", "seconds=4", fails=True)
    assert "its runtime of 60 min does not fit into the walltime of a batch job (1 min" in output, output
    assert "1 batch job submitted, as many as may be" in output, output
    assert len(one.lines("ended")) < 12
    nothing_left(one, slurm)


def cut(process: subprocess.Popen[str]) -> None:
    """Break the connections of a Snakemake to its pools, as a network that fails does."""
    (port,) = {
        one.laddr.port for one in psutil.Process(process.pid).net_connections("tcp") if one.status == psutil.CONN_LISTEN
    }
    subprocess.run(["ss", "-K", "-t", f"( sport = :{port} or dport = :{port} )"], check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("ss") is None, reason="no ss here: apt-get install iproute2")
def test_a_lost_connection_is_found_again(slurm: Slurm, one: Workflow):
    """Jobs run on meanwhile, and none is lost or run twice."""
    one.write("Snakefile", MANY)
    submitting(one, slurm)
    process = one.start("--config", "seconds=0.5")
    for number in (2, 5):
        wait_until_begun(one, number)
        cut(process)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "is connected again" in output, output
    assert "pool 2" not in output, output
    assert sorted(one.lines("begun"), key=int) == [str(n) for n in range(12)]
    nothing_left(one, slurm)


@pytest.fixture
def login_node() -> Iterator[str]:
    """An address of this machine that can be taken away."""
    if shutil.which("ip") is None or shutil.which("ss") is None:
        pytest.skip("no ip and ss here: apt-get install iproute2")
    address = "10.231.77.1"
    made = subprocess.run(["ip", "addr", "add", f"{address}/32", "dev", "lo"], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no address can be added here: {made.stderr.strip()}")
    try:
        yield address
    finally:
        reach(address, True)
        subprocess.run(["ip", "addr", "del", f"{address}/32", "dev", "lo"], check=True)


def reach(address: str, possible: bool) -> None:
    """Whether an address of this machine can be reached."""
    for what, word in (("addr", f"{address}/32 dev lo"), ("route", f"unreachable {address}")):
        wanted = possible == (what == "addr")
        subprocess.run(["ip", what, "add" if wanted else "del", *word.split()], capture_output=True)


def test_a_login_node_that_cannot_be_reached(slurm: Slurm, one: Workflow, login_node: str):
    """The pool looks for it as long as it may, then ends by itself; when the network is back the rest is done."""
    one.write("Snakefile", MANY)
    # One node: MPI between several might use this address too.
    submitting(one, slurm, nodes=1, slots=2, address=f"tcp:{login_node}:0", reconnect=3)
    process = one.start("--config", "seconds=1")
    wait_until_begun(one, 3)
    (number,) = slurm.jobs()
    reach(login_node, False)
    cut(process)
    slurm.wait_for(lambda: state(slurm, number) == "COMPLETED", "the first job does not end by itself", 120)
    reach(login_node, True)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "Snakemake is gone" in output, output
    assert set(one.lines("ended")) == {str(n) for n in range(12)}
    nothing_left(one, slurm)


def state(slurm: Slurm, number: str) -> str:
    """Slurm's word for how a job fares."""
    return slurm.run("squeue", "-h", "-t", "all", "-j", number, "-o", "%T")
