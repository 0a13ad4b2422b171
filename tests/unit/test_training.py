"""Training on the simulated world: what it reads, what it must not read, that it repeats, and that it learns."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from hedflow import HedflowError
from hedflow.alignment import fit_alignment
from hedflow.bundle import open_bundle
from hedflow.config import Model, Split, Training, parse_config
from hedflow.files import read_json, write_parquet
from hedflow.plan import make_plan
from hedflow.schemas import PREDICTIONS, checked
from hedflow.splits import make_rows
from hedflow.training import train_run
from hedflow.training.fit import fit, make_network
from hedflow.training.inputs import CLIP, make_inputs, most_variable, standardise
from hedflow.training.run import _metrics

SMALL = {"width": 16, "tower_depth": 1, "head_depth": 1, "dropout": 0.1, "drug_features": ["fingerprints"]}
QUICK = {"device": "cpu", "epochs": 4, "batch_size": 256, "learning_rate": 0.003, "warmup_epochs": 1}


def write_plan(path, bundle, training=QUICK, model=SMALL, **experiment):
    experiment = {"models": ["m"], "split": {"folds": 3, "use_folds": [0]}, "training": training, **experiment}
    plan = make_plan(parse_config({"models": {"m": model}, "experiments": {"e": experiment}}), "e", bundle)
    write_parquet(path, plan)
    return plan


def train(folder, bundle, **settings):
    """Plan one run in `folder` and train it; (predictions, record)."""
    run = write_plan(folder / "plan.parquet", bundle, **settings)["run"].item()
    train_run(bundle.folder, folder / "plan.parquet", run, folder / "predictions.parquet", folder / "run.json")
    return pd.read_parquet(folder / "predictions.parquet"), read_json(folder / "run.json")


def copy_of(bundle, folder, change):
    """A copy of the bundle whose AUC column is `change(auc)`; its digest is left as it was."""
    shutil.copytree(bundle.folder, folder)
    auc = bundle.response["auc"].to_numpy(copy=True)
    write_parquet(folder / "response.parquet", bundle.response.assign(auc=change(auc)))
    return open_bundle(folder)


@pytest.fixture(scope="module")
def trained(world_bundle, tmp_path_factory):
    """One short drug-blind run: folder, predictions, record."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, *train(folder, world_bundle)


