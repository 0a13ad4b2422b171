"""The laws that a kind of model must keep: for a user's own tests, and for `hedflow check-model`.

from hedflow.testing import check_model

def test_my_model():
    check_model("my_model", {"depth": 3})
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from hedflow import HedflowError
from hedflow.bundle import Bundle, open_bundle
from hedflow.config import SOURCES, Data, Features, Split, Training, parse_model
from hedflow.models import find
from hedflow.models.estimator import Estimator
from hedflow.models.settings import KindSettings, ModelSettings
from hedflow.splits import Rows, labels, make_rows
from hedflow.training.estimate import fit_estimator, predict_estimator
from hedflow.training.fit import Job, fit, fit_stack
from hedflow.training.inputs import make_inputs

Predict = Callable[[NDArray[Any]], NDArray[np.float32]]
# Networks are trained for so many epochs, and for more where they must have learnt.
EPOCHS, LEARNING_EPOCHS = 2, 30
TRAINING = {"device": "cpu", "batch_size": 256, "learning_rate": 0.003, "warmup_epochs": 1}
SPLIT = Split(kind="drug_blind", folds=3)
CLOSE = 1e-5  # AUC: what another order of additions may change
STACKED = 1e-3  # ... over a whole training


def check_model(name: str, settings: Mapping[str, Any] | None = None, bundle: Bundle | None = None) -> list[str]:
    """Hold a kind of model to the laws below; returns what was found true, a line a law.

    Args:
        name: of the kind, as in `models.<name>.kind`.
        settings: keys of the kind that differ from their defaults.
        bundle: on which it is tried; None = a small simulated one.

    Raises:
        HedflowError: laws that it breaks, one sentence each.
    """
    if bundle is None:
        with tempfile.TemporaryDirectory() as folder:
            return check_model(name, settings, simulated_bundle(Path(folder)))
    trial = Trial(parse_model({"kind": name, **(settings or {})}, name), bundle)
    kept, broken = [], []
    for law in LAWS:
        said = (law.__doc__ or "").splitlines()[0]
        try:
            fault = law(trial)
        except HedflowError as error:
            fault = str(error)
        except Exception as error:  # whatever a model does
            fault = f"it fails with {type(error).__name__}: {error}"
        if fault is None:
            kept.append(said)
        else:
            broken.append(f"{name} breaks the law '{said}': {fault}")
        if broken and law in (_is_what_it_says, _predicts):  # the others would only say it again
            break
    if broken:
        raise HedflowError("\n".join(broken))
    return kept


def simulated_bundle(folder: Path, seed: int = 0) -> Bundle:
    """A bundle of the simulated world (58 cells, 23 drugs, 3,403 rows of five sources), made in `folder`."""
    from hedflow.bundle.build import build_bundle
    from hedflow.integrate import integrate
    from hedflow.registry import identity_files, needed_files, read_registry, source_files
    from hedflow.retrieve import retrieve
    from hedflow.simulate import simulate_world

    world = simulate_world(folder / "world", seed=seed)
    data = Data(mirror=str(world.folder), registry=str(world.folder / "datasets.csv"))
    registry = read_registry(data.registry)
    for key in needed_files(data, registry):
        retrieve(registry[key], folder / "raw" / key, mirror=data.mirror)
    made = integrate(
        {source: [folder / "raw" / key for key in source_files(data, source)] for source in SOURCES},
        [folder / "raw" / key for key in identity_files(data, registry)],
    )
    identity = [folder / "raw" / key for key in identity_files(data, registry)]
    build_bundle(made.response, made.cells, made.drugs, identity, Features(), folder / "bundle")
    return open_bundle(folder / "bundle")


class Changed(Bundle):
    """A bundle with another response or other features, in memory."""

    def __init__(self, of: Bundle, auc: NDArray[Any] | None = None, **views: NDArray[Any]) -> None:
        super().__init__(of.folder, of.manifest)
        object.__setattr__(self, "_views", views)
        # Over the cached property, as it would store itself.
        self.__dict__["response"] = of.response if auc is None else of.response.assign(auc=auc)

    def array(self, name: str) -> NDArray[Any]:
        views: dict[str, NDArray[Any]] = self.__dict__["_views"]
        return views[name] if name in views else super().array(name)


@dataclasses.dataclass(frozen=True)
class Trial:
    """A model on a bundle."""

    model: KindSettings
    bundle: Bundle

    @functools.cached_property
    def rows(self) -> Rows:
        return make_rows(SPLIT, labels(SPLIT, self.bundle)[0], self.bundle)

    @functools.cached_property
    def base(self) -> Predict:
        """The model trained on the bundle as it is."""
        return self.train()

    @property
    def network(self) -> ModelSettings | None:
        """The settings, if they are a network's."""
        model = self.model
        return model if isinstance(model, ModelSettings) and find(model.kind).network else None

    def training(self, epochs: int = EPOCHS) -> Training:
        return Training(**{**TRAINING, "epochs": epochs})

    def train(
        self, bundle: Bundle | None = None, rows: Rows | None = None, seed: int = 0, epochs: int = EPOCHS, **more: Any
    ) -> Predict:
        """Train it as a run would; returns its predictions of rows."""
        bundle, rows, training = bundle or self.bundle, rows or self.rows, self.training(epochs)
        if self.network is not None:
            return fit(bundle, rows, self.network, training, "mse", None, seed).predict
        estimator, _ = fit_estimator(bundle, rows, self.model, training, seed, **more)
        return lambda asked: predict_estimator(estimator, asked)


