"""Kinds of model: the registry, each kind against a plain solution, the laws that all of them keep."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge as PlainRidge

from hedflow import HedflowError, models
from hedflow.baselines import BASELINES, fit_predict
from hedflow.bundle import Bundle
from hedflow.config import Split, Training, parse_config, parse_model
from hedflow.models.components import principal_components
from hedflow.models.estimator import TrainingData, validation_errors
from hedflow.models.kernel_ridge import Kernel, Pairs, System
from hedflow.similarity import tanimoto
from hedflow.splits import Rows, make_rows
from hedflow.testing import LAWS, check_model
from hedflow.training.estimate import fit_estimator, predict_estimator, training_data

# Small, so that the whole file takes seconds.
QUICK: dict[str, dict[str, Any]] = {
    "uno": {"width": 16, "tower_depth": 1, "head_depth": 1, "drug_features": ["descriptors"]},
    "ridge": {"drug_features": ["descriptors"], "penalties": [1.0, 100.0]},
    "kernel_ridge": {"sharpness": [1.0], "penalties": [1.0, 0.1]},
    "lightgbm": {"trees": 20, "components": 5, "leaf_rows": 20},
    "random_forest": {"trees": 10, "components": 5, "tree_rows": 1000},
    "tanimoto_knn": {"neighbours": [2, 5]},
    "naive": {},
}
ESTIMATORS = [name for name, kind in models.KINDS.items() if not kind.network]


@pytest.fixture(scope="module")
def rows(world_bundle: Bundle) -> Rows:
    return make_rows(Split(folds=3), "f0", world_bundle)


def data_of(bundle: Bundle, rows: Rows, kind: str, weights: bool = False, **settings: Any) -> TrainingData:
    own = np.random.default_rng(0).uniform(0.2, 3, len(rows.train)) if weights else None
    model = parse_model({"kind": kind, **QUICK[kind], **settings})
    return training_data(bundle, rows, model, Training(), weights=own)


def fitted(data: TrainingData, kind: str, seed: int = 0, **settings: Any) -> Any:
    model = parse_model({"kind": kind, **QUICK[kind], **settings})
    estimator = models.find(kind).load()(model, seed, 1)
    estimator.fit(data)
    return estimator


@pytest.mark.parametrize("kind", models.KINDS)
def test_a_kind_keeps_the_laws(kind: str, world_bundle: Bundle) -> None:
    assert len(check_model(kind, QUICK[kind], world_bundle)) == len(LAWS)


# ---- each kind against a plain solution


@pytest.mark.parametrize("weights", [False, True])
def test_ridge_is_the_ridge_of_the_rows_laid_out(weights: bool, world_bundle: Bundle, rows: Rows) -> None:
    data = data_of(world_bundle, rows, "ridge", weights)
    own = fitted(data, "ridge", penalties=[7.0])
    x = np.concatenate([data.cells[data.cell], data.drugs[data.drug]], axis=1).astype(np.float64)
    plain = PlainRidge(7.0).fit(x[rows.train], data.auc[rows.train], sample_weight=data.weights)
    np.testing.assert_allclose(own.predict(rows.test), plain.predict(x[rows.test]), atol=1e-5)
    assert own.describe()["parameters"] == x.shape[1] + 1


def test_a_hyper_parameter_is_chosen_by_the_monitor_on_validation_rows(world_bundle: Bundle, rows: Rows) -> None:
    grid = [1.0, 1e2, 1e4, 1e6, 1e8]
    for monitor in ("mae", "balanced_mae", "loss"):
        data = dataclasses.replace(data_of(world_bundle, rows, "ridge"), monitor=monitor)
        found = fitted(data, "ridge", penalties=grid).describe()
        errors = []
        for penalty in grid:
            predicted = fitted(data, "ridge", penalties=[penalty]).predict(rows.validation)
            errors.append(validation_errors(data.auc[rows.validation], predicted)[monitor])
        assert [row[monitor] for row in found["tried"]] == pytest.approx(errors, abs=1e-6)
        assert found["penalty"] == grid[int(np.argmin(errors))]


def dense(data: TrainingData, cells: Any, drugs: Any, penalty: float, rows: Any) -> Any:
    """Kernel ridge of the training rows, each a row of its own, with K laid out."""
    train = data.rows.train

    def kernel(a: Any, b: Any) -> Any:
        pair = np.ix_(data.cell[a], data.cell[b]), np.ix_(data.drug[a], data.drug[b])
        return cells[pair[0]] * drugs[pair[1]]

    mean = np.average(data.auc[train].astype(float), weights=data.train_weights)
    system = kernel(train, train) + penalty * np.diag(1 / data.train_weights)
    return mean + kernel(rows, train) @ np.linalg.solve(system, data.auc[train] - mean)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("kernels", [("rbf", "tanimoto"), ("linear", "rbf")])
def test_kernel_ridge_is_the_dense_solution(
    kernels: tuple[str, str], weights: bool, world_bundle: Bundle, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With pairs missing, and pairs measured by several sources, as rows of their own."""
    few = dataclasses.replace(rows, train=rows.train[::3])
    data = data_of(world_bundle, few, "kernel_ridge", weights)
    pairs = Pairs(data)
    assert not pairs.observed.all()
    assert pairs.weights.max() > pairs.weights[pairs.observed].min()
    monkeypatch.setattr("hedflow.models.kernel_ridge.TOLERANCE", 1e-9)
    settings = {"cell_kernel": kernels[0], "drug_kernel": kernels[1], "sharpness": [2.0], "penalties": [0.5]}
    own = fitted(data, "kernel_ridge", **settings).predict(rows.test)
    grams = []
    for name, matrix, axis in zip(kernels, (data.cells, data.drugs), ("cell", "drug"), strict=True):
        training = np.unique(getattr(data, axis)[few.train])
        squares = ((matrix[:, None].astype(float) - matrix[None]) ** 2).sum(axis=2)
        if name == "tanimoto":
            grams.append(tanimoto(data.fingerprints, data.fingerprints).astype(float))
        elif name == "rbf":
            among = squares[np.ix_(training, training)][~np.eye(len(training), dtype=bool)]
            grams.append(np.exp(-2.0 * squares / np.median(among)))
        else:
            products = matrix.astype(float) @ matrix.T.astype(float)
            grams.append(products / np.diag(products)[training].mean())
    np.testing.assert_allclose(own, dense(data, grams[0], grams[1], 0.5, rows.test), atol=1e-5)


