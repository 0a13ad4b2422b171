"""IMPROVE's csa layout through the workflow: what one project exports, another reads and plans on."""

from __future__ import annotations

import pandas as pd
import yaml

from hedflow.files import read_json
from hedflow.improve import PARAMETERS


def test_an_export_is_read_by_the_workflow_as_its_source(project) -> None:
    done = project.snakemake("improve")
    assert done.returncode == 0, done.stdout
    first = read_json(project.folder / "results" / "bundle" / "manifest.json")
    config = yaml.safe_load((project.folder / "toy.yaml").read_text())
    config |= {"results": "back", "data": {"improve": "results/toy/csa_data"}}
    config["experiments"]["toy"]["split"] = {"kind": "improve_drug_blind", "studies": ["all"]}
    (project.folder / "toy.yaml").write_text(yaml.safe_dump(config))
    assert "retrieve" not in project.jobs("plans")
    done = project.snakemake("plans", "back/report/answer.rst", "back/integration/identity.html")
    assert done.returncode == 0, done.stdout
    assert "by its own ids" in (project.folder / "back/report/answer.rst").read_text()
    assert "carries its own ids" in (project.folder / "back/integration/identity.html").read_text()
    # The parameters of the curves that were fitted or given in the first project are those of the second.
    response, returned = (
        pd.read_parquet(project.folder / results / "integration/response.parquet")
        .sort_values(["source", "cell_id", "drug_id"])
        .set_index(["source", "cell_id", "drug_id"])
        for results in ("results", "back")
    )
    kept = response.loc[returned.index, list(PARAMETERS.values())]
    assert kept["r2"].notna().any()
    pd.testing.assert_frame_equal(returned[list(PARAMETERS.values())], kept, rtol=1e-7)
    second = read_json(project.folder / "back" / "bundle" / "manifest.json")
    for name in ("response.parquet", "expression.npy", "descriptors.npy", "fingerprints.npy"):
        assert second["files"][name] == first["files"][name]
    parts = ["train", "validation", "test"]
    before, after = (
        pd.DataFrame(read_json(project.folder / results / "toy" / "audit.json"))[parts]
        for results in ("results", "back")
    )
    assert before.equals(after)
    # Nothing is done twice, and a changed split file is seen.
    assert project.jobs("plans") == {}
    changed = project.folder / "results/toy/csa_data/raw_data/splits/all_split_0_train.txt"
    changed.write_text("\n".join(changed.read_text().split()[1:]) + "\n")
    assert {"build_bundle", "plan", "audit"} <= set(project.jobs("plans"))
    assert "integrate" not in project.jobs("plans")


def test_a_folder_without_a_table_ends_in_one_sentence(project) -> None:
    project.configure(lambda config: config.update(data={"improve": "world"}))
    done = project.snakemake("-n")
    assert done.returncode != 0
    assert "expected world/y_data/response.tsv, but there is no such file; IMPROVE's csa layout is" in done.stdout
