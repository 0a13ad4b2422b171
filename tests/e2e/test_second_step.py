"""The high-error-drugs experiment with its second step, as a user runs it: real Snakemake processes."""

from __future__ import annotations

import json
import subprocess
import sys

import pandas as pd
import yaml
from project import CONFIG, copy_project

HED = {
    "models": ["tiny"],
    "split": {"kind": "drug_blind", "folds": 2, "validation": 0.2},
    "losses": [{"name": "mse"}],
    "training": {**CONFIG["experiments"]["toy"]["training"], "epochs": 2},
    "second_step": {"high_error_z": 0.5, "factors": [5]},
}
ARMS = ("hed_move", "hed_weigh")
TARGETS = [f"results/{arm}/tables/second_step.parquet" for arm in ARMS]


def test_high_error_drugs_are_moved_and_weighed(tmp_path):
    project = copy_project(tmp_path / "project")
    folder = project.folder
    config = {**CONFIG, "experiments": {"losses": None, "hed": HED}, "analysis": {"top_k": 2, "bootstrap": 100}}
    (folder / "toy.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "hedflow.cli", "simulate", "world", "--cells", "20", "--drugs", "12"]
    subprocess.run(command, cwd=folder, env=project.environment, check=True)
    trained = run(project)
    assert trained == 2 + 1 + 2 * 2

    drugs = pd.read_parquet(folder / "results/hed/tables/drugs.parquet").query("method == 'mse'")
    high = set(drugs.loc[drugs["mae_z"] > 0.5, "drug_id"])
    plans = {arm: pd.read_parquet(folder / f"results/{arm}/plan.parquet") for arm in ARMS}
    assert set(json.loads(plans["hed_move"]["spec"].item())["split"]["drugs"]) == high
    weights = [json.loads(spec)["weights"] for spec in plans["hed_weigh"]["spec"]]
    assert [w and (set(w["drugs"]), w["factor"]) for w in weights] == [None, None, (high, 5), (high, 5)]
    assert set(plans["hed_weigh"]["seed"]) == {1}
    for arm, methods in zip(ARMS, ({"mse"}, {"mse", "mse.weigh-5"}), strict=True):
        tables = folder / "results" / arm / "tables"
        errors = pd.read_parquet(tables / "second_step.parquet")
        assert set(errors["method"]) == methods
        own = errors.query("drugs == 'high error' and part == 'mae' and method == 'mse'").iloc[0]
        # The first step's error of these drugs, by its own tables
        before = drugs[drugs["drug_id"].isin(high)]
        assert abs(own["mae_first"] - (before["mae"] * before["n"]).sum() / before["n"].sum()) < 1e-6
        assert own["n_drugs"] == len(high)
        assert pd.read_parquet(tables / "second_step_about.parquet")["repeated"].item() == 0
        assert (folder / "results" / arm / "figures" / "second_step.png").stat().st_size > 1000
    # Weights change what is learnt: another network than the control's, where the fold trains on such a drug.
    scores = pd.read_parquet(folder / "results/hed_weigh/tables/scores.parquet")
    wide = scores.pivot(index="row", columns="method", values="auc_pred")
    assert (wide["mse"] != wide["mse.weigh-5"]).mean() > 0.3

    assert "Nothing to be done" in project.snakemake(*TARGETS).stdout
    # Another analysis, and another z between the same two drugs' errors: the same drugs, so nothing is trained.
    edge = sorted(drugs["mae_z"])[-len(high) - 1 : -len(high) + 1 or None]
    project.configure(lambda c: c["analysis"].update(top_k=3))
    project.configure(lambda c: c["experiments"]["hed"]["second_step"].update(high_error_z=float(sum(edge) / 2)))
    assert run(project) == 0
    # Another loss of the second step trains its own runs only: one where drugs are moved, two parts x two factors.
    losses = [{"name": "mse"}, {"name": "mae_poly", "alpha": [2]}]
    project.configure(lambda c: c["experiments"]["hed"]["second_step"].update(losses=losses))
    assert run(project) == 1 + 2 * 2
    errors = pd.read_parquet(folder / "results/hed_move/tables/second_step.parquet")
    assert set(errors.loc[errors["method"] == "mae_poly-2", "control"]) == {"mse"}


def run(project) -> int:
    """Run to the second step's tables; returns how many runs were trained."""
    done = project.snakemake(*TARGETS)
    assert done.returncode == 0, done.stdout
    return done.stdout.count("(Rule: train)")
