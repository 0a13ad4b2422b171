"""Jobs find what they name as resource `stage` on their node's own disk, whatever becomes of the original."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import Workflow, wait_for
from snakemake_executor_plugin_worksteal.listing import StagingError
from snakemake_executor_plugin_worksteal.staged import staged
from snakemake_executor_plugin_worksteal.stages import file_system, refuse_shared

READ = """
from snakemake_executor_plugin_worksteal.staged import staged
found = staged("data/sub/file.txt")
with open(snakemake.output[0], "w") as out:
    print(found, found.read_text().strip(), file=out)
"""
SNAKEFILE = """
rule all:
    input: expand("{n}.txt", n=range(12))
rule away:
    output: "away.txt"
    resources: stage="data:other.txt"
    shell: "mv data gone && mv other.txt gone/ && touch {output}"
rule read:
    input: "away.txt"
    output: "{n}.txt"
    resources: stage="data:other.txt"
    script: "read.py"
"""


def prepare(workflow: Workflow, snakefile: str = SNAKEFILE) -> Path:
    """The files of the workflow; the folder that stands for disks of nodes."""
    workflow.write("Snakefile", snakefile)
    workflow.write("read.py", READ)
    workflow.write("data/sub/file.txt", "content\n")
    workflow.write("other.txt", "other\n")
    return workflow.folder / "disks"


def summary_of(workflow: Workflow) -> dict:
    """Of the only run."""
    (path,) = workflow.folder.glob(".snakemake/worksteal/*/summary.json")
    return json.loads(path.read_text())


def read(workflow: Workflow) -> list[Path]:
    """Where the jobs have read; what they read is checked."""
    found = [workflow.lines(f"{n}.txt")[0].split() for n in range(12)]
    assert {content for _, content in found} == {"content"}
    return [Path(path) for path, _ in found]


def test_the_original_may_go_once_it_is_staged(workflow):
    disks = prepare(workflow)
    workflow.run("--worksteal-stage-dir", f"{disks}/{{rank}}", "--worksteal-trace")
    places = read(workflow)
    assert all(path.is_relative_to(disks) for path in places)
    assert not any(path.exists() for path in places), "copies are removed at the end"
    staging = summary_of(workflow)["phases"]["staging"]
    nodes = summary_of(workflow)["nodes"]
    assert len({path.relative_to(disks).parts[0] for path in places}) == (1 if nodes == 1 else 4)
    size = len("content\n") + len("other\n")
    assert (staging["nodes"], staging["read_bytes"], staging["written_bytes"]) == (nodes, size, nodes * size)
    assert staging["times"] == 2 * nodes
    (folder,) = workflow.folder.glob(".snakemake/worksteal/*/trace.json")
    assert sum(event.get("cat") == "phase" for event in json.loads(folder.read_text())) == 2 * nodes


@pytest.mark.parametrize("workflow", ["mpi"], indirect=True)
def test_a_pool_that_starts_again_uses_the_copies_it_has(workflow):
    disks = prepare(
        workflow,
        SNAKEFILE.replace(
            '"mv data gone && mv other.txt gone/ && touch {output}"',
            '"[ -e tried ] || {{ touch tried; runner=$PPID; kill -9 $(ps -o ppid= -p $runner); sleep 60; }}; '
            'touch {output}"',
        ),
    )
    assert "the pool died" in workflow.run("--worksteal-stage-dir", f"{disks}/{{rank}}")
    assert all(path.is_relative_to(disks) for path in read(workflow))
    staging, nodes = summary_of(workflow)["phases"]["staging"], summary_of(workflow)["nodes"]
    assert staging["times"] == 4 * nodes
    assert staging["read_bytes"] == len("content\n") + len("other\n")
    assert not list(disks.glob("*/*"))


@pytest.mark.parametrize("workflow", ["mpi"], indirect=True)
def test_copies_go_with_a_snakemake_that_is_killed(workflow):
    disks = prepare(workflow, "rule wait:\n    resources: stage='data'\n    shell: 'touch begun; sleep 60'\n")
    process = workflow.start("--worksteal-stage-dir", f"{disks}/{{rank}}")
    wait_for((workflow.folder / "begun").exists)
    assert list(disks.glob("*/*/*/data/sub/file.txt"))
    process.kill()
    workflow.assert_nothing_left()
    assert not list(disks.glob("*/*"))


def test_what_changes_is_staged_anew(one):
    disks = prepare(
        one,
        """
        rule all:
            input: "0.txt"
        rule change:
            output: "changed.txt"
            resources: stage="data"
            shell: "echo changed > data/sub/file.txt; touch {output}"
        rule read:
            input: "changed.txt"
            output: "0.txt"
            resources: stage="data"
            script: "read.py"
        """,
    )
    one.run("--worksteal-stage-dir", str(disks))
    assert one.lines("0.txt")[0].endswith(" changed")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small disk")
def test_software_is_unpacked_once_more_for_nodes_whose_disk_is_full(tmp_path):
    """In the run's folder, which all nodes see; it goes with the pool."""
    workflow = Workflow(
        tmp_path, ("--worksteal-launcher", "mpiexec", "--worksteal-nodes", "2", "--worksteal-slots", "1")
    )
    workflow.write(
        "Snakefile",
        """
        rule all:
            input: "0.txt", "1.txt"
        rule make:
            output: "{n}.txt"
            params: other=lambda wildcards: 1 - int(wildcards.n)
            shell:  # each waits for the other: one on each node
                "$WORKSTEAL_SOFTWARE/bin/tool > {output} && touch {wildcards.n}.begun && "
                "until [ -e {params.other}.begun ]; do sleep 0.05; done"
        """,
    )
    workflow.write("bin/tool", "#!/bin/sh\necho $0\n").chmod(0o755)
    workflow.write("bin/more", "more\n" * 100_000)
    subprocess.run(["tar", "-C", workflow.folder, "--zstd", "-cf", workflow.folder / "env.tar.zst", "bin"], check=True)
    disks = workflow.folder / "disks"
    (disks / "1").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "small", disks / "1"], check=True)
    try:
        given = ("--worksteal-stage-dir", f"{disks}/{{rank}}", "--worksteal-stage-software", "env.tar.zst")
        output = workflow.run(*given)
    finally:
        subprocess.run(["umount", disks / "1"], check=True)
    assert "env.tar.zst is not staged on 1 of 2 nodes" in output
    assert "jobs there read it unpacked in the run folder" in output
    tools = [Path(workflow.lines(f"{n}.txt")[0]) for n in range(2)]
    assert sorted(tool.is_relative_to(disks) for tool in tools) == [False, True]
    assert not any(tool.exists() for tool in tools)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small disk")