def bits(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- scaling


def test_standardise_by_the_training_rows():
    matrix = np.random.default_rng(0).normal(5, 3, (30, 4)).astype(np.float32)
    training = np.arange(0, 30, 2)
    scaled = standardise(matrix, training)
    assert scaled.dtype == np.float32
    wanted = (matrix - matrix[training].mean(axis=0)) / matrix[training].std(axis=0)
    np.testing.assert_allclose(scaled, wanted, atol=1e-5)
    other = matrix.copy()
    other[1::2] = np.nan_to_num(other[1::2] * 1e6, nan=0)
    other[1] = np.inf
    np.testing.assert_array_equal(standardise(other, training)[training], scaled[training])


def test_standardise_what_is_constant_missing_or_infinite():
    nan, inf = np.nan, np.inf
    matrix = np.array(
        [[1, 7, nan, 0, nan, 1e30], [3, 7, 2, inf, nan, 2], [nan, 7, 4, 2, nan, 3], [1e9, 8, nan, -inf, 5, 4]],
        dtype=np.float32,
    )
    scaled = standardise(matrix, np.array([0, 1, 2]))
    assert np.isfinite(scaled).all()
    np.testing.assert_allclose(scaled[:3, 0], [-1, 1, 0])  # missing: the training mean
    assert (scaled[:, 1] == 0).all()  # constant in training, also where it is not held out
    np.testing.assert_allclose(scaled[:3, 2], [0, -1, 1])
    np.testing.assert_allclose(scaled[:, 3], [-1, CLIP, 1, -CLIP])
    assert (scaled[:, 4] == 0).all()  # never seen in training
    assert scaled[3, 0] == CLIP
    assert (scaled[1:, 5] < 0).all()  # an outlier's size does not overflow


def test_most_variable_over_the_training_rows():
    rng = np.random.default_rng(1)
    matrix = rng.normal(0, 1, (40, 6)) * [1, 6, 2, 5, 3, 4]
    training = np.arange(20)
    assert list(most_variable(matrix, training, 3)) == [1, 3, 5]
    matrix[20:, 0] *= 1e6  # varies among the held-out rows only
    assert list(most_variable(matrix, training, 3)) == [1, 3, 5]
    matrix[3, 1], matrix[4, 3], matrix[:20, 5] = np.inf, np.nan, np.nan
    assert list(most_variable(matrix, training, 3)) == [1, 3, 4]  # single gaps do not count, whole columns do
    assert list(most_variable(matrix, training, None)) == list(most_variable(matrix, training, 9)) == list(range(6))


@pytest.mark.parametrize("kind", ["drug_blind", "cell_blind"])
def test_held_out_cells_and_drugs_do_not_scale_the_inputs(kind, world_bundle, tmp_path):
    rows = make_rows(Split(kind=kind, folds=3), "f0", world_bundle)
    unit = "drug" if kind == "drug_blind" else "cell"
    number = world_bundle.response[unit].to_numpy()
    seen, held = np.unique(number[rows.train]), np.unique(number[np.concatenate([rows.test, rows.validation])])
    shutil.copytree(world_bundle.folder, tmp_path / "changed")
    name, view = {"drug": ("drugs", "descriptors"), "cell": ("cells", "expression")}[unit]
    matrix = np.array(world_bundle.array(view))
    matrix[held] = matrix[held] * 100 + 7
    np.save(tmp_path / "changed" / f"{view}.npy", matrix)
    model = Model(genes=20)
    before, after = (make_inputs(b, rows, model) for b in (world_bundle, open_bundle(tmp_path / "changed")))
    assert torch.equal(getattr(before, name)[seen], getattr(after, name)[seen])
    assert not torch.equal(getattr(before, name)[held], getattr(after, name)[held])
    assert before.cells.shape == (len(world_bundle.cells), 20)


def test_inputs_say_what_the_bundle_says(world_bundle):
    rows = make_rows(Split(folds=3), "f0", world_bundle)
    inputs = make_inputs(world_bundle, rows, Model(drug_features=["descriptors", "fingerprints"]))
    widths = [world_bundle.array(name).shape[1] for name in ("descriptors", "fingerprints")]
    assert inputs.drugs.shape == (len(world_bundle.drugs), sum(widths))
    assert inputs.cells.shape == world_bundle.array("expression").shape
    for name in ("cell", "drug", "auc"):
        np.testing.assert_array_equal(getattr(inputs, name).numpy(), world_bundle.response[name])
    for matrix in (inputs.cells, inputs.drugs):
        assert torch.isfinite(matrix).all()
        assert matrix.abs().max() <= CLIP


# --- a run


def test_predictions_are_of_exactly_the_test_rows(trained, world_bundle):
    _, predictions, _ = trained
    rows = make_rows(Split(folds=3), "f0", world_bundle)
    assert np.array_equal(predictions["row"], rows.test)
    checked(predictions, PREDICTIONS, "predictions")
    assert predictions["auc_pred"].between(0, 1).all()
    assert predictions["auc_pred"].std() > 0.001


def test_the_record(trained, world_bundle):
    folder, predictions, record = trained
    plan = pd.read_parquet(folder / "plan.parquet").iloc[0]
    rows = make_rows(Split(folds=3), "f0", world_bundle)
    auc = world_bundle.response["auc"].to_numpy()[rows.test].astype(float)
    error = predictions["auc_pred"].to_numpy(float) - auc
    assert set(record) == {
        *("run", "digest", "bundle", "spec", "rows", "inputs", "parameters", "metrics", "best", "history", "seconds"),
        *("status", "reason", "alignment", "resumed", "rollbacks", "notes", "together"),
        *("rows_per_second", "peak_mb", "device", "precision", "host", "versions"),
    }
    assert record["run"] == plan["run"]
    assert record["digest"] == plan["digest"]
    assert record["bundle"] == world_bundle.digest
    assert record["spec"] == json.loads(plan["spec"])
    assert record["rows"] == {name: len(getattr(rows, name)) for name in ("train", "validation", "test")}
    wanted = {
        "mae": np.abs(error).mean(),
        "rmse": np.sqrt((error**2).mean()),
        "r2": 1 - (error**2).mean() / auc.var(),
        "mae_low": np.abs(error[auc < 0.5]).mean(),
        "mae_rest": np.abs(error[auc >= 0.5]).mean(),
    }
    assert record["metrics"] == pytest.approx(wanted, rel=1e-5)
    sizes = {"cell": world_bundle.array("expression"), "drug": world_bundle.array("fingerprints")}
    assert record["inputs"] == {axis: matrix.shape[1] for axis, matrix in sizes.items()}
    features = world_bundle.array("expression").shape[1] + world_bundle.array("fingerprints").shape[1]
    assert record["parameters"] == 16 * features + 2 * 16 + (32 * 16 + 16) + (16 + 1)
    assert [epoch["epoch"] for epoch in record["history"]] == [0, 1, 2, 3]
    monitored = [epoch["validation_balanced_mae"] for epoch in record["history"][QUICK["warmup_epochs"] :]]
    best = record["history"][QUICK["warmup_epochs"] + int(np.argmin(monitored))]
    assert record["best"] == {
        "epoch": best["epoch"],
        "monitor": "validation_balanced_mae",
        "validation_mae": best["validation_mae"],
        "validation_balanced_mae": min(monitored),
    }
    assert all(epoch["rate"] <= QUICK["learning_rate"] * (1 + 1e-9) for epoch in record["history"])
    assert record["device"] == "cpu"
    assert record["versions"]["torch"] == torch.__version__
    assert set(record["seconds"]) == {"load", "train", "predict"}


def test_aligned_scales_are_learnt_and_taken_back(trained, world_bundle, tmp_path):
    predictions, record = train(tmp_path, world_bundle, training={**QUICK, "align": "CTRPv2"})
    rows = make_rows(Split(folds=3), "f0", world_bundle)
    expected = fit_alignment(world_bundle.response.iloc[rows.train], "CTRPv2")
    assert record["alignment"] == expected.summary()
    assert expected.knots
    assert trained[2]["alignment"] is None
    # Sources that are mapped are predicted on their own scale, so what is predicted for them changes.
    source = world_bundle.response["source"].to_numpy()[predictions["row"]]
    mapped = np.isin(source, list(expected.knots))
    other = trained[1]["auc_pred"].to_numpy()
    assert np.abs(predictions["auc_pred"].to_numpy() - other)[mapped].max() > 1e-4
    assert predictions["auc_pred"].between(0, 1).all()
    error = {name: record["metrics"]["mae"] for name, record in (("aligned", record), ("own", trained[2]))}
    assert error["aligned"] < 1.3 * error["own"]  # taken to the wrong scale, it would be far off


def test_another_process_makes_the_same_bytes(trained, world_bundle, tmp_path):
    folder, _, record = trained
    code = "import sys; from hedflow.training import train_run; train_run(*sys.argv[1:])"
    files = [tmp_path / "predictions.parquet", tmp_path / "run.json"]
    arguments = [world_bundle.folder, folder / "plan.parquet", record["run"], *files]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True, env=env
    )
    assert done.stdout == ""  # no banners, no progress bars
    assert bits(files[0]) == bits(folder / "predictions.parquet")
    again = read_json(files[1])
    timed = ("seconds", "rows_per_second", "peak_mb")
    assert {k: v for k, v in again.items() if k not in timed} == {k: v for k, v in record.items() if k not in timed}