def test_kernel_ridge_of_a_complete_grid_is_its_closed_form(world_bundle: Bundle, rows: Rows) -> None:
    """Every pair once: the preconditioner is then the solution, and one step is enough."""
    data = data_of(world_bundle, rows, "kernel_ridge")
    cell, drug = (x.ravel() for x in np.meshgrid(range(9), range(7), indexing="ij"))
    auc = np.random.default_rng(0).uniform(0, 1, 63).astype(np.float32)
    grid = dataclasses.replace(data, cell=cell, drug=drug, auc=auc, rows=Rows(np.arange(63), np.arange(5), rows.test))
    cells, drugs = (Kernel("rbf", m, np.arange(n)).at(1.0) for m, n in ((data.cells, 9), (data.drugs, 7)))
    system = System(cells[:9], drugs[:7], Pairs(grid))
    dual, steps = system.solve(0.3)
    assert steps == 1
    whole = np.kron(cells[:9], drugs[:7]) + 0.3 * np.eye(63)
    np.testing.assert_allclose(dual.ravel(), np.linalg.solve(whole, auc - auc.mean(dtype=float)), atol=1e-6)


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_naive_model_is_the_baseline(baseline: str, world_bundle: Bundle, rows: Rows) -> None:
    data = data_of(world_bundle, rows, "naive")
    wanted = fit_predict(world_bundle.response, rows.train, rows.test, data.tissue, data.fingerprints)[baseline]
    found = fitted(data, "naive", baseline=baseline).predict(rows.test)
    np.testing.assert_array_equal(found, wanted)


