"""Jobs that save their state and end with status 75 go on: in the same pool, or when the workflow is run again."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from typing import Any

import psutil
import pytest
from conftest import Workflow, wait_for

# Each time it is told to end it counts one further; it is done when it has been told (or has stopped) often enough.
JOB = """
import pathlib, signal, sys, time

def work(name, output, often, waits):
    state = pathlib.Path("saved", name, "state")
    state.parent.mkdir(parents=True, exist_ok=True)
    done = int(state.read_text()) if state.exists() else 0

    def save(*_):
        state.write_text(str(done + 1))
        raise SystemExit(75)

    signal.signal(signal.SIGTERM, save)
    with open(output, "w") as out:
        out.write("half")
    with open("begun", "a") as begun:
        print(name, done, file=begun)
    if done < often:
        time.sleep(300) if waits else save()
    with open(output, "w") as out:
        out.write("whole\\n")
"""
SCRIPT = (
    JOB + "work(snakemake.wildcards.n, snakemake.output[0], snakemake.params.often, snakemake.params.get('waits', 0))\n"
)
PROGRAM = JOB + "work(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))\n"
THREE = f"""
rule all:
    input: "script-a.txt", "shell-b.txt", "plain-c.txt"
rule by_script:
    output: "script-{{n}}.txt"
    params: often=1, waits=1
    resources: resume=lambda w: f"saved/{{w.n}}"
    script: "job.py"
rule by_shell:
    output: "shell-{{n}}.txt"
    resources: resume=lambda w: f"saved/{{w.n}}"
    shell: "{sys.executable} program.py {{wildcards.n}} {{output}} 1 1; echo {{wildcards.n}} >> ended"
rule plain:
    output: "plain-{{n}}.txt"
    shell: "echo {{wildcards.n}} 0 >> begun; sleep 1; echo whole > {{output}}"
