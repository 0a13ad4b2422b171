"""Models of other packages: the one of docs/howto.md from its installation to a run, and laws that are broken."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from test_models import QUICK

from hedflow import HedflowError, models, provenance
from hedflow.alignment import fit_alignment
from hedflow.analysis.collect import collect_runs, pool
from hedflow.bundle import Bundle
from hedflow.cli import main
from hedflow.config import Split, Training, parse_config, parse_model
from hedflow.files import read_json, write_parquet
from hedflow.plan import make_plan, summary
from hedflow.schemas import PREDICTIONS, checked
from hedflow.splits import make_rows
from hedflow.testing import LAWS, check_model
from hedflow.training import train_run
from hedflow.training.estimate import fit_estimator, predict_estimator

RIDGE = {"kind": "ridge", "drug_features": ["descriptors"]}


def offer(folder: Path, package: str, code: str, points: dict[str, str]) -> None:
    """Lay a module and its metadata into a folder, as pip would."""
    (folder / f"{package}.py").write_text(code)
    info = folder / f"{package}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
    lines = [f"{name} = {value}\n" for name, value in points.items()]
    (info / "entry_points.txt").write_text("[hedflow.models]\n" + "".join(lines))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a folder of packages on the path; forgotten after the test."""
    before = set(sys.modules)

    def add(folder: Path) -> None:
        monkeypatch.syspath_prepend(str(folder))
        models._load.cache_clear()

    yield add
    models._load.cache_clear()
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith("/tmp"):
            del sys.modules[name]


# ---- the worked example of docs/howto.md


