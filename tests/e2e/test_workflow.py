"""The workflow as a user runs it: real Snakemake processes on the simulated world."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hedflow.bundle import open_bundle

RUNS = Path("results/toy/runs")
TABLES = "results/toy/tables/methods.parquet"  # all runs and the analysis, without figures and pages
DEADLINE_S = 240


def test_the_first_run_makes_a_report_that_opens_with_the_answer(finished):
    page = (finished.folder / "results/report.html").read_text()
    assert len(page) < 10e6
    assert page.index("that the models had not seen") < page.index("data:image/png") < page.index("High error drugs")
    assert not re.search(r"""<(script|link|img|iframe)[^>]+(src|href)=["']https?:""", page)
    assert page.count("Explorer of toy") == 1
    numbers = json.loads((finished.folder / "results/report/answer.json").read_text())["toy"]
    assert numbers["runs"] == 4
    assert numbers["low"]["lower"] < numbers["low"]["difference"] < numbers["low"]["upper"]


def test_a_bare_snakemake_runs_in_a_pool_without_mpi(finished):
    assert "launcher: one process, no MPI" in (finished.folder / "first.log").read_text()


def test_summary_prints_the_report_and_three_numbers(finished):
    command = [sys.executable, "-m", "hedflow.cli", "summary"]
    done = subprocess.run(
        command, cwd=finished.folder, env=finished.environment, capture_output=True, text=True, check=True
    )
    assert "results/report.html" in done.stdout
    assert [line.strip()[:2] for line in done.stdout.splitlines()[2:]] == ["1.", "2.", "3."]


def test_every_test_row_is_predicted_once_a_method(finished):
    bundle = open_bundle(finished.folder / "results/bundle", verify=True)
    scores = pd.read_parquet(finished.folder / "results/toy/tables/scores.parquet")
    for _, rows in scores.groupby("method"):
        assert sorted(rows["row"]) == list(range(len(bundle.response)))


def test_the_integration_report_adds_up_to_the_bundle(finished):
    table = pd.read_parquet(finished.folder / "results/integration_report.parquet")
    manifest = json.loads((finished.folder / "results/bundle/manifest.json").read_text())
    for source, rows in table.groupby("source", sort=False):
        assert (rows["rows_after"].to_numpy()[:-1] == rows["rows_before"].to_numpy()[1:]).all()
        assert rows["rows_after"].iloc[-1] == manifest["sources"][source]


def test_a_second_run_does_nothing(project):
    done = project.snakemake()
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout
    assert counts_of_rule(done.stdout) == {}


def counts_of_rule(output: str) -> dict[str, int]:
    """Rules of the jobs that finished."""
    rules = re.findall(r"Finished jobid: \d+ \(Rule: (\w+)\)", output)
    return {rule: rules.count(rule) for rule in set(rules)}


def test_a_changed_loss_trains_only_its_own_runs(project):
    kept = {run: (project.folder / run / "run.json").stat().st_mtime_ns for run in _records(project, "mse")}
    project.configure(lambda c: c["experiments"]["toy"]["losses"][1].update(alpha=[3]))
    done = project.snakemake()
    assert done.returncode == 0, done.stdout
    assert counts_of_rule(done.stdout)["train"] == 2
    assert {"analyse", "figures", "answer", "report"} <= set(counts_of_rule(done.stdout))
    assert not {"retrieve", "integrate", "build_bundle"} & set(counts_of_rule(done.stdout))
    assert kept == {run: (project.folder / run / "run.json").stat().st_mtime_ns for run in kept}
    assert set(pd.read_parquet(project.folder / "results/toy/tables/runs.parquet")["method"]) == {"mse", "mae_poly-3"}


def _records(project, method: str) -> list[Path]:
    found = [path.relative_to(project.folder).parent for path in (project.folder / RUNS).glob(f"*.{method}.*/run.json")]
    assert found
    return found


def test_an_added_seed_leaves_the_other_runs_alone(project):
    project.configure(lambda c: c["experiments"]["toy"].update(seeds=[0, 1], losses=[{"name": "mse"}]))
    done = project.snakemake(TABLES)
    assert done.returncode == 0, done.stdout
    assert counts_of_rule(done.stdout)["train"] == 2
    runs = pd.read_parquet(project.folder / "results/toy/tables/runs.parquet")
    assert sorted(runs["seed"]) == [0, 0, 1, 1]