def test_the_seed_decides(trained, world_bundle, tmp_path):
    torch.rand(5)  # what was drawn before does not count
    same, _ = train(tmp_path, world_bundle)
    other, _ = train(tmp_path, world_bundle, seeds=[1])
    assert same.equals(trained[1])
    assert np.array_equal(other["row"], same["row"])
    assert not np.allclose(other["auc_pred"], same["auc_pred"], atol=1e-4)


def test_the_truth_of_held_out_drugs_does_not_reach_the_training(trained, world_bundle, tmp_path):
    rows = make_rows(Split(folds=3), "f0", world_bundle)

    def predictions(name, at):
        def change(auc):
            auc[at] = 1 - auc[at]
            return auc

        (tmp_path / name).mkdir()
        return train(tmp_path / name, copy_of(world_bundle, tmp_path / f"{name}-bundle", change))[0]

    assert predictions("test", rows.test).equals(trained[1])
    # The copy is really what is read: a few training rows do change the predictions.
    assert not predictions("train", rows.train[:20]).equals(trained[1])


@pytest.mark.parametrize("monitor", ["mae", "balanced_mae", "loss"])
@pytest.mark.parametrize(("loss", "alpha"), [("mse", None), ("mae_poly", 8.0)])
def test_the_best_weights_are_those_that_the_monitor_finds_best(loss, alpha, monitor, world_bundle):
    """The monitor's value of the weights that are kept is the smallest in the history."""
    rows = make_rows(Split(folds=3), "f0", world_bundle)
    training = Training(**{**QUICK, "epochs": 40, "learning_rate": 0.03, "patience": 4, "monitor": monitor})
    torch.manual_seed(0)
    trained = fit(world_bundle, rows, Model(**SMALL), training, loss, alpha, seed=0)
    history = [epoch[f"validation_{monitor}"] for epoch in trained.history]
    settled = history[training.warmup_epochs :]  # the epochs of the warm-up neither win nor use up patience
    auc = world_bundle.response["auc"].to_numpy()[rows.validation]
    error = np.abs(trained.predict(rows.validation) - auc).astype(float)
    low = auc < 0.5
    own = (error**2).mean() if loss == "mse" else np.average(error, weights=(1 - auc) ** 8)
    found = {"mae": error.mean(), "balanced_mae": (error[low].mean() + error[~low].mean()) / 2, "loss": own}[monitor]
    assert found == pytest.approx(trained.state.best, rel=1e-6)
    assert trained.state.best == min(settled) == history[trained.state.best_epoch]
    assert trained.state.best_epoch < len(history) - 1  # there were worse weights afterwards ...
    assert len(history) == trained.state.best_epoch + 1 + training.patience < training.epochs  # ... as many as patience


