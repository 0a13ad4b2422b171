"""The bundle: everything a training run reads, one immutable folder known by the digest of its content.

    response.parquet   cell (int32), drug (int32), auc (float32, 0..1, low = potent), source
    cells.parquet, drugs.parquet     who row i is
    <view>.npy         one a view of `features.views` (expression, descriptors, ...): (cells or drugs, columns),
                       raw values, float32 with NaN where there is none; fingerprints uint8
    improve_splits.parquet           only of a csa folder: int8, row i is row i of the response, a column a split of
                                     IMPROVE's; 0 train, 1 validation, 2 test, -1 none
    manifest.json      digest, file digests, counts, and of each view its axis, file and columns

This module reads bundles, `bundle.build` makes them: training imports only the reader, so that a change of the
maker does not train again what the bundle's digest says is the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from hedflow import HedflowError
from hedflow.files import read_json, sha256

TABLES = ("response.parquet", "cells.parquet", "drugs.parquet")
IMPROVE_SPLITS_FILE = "improve_splits.parquet"
FORMAT = 3
Made = TypeVar("Made")


def bundle_files(views: Iterable[str]) -> tuple[str, ...]:
    """The files of a bundle with these views, but for its manifest."""
    return (*TABLES, *(f"{view}.npy" for view in views))


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk, its arrays memory-mapped and read-only."""

    folder: Path
    manifest: dict[str, Any]
    _made: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)

    def once(self, name: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` works out of the bundle, made once while it is open: hundreds of parts of a split ask for it."""
        if name not in self._made:
            self._made[name] = make()
        made: Made = self._made[name]
        return made

    @property
    def digest(self) -> str:
        """Content digest: two bundles with the same one are the same."""
        return str(self.manifest["digest"])

    @functools.cached_property
    def response(self) -> pd.DataFrame:
        """cell, drug (indices), auc, source; row i is row i in every split and prediction."""
        return pd.read_parquet(self.folder / "response.parquet")

    @functools.cached_property
    def cells(self) -> pd.DataFrame:
        """cell_id, cell_name, tissue, disease."""
        return pd.read_parquet(self.folder / "cells.parquet")

    @functools.cached_property
    def drugs(self) -> pd.DataFrame:
        """drug_id, drug_name, smiles, names, target, mechanism, mechanism_from."""
        return pd.read_parquet(self.folder / "drugs.parquet")

    def view(self, name: str) -> dict[str, Any]:
        """What the manifest says of a view: axis (`cell` or `drug`), file, columns."""
        views: dict[str, dict[str, Any]] = self.manifest["views"]
        if name not in views:
            raise HedflowError(
                f"{self.folder}: the bundle has no view '{name}'; it has {', '.join(views)}. Add it to features.views."
            )
        return views[name]

    def array(self, name: str) -> np.ndarray:
        """A view by name, one row a cell or a drug."""
        array: np.ndarray = np.load(self.folder / self.view(name)["file"], mmap_mode="r", allow_pickle=False)
        return array

    def improve_split(self, name: str) -> np.ndarray:
        """Part of each row in a split of IMPROVE's: int8 (rows,), 0 train, 1 validation, 2 test, -1 none."""
        path = self.folder / IMPROVE_SPLITS_FILE
        part: np.ndarray = pd.read_parquet(path, columns=[name])[name].to_numpy()
        return part


def open_bundle(folder: str | Path, verify: bool = False) -> Bundle:
    """Open a bundle; with `verify` its files are compared with the manifest's checksums."""
    folder = Path(folder)
    if not (folder / "manifest.json").is_file():
        raise HedflowError(f"{folder}: expected a bundle (manifest.json); run `snakemake bundle`.")
    manifest = read_json(folder / "manifest.json")
    if manifest.get("format") != FORMAT:
        raise HedflowError(f"{folder}: bundle format {manifest.get('format')}, expected {FORMAT}; build it anew.")
    if verify:
        for name, expected in manifest["files"].items():
            if not (folder / name).is_file() or sha256(folder / name) != expected:
                raise HedflowError(f"{folder / name}: the content is not what the manifest says; build it anew.")
    return Bundle(folder, manifest)