@pytest.fixture(scope="module")
def site(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip has installed the howto's package into."""
    folder = tmp_path_factory.mktemp("howto")
    text = (repo / "docs/howto.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"^```\w+\n# (my-models/\S+)\n(.*?)^```", text, flags=re.M | re.S))
    assert len(blocks) == 4
    for path, code in blocks.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(code)
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder / "site"), "./my-models"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "site"


def config_of_the_howto(repo: Path) -> dict[str, Any]:
    """Step 5 of the section, on a part of a split that is small."""
    section = (repo / "docs/howto.md").read_text(encoding="utf-8").split("## A model of your own")[1]
    raw = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```", section, flags=re.M | re.S)[0])
    raw["models"]["ridge"] = RIDGE
    raw["experiments"]["mine"] |= {
        "split": {"folds": 3, "use_folds": [0]},
        "seeds": [0, 4],
        "training": {"epochs": 2, "batch_size": 256, "device": "cpu", "align": "CTRPv2"},
    }
    return dict(raw)


def test_the_howtos_model_keeps_the_laws(site: Path, world_bundle: Bundle, here: Any, capsys: Any) -> None:
    here(site)
    assert main(["check-model", "cells_alike", "--bundle", str(world_bundle.folder), "--config", "none"]) == 0
    assert capsys.readouterr().out.count("kept: ") == len(LAWS)


def test_laws_on_a_bundle_that_is_simulated(capsys: Any) -> None:
    assert main(["check-model", "naive"]) == 0
    assert capsys.readouterr().out.count("kept: ") == len(LAWS)
    assert main(["check-model", "nave"]) == 1
    assert "'models.nave.kind' is 'nave', which is not a valid name; did you mean naive?" in capsys.readouterr().err


def test_the_howtos_models_from_the_configuration_to_their_predictions(
    site: Path, world_bundle: Bundle, here: Any, repo: Path, tmp_path: Path
) -> None:
    here(site)
    config = parse_config(config_of_the_howto(repo))
    plan = make_plan(config, "mine", world_bundle)
    assert summary(plan) == "4 runs (3 methods, 1 split, 2 seeds)"
    # The first model is the reference; a model with a loss of its own is called by its name, and has one run.
    assert list(plan["method"]) == ["alike", "products.mse", "products.mse", "ridge"]
    assert list(plan["reference"]) == [True, True, True, False]
    assert plan["run"][0] == "alike.own.drug_blind-f0.s0"
    assert list(plan["loss_name"]) == ["own", "mse", "mse", "own"]
    assert list(plan["seed"]) == [0, 0, 4, 0]
    write_parquet(tmp_path / "plan.parquet", plan)
    for run in plan["run"]:
        out = tmp_path / "runs" / run
        train_run(world_bundle.folder, tmp_path / "plan.parquet", run, out / "predictions.parquet", out / "run.json")
    predictions, records = collect_runs(plan, list(plan["run"]), tmp_path / "runs")
    write_parquet(tmp_path / "records.parquet", records)
    kept = pd.read_parquet(tmp_path / "records.parquet").set_index("run")
    assert list(kept["epochs"]) == [0, 2, 2, 0]
    assert kept["best_epoch"].isna().tolist() == [True, False, False, True]
    frames = pool(plan, predictions, world_bundle)
    rows = make_rows(Split(folds=3), "f0", world_bundle)
    for frame in frames.values():
        assert np.array_equal(frame["row"], rows.test)
    record = read_json(tmp_path / "runs" / plan["run"][0] / "run.json")
    assert record["estimator"]["neighbours"] in (5, 20, 80)
    assert record["history"] == []
    alignment = fit_alignment(world_bundle.response.iloc[rows.train], "CTRPv2")
    assert record["alignment"] == alignment.summary()
    assert alignment.knots
    settings = config.models["alike"], config.training_of("mine")
    predicted = predict_estimator(fit_estimator(world_bundle, rows, *settings, 0, alignment)[0], rows.test)
    own = alignment.to_own(predicted, world_bundle.response["source"].to_numpy()[rows.test])
    assert not np.array_equal(own, predicted)
    np.testing.assert_allclose(frames["alike"]["auc_pred"], own, atol=1e-6)


def forget() -> None:
    """What this process has read of the code."""
    for remembered in (provenance.code_digest, provenance._essence, provenance._imports):
        remembered.cache_clear()


def test_an_edit_trains_the_runs_of_its_own_model_only(site: Path, world_bundle: Bundle, here: Any, repo: Path) -> None:
    here(site)

    def digests() -> dict[str, str]:
        forget()  # a later call of Snakemake is a process of its own
        plan = make_plan(parse_config(config_of_the_howto(repo)), "mine", world_bundle)
        return dict(zip(plan["model"], plan["digest"], strict=True))

    before = digests()
    module = site / "mymodels" / "cells_alike.py"
    text = module.read_text()
    module.write_text("# A comment\n" + text)
    assert digests() == before
    module.write_text(text.replace("axis=1).astype", "axis=-1).astype"))
    assert module.read_text() != text
    after = digests()
    module.write_text(text)
    forget()
    assert [name for name in before if before[name] != after[name]] == ["alike"]


# ---- plans with estimators


def plan_of(bundle: Bundle, **experiment: Any) -> pd.DataFrame:
    raw = {"models": {"r": RIDGE, "u": {"width": 4}, "t": {"kind": "lightgbm"}}, "experiments": {"e": experiment}}
    return make_plan(parse_config(raw), "e", bundle)


def test_an_estimator_has_one_run_a_part_and_seed(world_bundle: Bundle) -> None:
    losses = [{"name": "mse"}, {"name": "mae_poly", "alpha": [1, 2]}]
    table = plan_of(world_bundle, models=["u", "r", "t"], losses=losses, seeds=[3, 5], split={"folds": 3})
    counts = table.groupby("model").size()
    assert dict(counts) == {"u": 3 * 3 * 2, "r": 3, "t": 3 * 2}
    assert list(dict.fromkeys(table["method"])) == ["u.mse", "u.mae_poly-1", "u.mae_poly-2", "r", "t"]
    assert table[table["model"] != "u"]["alpha"].isna().all()
    assert set(table.loc[table["model"] == "r", "seed"]) == {0}
    assert not table[table["model"] != "u"]["reference"].any()
    alone = plan_of(world_bundle, models=["r"], losses=losses, seeds=[3], split={"folds": 3})
    assert set(alone["method"]) == {"r"}
    assert set(alone["digest"]) == set(table.loc[table["model"] == "r", "digest"])


def test_what_trains_a_network_trains_no_estimator_again(world_bundle: Bundle) -> None:
    def one(model: str, **training: Any) -> str:
        table = plan_of(world_bundle, models=[model], training=training, split={"folds": 3, "use_folds": [0]})
        return str(table["digest"].item())

    assert one("r", epochs=7, batch_size=8) == one("r")
    assert one("u", epochs=7) != one("u")
    assert len({one("r"), one("r", monitor="mae"), one("r", align="CCLE"), one("t")}) == 4


def test_a_upf_line_may_name_an_estimator(world_bundle: Bundle, tmp_path: Path) -> None:
    lines = [
        {"id": "a", "fold": 0},
        {"id": "b", "fold": 0, "model": "r"},
        {"id": "c", "fold": 0, "model": "t", "seed": 9},
    ]
    (tmp_path / "runs.upf").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "defaults.json").write_text(json.dumps({"loss": "mae_poly", "alpha": 2}))
    files = {"upf": str(tmp_path / "runs.upf"), "defaults": str(tmp_path / "defaults.json")}
    table = plan_of(world_bundle, models=["u"], split={"folds": 3}, **files)
    assert list(table["method"]) == ["u.mae_poly-2", "r", "t"]
    assert list(table["seed"]) == [0, 0, 9]
    assert list(table["loss"]) == ["mae_poly-2", "own", "own"]


@pytest.mark.parametrize("kind", [name for name, kind in models.KINDS.items() if not kind.network])
def test_a_run_of_each_estimator(kind: str, world_bundle: Bundle, tmp_path: Path) -> None:
    raw = {
        "models": {"m": {"kind": kind, **QUICK[kind]}},
        "experiments": {"e": {"models": ["m"], "split": {"folds": 3, "use_folds": [1]}, "seeds": [2]}},
    }
    plan = make_plan(parse_config(raw), "e", world_bundle)
    write_parquet(tmp_path / "plan.parquet", plan)
    files = tmp_path / "predictions.parquet", tmp_path / "run.json"
    train_run(world_bundle.folder, tmp_path / "plan.parquet", plan["run"].item(), *files)
    predictions = checked(pd.read_parquet(files[0]), PREDICTIONS, "predictions")
    assert predictions["auc_pred"].between(0, 1).all()
    record = read_json(files[1])
    assert record["estimator"]["parameters"] == record["parameters"]
    assert record["best"]["monitor"] == "validation_balanced_mae"
    assert record["best"]["validation_balanced_mae"] > 0
    assert record["rows_per_second"] > 0
    truth = world_bundle.response["auc"].to_numpy()[predictions["row"]].astype(float)
    assert record["metrics"]["mae"] == pytest.approx(np.abs(predictions["auc_pred"] - truth).mean(), abs=1e-6)


def test_the_weights_of_a_run_reach_its_estimator(world_bundle: Bundle, tmp_path: Path) -> None:
    """Drugs that are weighted up, as the second step of an experiment does."""
    plan = plan_of(world_bundle, models=["r"], split={"folds": 3, "use_folds": [0]})
    rows = make_rows(Split(folds=3), "f0", world_bundle)
    drug = int(world_bundle.response["drug"][rows.train[0]])
    weights = {"drugs": [world_bundle.drugs["drug_id"][drug]], "factor": 20.0}
    spec = {**json.loads(plan["spec"].item()), "weights": weights}
    write_parquet(tmp_path / "plan.parquet", plan.assign(spec=json.dumps(spec)))
    files = tmp_path / "predictions.parquet", tmp_path / "run.json"
    train_run(world_bundle.folder, tmp_path / "plan.parquet", plan["run"].item(), *files)
    own = np.where(world_bundle.response["drug"].to_numpy()[rows.train] == drug, 20.0, 1.0)
    settings = parse_model(RIDGE), Training()
    wanted, plain = (
        predict_estimator(fit_estimator(world_bundle, rows, *settings, 0, weights=w)[0], rows.test) for w in (own, None)
    )
    found = pd.read_parquet(files[0])["auc_pred"]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert np.abs(found - plain).max() > 1e-3


# ---- entry points that are broken

SETTINGS = """
from hedflow.models import Kind
from hedflow.models.settings import KindSettings, ModelSettings
"""
BROKEN = {
    "a module that is not there": ("", "nowhere:KIND", "(nowhere:KIND) cannot be imported: ModuleNotFoundError"),
    "a module that fails": ("1 / 0", "broken:KIND", "cannot be imported: ZeroDivisionError: division by zero; mend"),
    "no such object": ("", "broken:KIND", "cannot be imported: AttributeError"),
    "no kind": ("KIND = 3", "broken:KIND", "is 3, expected a hedflow.models.Kind"),
    "no settings": (f"{SETTINGS}KIND = Kind(dict, 'broken:X')", "broken:KIND", "expected a subclass of hedflow.mod"),
    "no place": (f"{SETTINGS}KIND = Kind(KindSettings, 'broken')", "broken:KIND", "expected 'package.module:attribute"),
    "a network without features": (
        f"{SETTINGS}KIND = Kind(KindSettings, 'broken:X', network=True)",
        "broken:KIND",
        "is a network, so its settings must be a subclass of hedflow.models.settings.ModelSettings",
    ),
}


@pytest.mark.parametrize(("code", "value", "said"), BROKEN.values(), ids=BROKEN)
def test_a_broken_entry_point_is_one_sentence(code: str, value: str, said: str, tmp_path: Path, here: Any) -> None:
    offer(tmp_path, "broken", code, {"mine": value})
    here(tmp_path)
    assert parse_config({}).models  # it harms nobody who does not use it
    with pytest.raises(HedflowError) as caught:
        parse_config({"models": {"m": {"kind": "mine"}}})
    assert str(caught.value).startswith("the model kind 'mine' of package broken (")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_code_that_is_not_there_is_said_in_the_plan(world_bundle: Bundle, tmp_path: Path, here: Any) -> None:
    offer(tmp_path, "broken", f"{SETTINGS}KIND = Kind(KindSettings, 'nowhere:X')", {"mine": "broken:KIND"})
    here(tmp_path)
    config = parse_config({"models": {"m": {"kind": "mine"}}, "experiments": {"e": {"models": ["m"]}}})
    with pytest.raises(HedflowError, match="names code that is not there: nowhere is no module"):
        make_plan(config, "e", world_bundle)
    with pytest.raises(HedflowError, match="the model's code nowhere:X cannot be had"):
        models.find("mine").load()
    with pytest.raises(
        HedflowError, match=r"'models\.m\.kind' is 'mime', which is not a valid name; did you mean mine"
    ):
        parse_config({"models": {"m": {"kind": "mime"}}})


# ---- laws that are broken

SINNERS = f"""
import numpy as np
from hedflow.models.estimator import Estimator
{SETTINGS}

class Good(Estimator):
    '''Ridge of the cell's and the drug's mean features: learns enough on random pairs.'''

    def features(self, rows):
        d = self.data
        return np.concatenate([self.cells[d.cell[rows]], self.drugs[d.drug[rows]], np.ones((len(rows), 1))], axis=1)

    def fit(self, data):
        self.data, self.cells, self.drugs = data, data.cells, data.drugs
        x, y = self.features(data.rows.train), data.auc[data.rows.train]
        w = data.train_weights[:, None]
        self.b = np.linalg.solve(x.T @ (w * x) + 100 * np.eye(x.shape[1]), x.T @ (w[:, 0] * y))

    def predict(self, rows):
        return (self.features(rows) @ self.b).astype(np.float32)

    def describe(self):
        return {{"parameters": len(self.b)}}


class Double(Good):
    def predict(self, rows):
        return super().predict(rows).astype(np.float64)

class Holes(Good):
    def predict(self, rows):
        found = super().predict(rows)
        found[::7] = np.nan
        return found

class Neighbourly(Good):
    def predict(self, rows):
        found = super().predict(rows)
        return found - found.mean() + np.float32(0.8)

class Careless(Good):
    def fit(self, data):
        super().fit(data)
        self.b += 1e-3 * np.random.default_rng().normal(size=self.b.shape)

class Peeping(Good):
    '''Scales once more, by every drug that there is.'''
    def fit(self, data):
        super().fit(data)
        self.drugs = data.drugs - data.drugs.mean(axis=0)

class PeepingAtCells(Good):
    def fit(self, data):
        super().fit(data)
        self.cells = data.cells - data.cells.mean(axis=0)

class Seeded(Good):
    def fit(self, data):
        super().fit(data)
        self.b += 1e-3 * np.random.default_rng(self.seed).normal(size=self.b.shape)

class Fussy(Good):
    def fit(self, data):
        if len(np.unique(data.drug[data.rows.train])) < 2:
            raise ValueError("too few drugs")
        super().fit(data)

class Heavy(Good):
    def fit(self, data):
        super().fit(data)
        if data.weights is not None:
            self.b[-1] += 0.1

class Stubborn(Good):
    def predict(self, rows):
        return np.full(len(rows), 0.5, np.float32)

class Gloomy(Good):
    def predict(self, rows):
        return super().predict(rows) * np.float32(0.01)

class Leaky(Good):
    '''Reads the truth of the test rows where it lies.'''
    def fit(self, data):
        super().fit(data)
        import inspect
        frame = inspect.currentframe()
        while "bundle" not in frame.f_locals:
            frame = frame.f_back
        truth = frame.f_locals["bundle"].response["auc"].to_numpy()[data.rows.test]
        self.b[-1] += float(truth @ np.arange(len(truth))) / len(truth) ** 2 / 10

NOT_ONE = object

class Small(ModelSettings):
    pass

class Weightless(ModelSettings):
    def memory_mb(self, sizes):
        return -1.0

def kind(name):
    settings = Weightless if name == "Weightless" else Small
    return Kind(settings, "sinners:" + ("Good" if name == "Weightless" else name), seeded=False)

"""
SINS = {
    "Double": ("predictions are finite float32 numbers, one a row", "predicted float64 of shape"),
    "Holes": ("predictions are finite float32 numbers, one a row", "predictions are not finite"),
    "Neighbourly": ("a row's prediction does not depend on the rows beside it", "predictions differ, by up to"),
    "Careless": ("the same seed gives the same bits", "predictions differ, by up to"),
    "Peeping": ("the features of held-out drugs scale nothing", "predictions differ, by up to"),
    "PeepingAtCells": ("the features of held-out cells scale nothing", "predictions differ, by up to"),
    "Seeded": ("one run serves all seeds, if its kind says so", "predictions differ, by up to"),
    "Fussy": ("it refuses nothing legal", "one training drug, one validation drug: ValueError: too few drugs"),
    "Heavy": ("weights of 1 are no weights", "predictions differ, by up to 0.1 AUC"),
    "Stubborn": ("the truth of training rows does reach it", "with other truth it predicts the same"),
    "Gloomy": ("on random pairs it has a lower squared error than the training mean", "its mean squared error is"),
    "Leaky": ("the truth of test rows does not reach it", "predictions differ, by up to"),
    "NOT_ONE": ("its code can be loaded, and is what the registry says", "is no subclass of hedflow.models.estimator"),
    "Weightless": ("its settings estimate its memory", "memory_mb() is -1.0, expected a whole number"),
}


@pytest.fixture
def sinners(tmp_path: Path, here: Callable[[Path], None]) -> None:
    """A package with a kind for each law, which breaks it, and one that breaks none."""
    names = ["Good", *SINS]
    kinds = [f"{name.upper()}_KIND = kind({name!r})\n" for name in names]
    offer(tmp_path, "sinners", SINNERS + "".join(kinds), {n.lower(): f"sinners:{n.upper()}_KIND" for n in names})
    here(tmp_path)


@pytest.mark.parametrize("name", ["Good", *SINS])
def test_a_law_that_is_broken_is_said(
    name: str, sinners: None, world_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "Good":
        assert len(check_model("good", {}, world_bundle)) == len(LAWS)
        return
    law, said = SINS[name]
    # The others take their time, and are kept by hedflow's own kinds.
    monkeypatch.setattr("hedflow.testing.LAWS", [one for one in LAWS if law in (one.__doc__ or "")])
    with pytest.raises(HedflowError) as caught:
        check_model(name.lower(), {}, world_bundle)
    assert str(caught.value).startswith(f"{name.lower()} breaks the law '{law}")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