def test_the_rate_rises_and_falls(world_bundle):
    rows = make_rows(Split(folds=3), "f0", world_bundle)
    settings = {"epochs": 30, "learning_rate": 0.02, "warmup_epochs": 4, "plateau_patience": 0, "patience": 30}
    training = Training(**{**QUICK, **settings, "plateau_factor": 0.1})
    torch.manual_seed(0)
    trained = fit(world_bundle, rows, Model(**SMALL), training, "mse", None, seed=0)
    rates = [epoch["rate"] for epoch in trained.history]
    assert rates[:4] == pytest.approx([0.005, 0.01, 0.015, 0.02])
    assert max(rates) == pytest.approx(0.02)
    assert rates[-1] < 0.003
    assert (np.diff(rates[4:]) <= 0).all()


def test_predictions_begin_at_the_mean_of_the_training_rows(world_bundle):
    rows = make_rows(Split(folds=3), "f0", world_bundle)
    mean = float(world_bundle.response["auc"].to_numpy()[rows.train].mean())
    training = Training(**{**QUICK, "epochs": 1, "learning_rate": 1e-12})
    trained = fit(world_bundle, rows, Model(**{**SMALL, "width": 128}), training, "mse", None, seed=0)
    assert abs(trained.predict(rows.train).mean() - mean) < 0.05
    assert make_network(make_inputs(world_bundle, rows, Model(**SMALL)), Model(**SMALL)).head[-1].bias.item() == 0


def test_predictions_do_not_depend_on_the_order_of_rows(world_bundle):
    rows = make_rows(Split(folds=3), "f0", world_bundle)
    trained = fit(world_bundle, rows, Model(**SMALL), Training(**{**QUICK, "epochs": 1}), "mse", None, seed=0)
    order = np.random.default_rng(0).permutation(len(rows.test))
    np.testing.assert_allclose(trained.predict(rows.test[order]), trained.predict(rows.test)[order], atol=1e-6)


@pytest.mark.parametrize("cause", ["rate", "auc"])
def test_a_training_that_diverges_is_written_as_failed(cause, world_bundle, tmp_path):
    training, bundle = QUICK, world_bundle
    rows = make_rows(Split(folds=3), "f0", world_bundle)
    if cause == "rate":
        training = {**QUICK, "learning_rate": 1e38, "warmup_epochs": 0}
    else:

        def spoil(auc):
            auc[rows.train[5]] = np.nan
            return auc

        bundle = copy_of(world_bundle, tmp_path / "bundle", spoil)
    (tmp_path / "run").mkdir()
    predictions, record = train(tmp_path / "run", bundle, training=training)
    assert record["status"] == "failed"
    assert record["reason"].startswith("training diverged in epoch 0: ")
    assert "use a lower learning_rate or more warmup_epochs" in record["reason"]
    assert np.array_equal(predictions["row"], rows.test)
    assert predictions["auc_pred"].isna().all()
    assert set(record["metrics"].values()) == {None}
    with pytest.raises(HedflowError, match="training diverged in epoch 0"):
        fit(bundle, rows, Model(**SMALL), Training(**training), "mse", None, 0)


