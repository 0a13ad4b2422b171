"""Pools that cannot start, die again and again, or are not what was asked for; the order of jobs; the terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from dataclasses import fields

import pytest
from conftest import wait_for
from snakemake_executor_plugin_worksteal.launch import LaunchError, allocated_nodes, choose_launch, is_down
from snakemake_executor_plugin_worksteal.node import Node, NodeError, find_devices, find_node, masks, memory_of_node
from snakemake_executor_plugin_worksteal.settings import LEAST, ExecutorSettings, check_ranges

ONE_JOB = "rule make:\n    output: 'out.txt'\n    shell: 'touch {output}'\n"


def test_ranks_that_do_not_find_each_other_are_noticed(one):
    """Several worlds of one rank: the usual result of mpi4py and mpiexec of different MPIs."""
    one.write("Snakefile", ONE_JOB)
    one.write("many.sh", '#!/bin/bash\nn=$1; shift\nfor i in $(seq $n); do "$@" & done; wait\n').chmod(0o755)
    one.pool = ("--worksteal-launcher", f"{one.folder}/many.sh {{nodes}}", "--worksteal-nodes", "3")
    output = one.run(fails=True)
    assert re.search(r"asked for 3 agents, and they found themselves in MPI worlds of 1", output), output
    one.assert_nothing_left()


def test_a_launcher_that_is_missing_or_fails_says_so(one):
    """Before any job has begun, with what the launcher printed."""
    one.write("Snakefile", ONE_JOB)
    one.pool = ("--worksteal-launcher", "no-such-launcher -n {nodes}")
    assert "'no-such-launcher' is not on PATH" in one.run(fails=True)
    one.write("broken.sh", "#!/bin/sh\necho no such partition >&2\nexit 5\n").chmod(0o755)
    one.pool = ("--worksteal-launcher", f"{one.folder}/broken.sh", "--worksteal-restarts", "1")
    output = one.run(fails=True)
    assert re.search(r"the pool died 2 times .* ended with status 5 .*it printed: no such partition", output), output


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        (("--worksteal-devices", "gpu!"), "'auto', a number, or a list"),
        (("--worksteal-slots", "0"), "slots is 0"),
        (("--worksteal-launcher", "local", "--worksteal-nodes", "3"), "cannot be 3 nodes"),
        (("--worksteal-address", "http://here"), "address"),
        (("--immediate-submit", "--notemp"), "immediate-submit"),
    ],
)
def test_settings_that_make_no_sense_get_a_sentence(one, setting, sentence):
    """Bad settings are named before anything is started."""
    one.write("Snakefile", ONE_JOB)
    one.pool = ("--worksteal-launcher", "local")
    output = one.run(*setting, fails=True)
    assert sentence in output, output
    assert "Traceback" not in output, output


def test_numbers_that_are_too_small_get_a_sentence():
    """Every number has a least value, which is allowed; what is not set is allowed as well."""
    numbers = {each.name for each in fields(ExecutorSettings) if each.type == int | None}
    assert numbers == LEAST.keys()
    check_ranges(ExecutorSettings(**dict.fromkeys(LEAST)))
    check_ranges(ExecutorSettings(**LEAST))
    for name, least in LEAST.items():
        for value in (least - 1, -3):
            with pytest.raises(ValueError, match=f"^{name.replace('_', '-')} is {value}; it must be {least} or more$"):
                check_ranges(ExecutorSettings(**{name: value}))


def test_a_job_that_always_kills_its_agent_ends_the_workflow(workflow):
    """The pool is started again a few times, then the workflow ends with a sentence; what had finished is kept."""
    workflow.write(
        "Snakefile",
        """
        rule all:
            input: "good.txt", "bad.txt"
        rule good:
            output: "good.txt"
            priority: 1
            shell: "echo good >> ran; touch {output}"
        rule bad:
            input: "good.txt"
            output: "bad.txt"
            shell: "echo bad >> ran; runner=$PPID; kill -9 $(ps -o ppid= -p $runner); sleep 60"
        """,
    )
    output = workflow.run("--worksteal-restarts", "2", fails=True)
    assert "the pool died 3 times with no job finished in between" in output, output
    assert workflow.lines("ran") == ["good", "bad", "bad", "bad"]
    workflow.assert_nothing_left()


def test_after_the_pools_death_jobs_begin_afresh(workflow):
    """Half of an output that a dead pool left is removed before the job is run again; a large config travels once."""
    workflow.write(
        "Snakefile",
        """
        config["large"] = "x" * 3_000_000
        rule all:
            input: "half.txt", expand("{n}.txt", n=range(100))
        rule half:
            output: "half.txt"
            priority: 1
            shell:
                "echo line >> {output}; [ -e tried ] || {{ touch tried; runner=$PPID; "
                "kill -9 $(ps -o ppid= -p $runner); sleep 60; }}"
        rule script:
            output: "{n}.txt"
            script: "script.py"
        """,
    )
    workflow.write("script.py", "open(snakemake.output[0], 'w').write(str(len(snakemake.config['large'])))\n")
    output = workflow.run()
    assert "the pool died" in output
    assert workflow.lines("half.txt") == ["line"]
    assert workflow.lines("99.txt") == ["3000000"]


def test_the_longest_go_first_once_durations_are_known(workflow):
    """What a rule took in an earlier run, or `runtime`, puts its jobs ahead of shorter ones."""
    workflow.write(
        "Snakefile",
        """
        rule all:
            input: "short.txt", "long.txt", "stated.txt"
        rule short:
            output: "short.txt"
            shell: "echo short >> order; touch {output}"
        rule long:
            output: "long.txt"
            shell: "echo long >> order; sleep 0.5; touch {output}"
        rule stated:
            output: "stated.txt"
            resources: runtime=5
            shell: "echo stated >> order; touch {output}"
        """,
    )
    workflow.pool = (*workflow.pool[:2], "--worksteal-nodes", "1", "--worksteal-slots", "1")
    workflow.run()
    learnt = json.loads((workflow.folder / ".snakemake/worksteal/durations.json").read_text())
    assert learnt["long"] > 0.5 > learnt["short"]
    (workflow.folder / "order").unlink()
    workflow.run("--forceall")
    assert workflow.lines("order") == ["stated", "long", "short"]


def test_affinity_and_large_command_lines(workflow):
    """A hint is accepted, and so is a command longer than the system's limit for one argument."""
    workflow.write(
        "Snakefile",
        """
        rule all:
            input: expand("{n}.txt", n=range(4)), "large.txt"
        rule make:
            output: "{n}.txt"
            resources: affinity=lambda wildcards: f"part-{int(wildcards.n) % 2}"
            shell: "touch {output}"
        rule large:
            output: "large.txt"
            params: text="x" * 200_000
            shell: "echo {params.text} | wc -c > {output}"
        """,
    )
    workflow.run()
    assert workflow.lines("large.txt") == ["200001"]


