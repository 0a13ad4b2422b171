"""Pools that are batch jobs of PBS, with stand-ins for its commands that check what they are given (tests/pbs.py)."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pbs
import psutil
import pytest
from conftest import Workflow, wait_for
from snakemake_executor_plugin_worksteal.batch import BatchError, batch_system, directives, wish_of

SIX = """
rule all:
    input: expand("{n}.txt", n=range(6))
rule make:
    output: "{n}.txt"
    shell: "echo {wildcards.n} >> begun; sleep {config[seconds]}; echo {wildcards.n} >> ended; touch {output}"
"""


@pytest.fixture
def state(one: Workflow, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-ins are on the workflow's PATH; where they keep what they know of jobs."""
    commands, folder = pbs.install(tmp_path_factory.mktemp("pbs"))
    one.environment = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}"}
    one.write("Snakefile", SIX)
    submitting(one)
    return folder


def submitting(workflow: Workflow, **settings: object) -> None:
    """Have the workflow submit its pools to PBS."""
    given = {"submit": "pbs", "walltime": "00:05:00", "nodes": 1, "slots": 2, "account": "catalyst", **settings}
    workflow.pool = tuple(f"--worksteal-{name.replace('_', '-')}={value}" for name, value in given.items())


def jobs(state: Path) -> list[dict[str, Any]]:
    """What PBS knows, oldest first."""
    paths = sorted(state.glob("*.json"), key=lambda path: int(path.name.split(".")[0]))
    return [json.loads(path.read_text()) for path in paths]


def test_from_the_login_node_to_the_end(one: Workflow, state: Path):
    """What a user sets reaches PBS in its own words, two agents run all jobs, and the batch job ends by itself."""
    options = "-l filesystems=home:flare -m n"
    submitting(one, nodes=2, slots=1, queue="debug", batch_options=options)
    output = one.run("--config", "seconds=0.1")
    assert "worksteal: pool 1 (PBS job 1.standin): 2 nodes" in output, output
    assert sorted(one.lines("ended")) == [str(n) for n in range(6)]
    (job,) = jobs(state)
    assert job["job_state"] == "F"
    assert job["Exit_status"] == 0
    assert job["queue"] == "debug"
    assert job["Account_Name"] == "catalyst"
    assert job["Job_Name"] == "worksteal-1"
    assert job["Rerunable"] is False
    wants = job["Resource_List"]
    assert wants["select"] == "2:ncpus=1:mpiprocs=1"
    assert wants["place"] == "scatter:exclhost"
    assert re.fullmatch(r"0:0?5:0+", wants["walltime"])
    assert wants["filesystems"] == "home:flare"
    one.assert_nothing_left()


def test_cores_of_shared_nodes(one: Workflow, state: Path):
    """As many cores as are asked for, and as many slots."""
    submitting(one, batch_cores=3)
    one.pool = tuple(word for word in one.pool if "slots" not in word)
    output = one.run("--config", "seconds=0")
    assert "1 node (" in output
    assert "3 slots" in output, output
    (job,) = jobs(state)
    assert job["Resource_List"]["select"] == "1:ncpus=3:mpiprocs=3"
    assert job["Resource_List"]["place"] == "scatter:shared"


def test_the_walltime_of_pbs(one: Workflow, state: Path):
    """qstat says when the job ends: what runs is told to end before, and a second job does the rest."""
    submitting(one, walltime="00:00:45", margin=30, slots=1)
    output = one.run("--config", "seconds=4")
    assert "the time of pool 1 (PBS job 1.standin) ends at" in output, output
    assert len(jobs(state)) > 1
    assert {job["Exit_status"] for job in jobs(state)} == {0}, "no job is ended by PBS"
    assert sorted(one.lines("ended")) == [str(n) for n in range(6)]
    one.assert_nothing_left()