def test_training_inside_an_allocation_is_what_it_is_outside(world_bundle, tmp_path):
    """One process on one device, whatever a batch system or an MPI launcher says of the whole job."""
    variables = {
        "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "pool", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "4",
        "SLURM_NNODES": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_NODELIST": "n[1-2]",
    }  # fmt: skip
    code = (
        "import sys; from hedflow.bundle import open_bundle; from hedflow.config import Model, Split, Training\n"
        "from hedflow.splits import make_rows; from hedflow.training.fit import fit; import numpy as np\n"
        "bundle = open_bundle(sys.argv[1]); rows = make_rows(Split(folds=3), 'f0', bundle)\n"
        "training = Training(epochs=2, batch_size=256, device='cpu', warmup_epochs=0)\n"
        "model = Model(width=8, tower_depth=1, head_depth=1, drug_features=['fingerprints'])\n"
        "np.save(sys.argv[2], fit(bundle, rows, model, training, 'mse', None, seed=0).predict(rows.test))\n"
        "assert 'mpi4py.MPI' not in sys.modules\n"
    )

    def predicted(name, more):
        command = [sys.executable, "-c", code, str(world_bundle.folder), str(tmp_path / name)]
        done = subprocess.run(command, env=os.environ | more, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return np.load(tmp_path / f"{name}.npy"), done.stderr

    outside, _ = predicted("outside", {})
    inside, said = predicted("inside", variables)
    np.testing.assert_array_equal(inside, outside)
    assert "srun" not in said


def test_a_run_that_the_plan_has_not(world_bundle, tmp_path):
    write_plan(tmp_path / "plan.parquet", world_bundle)
    with pytest.raises(HedflowError, match="expected one run called nobody, found 0; make the plan anew"):
        train_run(world_bundle.folder, tmp_path / "plan.parquet", "nobody", tmp_path / "p", tmp_path / "r")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.parquet"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="only where there is no GPU")
def test_a_gpu_that_is_not_there(world_bundle, tmp_path):
    with pytest.raises(HedflowError, match=r"training\.device is cuda, but PyTorch finds no CUDA device here"):
        train(tmp_path, world_bundle, training={**QUICK, "device": "cuda"})


def test_it_learns(world_bundle, tmp_path):
    """Random pairs of the simulated world, where drug and cell are known: far better than a mean."""
    _, record = train(
        tmp_path,
        world_bundle,
        model={**SMALL, "width": 32, "dropout": 0.0},
        training={**QUICK, "epochs": 25},
        split={"kind": "random_pairs", "folds": 5, "use_folds": [0]},
    )
    assert record["metrics"]["r2"] > 0.5


def test_a_loss_that_leans_predicts_the_potent_better(world_bundle, tmp_path):
    settings = {"model": {**SMALL, "width": 32}, "training": {**QUICK, "epochs": 40}}
    found = {}
    for loss in ({"name": "mae"}, {"name": "mae_poly", "alpha": [2]}):
        folder = tmp_path / loss["name"]
        folder.mkdir()
        found[loss["name"]] = train(folder, world_bundle, losses=[loss], **settings)[1]["metrics"]
    assert found["mae_poly"]["mae_low"] < found["mae"]["mae_low"]
    assert found["mae_poly"]["mae_rest"] > found["mae"]["mae_rest"]


def test_a_record_of_test_rows_that_are_all_alike(world_bundle):
    """No spread, no R2; no potent pair, no error of potent pairs: null, never NaN."""
    made = _metrics(np.full(3, 0.9), np.array([0.8, 0.9, 1.0]))
    assert made["r2"] is None
    assert made["mae_low"] is None
    assert made["mae_rest"] == pytest.approx(0.2 / 3)
    assert _metrics(np.full(3, 0.1), np.full(3, 0.1))["mae_rest"] is None
