"""Profiles: those of the repository, and keys that their user has to fill in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pbs
import pytest
import yaml
from snakemake_executor_plugin_worksteal.profiles import (
    Blank,
    ProfileError,
    blanks_of,
    given_profiles,
    profile_file,
    settings_of,
)
from snakemake_executor_plugin_worksteal.session import SessionError, parse_variables
from snakemake_executor_plugin_worksteal.settings import ExecutorSettings

REPO = Path(__file__).parents[2]
SITES = ("aurora", "polaris", "slurm", "local", "ci")
FILL = """
worksteal-launcher: local
worksteal-submit: "no"
worksteal-nodes:      # FILL IN: how many nodes
worksteal-memory-mb:
# worksteal-folder:
"""


def test_every_profile_is_what_snakemake_reads():
    """By Snakemake's own parser, from the root of a clone; a key of profiles/default would have no effect in it."""
    code = """if True:
        import json, sys
        from snakemake.cli import parse_args
        sites = {site: vars(parse_args(["-n", "--profile", site])[1]) for site in sys.argv[1:]}
        print(json.dumps({site: {key: str(value) for key, value in keys.items()} for site, keys in sites.items()}))
    """
    done = subprocess.run([sys.executable, "-c", code, *SITES], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    default = yaml.safe_load((REPO / "profiles/default/config.yaml").read_text())
    for site, parsed in json.loads(done.stdout).items():
        file = REPO / "profiles" / site / "config.yaml"
        settings = settings_of(file)
        assert {key: parsed[f"worksteal_{key}"] for key in settings} == {key: str(settings[key]) for key in settings}
        assert not yaml.safe_load(file.read_text()).keys() & default.keys()


@pytest.mark.parametrize("site", SITES)
def test_what_is_to_be_filled_in_stands_at_the_top(site):
    """Each with a word on what it is, before the first line that has a value."""
    file = REPO / "profiles" / site / "config.yaml"
    blanks = blanks_of(file)
    assert bool(blanks) == (site not in ("local", "ci"))
    assert all(blank.what and hasattr(ExecutorSettings(), blank.key[10:].replace("-", "_")) for blank in blanks)
    lines = file.read_text().splitlines()
    first = next(number for number, line in enumerate(lines, 1) if line.partition("#")[0].rstrip().partition(": ")[2])
    assert all(blank.line < first for blank in blanks)


def test_an_empty_key_is_found_with_its_line_and_what_it_asks_for(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(FILL)
    assert blanks_of(file) == [
        Blank(file, 4, "worksteal-nodes", "how many nodes"),
        Blank(file, 5, "worksteal-memory-mb", ""),
    ]
    assert settings_of(file) == {"launcher": "local", "submit": "no"}


def test_profiles_are_found_where_snakemake_finds_them(tmp_path, monkeypatch):
    (tmp_path / "profiles/here").mkdir(parents=True)
    file = tmp_path / "profiles/here/config.yaml"
    file.write_text("- 1\n")
    monkeypatch.chdir(tmp_path)
    assert profile_file("here").resolve() == file
    assert [path.resolve() for path in given_profiles(["--profile", str(file), "-n"], {})] == [file]
    assert len(given_profiles(["all"], {"SNAKEMAKE_PROFILE": "profiles/here"})) == 1
    assert [path.resolve() for path in given_profiles(["-n", "--profile=here"], {})] == [file]
    assert given_profiles(["--profile", "none"], {"SNAKEMAKE_PROFILE": "profiles/here"}) == []
    assert given_profiles(["--profile", "speed"], {}) == given_profiles(["--profile"], {}) == []
    with pytest.raises(ProfileError, match="no profile 'there': expected a folder"):
        profile_file("there")
    with pytest.raises(ProfileError, match="is no profile: expected lines of the form key: value"):
        settings_of(file)


def test_a_profile_that_is_not_filled_in_gets_one_sentence(one):
    """With file, line and key; a dry run needs nothing, and the command line serves as well."""
    one.write("Snakefile", "rule make:\n    output: 'out'\n    shell: 'touch {output}'\n")
    one.write("site/config.yaml", FILL)
    one.pool = ("--profile", "site")
    one.run("-n")
    output = one.run(fails=True)
    sentence = (
        "worksteal: site/config.yaml has to be filled in, or the same given as --worksteal-...: line 4, "
        "worksteal-nodes: how many nodes; line 5, worksteal-memory-mb\n"
    )
    assert sentence in output, output
    assert "Traceback" not in output
    assert not one.lines("out")
    one.run("--worksteal-nodes", "1", "--worksteal-memory-mb", "500")


def test_a_duration_that_yaml_misreads_is_named(one):
    """10:00:00 without quotes is 36000 to YAML, and would be minutes."""
    one.write("Snakefile", "rule make:\n    output: 'out'\n    shell: 'touch {output}'\n")
    one.write("site/config.yaml", "worksteal-launcher: local\nworksteal-walltime: 10:00:00  # ten hours\n")
    one.pool = ("--profile", "site")
    output = one.run(fails=True)
    assert "worksteal: site/config.yaml, line 2: put 10:00:00 in quotes, or state minutes" in output, output
    one.write("site/config.yaml", "worksteal-launcher: local\nworksteal-walltime: '10:00:00'\n")
    one.run()


def test_inside_an_allocation_nothing_is_asked_for(one):
    one.write("Snakefile", "rule make:\n    output: 'out'\n    shell: 'touch {output}'\n")
    one.write("site/config.yaml", FILL.replace('"no"', "pbs"))
    one.pool = ("--profile", "site")
    one.write("nodes", "this\n")
    one.environment["PBS_NODEFILE"] = str(one.folder / "nodes")
    one.run()


def test_variables_of_a_profile_reach_the_jobs(workflow):
    workflow.write("Snakefile", "rule make:\n    output: 'out'\n    shell: 'echo $LEVEL $OTHER > {output}'\n")
    workflow.environment["LEVEL"] = "COMPOSITE"
    workflow.run("--worksteal-environment", "LEVEL=FLAT, OTHER=a b")
    assert workflow.lines("out") == ["FLAT a b"]
    output = workflow.run("--forceall", "--worksteal-environment", "LEVEL", fails=True)
    assert "environment has 'LEVEL'; expected NAME=VALUE" in output


def test_variables_are_names_and_values():
    assert parse_variables(" A=1,B_2=x=y ,") == {"A": "1", "B_2": "x=y"}
    for wrong in ("A", "=1", "1A=2", "A B=1"):
        with pytest.raises(SessionError, match="expected NAME=VALUE"):
            parse_variables(wrong)


@pytest.mark.parametrize(
    ("site", "mask", "devices", "filesystems", "modules"),
    [
        ("aurora", "ZE_AFFINITY_MASK", 12, "home:flare", "load frameworks"),
        ("polaris", "CUDA_VISIBLE_DEVICES", 4, "home:eagle", "load conda"),
    ],
)
def test_what_a_profile_asks_pbs_for_and_gives_its_jobs(
    one, tmp_path_factory, site, mask, devices, filesystems, modules
):
    """Through the stand-ins of PBS: all of the profile but the launcher, which is PALS, and the disk of its nodes."""
    commands, state = pbs.install(tmp_path_factory.mktemp("pbs"))
    one.write(
        "Snakefile",
        f"""
        rule all:
            input: expand("train-{{n}}", n=range(3)), "together", "other"
        rule train:
            output: "train-{{n}}"
            shell: "echo ${mask} ${{{{ZE_FLAT_DEVICE_HIERARCHY:-}}}} , $MODULES > {{output}}; "
                "touch on-{{wildcards.n}}; until [ $(ls on-* | wc -l) = 3 ]; do sleep 0.1; done"
        rule train_together:
            output: "together"
            shell: "touch {{output}}"
        rule other:
            output: "other"
            shell: "echo ${mask} > {{output}}"
        """,
    )
    one.environment = {
        **os.environ,
        "PATH": f"{commands}:{os.environ['PATH']}",
        "BASH_FUNC_module%%": '() {  export MODULES="$*";\n}',
    }
    filled = {"account": "catalyst", "queue": "debug", "walltime": "30", "nodes": "1"}
    here = {"launcher": "local", "stage-dir": "none"}
    options = [f"--worksteal-{key}={value}" for key, value in {**filled, **here}.items()]
    one.pool = ("--profile", str(REPO / "profiles" / site), *options)
    output = one.run()
    assert f"{devices} devices" in output, output
    (job,) = [json.loads(path.read_text()) for path in state.glob("*.json")]
    assert (job["Account_Name"], job["queue"]) == ("catalyst", "debug")
    assert job["Resource_List"]["filesystems"] == filesystems
    assert job["Resource_List"]["place"] == "scatter:exclhost"
    lines = [line for n in range(3) for line in one.lines(f"train-{n}")]
    masks = {line.split()[0] for line in lines}
    assert len(masks) == 3, "each training run has a device of its own"
    assert masks <= {str(index) for index in range(devices)}
    level = "FLAT" if site == "aurora" else ""
    assert {line.partition(" ")[2] for line in lines} == {f"{level} , {modules}".lstrip()}
    assert one.lines("other") == ["99" if site == "aurora" else "-1"], "a job that asks for no device sees none"


@pytest.mark.parametrize("site", ["aurora", "polaris"])
def test_the_launcher_of_a_profile(one, tmp_path_factory, monkeypatch, site):
    """PALS gets what it knows, and starts an agent for each of two nodes; both run jobs."""
    folder = tmp_path_factory.mktemp("pbs")
    commands, state = pbs.install(folder)
    python = pbs.install_pals(folder / "environment")
    monkeypatch.setattr(sys, "executable", str(python))
    one.write(
        "Snakefile",
        """
        rule all:
            input: expand("{n}.txt", n=range(2))
        rule make:
            output: "{n}.txt"
            shell: "echo $PPID >> agents; until [ $(wc -l < agents) = 2 ]; do sleep 0.1; done; touch {output}"
        """,
    )
    path = f"{commands}:{python.parent}:{os.environ['PATH']}"
    one.environment = {**os.environ, "PATH": path, "BASH_FUNC_module%%": "() {  :;\n}"}
    filled = {"account": "catalyst", "queue": "debug", "walltime": "30", "nodes": "2"}
    here = {"stage-dir": "none", "slots": "1"}
    options = [f"--worksteal-{key}={value}" for key, value in {**filled, **here}.items()]
    one.pool = ("--profile", str(REPO / "profiles" / site), *options)
    output = one.run()
    assert "pool 1 (PBS job 1.standin): 2 nodes" in output, output
    assert (state / "1.standin.mpiexec").read_text().startswith(f"-n 2 -ppn 1 --cpu-bind none {python} -m ")
    assert len(set(one.lines("agents"))) == 2
    (job,) = [json.loads(path.read_text()) for path in state.glob("*.json")]
    assert job["Exit_status"] == 0
    assert job["Resource_List"]["select"].startswith("2:")
    one.assert_nothing_left()


@pytest.mark.parametrize(
    "words", ["-n 1 -ppn 1 -bind-to none true", "-n 1 --cpu-bind none true", "-n 1 -ppn 1 true", "-n 3 -ppn 1 true"]
)
def test_what_pals_refuses(tmp_path, monkeypatch, words):
    """What the test above rests on."""
    (tmp_path / "nodes").write_text("one\ntwo\n")
    monkeypatch.setenv("PBS_NODEFILE", str(tmp_path / "nodes"))
    command = [sys.executable, pbs.__file__, "/bin/false", "pals", *words.split()]
    assert subprocess.run(command, capture_output=True).returncode == pbs.SYNTAX