def _differs(found: NDArray[np.float32], wanted: NDArray[np.float32], limit: float = 0.0) -> str | None:
    """How two sets of predictions differ, if by more than `limit`."""
    apart = np.abs(found.astype(np.float64) - wanted)
    wrong = int((apart > limit).sum())
    return f"{wrong} of {len(found)} predictions differ, by up to {apart.max():.2g} AUC" if wrong else None


def _is_what_it_says(trial: Trial) -> str | None:
    """its code can be loaded, and is what the registry says"""
    kind, code = find(trial.model.kind), find(trial.model.kind).load()
    if kind.network:
        return None if callable(code) else f"{kind.implementation} cannot be called"
    own = isinstance(code, type) and issubclass(code, Estimator)
    return None if own else f"{kind.implementation} is no subclass of hedflow.models.estimator.Estimator"


def _predicts(trial: Trial) -> str | None:
    """predictions are finite float32 numbers, one a row"""
    predicted = trial.base(trial.rows.test)
    if predicted.dtype != np.float32 or predicted.shape != trial.rows.test.shape:
        return f"it predicts {predicted.dtype} of shape {predicted.shape} for {len(trial.rows.test)} rows"
    wrong = int(np.count_nonzero(~np.isfinite(predicted)))
    return f"{wrong} of {len(predicted)} predictions are not finite" if wrong else None


def _keeps_order(trial: Trial) -> str | None:
    """a row's prediction does not depend on the rows beside it"""
    test = trial.rows.test
    order = np.random.default_rng(0).permutation(len(test))
    whole = trial.base(test)
    return _differs(trial.base(test[order]), whole[order], CLOSE) or _differs(trial.base(test[:1]), whole[:1], CLOSE)


def _is_blind(trial: Trial) -> str | None:
    """the truth of test rows does not reach it"""
    auc = trial.bundle.response["auc"].to_numpy(copy=True)
    auc[trial.rows.test] = 1 - np.random.default_rng(0).permutation(auc[trial.rows.test])
    return _differs(trial.train(Changed(trial.bundle, auc))(trial.rows.test), trial.base(trial.rows.test))


def _learns_from_training(trial: Trial) -> str | None:
    """the truth of training rows does reach it"""
    auc = trial.bundle.response["auc"].to_numpy(copy=True)
    auc[trial.rows.train] = 1 - auc[trial.rows.train]
    changed = trial.train(Changed(trial.bundle, auc))(trial.rows.test)
    return None if _differs(changed, trial.base(trial.rows.test)) else "with other truth it predicts the same"


def _ignores_held_out_features(axis: str, trial: Trial) -> str | None:
    """The features of some held-out cells (drugs) do not change what is predicted of others."""
    bundle, split = trial.bundle, Split(kind="drug_blind" if axis == "drug" else "cell_blind", folds=3)
    rows = make_rows(split, "f0", bundle)
    number = bundle.response[axis].to_numpy()
    held = np.unique(number[rows.test])[::2]
    views = {}
    for name, view in bundle.manifest["views"].items():
        if view["axis"] == axis:
            views[name] = np.array(bundle.array(name))
            binary = views[name].dtype == np.uint8
            views[name][held] = 1 - views[name][held] if binary else views[name][held] * 100 + 7
    others = rows.test[~np.isin(number[rows.test], held)]
    changed = trial.train(Changed(bundle, **views), rows)(others)
    base = trial.base if split == SPLIT else trial.train(bundle, rows)
    return _differs(changed, base(others), CLOSE)


def _ignores_held_out_drugs(trial: Trial) -> str | None:
    """the features of held-out drugs scale nothing"""
    return _ignores_held_out_features("drug", trial)


def _ignores_held_out_cells(trial: Trial) -> str | None:
    """the features of held-out cells scale nothing"""
    return _ignores_held_out_features("cell", trial)


def _repeats(trial: Trial) -> str | None:
    """the same seed gives the same bits"""
    np.random.default_rng(1).random()
    return _differs(trial.train()(trial.rows.test), trial.base(trial.rows.test))


def _needs_no_seed(trial: Trial) -> str | None:
    """one run serves all seeds, if its kind says so"""
    if find(trial.model.kind).seeded:
        return None
    return _differs(trial.train(seed=1)(trial.rows.test), trial.base(trial.rows.test))


