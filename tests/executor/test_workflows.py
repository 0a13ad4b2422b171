"""Workflows of all sorts behave as with Snakemake's local executor."""

from __future__ import annotations

import json
import os
import re
import stat

import pytest


def test_a_workflow_of_everything(workflow):
    """Shell, script, run, local rules, logs, benchmarks, temporary and protected files, a checkpoint; the second run is
    empty.
    """
    workflow.write(
        "Snakefile",
        """
        configfile: "config.yaml"
        localrules: all, here
        rule all:
            input: "sum.txt", "here.txt", "protected.txt", "bench.tsv"
        rule here:
            output: "here.txt"
            shell: "echo here > {output}"
        rule make:
            output: temp("parts/{n}.txt")
            log: "logs/make/{n}.log"
            threads: 1
            shell: "echo {wildcards.n} > {output}; echo made {wildcards.n} > {log}; echo $OMP_NUM_THREADS >> {log}"
        checkpoint split:
            output: directory("split")
            shell: "mkdir split; for i in 1 2 3; do touch split/$i; done"
        def parts(wildcards):
            folder = checkpoints.split.get().output[0]
            import os
            return expand("doubled/{n}.txt", n=sorted(name for name in os.listdir(folder) if name.isdigit()))
        rule double:
            input: "parts/{n}.txt"
            output: "doubled/{n}.txt"
            params: factor=2, table={"a": [1, 2]}
            log: "logs/double/{n}.log"
            script: "scripts/double.py"
        rule sum:
            input: parts
            output: "sum.txt"
            run:
                total = sum(int(open(path).read()) for path in input)
                with open(output[0], "w") as out:
                    print(total + config["extra"], file=out)
        rule protect:
            output: protected("protected.txt")
            benchmark: repeat("bench.tsv", 2)
            shell: "echo p > {output}"
        rule unused:
            output: "bench.tsv.never"
            shell: "false"
        """,
    )
    workflow.write("config.yaml", "extra: 100\n")
    workflow.write(
        "scripts/double.py",
        """
        import os
        from pathlib import Path

        assert snakemake.params.table == {"a": [1, 2]} and snakemake.config["extra"] == 100
        assert Path(__file__).name == "double.py" and snakemake.rule == "double"
        assert os.path.isdir(snakemake.resources.tmpdir), snakemake.resources.tmpdir
        value = int(Path(snakemake.input[0]).read_text()) * snakemake.params.factor
        Path(snakemake.output[0]).write_text(f"{value}\\n")
        Path(snakemake.log[0]).write_text(f"doubled {snakemake.wildcards.n}\\n")
        """,
    )
    first = workflow.run()
    assert re.search(r"worksteal: \d nodes? \(.+\), \d slots, no devices, launcher: ", first), first
    assert workflow.lines("sum.txt") == ["112"]
    assert workflow.lines("logs/make/2.log") == ["made 2", "1"]
    assert workflow.lines("logs/double/3.log") == ["doubled 3"]
    assert not (workflow.folder / "parts").exists() or not os.listdir(workflow.folder / "parts")
    assert not os.stat(workflow.folder / "protected.txt").st_mode & stat.S_IWUSR
    rows = workflow.lines("bench.tsv")
    assert len(rows) == 3
    assert rows[0].split("\t")[:3] == ["s", "h:m:s", "max_rss"]
    assert "Nothing to be done" in workflow.run()
    workflow.assert_nothing_left()


