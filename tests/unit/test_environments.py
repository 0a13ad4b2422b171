"""Conda environments: the packages of the lock file, with each kind of device's PyTorch."""

from __future__ import annotations

import pytest
import yaml


@pytest.mark.parametrize("name", ["cpu", "cuda", "xpu"])
def test_an_environment_has_the_locked_packages(repo, name):
    """All of them; on supercomputers MPI is the site's, and PyTorch for Intel devices has a version of its own."""
    locked = (repo / "envs/lock.txt").read_text().split()
    expected = [package for package in locked if name == "cpu" or not package.startswith("mpi")]
    if name == "xpu":
        expected = [f"{package}+xpu" if package.startswith("torch==") else package for package in expected]
    environment = yaml.safe_load((repo / "envs" / f"{name}.yaml").read_text())
    assert environment["channels"] == ["conda-forge"]
    *_, pip = environment["dependencies"]
    assert [line for line in pip["pip"] if not line.startswith("--")] == expected
    assert any(line.endswith("/whl/xpu") for line in pip["pip"]) == (name == "xpu")
