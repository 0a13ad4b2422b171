"""Fixtures that more than one test module needs: the repository, the simulated world, the mirror."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import settings

from hedflow.bundle import Bundle, open_bundle
from hedflow.bundle.build import build_bundle
from hedflow.config import SOURCES, Data, Features, load_config
from hedflow.integrate import Integrated, integrate
from hedflow.registry import identity_files, needed_files, read_registry, source_files
from hedflow.retrieve import retrieve
from hedflow.simulate import World, simulate_world

# Whoever starts the tests in the background (nohup, `&` in a script) has them ignore these, and all that tests start
# inherits that: Ctrl-C would then reach nobody, and tests of it wait for ever.
for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

settings.register_profile("untimed", deadline=None)  # machines are shared: no test is timed
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def repo() -> Path:
    """The repository's root."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def mirror(repo: Path) -> Path:
    """The mirror of the five sources; mark tests that use it with `mirror`."""
    configured = load_config(repo / "config.yaml").data.mirror
    folder = (repo / configured).resolve() if configured else repo.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no mirror of the five sources at {folder}")
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Simulated files of the five sources, with their truth."""
    return simulate_world(tmp_path_factory.mktemp("world"), seed=0)


@pytest.fixture(scope="session")
def world_integrated(world: World, tmp_path_factory: pytest.TempPathFactory) -> Integrated:
    """The world's five sources, retrieved from it as from a mirror and integrated."""
    raw = tmp_path_factory.mktemp("raw")
    data = Data(mirror=str(world.folder), registry=str(world.folder / "datasets.csv"))
    registry = read_registry(data.registry)
    for key in needed_files(data, registry):
        retrieve(registry[key], raw / key, mirror=data.mirror)
    return integrate(
        {source: [raw / key for key in source_files(data, source)] for source in SOURCES},
        [raw / key for key in identity_files(data, registry)],
    )


@pytest.fixture(scope="session")
def world_bundle(world: World, world_integrated: Integrated, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The world's bundle, opened."""
    out = tmp_path_factory.mktemp("bundle")
    made = world_integrated
    expression = [world.folder / "expression" / "DepMap23Q2" / "CCLE.RData"]
    build_bundle(made.response, made.cells, made.drugs, expression, Features(), out)
    return open_bundle(out)