def test_neighbours_are_the_baselines_and_k_is_chosen(world_bundle: Bundle, rows: Rows) -> None:
    data = data_of(world_bundle, rows, "tanimoto_knn")
    found = fitted(data, "tanimoto_knn", neighbours=[1, 3, 8])
    k = found.describe()["neighbours"]
    tried = {row["neighbours"]: row["balanced_mae"] for row in found.describe()["tried"]}
    assert k == min(tried, key=lambda n: tried[n])
    wanted = fit_predict(world_bundle.response, rows.train, rows.test, data.tissue, data.fingerprints, k)
    np.testing.assert_allclose(found.predict(rows.test), wanted["tanimoto_knn"], atol=1e-6)


def test_boosted_trees_stop_where_the_monitor_is_best(world_bundle: Bundle, rows: Rows) -> None:
    data = data_of(world_bundle, rows, "lightgbm")
    found = fitted(data, "lightgbm", trees=200, patience=5, learning_rate=0.3)
    described = found.describe()
    curve = described["tried"]["balanced_mae"]
    assert described["trees"] == int(np.argmin(curve)) + 1 == len(curve) - 5
    assert data.error(found.predict(rows.validation)) == pytest.approx(min(curve), abs=1e-6)


@pytest.mark.parametrize("kind", ["lightgbm", "random_forest"])
def test_trees_follow_their_seed_and_their_weights(kind: str, world_bundle: Bundle, rows: Rows) -> None:
    data = data_of(world_bundle, rows, kind)
    base = fitted(data, kind).predict(rows.test)
    assert not np.array_equal(fitted(data, kind, seed=1).predict(rows.test), base)
    weights = np.where(data.drug[rows.train] == data.drug[rows.train][0], 50.0, 1.0)
    heavy = fitted(dataclasses.replace(data, weights=weights), kind)
    own = rows.train[weights > 1]
    errors = [np.abs(model.predict(own) - data.auc[own]).mean() for model in (heavy, fitted(data, kind))]
    assert errors[0] < errors[1]


def test_principal_components_of_the_training_rows() -> None:
    generator = np.random.default_rng(0)
    matrix = (generator.normal(size=(30, 3)) @ generator.normal(size=(3, 8))).astype(np.float32)
    training = np.arange(20)
    found = principal_components(matrix, training, 5)
    assert found.shape == (30, 3)  # no more than there is
    centred = matrix - matrix[training].mean(axis=0)
    gram = found @ found.T
    np.testing.assert_allclose(gram, centred @ centred.T, atol=1e-3)  # nothing is lost
    assert (np.diff(found[training].var(axis=0)) < 0).all()
    other = matrix.copy()
    other[25] *= 100
    np.testing.assert_array_equal(principal_components(other, training, 2)[:25], found[:25, :2])
    assert principal_components(np.zeros((5, 4), np.float32), np.arange(3), 2).shape == (5, 0)


# ---- what an estimator is given, and what it may give


def test_an_estimator_never_sees_the_truth_of_test_rows(world_bundle: Bundle, rows: Rows) -> None:
    data = data_of(world_bundle, rows, "ridge")
    assert np.isnan(data.auc[rows.test]).all()
    for part in (rows.train, rows.validation):
        np.testing.assert_array_equal(data.auc[part], world_bundle.response["auc"].to_numpy()[part])


def test_validation_errors() -> None:
    auc, predicted = np.array([0.2, 0.6, 0.8, 1.0]), np.array([0.5, 0.6, 0.7, 1.0], np.float32)
    both = {"mae": 0.1, "balanced_mae": (0.3 + 0.1 / 3) / 2, "loss": (0.3**2 + 0.1**2) / 4}
    assert validation_errors(auc, predicted) == pytest.approx(both, rel=1e-5)
    one_side = {"mae": 0.1 / 3, "balanced_mae": 0.1 / 3, "loss": 0.1**2 / 3}
    assert validation_errors(auc[1:], predicted[1:]) == pytest.approx(one_side, rel=1e-5)


def test_predictions_are_cut_off_at_0_and_1(world_bundle: Bundle, rows: Rows) -> None:
    model = parse_model({"kind": "ridge", **QUICK["ridge"], "penalties": [1e-9]})
    estimator, about = fit_estimator(world_bundle, rows, model, Training(), 0)
    assert estimator.predict(rows.test).max() > 1
    found = predict_estimator(estimator, rows.test)
    np.testing.assert_array_equal(found, np.clip(estimator.predict(rows.test), 0, 1))
    assert about["best"]["epoch"] is None
    assert about["best"]["validation_mae"] > 0


