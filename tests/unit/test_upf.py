"""UPF files as the reference system writes them, over its files of defaults, and those written from a grid."""

import json

import pandas as pd
import pytest
from test_plan import config_of, upf
from test_splits import make_bundle

from hedflow import HedflowError
from hedflow.cli import main
from hedflow.config import Training, parse_config
from hedflow.files import write_parquet
from hedflow.plan import make_plan, summary
from hedflow.splits import labels
from hedflow.upf import ALIASES, FIXED, IGNORED, TRANSLATED, write_upf

LOO = {"kind": "leave_one_drug_out"}
# As the HED workflow of the reference has it: UPF, defaults in JSON.
HED_UPF = ["# GEN JSONS", "# COUNT:     2", '{"id": "RUN000", "index": 0}', '{"id": "RUN001", "index": 1}']
HED_DEFAULTS = {
    "epochs": 20,
    "input_dir": "/tmp/somebody/original",
    "input_dir_1": "/home/somebody/exp_result",
    "calc_infer_scores": True,
    "pre_module": "hed_setup",
    "post_module": "hed_setup",
    "custom_loss_module": "mae_poly_loss",
    "alpha": 2,
    "ckpt_keep_limit": 3,
}
IMPROVE_UNO = """[Global_Params]
model_name = UNO
y_col_name = auc

[Preprocess]
x_data_canc_files = [["cancer_gene_expression.tsv",  ["Gene_Symbol"]]]
use_lincs = True
ge_scaling = std

[Train]
data_format = .parquet
epochs = 100
batch_size = 64
generator_batch_size = 1024
{rate} = 1e-5
warmup_epochs = 4
warmup_type = linear
reduce_lr_patience = 2
reduce_lr_factor = 0.25
optimizer = Adam
regression_activation = sigmoid
loss = mse
early_stopping_patience = 11
hyperparam_space = global

[Global Hyperparameter Space]
dropout = 0.3
activation = "relu"

[Block Hyperparameter Space]
canc_arch = [1000, 1000, 1000]
drug_dropout = 0.1

[Layer Hyperparameter Space]
interaction_layer_9_activation = "relu"

[Infer]
data_format = .csv
cuda_name = cuda:7
"""
CANDLE_UNO = """[Global_Params]
train_sources=['CCLE']
cell_types=None
cell_features=['rnaseq']
drug_features=['descriptors', 'fingerprints']
dense=[200, 200]
dense_feature_layers=[200, 200, 200]
activation='relu'
loss='mse'
optimizer='adam'
scaling='std'
drop=0
epochs=50
batch_size=512
learning_rate=None
rng_seed=2018
agg_dose='AUC'
use_landmark_genes=True
verbose=False

[Monitor_Params]
timeout=-1
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


def plan_of(bundle, **settings):
    return make_plan(config_of(**settings), "e", bundle)


def spec_of(table):
    return json.loads(table["spec"].iloc[0])


def test_the_hed_workflows_files_run_as_they_are(bundle, tmp_path):
    table = plan_of(bundle, **upf(tmp_path, HED_UPF, HED_DEFAULTS, split=LOO))
    assert list(table["run"]) == ["RUN000", "RUN001"]
    assert list(table["label"]) == list(bundle.drugs["drug_id"][:2])
    assert set(table["method"]) == {"mae_poly-2"}
    assert spec_of(table)["training"]["epochs"] == 20
    named = "calc_infer_scores, ckpt_keep_limit, input_dir, input_dir_1, post_module, pre_module"
    assert summary(table) == f"2 runs (1 method, 2 splits, 1 seed); 6 keys of the UPF mean nothing here: {named}"


@pytest.mark.parametrize("rate", ["learning_rate", "raw_max_lr"])
def test_improves_default_model(rate, bundle, tmp_path):
    """Its learning rate is one a row of a batch, whatever it is called."""
    path = tmp_path / "uno_default_model.txt"
    path.write_text(IMPROVE_UNO.replace("{rate}", rate))
    lines = [{"id": "a", "index": 0}, {"id": "b", "index": 0, "batch_size": 32, rate: 2e-5}]
    experiment = {**upf(tmp_path, lines), "defaults": str(path)}
    table = plan_of(bundle, **experiment)
    training = [Training(**json.loads(spec)["training"]) for spec in table["spec"]]
    assert [t.learning_rate for t in training] == pytest.approx([64e-5, 64e-5])
    assert [t.batch_size for t in training] == [64, 32]
    first = training[0]
    assert (first.epochs, first.warmup_epochs, first.plateau_patience, first.patience) == (100, 4, 2, 11)
    assert first.plateau_factor == 0.25
    model = spec_of(table)["model"]
    assert (model["dropout"], model["gene_set"], model["width"]) == (0.3, "landmark", 4)
    assert {"canc_arch", "cuda_name", "interaction_layer_9_activation"} < set(table["ignored"][0].split(", "))


def test_candles_default_model(bundle, tmp_path):
    path = tmp_path / "uno_auc_model.txt"
    path.write_text(CANDLE_UNO)
    line = {"id": "a", "index": 0, "learning_rate": 0.01}
    table = plan_of(bundle, **{**upf(tmp_path, [line]), "defaults": str(path)})
    spec = spec_of(table)
    assert (spec["seed"], spec["loss"], spec["training"]["epochs"]) == (2018, "mse", 50)
    assert spec["training"]["learning_rate"] == 0.01
    model = spec["model"]
    assert (model["width"], model["head_depth"], model["tower_depth"], model["dropout"]) == (200, 2, 3, 0)
    assert model["cell_features"] == ["expression"]
    assert model["drug_features"] == ["descriptors", "fingerprints"]
    assert table["ignored"][0] == "timeout, train_sources, verbose"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"rng_seed": 7.0}, ("seed", 7)),
        ({"loss": "mean_absolute_error"}, ("loss", "mae")),
        ({"loss": "logcosh"}, ("loss", "log_cosh")),
        ({"custom_loss_module": None, "loss": "mse"}, ("loss", "mse")),
        ({"custom_loss_module": "mae_poly_loss", "loss": "mse", "alpha": "1.5"}, ("alpha", 1.5)),
    ],
)
def test_names_that_have_one_meaning(given, expected, bundle, tmp_path):
    table = plan_of(bundle, **upf(tmp_path, [{"id": "a", "index": 0, **given}]))
    key, value = expected
    assert spec_of(table)[key] == value


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"early_stopping_patienc": 3}, "unknown key 'early_stopping_patienc'; did you mean "),
        ({"dense": "200 15"}, "layers of 15, 200 units, expected one width for all"),
        ({"dense": [100], "dense_feature_layers": [200]}, "layers of 100, 200 units"),
        ({"dense": []}, "layers of no units"),
        ({"dense": "wide"}, "layers of wide units, expected one width for all, a whole number"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd', and hedflow does 'adam' only."),
        ({"by_drug": "paclitaxel"}, "by_drug is 'paclitaxel', and hedflow does None only."),
        ({"early_stop": False}, "early_stop is False, and hedflow does True only."),
        ({"reduce_lr": False}, "reduce_lr is False, and hedflow does True only."),
        ({"warmup_lr": False}, "warmup_lr is False, and hedflow does True only."),
        ({"clr_flag": True}, "clr_flag is True, and hedflow does False only."),
        ({"hyperparam_space": "layer"}, "hyperparam_space is 'layer', and hedflow does 'global' only."),
        ({"model_name": "GraphDRP"}, "unknown model 'GraphDRP'"),
        ({"custom_loss_module": "my_loss"}, "'my_loss', and there is no such loss"),
        ({"raw_max_lr": "fast"}, "'learning_rate': Input should be a valid number"),
        ({"dropout": 1}, "'dropout': Input should be less than 1"),
        ({"weigh": 5}, "weigh 5, expected 1 (the experiment's `weigh`, for a)."),
    ],
)
def test_what_hedflow_does_otherwise_is_refused(given, said, bundle, tmp_path):
    with pytest.raises(HedflowError) as error:
        plan_of(bundle, **upf(tmp_path, [{"id": "a", "index": 0, **given}]))
    assert str(error.value).startswith(f"{tmp_path / 'runs.upf'} line 1: ")
    assert said in str(error.value)


def test_a_default_model_that_is_none(bundle, tmp_path):
    path = tmp_path / "model.txt"
    path.write_text("epochs = 3\n")
    with pytest.raises(HedflowError, match=r"model\.txt: expected `key = value` lines under \[sections\], but "):
        plan_of(bundle, **{**upf(tmp_path, [{"id": "a", "index": 0}]), "defaults": str(path)})


def test_no_name_is_both_known_and_ignored():
    known = {*ALIASES, *TRANSLATED, *FIXED, *Training.model_fields}
    assert not known & set(IGNORED)
    assert len(set(IGNORED)) == len(IGNORED)


@pytest.mark.parametrize("kind", ["drug_blind", "leave_one_drug_out", "auc_range", "high_error", "weigh"])
def test_a_grid_written_as_a_upf_has_the_same_runs(kind, bundle, tmp_path):
    errors = pd.DataFrame({"drug_id": bundle.drugs["drug_id"], "drug_name": bundle.drugs["drug_name"], "mae": 0.1})
    errors["mae_z"] = range(len(errors))
    write_parquet(tmp_path / "drugs.parquet", errors.assign(method="mse"))
    write_parquet(tmp_path / "comparison.parquet", pd.DataFrame({"reference": ["mse"]}))
    split = {"kind": kind, "ranges": 2, "experiment": "first" if kind == "high_error" else None}
    asked = {"split": split} if kind != "weigh" else {"weigh": {"experiment": "first"}}
    axes = {"models": ["a", "b"], "losses": [{"name": "mse"}, {"name": "mae_poly", "alpha": [1, 2]}], "seeds": [0, 3]}
    models = {"a": {"width": 4}, "b": {"width": 8}}

    def planned(**more):
        experiments = {"losses": None, "first": {"models": ["a"]}, "e": {**axes, **asked, **more}}
        config = parse_config({"models": models, "experiments": experiments})
        return config, make_plan(config, "e", bundle, tmp_path)

    config, grid = planned()
    parts = labels(config.experiments["e"].split, bundle)
    for numbered in (False, True):
        write_upf(grid, parts, tmp_path / "grid.upf", numbered)
        _, read = planned(upf=str(tmp_path / "grid.upf"))
        assert list(read["digest"]) == list(grid["digest"])
        assert list(read["method"]) == list(grid["method"])
        assert list(read["reference"]) == list(grid["reference"])
        assert list(read["run"]) == ([f"RUN{i:03d}" for i in range(len(grid))] if numbered else list(grid["run"]))


def test_the_command_writes_one(world_bundle, tmp_path, repo, monkeypatch, capsys):
    monkeypatch.chdir(repo)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "bundle").symlink_to(world_bundle.folder)
    (tmp_path / "config.yaml").write_text(f"results: {tmp_path / 'results'}\n")
    given = ["--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "runs.upf")]
    assert main(["upf", "losses", *given, "--numbered"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "runs.upf").read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"RUN{i:03d}" for i in range(20)]
    assert {line["fold"] for line in lines} == set(range(5))
    assert main(["upf", "loses", *given]) == 1
    assert "unknown experiment 'loses'; did you mean losses?" in capsys.readouterr().err
