"""Groups of runs that are trained in one job: which, what is left to do, and how a run takes its files over."""

import json

import pandas as pd
import pytest

from hedflow.files import write_json
from hedflow.together import groups_of, take_over, unfinished


def plan_of(*runs):
    """(run, model, loss, runs_per_job) -> a plan by run."""
    rows = [
        {"run": run, "model": model, "spec": json.dumps({"model": {"kind": model}, "loss": loss,
         "training": {"runs_per_job": size, "epochs": 3}, "alpha": number})}
        for number, (run, model, loss, size) in enumerate(runs)
    ]  # fmt: skip
    return pd.DataFrame(rows).set_index("run")


def test_runs_of_one_shape_are_a_group_whatever_their_alpha():
    plan = plan_of(*[(f"a{i}", "uno", "mse", 3) for i in range(7)], *[(f"b{i}", "uno", "mae", 3) for i in range(2)])
    assert groups_of(plan, ["uno"]) == {"g0000": ["a0", "a1", "a2"], "g0001": ["a3", "a4", "a5"], "g0003": ["b0", "b1"]}


@pytest.mark.parametrize(("size", "networks"), [(1, ["uno"]), (4, ["other"])])
def test_no_groups(size, networks):
    """One run a job, or models that are no networks."""
    assert groups_of(plan_of(*[(f"a{i}", "uno", "mse", size) for i in range(4)]), networks) == {}


def test_what_a_group_has_still_to_train(tmp_path):
    for run, record in (("a", {"digest": "1"}), ("b", {"digest": "old"}), ("c", {})):
        write_json(tmp_path / run / "run.json", record)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "run.json").write_text("{")
    digests = dict.fromkeys("abcde", "1")
    assert unfinished(digests, tmp_path) == ["b", "c", "d", "e"]


def test_a_run_takes_its_files_over(tmp_path):
    group, files = tmp_path / "g0000", [tmp_path / "runs" / "a" / name for name in ("predictions.parquet", "run.json")]
    assert not take_over(None, "a", "d", files)
    assert not take_over(group, "a", "d", files)
    write_json(group / "a" / "run.json", {"digest": "d"})
    assert not take_over(group, "a", "d", files)  # only one of the two
    (group / "a" / "predictions.parquet").write_bytes(b"p")
    assert take_over(group, "a", "d", files)
    assert [path.read_bytes() for path in files] == [b"p", (group / "a" / "run.json").read_bytes()]
    assert not take_over(group, "a", "other", files)  # what a group left that was of other runs
    assert take_over(group, "a", "d", files)  # over what was there before