"""


def three_jobs(workflow: Workflow) -> None:
    """A script and a command that can go on later, and a job that cannot."""
    workflow.write("Snakefile", THREE)
    workflow.write("job.py", SCRIPT)
    workflow.write("program.py", PROGRAM)
    slots = list(workflow.pool)
    slots[-1] = "3"
    workflow.pool = tuple(slots)


def summary(workflow: Workflow) -> dict[str, Any]:
    """Of the last run."""
    folders = sorted((workflow.folder / ".snakemake" / "worksteal").glob("2*"))
    found: dict[str, Any] = json.loads((folders[-1] / "summary.json").read_text())
    return found


def law(workflow: Workflow, submitted: int) -> None:
    """When all is over, every job is done, failed, killed or to go on later."""
    tasks = summary(workflow)["tasks"]
    assert tasks["total"] == submitted == sum(tasks[each] for each in ("done", "failed", "killed", "later")), tasks


def test_sigterm_has_jobs_save_their_state_and_the_next_run_goes_on(workflow):
    """No error is reported, half of an output is removed, what was saved is kept; the next run needs no option."""
    three_jobs(workflow)
    process = workflow.start()
    wait_for(lambda: len(workflow.lines("begun")) == 3)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "worksteal: 2 jobs will go on later" in output, output
    assert "2 to go on later" in output, output
    assert "Error" not in output.replace("WorkflowError", ""), output
    assert "failed" not in output, output
    assert workflow.lines("plain-c.txt") == ["whole"], "a job that cannot go on later was not left to finish"
    assert not list(workflow.folder.glob("s*-?.txt")), "half of an output was left"
    assert [workflow.lines(f"saved/{n}/state") for n in "ab"] == [["1"], ["1"]]
    law(workflow, 3)
    assert summary(workflow)["tasks"]["later"] == 2
    workflow.assert_nothing_left()
    again = workflow.run()
    assert "later" not in again
    assert sorted(workflow.lines("begun")) == ["a 0", "a 1", "b 0", "b 1", "c 0"]
    assert workflow.lines("script-a.txt") == workflow.lines("shell-b.txt") == ["whole"]
    assert workflow.lines("ended") == ["b"]
    law(workflow, 2)


def test_a_job_that_waits_to_go_on_goes_on_in_the_next_run(one):
    """It has begun before: half of its output is removed, and it is not as if it had never been handed over."""
    one.write(
        "Snakefile",
        """
        rule all:
            input: "saves.txt", "long.txt"
        rule saves:
            output: "saves.txt"
            priority: 1
            shell: "echo half > {output}; echo saves >> begun; exit 75"
        rule long:
            output: "long.txt"
            shell: "echo long >> begun; sleep 1; touch {output}"
        """,
    )
    one.pool = ("--worksteal-launcher", "local", "--worksteal-slots", "1")
    process = one.start()
    assert process.stdout is not None
    for line in process.stdout:
        if "saves has saved its state and goes on" in line:
            break
    wait_for(lambda: len(one.lines("begun")) == 2)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert "worksteal: 1 job will go on later" in output, output
    assert one.lines("begun") == ["saves", "long"]
    assert not (one.folder / "saves.txt").exists()
    assert (one.folder / "long.txt").exists()
    law(one, 2)


def test_ctrl_c_keeps_what_jobs_have_saved(one):
    """The same, but that a job which cannot go on later has not finished."""
    three_jobs(one)
    one.write("Snakefile", THREE.replace("sleep 1;", "sleep {config[seconds]};"))
    process = one.start("--config", "seconds=60")
    wait_for(lambda: len(one.lines("begun")) == 3)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "worksteal: 2 jobs will go on later" in output, output
    assert "worksteal: 1 job had not finished" in output, output
    assert "Error in rule" not in output, output
    assert [one.lines(f"saved/{n}/state") for n in "ab"] == [["1"], ["1"]]
    assert not list(one.folder.glob("s*-?.txt")), "half of an output was left"
    one.assert_nothing_left()


def test_a_job_goes_on_in_the_same_pool_as_long_as_it_gets_on(one):
    """At the end of its priority; its log is kept, its output made anew, its duration that of all pieces."""
    one.write(
        "Snakefile",
        """
        rule all:
            input: "on.txt", expand("other-{n}.txt", n=range(5))
        rule pieces:
            output: "{n,on}.txt"
            log: "{n}.log"
            params: often=3
            resources: resume="saved/on"
            script: "job.py"
        rule other:
            output: "other-{n}.txt"
            shell: "echo other 0 >> begun; touch {output}"
        """,
    )
    one.write(
        "job.py",
        f"print('piece')\nopen(snakemake.log[0], 'a').write('line\\n')\nimport time\ntime.sleep(0.2)\n{SCRIPT}",
    )
    one.pool = ("--worksteal-launcher", "local", "--worksteal-slots", "1")
    output = one.run("--worksteal-resume-attempts", "1", "--worksteal-trace")
    begun = one.lines("begun")
    assert [line for line in begun if line != "other 0"] == [f"on {piece}" for piece in range(4)]
    # The first batch is one job, and the next ones are there when its first piece has ended.
    assert begun[-3:] == ["on 1", "on 2", "on 3"], begun
    assert one.lines("on.txt") == ["whole"]
    assert one.lines("on.log") == ["line"] * 4
    assert "later" not in output
    found = summary(one)
    law(one, 6)
    assert found["rules"]["pieces"]["tasks"] == 1
    assert found["events"]["piece"] == 3
    learnt = json.loads((one.folder / ".snakemake/worksteal/durations.json").read_text())
    assert learnt["pieces"] == pytest.approx(found["rules"]["pieces"]["mean_s"])
    assert learnt["pieces"] >= 0.8
    (folder,) = (one.folder / ".snakemake" / "worksteal").glob("2*")
    assert len(list((folder / "logs").glob("pieces-on-*.log"))) == 4
    spans = [each for each in json.loads((folder / "trace.json").read_text()) if each.get("cat") == "task"]
    assert [each["args"]["status"] for each in spans if each["args"]["rule"] == "pieces"] == [75, 75, 75, 0]


def test_a_job_that_never_gets_on_fails_with_a_sentence(one):
    """After so many further tries as are set; the others go on."""
    one.write(
        "Snakefile",
        """
        rule all:
            input: "command.txt", "script.txt", "good.txt"
        rule command:
            output: "command.txt"
            resources: resume="saved"
            shell: "echo command >> ran; exit 75"
        rule script:
            output: "script.txt"
            script: "stuck.py"
        rule good:
            output: "good.txt"
            shell: "touch {output}"
        """,
    )
    one.write("stuck.py", "open('ran', 'a').write('script\\n')\nraise SystemExit(75)\n")
    output = one.run("--keep-going", "--worksteal-resume-attempts", "2", fails=True)
    assert (
        "ended 3 times in a row with status 75, to go on later, without progress: nothing has changed in saved"
        in output
    )
    assert re.search(r"without progress: none that could be seen, .*\(resource resume\)", output), output
    assert sorted(one.lines("ran")) == ["command"] * 3 + ["script"] * 3
    assert (one.folder / "good.txt").exists()
    assert summary(one)["tasks"] == {"total": 3, "done": 1, "failed": 2, "killed": 0, "later": 0}


def test_a_batch_system_that_ends_all_at_once(one):
    """SIGTERM to Snakemake and to its agent: what was saved is kept, and half of an output is not taken for a whole."""
    three_jobs(one)
    one.write("Snakefile", THREE.replace("sleep 1;", "echo half > {output}; sleep {config[seconds]};"))
    process = one.start("--config", "seconds=60")
    wait_for(lambda: len(one.lines("begun")) == 3 and bool(one.lines("plain-c.txt")))
    (agent,) = (
        found for found in psutil.Process(process.pid).children() if "worksteal.agent" in " ".join(found.cmdline())
    )
    os.kill(process.pid, signal.SIGTERM)
    agent.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "worksteal: 2 jobs will go on later" in output, output
    assert "worksteal: 1 job had not finished" in output, output
    assert one.lines("plain-c.txt") == ["half"]
    one.assert_nothing_left()
    assert "plain-c.txt" in one.run("--config", "seconds=0", fails=True).partition("incomplete")[2]
