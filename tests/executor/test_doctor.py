"""`worksteal doctor` on this machine: real launchers, processes and pools, and things that are wrong with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Workflow
from slurm import Slurm
from snakemake_executor_plugin_worksteal import doctor

Checks = dict[str, tuple[str, str]]
MANY = '#!/bin/bash\nn=$1; shift\nfor i in $(seq $n); do "$@" & done; wait\n'
SLOW = "#!/bin/bash\nsleep 60\n"
BROKEN = "#!/bin/sh\necho no such partition >&2\nexit 5\n"
LATE = '#!/bin/bash\nshift\n"$@" && exit 3\n'


@pytest.fixture
def examine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Checks]:
    """Run the command in a folder of its own; state and sentence of each check. It must leave nothing behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "own"))
    (tmp_path / "own").mkdir()
    for name, text in (("many", MANY), ("slow", SLOW), ("broken", BROKEN), ("late", LATE)):
        (tmp_path / f"{name}.sh").write_text(text)
        (tmp_path / f"{name}.sh").chmod(0o755)

    def run(*arguments: str) -> Checks:
        status = doctor.main([*arguments, "--json"])
        said = json.loads(capsys.readouterr().out)
        found = {check["name"]: (check["state"], check["text"]) for check in said["checks"]}
        assert said["ok"] == (status == 0) == ("failed" not in {state for state, _ in found.values()})
        assert not list(tmp_path.glob(".snakemake/worksteal/*")), "a folder is left"
        return found

    return run


def test_a_machine_on_which_all_is_well(examine):
    """Two MPI ranks, and a pool of two agents with a task on each."""
    found = examine("--launcher", "mpiexec", "--nodes", "2")
    assert {state for state, _ in found.values()} == {"ok"}, found
    assert found["MPI"][1] == "2 processes in one world"
    assert "2 processes share" in found["nodes"][1]
    assert "one task on every node at the same time" in found["pool"][1]
    assert f"{os.environ['TMPDIR']} (" in found["local disk"][1]
    assert not list(Path(os.environ["TMPDIR"]).iterdir())


def test_one_process_without_mpi(examine):
    found = examine()
    assert {state for state, _ in found.values()} == {"ok"}, found
    assert found["launcher"][1] == "one process, no MPI"
    assert "mpi4py" not in found


@pytest.mark.parametrize(
    ("launcher", "check", "sentence"),
    [
        ("no-such-launcher -n {nodes}", "launcher", "'no-such-launcher' is not on PATH"),
        ("mpiexec -n {ranks}", "launcher", "only {nodes} is filled in"),
        ("./broken.sh", "start", "broken.sh ended with status 5 and started nothing that sees"),
        ("./broken.sh", "start", "it printed: no such partition"),
        ("./late.sh {nodes}", "start", "late.sh ended with status 3 after 1 of 2 processes had begun"),
        ("./many.sh {nodes}", "MPI", "2 processes in worlds of 1, expected 2 in one: mpi4py uses another MPI"),
    ],
)
def test_a_launcher_that_does_not_serve(examine, launcher, check, sentence):
    found = examine("--launcher", launcher, "--nodes", "2")
    assert found[check][0] == "failed"
    assert sentence in found[check][1]
    assert found.get("pool", ("warning",))[0] == "warning"


def test_a_launcher_that_never_ends_is_ended(examine):
    found = examine("--launcher", "./slow.sh", "--nodes", "2", "--timeout", "1")
    assert found["start"][0] == "failed"
    assert "did not end within 1 s: 0 of 2 processes began" in found["start"][1]
    assert not subprocess.run(["pgrep", "-f", f"slow.sh .*{Path.cwd()}"], capture_output=True, text=True).stdout


def test_folders_that_cannot_be_written(examine, tmp_path):
    """The pool's own ends the examination, the node's disk does not."""
    (tmp_path / "file").touch()
    found = examine("--folder", "file/below")
    assert found["folder"][0] == "failed"
    assert "file/below cannot be written (Not a directory)" in found["folder"][1]
    found = examine("--stage-dir", "file/below")
    assert found["local disk"][0] == "failed"
    assert "file/below on " in found["local disk"][1]
    assert found["pool"][0] == "ok"