def test_the_live_line_on_a_terminal(one):
    """On a terminal one line is redrawn in place and Snakemake's own output stays whole."""
    one.write(
        "Snakefile",
        """
        rule all:
            input: expand("{n}.txt", n=range(8))
        rule make:
            output: "{n}.txt"
            shell: "sleep 0.4; touch {output}"
        """,
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        one.command("--nocolor"), cwd=one.folder, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    one.started.append(process)
    os.close(theirs)
    screen = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        if not piece:
            break
        screen += piece
    os.close(ours)
    assert process.wait(30) == 0, screen.decode()
    text = screen.decode()
    assert re.search(r"\d of 8 done, 2 running, \d queued", text), text
    # A redrawn line begins where the cursor is put back to, and what Snakemake prints begins on a line of its own.
    for finished in re.finditer("Finished jobid", text):
        assert text[: finished.start()].endswith("\n"), repr(text[finished.start() - 80 : finished.end()])


def test_snakemake_gone_while_the_pool_starts(workflow):
    """Killed before the pool is up, Snakemake leaves nothing behind either."""
    workflow.write("Snakefile", ONE_JOB)
    process = workflow.start("--worksteal-preload", "time")
    wait_for(lambda: any("worksteal.agent" in " ".join(found.cmdline()) for found in workflow.left()))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    workflow.assert_nothing_left(patience=60)


def test_a_slow_node_does_less(one):
    """What waits at a node that takes thirty times as long, that which runs the first job, is stolen by the others."""
    one.pool = ("--worksteal-launcher", "mpiexec", "--worksteal-nodes", "4", "--worksteal-slots", "1")
    one.write(
        "job.sh",
        """
        mkdir first 2>/dev/null && echo $WORKSTEAL_POOL > first/pool
        case $WORKSTEAL_POOL in "$(cat first/pool)") sleep 3; echo slow;; *) sleep 0.1; echo fast;; esac >> ended
        """,
    )
    one.write(
        "Snakefile",
        """
        rule all:
            input: expand("{n}.txt", n=range(40))
        rule make:
            output: "{n}.txt"
            shell: "bash job.sh; touch {output}"
        """,
    )
    one.run()
    assert len(one.lines("ended")) == 40
    assert 1 <= one.lines("ended").count("slow") <= 4


def test_launch_of_allocations(tmp_path):
    """Nodes are counted from what Slurm and PBS say; the launcher is chosen from that."""
    assert allocated_nodes({}) == 0
    assert allocated_nodes({"SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "4"}) == 4
    hosts = tmp_path / "hosts"
    hosts.write_text("a\na\nb\n")
    assert allocated_nodes({"PBS_NODEFILE": str(hosts)}) == 2
    with pytest.raises(LaunchError, match="cannot be read"):
        allocated_nodes({"PBS_NODEFILE": str(tmp_path / "none")})
    path = {"PATH": os.environ["PATH"]}
    assert choose_launch("auto", None, path).is_local
    many = choose_launch("auto", None, {**path, "PBS_NODEFILE": str(hosts)})
    assert many.command(tmp_path)[1:] == [
        *("-n", "2", "-ppn", "1", sys.executable, "-m"),
        *("snakemake_executor_plugin_worksteal.agent", str(tmp_path), "--mpi"),
    ]
    with pytest.raises(LaunchError, match="cannot be 3 nodes"):
        choose_launch("local", 3, path)
    with pytest.raises(LaunchError, match="is no command"):
        choose_launch("mpiexec -n {ranks}", 2, path)


@pytest.mark.parametrize(("launcher", "words"), [("srun", ["--nodes=2", "--exclude=n2,n4"]), ("mpiexec", ["-n", "2"])])
def test_nodes_that_slurm_says_are_gone_are_left_out(tmp_path, launcher, words):
    """The command for those left, and what an MPI's launcher is told; n2 is down, n4 was taken from the job."""
    says = {
        "scontrol": "case $3 in 'n[1-3]') printf 'n1\\nn2\\nn3\\n';; *) printf 'n1\\nn2\\nn3\\nn4\\n';; esac",
        "squeue": "echo 'n[1-3]'",
        "sinfo": "echo; echo a notice of the site; printf 'n1 idle\\nn2 down*\\nn2 down*\\nn3 draining\\n'",
        "srun": "",
        "mpiexec": "",
    }
    for name, text in says.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NUM_NODES": "4",
        "SLURM_JOB_NODELIST": "n[1-4]",
        "PATH": f"{tmp_path}:/bin",
    }
    launch = choose_launch(launcher, None, slurm)
    assert (launch.nodes, launch.gone, launch.in_slurm) == (2, ("n2", "n4"), True)
    assert set(words) <= set(launch.prefix)
    assert launch.environment["SLURM_JOB_NODELIST"] == "n1,n3"
    assert choose_launch(launcher, None, slurm, leave_out=False).nodes == 4
    (tmp_path / "sinfo").write_text("#!/bin/sh\nexit 1\n")
    launch = choose_launch(launcher, None, slurm)
    assert (launch.nodes, launch.gone, launch.in_slurm, launch.environment) == (4, (), False, {})


@pytest.mark.parametrize("state", ["down", "down*", "idle*", "down$", "allocated*", "drained", "idle~", "fail"])
def test_states_of_nodes_that_can_run_nothing(state):
    assert is_down(state)


@pytest.mark.parametrize("state", ["idle", "mixed", "allocated", "draining", "failing", "allocated+", "idle#"])
def test_states_of_nodes_that_are_up(state):
    assert not is_down(state)


def test_parts_of_a_node(tmp_path):
    """Agents on one machine share what was found and each have what was stated; masks name just the given devices."""
    cores = len(os.sched_getaffinity(0))
    parts = [find_node("h", None, "auto", None, part=part, parts=2) for part in range(2)]
    assert sum(part.cores for part in parts) == max(2, cores)
    assert find_node("h", 7, "3", 500, part=1, parts=2).cores == 7
    assert find_node("h", 7, "3", 500, part=1, parts=2).devices == ("1",)
    assert find_devices("GPU-8a-1") == ("GPU-8a-1",)
    assert memory_of_node() > 100
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl"):
        (tmp_path / name).touch()
    assert find_devices("auto", {}, tmp_path) == ("0", "1", "2")
    assert find_devices("auto", {"ZE_AFFINITY_MASK": "0.0,0.1"}, tmp_path) == ("0.0", "0.1")
    with pytest.raises(NodeError, match="'auto', a number, or a list"):
        find_devices("gpu!", {}, tmp_path)
    assert masks(Node("h", 1, (), 0), ()) == {}
    assert masks(Node("h", 1, ("4", "7"), 0, True), (1,))["CUDA_VISIBLE_DEVICES"] == "7"
    assert masks(Node("h", 1, (), 0, True), ())["CUDA_VISIBLE_DEVICES"] == "-1"