@pytest.mark.parametrize("how", ["Ctrl-C", "killed", "killed with its guard"])
def test_snakemake_is_stopped(one: Workflow, state: Path, how: str):
    """The batch job is deleted, or ends by itself because Snakemake is gone."""
    process = one.start("--config", "seconds=60")
    wait_for(lambda: len(one.lines("begun")) == 2, 240)
    if how == "killed with its guard":
        (guard,) = (child for child in psutil.Process(process.pid).children() if "guard" in " ".join(child.cmdline()))
        guard.kill()
    process.send_signal(signal.SIGINT if how == "Ctrl-C" else signal.SIGKILL)
    output, _ = process.communicate(timeout=240)
    assert "Traceback" not in output, output
    one.assert_nothing_left()
    wait_for(lambda: [job["job_state"] for job in jobs(state)] == ["F"])
    assert jobs(state)[0].get("deleted", False) == (how == "killed"), "else it ended by itself"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"queue": "nowhere"}, "PBS refuses the job: qsub: Unknown queue"),
        (
            {"batch_options": "-h", "queue_wait": "0:00:02"},
            "has not begun within 2 s: held, Not Running: Job held by user",
        ),
        ({"batch_options": "-l place=everywhere"}, "PBS refuses the job: .*place: everywhere"),
        ({"batch_options": "gpu"}, "batch-options begin with 'gpu'"),
        ({"walltime": ""}, "a batch job needs a walltime"),
        ({"walltime": "1h"}, "'1h' is no duration"),
        ({"batch_cores": 0}, "batch-cores is 0"),
        ({"submit": "lsf"}, "it must be 'slurm' or 'pbs'"),
    ],
)
def test_a_job_that_never_starts(one: Workflow, state: Path, settings, reason):
    """One sentence, with PBS's reason where it gives one."""
    submitting(one, **settings)
    output = one.run("--config", "seconds=0", fails=True)
    assert re.search(reason, output), output
    assert "Traceback" not in output, output
    assert all(job["job_state"] == "F" for job in jobs(state))
    one.assert_nothing_left()


def test_a_job_that_pbs_kills(one: Workflow, state: Path):
    """Is reported with PBS's comment, and another one does the rest."""
    process = one.start("--config", "seconds=0.5")
    wait_for(lambda: len(one.lines("begun")) >= 3, 240)
    pbs.end(jobs(state)[0]["session_id"])
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert re.search(r"pool 1 \(PBS job 1.standin\) has ended: finished, Job run on .*; exit status", output), output
    assert set(one.lines("ended")) == {str(n) for n in range(6)}
    one.assert_nothing_left()


def test_a_job_whose_walltime_pbs_ends(one: Workflow, state: Path):
    """Before its agents are up: PBS's comment is what the run ends with."""
    submitting(one, walltime="0:00:03", margin=0, preamble="sleep 100", restarts=0)
    output = one.run("--config", "seconds=0", fails=True)
    said = "pool 1 (PBS job 1.standin) has ended before its agents were up: finished, "
    assert f"{said}Job run on (here) and exceeded resource walltime; exit status 271" in output, output
    one.assert_nothing_left()