def test_a_node_that_cannot_reach_this_host(examine):
    """A process without any network; and an address that is not this host's."""
    if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode:
        pytest.skip("no right to make a network namespace")
    found = examine("--launcher", "unshare -n", "--nodes", "1")
    assert found["MPI"][0] == "ok"
    assert found["channel"][0] == "failed"
    assert "cannot be reached" in found["channel"][1]
    assert "worksteal-address" in found["channel"][1]
    assert found["pool"] == ("warning", "not tried: mend first what has failed")
    found = examine("--launcher", "mpiexec", "--address", "tcp:203.0.113.1:0")
    assert found["channel"][0] == "failed"
    assert "Cannot listen at tcp:203.0.113.1:0" in found["channel"][1]


def test_a_folder_that_the_node_does_not_see(examine, tmp_path):
    """Something else lies over it there, as where a folder is not shared."""
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", str(tmp_path)], capture_output=True).returncode:
        pytest.skip("no right to make a mount namespace")
    script = tmp_path / "own" / "hide.sh"
    script.write_text(f'#!/bin/bash\nmount -t tmpfs none {tmp_path}/pool && exec "$@"\n')
    script.chmod(0o755)
    (tmp_path / "pool").mkdir()
    found = examine("--launcher", f"unshare -m {script}", "--nodes", "1", "--folder", "pool")
    assert found["start"][0] == "failed"
    assert "started nothing that sees" in found["start"][1]
    assert "session.json" in found["start"][1]
    assert "work in a folder that all nodes share" in found["start"][1]


def test_an_allocation_whose_launcher_puts_all_on_one_node(examine, tmp_path, monkeypatch):
    """Two names in the node file, both processes here."""
    (tmp_path / "nodes").write_text("one\none\ntwo\n")
    monkeypatch.setenv("PBS_NODEFILE", str(tmp_path / "nodes"))
    monkeypatch.setenv("PBS_JOBID", "17.server")
    mpiexec = Path(sys.executable).parent / "mpiexec"
    found = examine("--launcher", f"env -u PBS_NODEFILE {mpiexec} -n {{nodes}}")
    assert found["batch system"] == ("ok", "inside allocation 17.server of 2 nodes")
    assert found["nodes"][0] == "failed"
    assert "has to put one on each node (-ppn 1" in found["nodes"][1]
    monkeypatch.setenv("PBS_NODEFILE", str(tmp_path / "gone"))
    assert "which cannot be read" in examine()["batch system"][1]


def test_an_agent_that_the_launcher_binds(examine):
    found = examine("--launcher", "taskset -c 0", "--nodes", "1", "--slots", "2")
    assert found["cores"][0] == "warning"
    assert "lets them use 1 of" in found["cores"][1]


def test_devices_that_are_not_there(examine):
    """Each is looked for through the mask that a job of its own would have."""
    pytest.importorskip("torch")
    found = examine("--devices", "1")
    assert found["devices"] == ("ok", "1 on each node: 0")
    assert found["masks"][0] == "failed"
    assert "with only device 0 in sight, PyTorch sees 0" in found["masks"][1]
    assert "each with a device" in found["pool"][1]


def test_the_settings_of_a_profile_are_tried(examine, tmp_path):
    profile = tmp_path / "site" / "config.yaml"
    profile.parent.mkdir()
    profile.write_text("worksteal-nodes:   # FILL IN: how many\nworksteal-launcher: mpiexec\nworksteal-slots: 3\n")
    state, text = examine("--profile", "site")["settings"]
    assert state == "failed"
    assert "site/config.yaml has to be filled in" in text
    assert "line 1, worksteal-nodes: how many" in text
    found = examine("--profile", "site", "--nodes", "1")
    assert found["settings"] == ("ok", "of site/config.yaml")
    assert found["launcher"][1].endswith("mpiexec -n 1")
    assert found["cores"][1].startswith("3 slots")
    profile.write_text("worksteal-slot: 3\n")
    assert "has worksteal-slot, which is no setting" in examine("--profile", "site")["settings"][1]
    assert "no profile 'elsewhere'" in examine("--profile", "elsewhere")["settings"][1]