def test_runs_that_train_together_are_runs_of_their_own(project):
    def predicted(run: str) -> np.ndarray:
        return pd.read_parquet(project.folder / RUNS / run / "predictions.parquet")["auc_pred"].to_numpy()

    alone = {folder.name: predicted(folder.name) for folder in (project.folder / RUNS).iterdir()}
    _forget(project, "toy")
    project.configure(lambda c: c["experiments"]["toy"]["training"].update(runs_per_job=2))
    done = project.snakemake(TABLES)
    assert done.returncode == 0, done.stdout
    assert counts_of_rule(done.stdout).items() >= {"train_together": 2, "train": 4}.items()
    for run, values in alone.items():
        np.testing.assert_allclose(predicted(run), values, atol=2e-3)
        record = json.loads((project.folder / RUNS / run / "run.json").read_text())
        assert record["status"] == "trained"
    assert not any((project.folder / "results/toy").glob("together/*"))
    assert "Nothing to be done" in project.snakemake(TABLES).stdout

    shutil.rmtree(project.folder / RUNS / run)
    for made in ("collected", "tables"):  # else Snakemake would not miss the run
        shutil.rmtree(project.folder / "results/toy" / made)
    done = project.snakemake(TABLES)
    assert done.returncode == 0, done.stdout
    assert counts_of_rule(done.stdout)["train"] == 1
    np.testing.assert_allclose(predicted(run), alone[run], atol=2e-3)

    # Other groups are no reason to train what is trained.
    project.configure(lambda c: c["experiments"]["toy"].update(seeds=[0, 1]))
    project.configure(lambda c: c["experiments"]["toy"]["training"].update(runs_per_job=3))
    done = project.snakemake(TABLES)
    assert done.returncode == 0, done.stdout
    assert counts_of_rule(done.stdout)["train"] == 4
    project.configure(lambda c: c["experiments"]["toy"]["training"].update(runs_per_job=1))
    assert "train" not in project.jobs(TABLES)


def test_what_only_the_analysis_uses_trains_nothing(project):
    project.configure(lambda c: c["analysis"].update(top_k=4))
    done = project.snakemake(TABLES)
    assert done.returncode == 0, done.stdout
    assert "train" not in counts_of_rule(done.stdout)
    assert "analyse" in counts_of_rule(done.stdout)


def test_training_code_retrains_and_its_comments_do_not(project):
    source = project.folder / "src/hedflow/losses.py"
    source.write_text(source.read_text() + "\n# A comment changes nothing.\n")
    assert project.jobs() == {}
    source.write_text(source.read_text().replace("(y - p) ** 2", "(p - y) ** 2"))
    done = project.snakemake(TABLES)
    assert done.returncode == 0, done.stdout
    assert counts_of_rule(done.stdout)["train"] == 4


def test_a_killed_run_stops_no_other_and_is_all_that_is_repeated(project):
    _forget(project, "toy")
    victim = "tiny.mse.drug_blind-f0.s0"
    with _started(project) as running:
        _kill(_wait_for_writer(project.folder / f"results/logs/toy/runs/{victim}.log", running))
        output = running.communicate(timeout=DEADLINE_S)[0]
    assert running.returncode != 0
    assert counts_of_rule(output)["train"] == 3
    assert not (project.folder / RUNS / victim / "run.json").exists()
    assert not list((project.folder / RUNS).glob(f"{victim}/.*"))
    done = project.snakemake(TABLES)
    assert done.returncode == 0, done.stdout
    assert counts_of_rule(done.stdout)["train"] == 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_snakemake_goes_on_where_it_was(project, how):
    _forget(project, "toy")
    with _started(project) as running:
        _wait_until(lambda: list((project.folder / RUNS).glob("*/run.json")), running)
        os.killpg(running.pid, how)
        running.communicate(timeout=DEADLINE_S)
    finished = len(list((project.folder / RUNS).glob("*/run.json")))
    if how == signal.SIGKILL:
        project.snakemake("--unlock")
    done = project.snakemake(TABLES)
    assert done.returncode == 0, done.stdout
    # A run whose files are there but which Snakemake had not yet heard of counts as incomplete: two cores, two runs.
    assert 4 - finished <= counts_of_rule(done.stdout).get("train", 0) <= 4 - finished + 2
    assert counts_of_rule(done.stdout).get("integrate") is None


