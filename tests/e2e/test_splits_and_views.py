"""New kinds of split, and a view and a source of the user's own, as a user runs them: real Snakemake processes."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys

import pandas as pd
import yaml
from project import CONFIG, REPO, copy_project, counts

from hedflow.bundle import open_bundle

TINY = {"models": ["tiny"], "training": CONFIG["experiments"]["toy"]["training"]}


def test_high_error_drugs_of_one_experiment_are_held_out_by_another(tmp_path):
    """auc_range and disjoint (of a model without epochs) run beside; the high error split waits for what it names."""
    project = copy_project(tmp_path / "project")
    folder = project.folder
    experiments = {
        "losses": None,
        "ranges": {**TINY, "split": {"kind": "auc_range", "ranges": 2}},
        "apart": {"models": ["ridge"], "split": {"kind": "disjoint", "folds": 2, "use_folds": [0], "validation": 0.3}},
        "high": {**TINY, "split": {"kind": "high_error", "experiment": "ranges", "high_error_z": 1.0}},
    }
    features = {"views": ["expression", "mutations", "fingerprints"]}
    models = {
        "tiny": {**CONFIG["models"]["tiny"], "cell_features": ["expression", "mutations"]},
        "ridge": {"kind": "ridge", "drug_features": ["fingerprints"]},
    }
    config = {**CONFIG, "features": features, "models": models, "experiments": experiments}
    (folder / "toy.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "hedflow.cli", "simulate", "world", "--cells", "40", "--drugs", "16"]
    subprocess.run(command, cwd=folder, env=project.environment, check=True)
    tables = [f"results/{name}/tables/methods.parquet" for name in list(experiments)[1:]]
    done = project.snakemake(*tables)
    assert done.returncode == 0, done.stdout

    audits = {name: json.loads((folder / f"results/{name}/audit.json").read_text()) for name in list(experiments)[1:]}
    assert {name: [r["label"] for r in rows] for name, rows in audits.items()} == {
        "ranges": ["auc0-0.5", "auc0.5-1"],
        "apart": ["f0"],
        "high": ["high"],
    }
    assert audits["apart"][0]["unused"] > 0
    drugs = pd.read_parquet(folder / "results/ranges/tables/drugs.parquet").query("method == 'mse'")
    high = set(drugs.loc[drugs["mae_z"] > 1.0, "drug_id"])
    bundle = open_bundle(folder / "results/bundle")
    tested = pd.read_parquet(folder / "results/high/tables/drugs.parquet").query("method == 'mse'")
    assert set(tested["drug_id"]) == high
    plan = pd.read_parquet(folder / "results/high/plan.parquet")
    assert set(json.loads(plan["spec"].item())["split"]["drugs"]) == high
    assert set(bundle.manifest["views"]) == {*features["views"]}
    assert pd.read_parquet(folder / "results/apart/plan.parquet")["method"].item() == "ridge"
    # disjoint: neither a drug's nor a cell's mean is legal.
    methods = pd.read_parquet(folder / "results/apart/tables/methods.parquet")
    assert not methods["method"].str.contains("drug_|cell_").any()

    assert "Nothing to be done" in project.snakemake(*tables).stdout
    # Another table of the earlier experiment with the same drugs plans anew and trains nothing.
    project.configure(lambda c: c["analysis"].update(top_k=4))
    again = project.snakemake(*tables)
    assert again.returncode == 0, again.stdout
    assert "(Rule: train)" not in again.stdout
    # Another list of drugs trains the high error run, and no other.
    project.configure(lambda c: c["experiments"]["high"]["split"].update(high_error_z=0.0))
    assert {"plan", "audit"} <= set(project.jobs(*tables))
    again = project.snakemake(*tables)
    assert again.returncode == 0, again.stdout
    assert again.stdout.count("(Rule: train)") == 1


def blocks() -> dict[str, str]:
    """The worked examples of docs/howto.md: code blocks that begin with `# <path>`."""
    text = (REPO / "docs/howto.md").read_text(encoding="utf-8")
    found = re.findall(r"^```\w+\n# (\S+)\n(.*?)^```", text, flags=re.M | re.S)
    return dict(found)


def test_the_howto_adds_a_view_and_a_source(tmp_path):
    """Each is the module and the one row that the page shows, and nothing else."""
    project = copy_project(tmp_path / "project")
    folder = project.folder
    said = {path: code for path, code in blocks().items() if path.startswith("src/")}
    assert set(said) == {
        "src/hedflow/features/elements.py",
        "src/hedflow/features/__init__.py",
        "src/hedflow/sources/mylab.py",
        "src/hedflow/sources/__init__.py",
    }
    for path, code in said.items():
        target = folder / path
        if not path.endswith("__init__.py"):
            target.write_text(code)
            continue
        text = target.read_text()
        start = text.index("VIEWS: " if "features" in path else "SOURCES: ")
        end = text.index("\n}\n", start)
        target.write_text(text[:end] + "\n" + code.rstrip() + text[end:])
    command = [sys.executable, "-m", "hedflow.cli", "simulate", "world", "--cells", "20", "--drugs", "8"]
    subprocess.run(command, cwd=folder, env=project.environment, check=True)
    screen = folder / "world/mylab/screen.csv"
    screen.parent.mkdir()
    screen.write_text("line,compound,percent_viability\nMCF7,Erlotinib,85\nMCF7,Paclitaxel,30\n697,Paclitaxel,20\n")
    registry = folder / "world/datasets.csv"
    content = screen.read_bytes()
    place, sha256 = "mylab/screen.csv", hashlib.sha256(content).hexdigest()
    row = f"MyLab,screen.csv,1,mirror,{place},{place},{sha256},{len(content)},CC0,mine,mine\n"
    registry.write_text(registry.read_text() + row)
    views = {"views": ["expression", "elements"]}
    data = {**CONFIG["data"], "sources": ["CCLE", "MyLab"]}
    models = {"tiny": {**CONFIG["models"]["tiny"], "drug_features": ["elements"]}}
    config = {**CONFIG, "features": views, "data": data, "models": models}
    (folder / "toy.yaml").write_text(yaml.safe_dump(config))
    done = project.snakemake("bundle")
    assert done.returncode == 0, done.stdout
    manifest = json.loads((folder / "results/bundle/manifest.json").read_text())
    assert manifest["sources"]["MyLab"] == 3
    assert "carbon" in manifest["views"]["elements"]["columns"]
    auc = pd.read_parquet(folder / "results/bundle/response.parquet").query("source == 'MyLab'")["auc"]
    assert sorted(auc.astype(float).round(6)) == [0.2, 0.3, 0.85]
    # A change of the new reader is seen, though it is imported by its name.
    path = folder / "src/hedflow/sources/mylab.py"
    path.write_text(path.read_text() + "\nCHANGED = 1\n")
    assert "integrate" in counts(project.snakemake("-n", "bundle").stdout)