def test_on_a_login_node_the_nodes_are_not_tried(examine, tmp_path, monkeypatch):
    """The profile's pool is a batch job: its commands have to be here, the launcher not."""
    (tmp_path / "config.yaml").write_text("worksteal-submit: pbs\nworksteal-launcher: no-such-launcher\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = examine("--profile", "config.yaml")
    assert found["batch system"][0] == "failed"
    assert "qsub and qstat and qdel not on PATH" in found["batch system"][1]
    for name in ("qsub", "qstat", "qdel"):
        (tmp_path / name).symlink_to("/bin/true")
    found = examine("--profile", "config.yaml")
    assert found["batch system"] == ("ok", "qsub, qstat, qdel are on PATH")
    assert found["nodes"] == (
        "warning",
        "not tried: get an allocation of 2 nodes and give this command in it (qsub -I)",
    )
    assert "launcher" not in found


def test_what_a_batch_job_does_before_its_agents_is_done(examine, tmp_path, monkeypatch):
    (tmp_path / "nodes").write_text("one\n")
    monkeypatch.setenv("PBS_NODEFILE", str(tmp_path / "nodes"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ours").write_text('#!/bin/sh\nexec "$@"\n')
    (tmp_path / "bin" / "ours").chmod(0o755)
    given = ("--submit", "pbs", "--walltime", "10", "--account", "us", "--queue", "debug", "--launcher", "ours")
    before = dict(os.environ)
    try:
        assert "'ours' is not on PATH" in examine(*given)["launcher"][1]
        found = examine(*given, "--preamble", f"echo loading; export PATH={tmp_path}/bin:$PATH")
        assert found["preamble"][0] == found["launcher"][0] == found["pool"][0] == "ok", found
    finally:
        os.environ.clear()
        os.environ.update(before)
    state, text = examine(*given, "--preamble", "false")["preamble"]
    assert state == "failed"
    assert "the preamble 'false' failed on" in text


def test_without_mpi4py_a_login_node_does_not_serve_several_nodes(tmp_path):
    """Said before anything waits in a queue, by the examination and by the run."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['mpi4py'] = None\n")
    for name in ("sbatch", "squeue", "scancel", "sacct", "sinfo", "scontrol"):
        (tmp_path / name).symlink_to("/bin/false")
    (tmp_path / "Snakefile").write_text("rule make:\n    output: 'out'\n    shell: 'touch {output}'\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    doctors = ["snakemake_executor_plugin_worksteal.cli", "doctor", "--submit", "slurm", "--nodes", "2"]
    runs = ["snakemake", "--executor", "worksteal", "--worksteal-submit", "slurm", "--worksteal-nodes", "2", "-j1"]
    for command in (doctors, [*runs, "--worksteal-walltime", "5"]):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "pip install 'snakemake-executor-plugin-worksteal[mpi]'" in done.stdout + done.stderr


def test_lines_for_people(tmp_path):
    """One a check, and a sum; the exit status says whether one failed."""
    command = [sys.executable, "-m", "snakemake_executor_plugin_worksteal.cli", "doctor", "--launcher", "false"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[-1] == f"1 failed, 0 with a warning, of {len(lines) - 1} checks"
    assert lines[-2].startswith("failed   start          the launcher false ended with status 1")
    assert not done.stderr


def test_inside_an_allocation_of_slurm(slurm: Slurm, one: Workflow):
    """Two nodes: found by themselves, and one process on each."""
    command = [sys.executable, "-m", "snakemake_executor_plugin_worksteal.cli", "doctor", "--json"]
    one.write("job.sh", f"#!/bin/bash\ncd {one.folder}\n{' '.join(command)} > said.json 2> errors\n")
    batch = ["sbatch", "-N2", "--ntasks-per-node=1", "--exclusive", "-t5", "-o", f"{one.folder}/out"]
    slurm.run(*batch, f"{one.folder}/job.sh")
    slurm.wait_for(lambda: not slurm.jobs(), "the job does not end", 180)
    said = json.loads((one.folder / "said.json").read_text() or "{}")
    found = {check["name"]: (check["state"], check["text"]) for check in said["checks"]}
    assert said["ok"], found
    assert found["batch system"][1].endswith("of 2 nodes")
    assert found["nodes"] == ("ok", "2, one process on each: n1, n2")
    assert "one task on every node at the same time" in found["pool"][1]
