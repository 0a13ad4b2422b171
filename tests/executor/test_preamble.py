"""What a batch job does before its agents: its variables reach the jobs, and where it fails, the run says so."""

from __future__ import annotations

import os
import signal
import time

import pytest
from conftest import Workflow
from slurm import Slurm
from snakemake_executor_plugin_worksteal.start import PreambleError, environment_after

LOAD = "load() { echo loading $1; export LOADED=$1; }; "


def test_variables_that_commands_leave():
    before = {"PATH": "/usr/bin:/bin", "KEPT": "a b\nc", "GONE": "1"}
    after = environment_after(f"{LOAD} load 'x\ny'; unset GONE; export PATH=/new:$PATH", before)
    assert after["LOADED"] == "x\ny"
    assert after["KEPT"] == "a b\nc"
    assert after["PATH"] == "/new:/usr/bin:/bin"
    assert "GONE" not in after


def test_commands_that_leave_something_running():
    """A monitor, say: the agents do not wait for its end."""
    began = time.monotonic()
    after = environment_after("while sleep 20; do :; done & export PID=$!; export A=7", {"PATH": "/usr/bin:/bin"})
    assert time.monotonic() - began < 20
    assert after["A"] == "7"
    os.kill(int(after["PID"]), signal.SIGKILL)


@pytest.mark.parametrize("preamble", ["false", "true; module load nothing", "exit 3", "load ("])
def test_commands_that_fail(preamble):
    with pytest.raises(PreambleError, match=r"the preamble .* failed on "):
        environment_after(preamble, {"PATH": "/usr/bin:/bin"})


def test_in_a_batch_job_of_slurm(slurm: Slurm, one: Workflow):
    one.write("Snakefile", "rule make:\n    output: 'out'\n    shell: 'echo $LOADED > {output}'\n")
    one.environment = {**slurm.environment, "LOADED": "at login"}
    settings = ("--worksteal-submit", "slurm", "--worksteal-walltime", "5", "--worksteal-slots", "1")
    one.pool = (*settings, "--worksteal-preamble", f"{LOAD} load frameworks")
    one.run()
    assert one.lines("out") == ["frameworks"]
    one.pool = (*settings, "--worksteal-preamble", "echo no such module; false")
    output = one.run("--forceall", fails=True)
    assert "has started no agents, and another would not either: the preamble 'echo no such module; false'" in output
    assert output.count("is submitted") == 1, "another batch job would end in the same way"