def test_what_pbs_says_of_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A job has ended only if PBS says so, whatever is in its environment and whatever else goes wrong."""
    commands, folder = pbs.install(tmp_path)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    system = batch_system("pbs", tmp_path / "work")
    standing = pbs.Jobs(folder)
    nasty = {"BASH_FUNC_module%%": '() {  eval `x "$@"`\n    job_state = F\n}', "ZIP": "005", "TAB": "a\\tb"}
    standing.write("1.standin", job_state="R", comment="Job run at " + "12:00 " * 30, environment=nasty)
    standing.write("2.standin", job_state="F", comment="over", Exit_status=271, environment=nasty)
    looks = system.look(["1.standin", "2.standin", "3.standin"])
    assert [looks[f"{n}.standin"].state for n in (1, 2, 3)] == ["runs", "ended", "ended"]
    assert looks["1.standin"].reason == ("Job run at " + "12:00 " * 30)
    assert looks["2.standin"].reason == "over; exit status 271"
    for script in ("echo garbled", "exit 1", "echo 'qstat: cannot connect to server' >&2; exit 111"):
        (commands / "qstat").write_text(f"#!/bin/sh\n{script}\n")
        assert {look.state for look in system.look(["1.standin", "2.standin"]).values()} == {"unknown"}


def test_a_limit_of_jobs_in_the_queue(one: Workflow, state: Path):
    """Of two pools the second is refused: the first does it all."""
    (state / "limit").write_text("1")
    submitting(one, pools=2)
    output = one.run("--config", "seconds=0.2")
    assert re.search(r"PBS refuses the job: .*per-user limit.*; it is tried again", output), output
    assert [job["job_state"] for job in jobs(state)] == ["F"]
    one.assert_nothing_left()


def test_a_job_that_waits_no_longer_when_its_patience_ends(one: Workflow, state: Path):
    """It has begun, and its agents take their time."""
    submitting(one, queue_wait=3, preamble="sleep 6")
    one.run("--config", "seconds=0")
    assert len(jobs(state)) == 1
    one.assert_nothing_left()


def test_pools_that_come_up_with_too_little_time(one: Workflow, state: Path):
    """Are not submitted one after the other for ever."""
    one.write(
        "Snakefile", "rule long:\n    output: 'long.txt'\n    resources: runtime=1\n    shell: 'touch {output}'\n"
    )
    submitting(one, walltime="00:02:00", margin=58, preamble="sleep 4", restarts=1)
    output = one.run(fails=True)
    assert "2 batch jobs in a row ended with no job finished" in output, output
    assert "had too little time for any job" in output, output
    assert len(jobs(state)) == 2
    one.assert_nothing_left()


def test_a_cancel_that_fails_is_repeated(one: Workflow, state: Path):
    """A batch job is not forgotten while it lives."""
    submitting(one, preamble="sleep 100")
    process = one.start("--config", "seconds=0")
    wait_for(lambda: jobs(state) and "session_id" in jobs(state)[0], 120)
    (state / "deaf").write_text("1")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert (state / "deaf").read_text() == "0"
    assert jobs(state)[0]["deleted"], output
    one.assert_nothing_left()


def test_no_reconnection(one: Workflow, state: Path):
    """It can be turned off."""
    submitting(one, reconnect=0)
    one.run("--config", "seconds=0")
    one.assert_nothing_left()


def test_options_are_split_into_directives():
    """A word that begins with a dash begins the next; what the shell would take apart is quoted."""
    assert directives("--constraint=gpu --gpus-per-node=4 --hold") == (
        "--constraint=gpu",
        "--gpus-per-node=4",
        "--hold",
    )
    assert directives("-l filesystems=home:flare -M a@b.org") == ("-l filesystems=home:flare", "-M a@b.org")
    assert directives("--comment='two words'") == ('"--comment=two words"',)
    with pytest.raises(BatchError, match="cannot be split"):
        directives("--comment='open")


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No commands, no walltime, a folder that no job script can name."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BatchError, match="qsub is not on PATH: is this a login node"):
        batch_system("pbs", tmp_path)
    commands, _ = pbs.install(tmp_path)
    monkeypatch.setenv("PATH", f"{commands}")
    with pytest.raises(BatchError, match="characters in its name"):
        batch_system("pbs", tmp_path / "a b")
    with pytest.raises(BatchError, match="needs a walltime"):
        wish_of(None, None)


def test_a_pool_with_too_little_time_makes_room(one: Workflow, state: Path):
    """When nothing that waits fits into its rest, it ends early, and the next one does it."""
    rule = "rule long:\n    input: expand('{n}.txt', n=range(6))\n    output: 'long.txt'\n    resources: runtime=1\n"
    one.write(
        "Snakefile", SIX.replace("range(6))", "range(6)), 'long.txt'", 1) + f"{rule}    shell: 'touch {{output}}'\n"
    )
    submitting(one, walltime="00:02:00", margin=57)
    output = one.run("--config", "seconds=2")
    assert "pool 1 (PBS job 1.standin) has too little time left for what is to be done, and ends" in output, output
    assert [job["Exit_status"] for job in jobs(state)] == [0, 0]
    one.assert_nothing_left()
