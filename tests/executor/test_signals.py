"""Ctrl-C and SIGTERM behave as with Snakemake's local executor."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import suppress

from conftest import wait_for

SLEEPERS = """
rule all:
    input: expand("{n}.txt", n=range(20))
rule make:
    output: "{n}.txt"
    shell: "echo {wildcards.n} >> begun; sleep {config[seconds]}; touch {output}; echo {wildcards.n} >> ended"
"""


def test_ctrl_c_ends_everything_and_the_next_run_goes_on(workflow):
    """What runs is ended at once, nothing is left, and the second run does what had not finished."""
    workflow.write("Snakefile", SLEEPERS)
    process = workflow.start("--config", "seconds=30")
    wait_for(lambda: len(workflow.lines("begun")) >= 2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in output, output
    workflow.assert_nothing_left()
    assert not workflow.lines("ended")
    workflow.run("--config", "seconds=0", "--rerun-incomplete")
    assert len(workflow.lines("ended")) == 20


def test_sigterm_lets_running_jobs_finish_and_begins_no_more(workflow):
    """What runs is finished and kept; what waited in the pool is neither begun nor marked as incomplete."""
    workflow.write("Snakefile", SLEEPERS)
    process = workflow.start("--config", "seconds=1")
    wait_for(lambda: len(workflow.lines("begun")) >= 2)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Will exit after finishing currently running jobs" in output
    assert sorted(workflow.lines("begun")) == sorted(workflow.lines("ended")), output
    assert len(workflow.lines("begun")) < 12, output
    workflow.assert_nothing_left()
    assert not list((workflow.folder / ".snakemake" / "incomplete").iterdir())
    workflow.run("--config", "seconds=0")
    assert sorted(workflow.lines("ended"), key=int) == [str(n) for n in range(20)]


def test_a_closed_terminal_leaves_nothing_behind(workflow):
    """SIGHUP ends Snakemake; the pool notices and ends its jobs, those too that do not listen to SIGTERM."""
    workflow.write("Snakefile", SLEEPERS.replace("sleep", "trap '' TERM; sleep"))
    process = workflow.start("--config", "seconds=60")
    wait_for(lambda: len(workflow.lines("begun")) >= 2)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    workflow.assert_nothing_left()


def test_a_second_ctrl_c_does_not_wait_for_the_grace(workflow):
    """Jobs that ignore SIGTERM have the grace; an impatient user need not wait for it."""
    workflow.write("Snakefile", SLEEPERS.replace("sleep", "trap '' TERM; sleep"))
    process = workflow.start("--config", "seconds=600", "--worksteal-grace", "300")
    wait_for(lambda: len(workflow.lines("begun")) >= 2)
    process.send_signal(signal.SIGINT)
    for line in process.stdout:
        if "Ctrl-C again kills them" in line:
            break
    deadline = time.monotonic() + 60
    # More than once, as users do: one that comes while Snakemake writes its log is swallowed by it.
    while process.poll() is None and time.monotonic() < deadline:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
    output = process.stdout.read()
    assert process.returncode not in (None, 0)
    assert "running jobs are killed" in output
    assert "Traceback" not in output, output
    workflow.assert_nothing_left()