def _forget(project, part: str) -> None:
    """Remove a part of the results, and the report, without which Snakemake would not miss it."""
    shutil.rmtree(project.folder / "results" / part)
    (project.folder / "results/report.html").unlink()


def _started(project) -> subprocess.Popen[str]:
    return subprocess.Popen(
        project.command(),
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _wait_until(condition, running):
    """Poll for an event of a running process; fails when it ends or takes too long."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        assert running.poll() is None, running.stdout.read()
        time.sleep(0.02)
    raise AssertionError("the event did not come")


def _wait_for_writer(path: Path, running) -> int:
    """The process that has a file open."""

    def writer() -> int | None:
        # A process may end while it is looked at, at any of these steps.
        for process in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                for descriptor in os.listdir(f"/proc/{process}/fd"):
                    with contextlib.suppress(OSError):
                        if os.readlink(f"/proc/{process}/fd/{descriptor}") == str(path):
                            return int(process)
        return None

    return _wait_until(writer, running)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def test_a_leak_stops_before_training_and_names_the_drugs(project):
    drugs = open_bundle(project.folder / "results/bundle").drugs["drug_name"]
    split = {"kind": "drug_lists", "drugs": [drugs[0], drugs[1]], "validation_drugs": [drugs[1], drugs[2]]}
    project.configure(lambda c: c["experiments"]["toy"].update(split=split))
    done = project.snakemake()
    assert done.returncode != 0
    assert f"leak audit: split drug_lists lists: {drugs[1]} (test) is in validation as well" in done.stdout
    assert "train" not in counts_of_rule(done.stdout)


def test_a_upf_file_of_the_reference_runs_as_it_is(project):
    lines = [json.dumps({"id": f"RUN{i:03d}", "index": i}) for i in range(3)]
    (project.folder / "upf.txt").write_text("\n".join(lines) + "\n")
    (project.folder / "defaults.json").write_text(json.dumps({"loss": "mae_poly", "alpha": 2, "epochs": 2}))
    project.configure(
        lambda c: c["experiments"].update(
            toy=None,
            upf={
                **c["experiments"]["toy"],
                "split": {"kind": "leave_one_drug_out"},
                "upf": "upf.txt",
                "defaults": "defaults.json",
            },
        )
    )
    done = project.snakemake("results/upf/tables/methods.parquet")
    assert done.returncode == 0, done.stdout
    bundle = open_bundle(project.folder / "results/bundle")
    for i in range(3):
        record = json.loads((project.folder / f"results/upf/runs/RUN{i:03d}/run.json").read_text())
        assert record["spec"]["label"] == bundle.drugs["drug_id"][i]
        assert (record["spec"]["loss"], record["spec"]["alpha"]) == ("mae_poly", 2)


@pytest.mark.parametrize("kind", ["cell_blind", "random_pairs"])
def test_other_splits_run_in_a_folder_elsewhere(project, kind, tmp_path):
    """`results` may be an absolute path: on a cluster it is the scratch disk."""
    project.configure(lambda c: c.update(results=str(tmp_path / "scratch")))
    project.configure(
        lambda c: c["experiments"]["toy"].update(split={"kind": kind, "folds": 2}, losses=[{"name": "mae"}])
    )
    whole = kind == "cell_blind"
    done = project.snakemake(*([] if whole else [f"{tmp_path}/scratch/toy/tables/methods.parquet"]))
    assert done.returncode == 0, done.stdout
    comparison = pd.read_parquet(tmp_path / "scratch/toy/tables/comparison.parquet")
    assert comparison["split_kind"].item() == kind
    if whole:
        assert json.loads((tmp_path / "scratch/report/answer.json").read_text())["toy"]["split"] == kind
        assert (tmp_path / "scratch/report.html").stat().st_size < 10e6


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("data={'sources': ['GDSC1']}", "'data.sources.0' is 'GDSC1', which is not a valid name; did you mean GDSCv1"),
        ("results_folder=x", "unknown key 'results_folder'; did you mean results?"),
        ("data={'registry': 'none.csv'}", "none.csv: no such registry"),
    ],
)
def test_a_wrong_configuration_is_one_sentence(project, option, sentence):
    done = project.snakemake("--config", option)
    assert done.returncode != 0
    assert sentence in done.stdout
    assert "Traceback" not in done.stdout


def test_a_file_with_the_wrong_content_is_named_and_never_used(project):
    path = project.folder / "world/response/gCSI/20170612_gCSI_GRfits.tsv"
    path.write_bytes(path.read_bytes().replace(b"\t", b"\t ", 1))
    (project.folder / "results/raw/gCSI/20170612_gCSI_GRfits.tsv").unlink()
    _forget(project, "integration")
    done = project.snakemake()
    assert done.returncode != 0
    assert "hedflow: gCSI/20170612_gCSI_GRfits.tsv: the file's sha256 is" in done.stdout
    assert not (project.folder / "results/raw/gCSI/20170612_gCSI_GRfits.tsv").exists()


def test_no_workflow_file_holds_a_path_of_this_machine(repo):
    listed = subprocess.run(["git", "ls-files"], cwd=repo, capture_output=True, text=True, check=True).stdout
    for name in listed.split():
        if (repo / name).suffix in {".py", ".smk", ".yaml", ".md", ""} and (repo / name).is_file():
            assert str(repo.parent) + "/" not in (repo / name).read_text(errors="ignore"), name


def test_high_error_drugs_are_moved_and_weighed_in_a_second_step(project):
    folder, arms = project.folder, ("toy_move", "toy_weigh")
    targets = [f"results/{arm}/tables/second_step.parquet" for arm in arms]

    def trained() -> int:
        done = project.snakemake(*targets)
        assert done.returncode == 0, done.stdout
        return counts_of_rule(done.stdout).get("train", 0)

    drugs = pd.read_parquet(folder / "results/toy/tables/drugs.parquet").query("method == 'mse'")
    low, high = drugs["mae_z"].nlargest(4).iloc[2:]
    chosen = drugs.nlargest(3, "mae_z")
    step = {"high_error_z": float(0.7 * low + 0.3 * high), "factors": [5], "losses": [{"name": "mse"}]}
    project.configure(lambda c: c["experiments"]["toy"].update(second_step=step))
    assert trained() == 1 + 2 * 2

    plans = {arm: pd.read_parquet(folder / f"results/{arm}/plan.parquet") for arm in arms}
    assert set(json.loads(plans["toy_move"]["spec"].item())["split"]["drugs"]) == set(chosen["drug_id"])
    weights = [json.loads(spec)["weights"] for spec in plans["toy_weigh"]["spec"]]
    assert [w and (set(w["drugs"]), w["factor"]) for w in weights] == [None] * 2 + [(set(chosen["drug_id"]), 5)] * 2
    before = (chosen["mae"] * chosen["n"]).sum() / chosen["n"].sum()
    for arm, methods in zip(arms, ({"mse"}, {"mse", "mse.weigh-5"}), strict=True):
        errors = pd.read_parquet(folder / f"results/{arm}/tables/second_step.parquet")
        assert set(errors["method"]) == methods
        own = errors.query("drugs == 'high error' and part == 'mae' and method == 'mse'").iloc[0]
        assert own["n_drugs"] == 3
        assert abs(own["mae_first"] - before) < 1e-6  # by the first step's own tables
        assert pd.read_parquet(folder / f"results/{arm}/tables/second_step_about.parquet")["repeated"].item() == 0
        assert (folder / f"results/{arm}/figures/second_step.png").stat().st_size > 1000
    # Weights change what is learnt, where a part trains on such a drug.
    scores = pd.read_parquet(folder / "results/toy_weigh/tables/scores.parquet")
    wide = scores.pivot(index="row", columns="method", values="auc_pred")
    assert (wide["mse"] != wide["mse.weigh-5"]).mean() > 0.3

    # Another analysis and another z that find the same drugs train nothing again; another loss trains its own runs.
    step |= {"high_error_z": float(0.3 * low + 0.7 * high), "losses": [{"name": "mse"}, {"name": "mae"}]}
    project.configure(lambda c: c["experiments"]["toy"].update(second_step=step))
    project.configure(lambda c: c["analysis"].update(top_k=4))
    assert trained() == 1 + 2 * 2
    errors = pd.read_parquet(folder / "results/toy_move/tables/second_step.parquet")
    assert set(errors.loc[errors["method"] == "mae", "control"]) == {"mse"}
    assert "Nothing to be done" in project.snakemake(*targets).stdout