# ---- the registry and the configuration


BAD = {
    "an unknown kind": ({"kind": "rigde"}, "'models.m.kind' is 'rigde', which is not a valid name; did you mean ridge"),
    "a key of another kind": ({"kind": "ridge", "width": 3}, "unknown key 'models.m.width'"),
    "a key nearly right": (
        {"kind": "kernel_ridge", "penalty": [3]},
        "unknown key 'models.m.penalty'; did you mean penalties?",
    ),
    "features of a kind that has none": ({"kind": "naive", "drug_features": ["descriptors"]}, "unknown key"),
    "no penalty": ({"kind": "ridge", "penalties": []}, "'models.m.penalties' is []"),
    "a penalty of nought": ({"kind": "ridge", "penalties": [0]}, "'models.m.penalties.0' is 0"),
    "a baseline that is none": ({"kind": "naive", "baseline": "drug_means"}, "did you mean drug_mean"),
    "tanimoto of descriptors": (
        {"kind": "kernel_ridge", "drug_features": ["descriptors"]},
        "drug_kernel tanimoto is of fingerprints",
    ),
    "a kind that is a list": ({"kind": ["ridge"]}, "'models.m.kind' is ['ridge'], which is not a valid name"),
    "no mapping": (3, "'models.m' is 3"),
}


@pytest.mark.parametrize(("raw", "said"), BAD.values(), ids=BAD)
def test_a_wrong_model_is_one_sentence(raw: Any, said: str) -> None:
    with pytest.raises(HedflowError) as caught:
        parse_config({"models": {"m": raw}})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(HedflowError, match=r"^('models\.m|unknown key 'models\.m)"):
        parse_model(raw, "m")


@pytest.mark.parametrize("kind", models.KINDS)
def test_a_kind_is_a_row_and_a_module(kind: str) -> None:
    row = models.find(kind)
    settings = row.settings(kind=kind)
    assert parse_model(json.loads(settings.model_dump_json())) == settings
    assert callable(row.load())
    assert importlib.import_module(row.module).__doc__
    assert row.losses == row.network


def test_the_registry_imports_no_model() -> None:
    heavy = ("torch", "lightgbm", "sklearn", "scipy")
    code = f"import sys, hedflow.config; print([m for m in {heavy} if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", models.KINDS)
def test_memory_grows_with_what_is_there(kind: str) -> None:
    settings = models.find(kind).settings(kind=kind)
    sizes = models.Sizes(600_000, 900, 700, 500, 1200, 4096)
    whole = settings.memory_mb(sizes)
    assert 500 < whole < 8000
    assert settings.memory_mb(dataclasses.replace(sizes, rows=10 * sizes.rows, cells=9000, batch_size=40_960)) >= whole


def test_columns_that_a_model_reads() -> None:
    views = {"expression": "ab" * 30, "mutations": "abc", "descriptors": "abcd", "fingerprints": "x" * 64}
    columns = {
        (("expression",), None): 60,
        (("expression", "mutations"), None): 63,
        (("expression", "mutations"), 7): 10,
        (("mutations",), 7): 3,
    }
    for (cells, genes), wanted in columns.items():
        model = parse_model({"cell_features": list(cells), "genes": genes, "drug_features": ["fingerprints"]})
        assert model.columns(views) == (wanted, 64)
    assert parse_model({"kind": "naive"}).columns(views) == (0, 0)


def test_a_model_without_features_asks_for_no_view() -> None:
    raw = {
        "features": {"views": ["mutations"]},
        "data": {"mirror": "x"},
        "models": {"m": {"kind": "naive"}},
        "experiments": {"e": {"models": ["m"]}},
    }
    parse_config(raw)
    raw["models"]["m"]["kind"] = "ridge"
    with pytest.raises(HedflowError, match="which reads the view 'expression', and the bundle has not got it"):
        parse_config(raw)
