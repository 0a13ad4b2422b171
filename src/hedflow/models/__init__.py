"""Kinds of model: a name, its settings, and where its code is. This file imports none of the code.

A *network* is trained by the engine in `hedflow.training`; an *estimator* trains itself (`models.estimator`). Kinds of
other packages are found by their entry point in the group `hedflow.models`, whose object is a `Kind`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hedflow import HedflowError
from hedflow.loss_kinds import loss_kinds
from hedflow.models.settings import (
    KernelRidgeSettings,
    KindSettings,
    LightGBMSettings,
    ModelSettings,
    NaiveSettings,
    RandomForestSettings,
    RidgeSettings,
    Sizes,
    TanimotoKnnSettings,
    UnoSettings,
)
from hedflow.provenance import code_digest

GROUP = "hedflow.models"
TRAINING_MODULE = "hedflow.training"


@dataclass(frozen=True)
class Kind:
    """A kind's row in the registry.

    settings: class of its keys in config.yaml. implementation: `package.module:attribute`, imported only when a run
    trains. network: True = the attribute is called as attribute(cell_inputs, drug_inputs, settings, start) and gives an
    nn.Module whose forward(cells, drugs, cell, drug) is the AUC, (rows,), begun at `start`; False = it is a subclass of
    `models.estimator.Estimator`. seeded: whether a run's seed matters; if not, one run serves all seeds. weighs:
    whether it counts training rows by their weights; if not, an experiment that weighs drugs up has its control only.
    """

    settings: type[KindSettings]
    implementation: str
    network: bool = False
    seeded: bool = True
    weighs: bool = True

    @property
    def losses(self) -> bool:
        """Whether a run's loss matters: an estimator has its own."""
        return self.network

    @property
    def module(self) -> str:
        """The module of its code, for digests."""
        return self.implementation.partition(":")[0]

    def load(self) -> Any:
        """Import its code.

        Raises:
            HedflowError: a package that it needs, or the attribute, is not there.
        """
        module, _, attribute = self.implementation.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise HedflowError(
                f"the model's code {self.implementation} cannot be had: {error}; install what it needs "
                "(pip install 'hedflow[train]' for hedflow's own kinds)."
            ) from error


KINDS: dict[str, Kind] = {
    "uno": Kind(UnoSettings, "hedflow.models.uno:build", network=True),
    "ridge": Kind(RidgeSettings, "hedflow.models.ridge:Ridge", seeded=False),
    "kernel_ridge": Kind(KernelRidgeSettings, "hedflow.models.kernel_ridge:KernelRidge", seeded=False),
    "lightgbm": Kind(LightGBMSettings, "hedflow.models.boosting:LightGBM"),
    "random_forest": Kind(RandomForestSettings, "hedflow.models.random_forest:RandomForest"),
    "tanimoto_knn": Kind(TanimotoKnnSettings, "hedflow.models.tanimoto_knn:TanimotoKnn", seeded=False, weighs=False),
    "naive": Kind(NaiveSettings, "hedflow.models.naive:Naive", seeded=False, weighs=False),
}


def _offered() -> dict[str, importlib.metadata.EntryPoint]:
    """Entry points of installed packages by name, but for those that are called as hedflow's own kinds."""
    found = importlib.metadata.entry_points(group=GROUP)
    return {point.name: point for point in found if point.name not in KINDS}


def names() -> list[str]:
    """Names of all kinds: hedflow's own, then those of installed packages."""
    return [*KINDS, *sorted(_offered())]


def find(name: str) -> Kind:
    """A kind by name; a package that offers others is not imported.

    Raises:
        HedflowError: no such kind, or a package offers it and what it offers is none.
    """
    return KINDS[name] if name in KINDS else _load(name)


@functools.cache
def _load(name: str) -> Kind:
    offered = _offered()
    if name not in offered:
        raise HedflowError(f"no kind of model is called '{name}'; there are {', '.join(names())}.")
    point = offered[name]
    package = f"package {point.dist.name}" if point.dist else "an installed package"
    where = f"the model kind '{name}' of {package} ({point.value})"
    try:
        kind = point.load()
    except Exception as error:  # whatever the package does when it is imported
        raise HedflowError(
            f"{where} cannot be imported: {type(error).__name__}: {error}; mend or remove it."
        ) from error
    if not isinstance(kind, Kind):
        raise HedflowError(f"{where} is {kind!r}, expected a hedflow.models.Kind; mend or remove it.")
    if fault := _fault(kind):
        raise HedflowError(f"{where} {fault}; mend or remove it.")
    return kind


def _fault(kind: Kind) -> str | None:
    """What is wrong with a kind, as far as can be said without its code."""
    if not (isinstance(kind.settings, type) and issubclass(kind.settings, KindSettings)):
        return f"has the settings {kind.settings!r}, expected a subclass of hedflow.models.settings.KindSettings"
    module, _, attribute = str(kind.implementation).partition(":")
    if not (module and attribute):
        return f"has the implementation {kind.implementation!r}, expected 'package.module:attribute'"
    if kind.network and not issubclass(kind.settings, ModelSettings):
        return "is a network, so its settings must be a subclass of hedflow.models.settings.ModelSettings"
    return None


def sizes(manifest: Mapping[str, Any], settings: KindSettings, batch_size: int) -> Sizes:
    """What a model of these settings works on, by a bundle's manifest."""
    columns = settings.columns({name: view["columns"] for name, view in manifest["views"].items()})
    return Sizes(manifest["rows"], manifest["cells"], manifest["drugs"], *columns, batch_size)


def code_digest_of(*models: KindSettings, losses: Sequence[str] = ()) -> str:
    """Digest of the code that trains models of these settings, with losses of these names.

    Raises:
        HedflowError: the code of a kind is not there.
    """
    kinds = loss_kinds()
    own = {kinds[name].module for name in losses if name in kinds} - {"hedflow.losses"}
    try:
        return code_digest(TRAINING_MODULE, *sorted({find(model.kind).module for model in models} | own))
    except ModuleNotFoundError as error:
        raise HedflowError(f"a kind of model names code that is not there: {error}; mend or remove it.") from None