def test_jobs_read_the_original_where_the_disk_is_full(tmp_path):
    workflow = Workflow(
        tmp_path, ("--worksteal-launcher", "mpiexec", "--worksteal-nodes", "3", "--worksteal-slots", "1")
    )
    disks = prepare(workflow, SNAKEFILE.replace("mv data gone && mv other.txt gone/ && ", ""))
    (disks / "1").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "small", disks / "1"], check=True)
    try:
        output = workflow.run("--worksteal-stage-dir", f"{disks}/{{rank}}")
    finally:
        subprocess.run(["umount", disks / "1"], check=True)
    (said,) = re.findall(r".*/data is not staged on.*", output)
    assert "on 1 of 3 nodes" in said
    assert "0 MB free" in said
    assert {path.is_relative_to(disks) for path in read(workflow)} == {True, False}


def test_nothing_is_copied_unless_asked_for_on_one_machine(one):
    disks = prepare(one, SNAKEFILE.replace("mv data gone && mv other.txt gone/ && ", ""))
    one.environment["TMPDIR"] = str(disks)
    disks.mkdir()
    one.run()
    assert {str(path) for path in read(one)} == {"data/sub/file.txt"}
    assert "staging" not in summary_of(one)["phases"]
    output = one.run("--worksteal-stage-software", "no.tar.zst", "--forceall", fails=True)
    assert "stage-software is no.tar.zst, which does not exist" in output


@pytest.mark.parametrize("workflow", ["mpi"], indirect=True)
def test_software_is_unpacked_before_the_first_job(workflow):
    workflow.write(
        "Snakefile", "rule make:\n    output: 'out.txt'\n    shell: '$WORKSTEAL_SOFTWARE/bin/tool > {output}'\n"
    )
    workflow.write("bin/tool", "#!/bin/sh\necho made with $0\n").chmod(0o755)
    subprocess.run(["tar", "-C", workflow.folder, "--zstd", "-cf", workflow.folder / "env.tar.zst", "bin"], check=True)
    disks = workflow.folder / "disks"
    workflow.run("--worksteal-stage-dir", f"{disks}/{{rank}}", "--worksteal-stage-software", "env.tar.zst")
    (line,) = workflow.lines("out.txt")
    assert re.fullmatch(rf"made with {disks}/\d/worksteal-\d+/\w+/env/bin/tool", line)


def test_a_path_that_was_not_staged_stays_as_it_is(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert staged("data/x") == Path("data/x")
    monkeypatch.setenv("WORKSTEAL_STAGED", json.dumps({str(tmp_path / "data"): "/disk/data"}))
    assert staged("data/../data/x") == Path("/disk/data/x")
    assert staged(tmp_path / "data") == Path("/disk/data")
    assert staged("data2/x") == Path("data2/x")


def test_a_shared_file_system_is_no_nodes_own_disk():
    mounts = [("/", "ext4"), ("/scratch", "lustre"), ("/scratch/own", "xfs"), ("/home", "nfs"), ("/home", "autofs")]
    found = {
        path: file_system(path, mounts) for path in ("/tmp/x", "/scratch/x", "/scratch/own/x", "/home", "/scratchy")
    }
    assert list(found.values()) == ["ext4", "lustre", "xfs", "autofs", "ext4"]
    assert file_system("/proc/self/status") == "proc"
    refuse_shared("/scratch/own/x", mounts)
    with pytest.raises(StagingError, match=r"^/scratch/x is itself on a shared file system \(lustre\)"):
        refuse_shared("/scratch/x", mounts)