def _counts_weights(trial: Trial) -> str | None:
    """weights of 1 are no weights, and others count if its kind says so"""
    kind = find(trial.model.kind)
    if kind.network:
        return None
    test, ones = trial.rows.test, np.ones(len(trial.rows.train))
    if fault := _differs(trial.train(weights=ones)(test), trial.base(test), CLOSE):
        return fault
    drugs = trial.bundle.response["drug"].to_numpy()[trial.rows.train]
    fault = _differs(trial.train(weights=np.where(drugs % 2, 5.0, 1.0))(test), trial.base(test), CLOSE)
    if kind.weighs:
        return None if fault else "it predicts the same whatever its training rows weigh; its kind needs weighs=False"
    return fault and f"its kind says weighs=False, but with weights {fault}"


def _legal_parts(trial: Trial) -> Iterator[tuple[str, Bundle, Rows]]:
    """Parts that a run may meet, at their hardest."""
    bundle = trial.bundle
    for kind in ("leave_one_drug_out", "disjoint", "random_pairs"):
        split = Split(kind=kind, folds=3)
        yield kind, bundle, make_rows(split, labels(split, bundle)[0], bundle)
    drug = bundle.response["drug"].to_numpy()
    one, two = pd.Series(drug).value_counts().index[:2]
    parts = (
        np.flatnonzero(mask).astype(np.int32) for mask in (drug == one, drug == two, (drug != one) & (drug != two))
    )
    yield "one training drug, one validation drug", bundle, Rows(*parts)
    views = {name: np.array(bundle.array(name)) for name in bundle.manifest["views"]}
    for view in views.values():
        view[:, : view.shape[1] // 2] = 1
    yield "features that are constant", Changed(bundle, **views), trial.rows


def _refuses_nothing(trial: Trial) -> str | None:
    """it refuses nothing legal: one tested drug, unseen cells and drugs, one training drug, constant features"""
    for what, bundle, rows in _legal_parts(trial):
        try:
            predicted = trial.train(bundle, rows)(rows.test)
        except Exception as error:
            return f"{what}: {type(error).__name__}: {error}"
        if not np.isfinite(predicted).all():
            return f"{what}: predictions are not finite"
    return None


def _comes_back(trial: Trial) -> str | None:
    """a network that is made again from its settings takes the weights of the first and predicts the same"""
    kind = find(trial.model.kind)
    if not kind.network:
        return None
    generator = np.random.default_rng(0)
    cells, drugs = (torch.from_numpy(generator.normal(size=(6, width)).astype(np.float32)) for width in (5, 4))
    at = torch.arange(6)
    first, second = (kind.load()(5, 4, trial.model, 0.5).eval() for _ in range(2))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    with torch.inference_mode():
        outputs = [network(cells, drugs, at, at).numpy() for network in (first, second)]
    if outputs[0].shape != (6,):
        return f"for 6 rows its output has the shape {outputs[0].shape}, expected (6,)"
    return _differs(outputs[1], outputs[0])


def _stacks(trial: Trial) -> str | None:
    """a network that can be stacked is trained with others as alone"""
    model = trial.network
    if model is None or not hasattr(type(find(model.kind).load()(5, 4, model, 0.5)), "stack"):
        return None
    inputs = make_inputs(trial.bundle, trial.rows, model)
    jobs = [Job(f"seed {seed}", trial.rows, inputs, None, seed) for seed in (0, 1)]
    together = fit_stack(jobs, model, trial.training(), "mse")
    test = trial.rows.test
    return _differs(together[0].predict(test), trial.base(test), STACKED)


def _learns(trial: Trial) -> str | None:
    """on random pairs it has a lower squared error than the training mean"""
    if trial.model.kind == "naive":
        return None
    rows = make_rows(Split(kind="random_pairs", folds=3), "f0", trial.bundle)
    auc = trial.bundle.response["auc"].to_numpy(np.float64)
    predicted = trial.train(rows=rows, epochs=LEARNING_EPOCHS)(rows.test)
    own, naive = (((p - auc[rows.test]) ** 2).mean() for p in (predicted, auc[rows.train].mean()))
    return None if own < naive else f"its mean squared error is {own:.4f}, that of the mean {naive:.4f}"


def _estimates_memory(trial: Trial) -> str | None:
    """its settings estimate its memory"""
    from hedflow.models import sizes

    found = trial.model.memory_mb(sizes(trial.bundle.manifest, trial.model, Training().batch_size))
    return None if isinstance(found, int) and found > 0 else f"memory_mb() is {found!r}, expected a whole number of MB"


LAWS: tuple[Callable[[Trial], str | None], ...] = (
    _is_what_it_says,
    _predicts,
    _keeps_order,
    _is_blind,
    _learns_from_training,
    _ignores_held_out_drugs,
    _ignores_held_out_cells,
    _repeats,
    _needs_no_seed,
    _counts_weights,
    _refuses_nothing,
    _comes_back,
    _stacks,
    _estimates_memory,
    _learns,
)