def test_a_failed_job_is_explained_and_only_it_is_repeated(workflow):
    """Rule, wildcards, exit status, the last lines of its output, where the rest is; its neighbours are kept."""
    workflow.write(
        "Snakefile",
        """
        rule all:
            input: expand("{n}.txt", n=["a", "b", "c"])
        rule make:
            output: "{n}.txt"
            shell:
                "echo {wildcards.n} >> ran; echo trying {wildcards.n}; "
                "[ {wildcards.n} != b ] || [ -e mended ] || exit 7; touch {output}"
        """,
    )
    output = workflow.run("--keep-going", fails=True)
    assert "Error in rule make" in output
    assert "wildcards: n=b" in output
    assert "status: exit status 7" in output
    assert re.search(r"last lines:\s+trying b", output), output
    log = re.search(r"all output: (\S+\.log)", output)
    assert log
    assert workflow.lines(log.group(1)) == ["trying b"]
    assert sorted(workflow.lines("ran")) == ["a", "b", "c"]
    workflow.write("mended", "")
    workflow.run()
    assert sorted(workflow.lines("ran")) == ["a", "b", "b", "c"]


def test_signals_and_script_errors_are_named(workflow):
    """A segmentation fault and a Python exception each say what they were."""
    workflow.write(
        "Snakefile",
        """
        rule all:
            input: "crash.txt", "raise.txt"
        rule crash:
            output: "crash.txt"
            script: "crash.py"
        rule exception:
            output: "raise.txt"
            script: "raise.py"
        """,
    )
    workflow.write("crash.py", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    workflow.write("raise.py", "def inner():\n    raise ValueError('no such drug: X')\n\ninner()\n")
    output = workflow.run("--keep-going", fails=True)
    assert "SIGSEGV" in output
    assert "ValueError: no such drug: X" in output
    assert re.search(r'raise.py", line 4', output), output


def test_without_keep_going_nothing_new_begins(workflow):
    """After a failure, what runs is finished and what waits in the pool is not begun, nor left marked as incomplete."""
    workflow.write(
        "Snakefile",
        """
        rule all:
            input: "bad.txt", expand("{n}.txt", n=range(30))
        rule bad:
            output: "bad.txt"
            priority: 10
            shell: "sleep 0.5; exit 3"
        rule make:
            output: "{n}.txt"
            shell: "echo {wildcards.n} >> ran; sleep 0.3; touch {output}"
        """,
    )
    output = workflow.run(fails=True)
    begun = workflow.lines("ran")
    assert 0 < len(begun) < 20, output
    assert output.count("Error in rule") == 1, output
    assert all((workflow.folder / f"{n}.txt").exists() for n in begun)
    assert not list((workflow.folder / ".snakemake" / "incomplete").iterdir())


def test_a_missing_output_stops_the_workflow_as_well(workflow):
    """Without --keep-going nothing more begins, whatever a job fails of; old output of what did not begin is kept."""
    workflow.write(
        "Snakefile",
        """
        rule all:
            input: "bad.txt", expand("{n}.txt", n=range(30))
        rule bad:
            output: "bad.txt"
            priority: 10
            shell: "true"
        rule make:
            output: "{n}.txt"
            shell: "echo {wildcards.n} >> ran; sleep 0.3; touch {output}"
        """,
    )
    for n in range(30):
        workflow.write(f"{n}.txt", "old\n")
    output = workflow.run("--forceall", "--latency-wait", "0", fails=True)
    begun = workflow.lines("ran")
    assert len(begun) < 20, output
    assert all(workflow.lines(f"{n}.txt") == ["old"] for n in range(30) if str(n) not in begun)
    assert all(workflow.lines(f"{n}.txt") == [] for n in begun)


def test_a_retry_does_not_stop_the_workflow(workflow):
    """A job that may be tried again is, and the others go on."""
    workflow.write(
        "Snakefile",
        """
        rule all:
            input: expand("{n}.txt", n=range(12))
        rule make:
            output: "{n}.txt"
            retries: 1
            shell: "[ -e tried-{wildcards.n} ] || {{ touch tried-{wildcards.n}; exit 1; }}; touch {output}"
        """,
    )
    workflow.run()


def test_modules_and_the_names_in_a_command(workflow):
    """A command of a module's rule is formatted with that module's names; TMPDIR is set; repeats are counted."""
    workflow.write(
        "Snakefile",
        """
        config["who"] = "main"
        module other:
            snakefile: "other.smk"
            config: {"who": "module"}
        use rule * from other as other_*
        rule all:
            default_target: True
            input: "module.txt", "main.txt", "repeats.txt"
        rule main:
            output: "main.txt"
            shell: "echo {config[who]} $TMPDIR > {output}"
        rule repeats:
            output: "repeats.txt"
            benchmark: repeat("bench.tsv", 2)
            shell: "echo {bench_iteration} >> counted; touch {output}"
        """,
    )
    workflow.write(
        "other.smk",
        """
        rule say:
            output: "module.txt"
            shell: "echo {config[who]} > {output}"
        """,
    )
    workflow.environment.pop("TMPDIR", None)
    workflow.run()
    assert workflow.lines("module.txt") == ["module"]
    assert workflow.lines("main.txt") == ["main /tmp"]
    assert workflow.lines("counted") == ["0", "1"]


def test_retries_raise_attempt_and_resources(workflow):
    """`attempt` counts and resources that depend on it are evaluated anew."""
    workflow.write(
        "Snakefile",
        """
        rule all:
            input: "done.txt", "script.txt"
        rule flaky:
            output: "done.txt"
            retries: 3
            resources: mem_mb=lambda wildcards, attempt: attempt * 100
            shell: "echo {resources.mem_mb} >> attempts; [ {resources.mem_mb} -ge 300 ] && touch {output}"
        rule flaky_script:
            output: "script.txt"
            retries: 1
            params: attempt=lambda wildcards, attempt=1: attempt
            resources: tries=lambda wildcards, attempt: attempt
            script: "flaky.py"
        """,
    )
    workflow.write(
        "flaky.py",
        """
        assert snakemake.resources.tries == 2, snakemake.resources.tries
        open(snakemake.output[0], "w").close()
        """,
    )
    workflow.run()
    assert workflow.lines("attempts") == ["100", "200", "300"]


def test_priorities_and_jobs(workflow):
    """With one slot jobs begin by priority; with --jobs 1 no two run together."""
    workflow.write(
        "Snakefile",
        """
        rule all:
            input: expand("{n}.txt", n=range(8))
        for index in range(8):
            rule:
                name: f"rule_{index}"
                output: f"{index}.txt"
                priority: index
                params: index=index
                shell: "echo {params.index} >> order; sleep 0.05; touch {output}"
        """,
    )
    several = (*workflow.pool[:-1], "4")
    workflow.pool = (*workflow.pool[:2], "--worksteal-nodes", "1", "--worksteal-slots", "1")
    workflow.run()
    # The first batch is one job: the most urgent begins before the pool has seen the rest.
    assert workflow.lines("order") == [str(index) for index in reversed(range(8))]
    workflow.write(
        "Snakefile",
        (workflow.folder / "Snakefile").read_text().replace("sleep 0.05", "mkdir lock && sleep 0.05 && rmdir lock"),
    )
    workflow.pool = several
    workflow.run("--jobs", "1", "--forceall")


@pytest.mark.parametrize("depth", ["minimal", "shallow", "full", "copy-minimal"])
def test_shadow(workflow, depth):
    """Shadow rules run in a folder of their own."""
    workflow.write(
        "Snakefile",
        f"""
        rule shadowed:
            input: "in.txt"
            output: "out.txt"
            shadow: "{depth}"
            shell: "cp {{input}} {{output}}; touch junk"
        """,
    )
    workflow.write("in.txt", "text\n")
    workflow.run()
    assert workflow.lines("out.txt") == ["text"]
    assert not (workflow.folder / "junk").exists()


def test_pipes_services_and_groups(workflow):
    """Jobs that must run together do, in one job of the pool."""
    workflow.write(
        "Snakefile",
        """
        rule all:
            input: "piped.txt", "served.txt", expand("end/{n}.txt", n=range(3))
        rule source:
            output: pipe("stream")
            shell: "seq 5 > {output}"
        rule sink:
            input: "stream"
            output: "piped.txt"
            shell: "cat {input} > {output}"
        rule server:
            output: service("server.socket")
            shell: "touch {output}; trap 'rm -f {output}; exit 0' TERM; while true; do sleep 0.1; done"
        rule client:
            input: "server.socket"
            output: "served.txt"
            shell: "test -e {input} && touch {output}"
        rule begin:
            output: "begin/{n}.txt"
            group: "pair"
            shell: "echo {wildcards.n} > {output}"
        rule end:
            input: "begin/{n}.txt"
            output: "end/{n}.txt"
            group: "pair"
            shell: "cp {input} {output}"
        """,
    )
    # A piped pair and a service with its client need two cores of one node.
    pool = list(workflow.pool)
    pool[-1] = "2"
    workflow.pool = tuple(pool)
    workflow.run()
    assert workflow.lines("piped.txt") == list("12345")
    assert workflow.lines("end/2.txt") == ["2"]
    workflow.assert_nothing_left()


def test_report_touch_and_dry_run(workflow):
    """A report can be made, files touched, and a dry run starts no pool."""
    workflow.write(
        "Snakefile",
        """
        rule make:
            output: report("figure.txt", category="figures")
            shell: "echo figure > {output}"
        """,
    )
    assert "worksteal:" not in workflow.run("--dry-run")
    assert not (workflow.folder / ".snakemake" / "worksteal").exists()
    workflow.run()
    workflow.run("--report", "report.html")
    assert "figures" in (workflow.folder / "report.html").read_text()
    assert "worksteal:" not in workflow.run("--touch", "--forceall")


def test_a_memory_limit_ends_a_job_with_a_sentence(workflow):
    """`mem_mb` of a rule ends a job that uses more; Snakemake's own guess for a rule that states none is no limit."""
    workflow.write(
        "Snakefile",
        """
        rule all:
            input: "large.txt", "free.txt"
        rule large:
            output: "large.txt"
            resources: mem_mb=120
            script: "large.py"
        rule free:
            output: "free.txt"
            script: "large.py"
        """,
    )
    workflow.write(
        "large.py",
        """
        import time

        limited = snakemake.rule == "large"
        data = bytearray(300_000_000 if limited else 1_100_000_000)
        for index in range(0, len(data), 4096):
            data[index] = 1
        if limited:
            time.sleep(60)
        open(snakemake.output[0], "w").close()
        """,
    )
    output = workflow.run("--keep-going", fails=True)
    assert re.search(r"used \d+ MB, more than its mem_mb=120", output), output
    assert (workflow.folder / "free.txt").exists()
    assert not (workflow.folder / "large.txt").exists()


def test_preload_reuse_folder_and_no_progress(workflow):
    """What scripts find and where files are, first with no such setting, then with all of them."""
    workflow.write(
        "Snakefile",
        """
        rule all:
            input: expand("{n}.txt", n=range(16))
        rule make:
            output: "{n}.txt"
            script: "look.py"
        """,
    )
    workflow.write(
        "look.py",
        """
        import os, sys

        found = [name for name in ("colorsys", "wave", "poplib") if name in sys.modules]
        with open(snakemake.output[0], "w") as out:
            print(os.getpid(), *found, file=out)
        """,
    )

    def seen() -> tuple[int, set[str]]:
        words = [workflow.lines(f"{n}.txt")[0].split(" ", 1) for n in range(16)]
        return len({pid for pid, *_ in words}), {" ".join(found) for _, *found in words}

    output = workflow.run()
    assert seen() == (16, {""})
    assert "worksteal: 16 of 16 done" in output
    runs = workflow.folder / ".snakemake" / "worksteal"
    assert len(list(runs.glob("2*/summary.json"))) == 1
    settings = ("--worksteal-preload", "colorsys, wave", "--worksteal-reuse", "20", "--worksteal-folder", "deep/files")
    output = workflow.run("--forceall", *settings, "--worksteal-no-progress")
    processes, modules = seen()
    assert processes <= 4, "as many as there are slots"
    assert modules == {"colorsys wave"}
    assert "of 16 done" not in output
    assert {path.name for path in (workflow.folder / "deep" / "files").iterdir() if path.is_file()} == {
        "durations.json"
    }
    assert len(list(workflow.folder.glob("deep/files/2*/summary.json"))) == 1
    assert len(list(runs.glob("2*"))) == 1


def test_memory_mb_and_no_memory_limit(workflow):
    """Jobs that do not fit into a node's memory together are not together; with no limit one may use what it likes."""
    workflow.write(
        "Snakefile",
        """
        rule all:
            input: expand("{n}.txt", n=range(12)), "huge.txt", "large.txt"
        rule make:
            output: "{n}.txt"
            resources: mem_mb=600
            shell: 'mkdir "lock-$WORKSTEAL_POOL" && sleep 0.2 && rmdir "lock-$WORKSTEAL_POOL" && touch {output}'
        rule huge:
            output: "huge.txt"
            resources: mem_mb=1001
            shell: "touch {output}"
        rule large:
            output: "large.txt"
            resources: mem_mb=120
            script: "large.py"
        """,
    )
    workflow.write(
        "large.py",
        """
        import time

        data = bytearray(300_000_000)
        data[::4096] = b"x" * len(data[::4096])
        time.sleep(1.6)  # three looks at a task's memory, had it a limit
        open(snakemake.output[0], "w").close()
        """,
    )
    workflow.pool = (*workflow.pool[:-1], "2")
    output = workflow.run("--keep-going", "--worksteal-memory-mb", "1000", "--worksteal-no-memory-limit", fails=True)
    assert output.count("Error in rule") == 1, output
    assert re.search(r"no node of the pool can run this job: .* and 1001 MB, the largest node has .* 1000 MB", output)
    assert all((workflow.folder / f"{name}.txt").exists() for name in (*range(12), "large"))


def test_a_time_limit_ends_a_job_with_a_sentence_or_has_it_go_on(workflow):
    """`runtime` (minutes) ends a job and what it started; one that then saves its state (status 75) is run again."""
    workflow.write(
        "Snakefile",
        """
        import sys
        rule all:
            input: "slow.txt", "script.txt", "command.txt"
        rule slow:
            output: "slow.txt"
            resources: runtime=1
            shell: "sleep 300; touch {output}"
        rule script:
            output: "script.txt"
            resources: runtime=1
            script: "saves.py"
        rule command:
            output: "command.txt"
            resources: runtime=1
            params: python=sys.executable
            shell: "{params.python} saves.py {output}; echo command >> ended"
        """,
    )
    workflow.write(
        "saves.py",
        """
        import os, signal, sys, time
        output = snakemake.output[0] if "snakemake" in globals() else sys.argv[1]

        def save(*_):
            open(f"{output}.saved", "w").close()
            raise SystemExit(75)

        signal.signal(signal.SIGTERM, save)
        open("begun", "a").write(f"{output}\\n")
        if not os.path.exists(f"{output}.saved"):
            time.sleep(300)
        open(output, "w").close()
        """,
    )
    slots = list(workflow.pool)
    slots[-1] = "3"
    workflow.pool = tuple(slots)
    output = workflow.run("--keep-going", fails=True)
    assert re.search(r"ran over its limit of 60 s \(resource runtime\)", output), output
    assert output.count("Error in rule") == 1, output
    for name in ("script", "command"):
        assert f"{name} has saved its state, as it ran over its limit of 60 s (resource runtime), and goes on" in output
    assert sorted(workflow.lines("begun")) == ["command.txt"] * 2 + ["script.txt"] * 2
    assert (workflow.folder / "script.txt").exists()
    assert workflow.lines("ended") == ["command"]
    workflow.assert_nothing_left()


def test_devices_are_masked(workflow):
    """A task sees just the devices it was given, no two tasks the same ones at a time."""
    workflow.write(
        "Snakefile",
        """
        rule all:
            input: expand("{n}.txt", n=range(6)), "none.txt"
        rule one:
            output: "{n}.txt"
            resources: gpu=1
            shell:
                "mkdir device-$CUDA_VISIBLE_DEVICES; echo $CUDA_VISIBLE_DEVICES $ZE_AFFINITY_MASK > {output}; "
                "sleep 0.1; rmdir device-$CUDA_VISIBLE_DEVICES"
        rule none:
            output: "none.txt"
            shell: 'echo "$CUDA_VISIBLE_DEVICES" > {output}'
        """,
    )
    workflow.run("--worksteal-devices", "4,7")
    shown = {workflow.lines(f"{n}.txt")[0] for n in range(6)}
    assert shown <= {"4 4", "7 7"}
    assert workflow.lines("none.txt") == ["-1"]


def test_too_large_a_job_is_refused_with_a_sentence(workflow):
    """A job that no node could hold fails at once, and says what the largest node has."""
    workflow.write(
        "Snakefile",
        """
        rule huge:
            output: "huge.txt"
            resources: gpu=3
            shell: "touch {output}"
        """,
    )
    output = workflow.run("--worksteal-devices", "2", fails=True)
    assert re.search(r"no node of the pool can run this job: .*3 devices", output), output


def test_environment_and_precedence(workflow):
    """Jobs see the environment of Snakemake, changes made by the Snakefile included, and none of an MPI launch."""
    workflow.write(
        "Snakefile",
        """
        import os
        os.environ["FROM_SNAKEFILE"] = "yes"
        rule all:
            input: "shell.txt", "script.txt"
        rule by_shell:
            output: "shell.txt"
            shell: "env > {output}"
        rule by_script:
            output: "script.txt"
            script: "env.py"
        """,
    )
    workflow.write(
        "env.py",
        "import os\nopen(snakemake.output[0], 'w').write('\\n'.join(f'{k}={v}' for k, v in os.environ.items()))\n",
    )
    workflow.run()
    for name in ("shell.txt", "script.txt"):
        lines = workflow.lines(name)
        assert "FROM_SNAKEFILE=yes" in lines
        assert not [line for line in lines if line.startswith(("PMI_", "MPI_LOCAL", "HYDI"))], lines


def test_summary_and_trace(workflow):
    """A traced run leaves a summary and a trace that say the same."""
    workflow.write(
        "Snakefile",
        """
        rule all:
            input: expand("{n}.txt", n=range(12))
        rule make:
            output: "{n}.txt"
            shell: "sleep 0.1; touch {output}"
        """,
    )
    workflow.run("--worksteal-trace")
    (folder,) = (workflow.folder / ".snakemake" / "worksteal").glob("2*")
    summary = json.loads((folder / "summary.json").read_text())
    events = json.loads((folder / "trace.json").read_text())
    tasks = [event for event in events if event.get("ph") == "X"]
    assert len(tasks) == 12
    assert all(event["dur"] >= 100_000 for event in tasks)
    assert summary["tasks"]["done"] == 12, summary
    assert 0 < summary["utilisation"] <= 1
    assert summary["statistics"]["wait_s"]["max"] > 0.1
    started = {rank: found["started"] for rank, found in summary["statistics"]["agents"].items()}
    assert sum(started.values()) == 12
    stolen = [event for event in events if event.get("name") == "steal"]
    assert bool(stolen) == (len(started) > 1), started
    assert (folder / "utilisation.png").stat().st_size > 1000
    assert not (folder / "session.json").exists()
