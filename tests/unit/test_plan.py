"""The plan: the product of its axes, ids and digests that stay as they are, UPF files and what is wrong with them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from test_splits import make_bundle

import hedflow
from hedflow import HedflowError
from hedflow.config import Split, Training, parse_config
from hedflow.dry_run import current_plan
from hedflow.files import write_parquet
from hedflow.plan import MADE_FROM, made_from, make_plan, plan_files, summary
from hedflow.splits import labels

PACKAGE = Path(hedflow.__file__).parent
POLY = {"name": "mae_poly", "alpha": [1, 2.5]}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


def config_of(models=None, training=None, use=("a",), **experiment):
    return parse_config(
        {
            "models": models or {"a": {"width": 4}, "b": {"width": 8}},
            "training": training or {},
            "experiments": {"e": {"models": list(use), **experiment}},
        }
    )


def plan_of(bundle, **settings):
    return make_plan(config_of(**settings), "e", bundle)


def digests(table):
    return dict(zip(table["run"], table["digest"], strict=True))


def test_every_combination_is_one_run(bundle):
    split = {"kind": "random_pairs", "folds": 3}
    axes = {"split": split, "losses": [{"name": "mse"}, POLY], "seeds": [0, 7]}
    table = plan_of(bundle, **axes)
    table_two = plan_of(bundle, **axes, use=["a", "b"])
    assert len(table) == 3 * 3 * 2
    assert len(table_two) == 2 * len(table)
    keys = ["model", "loss", "split", "seed"]
    assert not table_two.duplicated(keys).any()
    assert [table_two[k].nunique() for k in keys] == [2, 3, 3, 2]
    assert set(table["run"]) < set(table_two["run"])
    assert table["run"][0] == "a.mse.random_pairs-f0.s0"
    assert "b.mae_poly-2.5.random_pairs-f2.s7" in set(table_two["run"])
    assert table_two["reference"].sum() == 2 * 3 * 2
    assert set(table_two.loc[table_two["reference"], "loss"]) == {"mse"}
    assert list(dict.fromkeys(table["method"])) == ["mse", "mae_poly-1", "mae_poly-2.5"]
    assert "b.mae_poly-1" in set(table_two["method"])
    assert summary(table) == "18 runs (3 methods, 3 splits, 2 seeds)"


def test_the_spec_says_all_and_reads_back(bundle):
    table = plan_of(bundle, split={"folds": 4}, losses=[POLY], training={"epochs": 3}, seeds=[5])
    for row in table.itertuples():
        spec = json.loads(row.spec)
        assert Split(**spec["split"]) == Split(folds=4)
        assert spec["label"] in labels(Split(folds=4), bundle)
        assert Training(**spec["training"]).epochs == 3
        assert spec["model"]["width"] == 4
        assert (spec["loss"], spec["alpha"], spec["seed"]) == ("mae_poly", row.alpha, 5)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({}, {"losses": [{"name": "mae"}, {"name": "mse"}, POLY]}, id="loss"),
        pytest.param({}, {"seeds": [3, 0]}, id="seed"),
        pytest.param(
            {"split": {"folds": 4, "use_folds": [2]}}, {"split": {"folds": 4, "use_folds": [0, 2]}}, id="fold"
        ),
        pytest.param(
            {"split": {"kind": "leave_one_drug_out", "drugs": ["Drug 3"]}},
            {"split": {"kind": "leave_one_drug_out", "drugs": ["Drug 1", "Drug 3"]}},
            id="drug",
        ),
    ],
)
def test_a_longer_axis_leaves_the_other_runs_as_they_are(before, after, bundle):
    old, new = digests(plan_of(bundle, **before)), digests(plan_of(bundle, **after))
    assert len(new) > len(old)
    assert old.items() <= new.items()


def test_the_digest_follows_what_decides_the_result(bundle, tmp_path):
    def one(**settings):
        return plan_of(bundle, **{"split": {"folds": 3, "use_folds": [0]}, **settings})["digest"].item()

    same = one()
    others = [
        one(models={"a": {"width": 5}}),
        one(training={"epochs": 7}),
        one(split={"folds": 3, "use_folds": [1]}),
        one(split={"folds": 3, "use_folds": [0], "seed": 1}),
        one(split={"folds": 3, "use_folds": [0], "validation": 0.2}),
        one(seeds=[1]),
        one(losses=[{"name": "mae"}]),
        make_plan(config_of(split={"folds": 3, "use_folds": [0]}), "e", make_bundle(tmp_path, seed=1))["digest"].item(),
    ]
    assert len({same, *others}) == len(others) + 1
    assert one(training={"threads": 2, "device": "cpu"}) == same
    assert plan_of(bundle, training={"threads": 2})["threads"].eq(2).all()
    assert make_plan(config_of(split={"folds": 3, "use_folds": [0]}), "e", bundle)["digest"].item() == same


def test_the_digest_follows_the_training_code(bundle, tmp_path):
    code = """
import sys
from hedflow.bundle import open_bundle
from hedflow.config import parse_config
from hedflow.files import write_parquet
from hedflow.plan import make_plan
config = parse_config({"models": {"a": {}}, "experiments": {"e": {"models": ["a"], "split": {"use_folds": [0]}}}})
print(make_plan(config, "e", open_bundle(sys.argv[1]))["digest"].item())
"""

    def digest_with(name, old, new):
        home = tmp_path / name
        shutil.copytree(PACKAGE, home / "hedflow", ignore=shutil.ignore_patterns("__pycache__"))
        if old:
            path = home / "hedflow" / old
            path.write_text(new(path.read_text(encoding="utf-8")), encoding="utf-8")
        env = {**os.environ, "PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", code, str(bundle.folder)]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout

    plain = digest_with("plain", None, None)
    assert digest_with("loss", "losses.py", lambda text: text.replace("TINY = 1e-12", "TINY = 1e-11")) != plain
    assert digest_with("split", "splits/kinds.py", lambda text: text + "\nNEW = 1\n") != plain
    assert digest_with("comment", "losses.py", lambda text: "# A comment.\n" + text) == plain
    assert digest_with("analysis", "analysis/tables.py", lambda text: text + "\nNEW = 1\n") == plain


def upf(folder, lines, defaults=None, **experiment):
    path = folder / "runs.upf"
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines) + "\n", encoding="utf-8")
    experiment["upf"] = str(path)
    if defaults is not None:
        (folder / "defaults.json").write_text(json.dumps(defaults), encoding="utf-8")
        experiment["defaults"] = str(folder / "defaults.json")
    return experiment


def test_the_reference_systems_file(bundle, tmp_path):
    lines = [{"id": f"RUN{i:03d}", "index": i} for i in range(12)]
    defaults = {"epochs": 2, "batch_size": 64, "loss": "mae_poly", "alpha": 2, "seed": 4}
    table = plan_of(bundle, **upf(tmp_path, lines, defaults, split={"kind": "leave_one_drug_out"}))
    assert list(table["run"]) == [line["id"] for line in lines]
    assert list(table["label"]) == list(bundle.drugs["drug_id"])
    assert set(table["method"]) == {"mae_poly-2"}
    assert set(table["seed"]) == {4}
    training = [json.loads(spec)["training"] for spec in table["spec"]]
    assert {(t["epochs"], t["batch_size"]) for t in training} == {(2, 64)}


def test_a_line_counts_before_the_defaults_and_these_before_the_axes(bundle, tmp_path):
    lines = [
        {"id": "a", "epochs": 9, "fold": 1},
        "",
        {"id": "b", "loss": "mae_exp", "alpha": 4, "model": "b", "index": 1},
        {"id": "c", "loss": "mse", "seed": 8, "alpha": None, "index": 1},
    ]
    experiment = upf(tmp_path, lines, {"epochs": 5}, split={"folds": 4, "use_folds": [3, 1]}, losses=[POLY], seeds=[2])
    table = plan_of(bundle, **experiment).set_index("run")
    epochs = [json.loads(spec)["training"]["epochs"] for spec in table["spec"]]
    assert epochs == [9, 5, 5]
    assert list(table["label"]) == ["f1", "f1", "f1"]  # `fold` is the fold's name, `index` the place in use_folds
    first = upf(tmp_path, [{"id": "a", "index": 0}], split={"folds": 4, "use_folds": [3, 1]})
    assert list(plan_of(bundle, **first)["label"]) == ["f3"]
    assert list(table["loss"]) == ["mae_poly-1", "mae_exp-4", "mse"]
    assert list(table["model"]) == ["a", "b", "a"]
    assert list(table["seed"]) == [2, 2, 8]
    assert list(table["reference"]) == [True, False, False]


def test_a_line_names_its_drug(bundle, tmp_path):
    table = plan_of(bundle, **upf(tmp_path, [{"id": "a", "drug": "BRAND-7"}], split={"kind": "leave_one_drug_out"}))
    assert table["label"].item() == bundle.drugs["drug_id"][7]


def test_recipes_that_share_a_loss_get_names_of_their_own(bundle, tmp_path):
    lines = [
        {"id": "a", "epochs": 1, "index": 0},
        {"id": "b", "epochs": 2, "index": 0},
        {"id": "c", "epochs": 1, "index": 0, "seed": 1},
        {"id": "d", "batch_size": 8, "index": 0},
        {"id": "e", "epochs": 2, "seed": 3, "index": 0},
        {"id": "f", "epochs": 1, "threads": 2, "index": 0},
    ]
    table = plan_of(bundle, **upf(tmp_path, lines))
    assert list(table["method"]) == ["mse", "mse~2", "mse", "mse~3", "mse~2", "mse"]


def test_methods_on_different_parts_are_refused_before_any_training(bundle, tmp_path):
    lines = [{"id": "RUN000", "index": 0}, {"id": "RUN001", "index": 1, "epochs": 2}]
    with pytest.raises(HedflowError, match="mse and mse~2 are tried on different parts of the split"):
        plan_of(bundle, **upf(tmp_path, lines))


LOO = {"split": {"kind": "leave_one_drug_out"}}


@pytest.mark.parametrize(
    ("line", "said", "experiment"),
    [
        ({"id": "b", "epoch": 1}, "unknown key 'epoch'; did you mean epochs", {}),
        ('{"id": "b", }', "expected a JSON object, but ", {}),
        ("[1]", "expected a JSON object with an `id`", {}),
        ({"index": 0}, "expected a JSON object with an `id`", {}),
        ({"id": None}, "expected a JSON object with an `id`", {}),
        ({"id": "../b"}, "expected a JSON object with an `id` of letters", {}),
        ({"id": "b", "index": 12}, "index 12, expected a whole number from 0 to 11.", LOO),
        ({"id": "b", "index": -1}, "index -1, expected a whole number from 0 to 11.", LOO),
        ({"id": "b", "index": "0"}, "index '0', expected a whole number from 0 to 11.", LOO),
        ({"id": "b", "index": True}, "index True, expected", LOO),
        ({"id": "b", "fold": 5}, "the drug_blind split has no fold 5; did you mean f", {}),
        ({"id": "b", "fold": 0}, "the leave_one_drug_out split has no fold 0.", LOO),
        ({"id": "b", "drug": "Drug 3"}, "'drug' goes with a leave_one_drug_out split, and this one is drug_blind.", {}),
        ({"id": "b", "drug": "Drog 11"}, "unknown drug 'Drog 11'; did you mean Drug 11", LOO),
        ({"id": "b", "model": "c"}, "unknown model 'c'. Valid: a, b.", {}),
        (
            {"id": "b", "loss": "mae_polly"},
            "`name` is 'mae_polly', and there is no such loss; did you mean mae",
            {},
        ),
        ({"id": "b", "loss": "mae_poly"}, "mae_poly needs `alpha` (power of (1 - AUC)), for example alpha: [2]", {}),
        ({"id": "b", "loss": "mae", "alpha": 2}, "mae has no alpha; alpha belongs to mae_poly, mse_poly, mae_exp", {}),
        ({"id": "b", "loss": "mae_exp", "alpha": 51}, "alpha of mae_exp is 51, expected one from 0 to 50", {}),
        ({"id": "b", "loss": "mae_exp", "alpha": -1}, "alpha of mae_exp is -1, expected one from 0 to 50", {}),
        ({"id": "b"}, "which of the 5 parts of the drug_blind split?", {}),
        ({"id": "b", "epochs": 0}, "'epochs': Input should be greater than or equal to 1", {}),
        ({"id": "b", "seed": "x"}, "seed 'x', expected a whole number from 0.", {}),
        ({"id": "b", "seed": -1}, "seed -1, expected a whole number from 0.", {}),
        ({"id": "b", "seed": 1.5}, "seed 1.5, expected a whole number from 0.", {}),
    ],
)
def test_a_wrong_line_is_named_by_its_number(line, said, experiment, bundle, tmp_path):
    settings = upf(tmp_path, [{"id": "a", "index": 0}, "", line], **experiment)
    with pytest.raises(HedflowError) as error:
        plan_of(bundle, **settings)
    assert str(error.value).startswith(f"{tmp_path / 'runs.upf'} line 3: ")
    assert said in str(error.value)


def test_an_id_that_is_there_twice(bundle, tmp_path):
    with pytest.raises(HedflowError, match="experiment 'e': two runs are called RUN001; expected distinct ids"):
        plan_of(bundle, **upf(tmp_path, [{"id": name, "index": 0} for name in ("RUN001", "RUN002", "RUN001")]))


def test_files_that_are_not_there_or_hold_nothing(bundle, tmp_path):
    with pytest.raises(HedflowError, match="no such UPF file: nowhere"):
        plan_of(bundle, upf="nowhere")
    with pytest.raises(HedflowError, match="expected a JSON object a line, found none"):
        plan_of(bundle, **upf(tmp_path, [""]))
    with pytest.raises(HedflowError, match="no such file of defaults: nowhere"):
        plan_of(bundle, **{**upf(tmp_path, [{"id": "a"}]), "defaults": "nowhere"})
    with pytest.raises(HedflowError, match=r"defaults\.json: expected one JSON object, got list"):
        plan_of(bundle, **upf(tmp_path, [{"id": "a"}], defaults=[1]))
    with pytest.raises(HedflowError, match="line 1: unknown key 'epoch'; did you mean epochs"):
        plan_of(bundle, **upf(tmp_path, [{"id": "a"}], defaults={"epoch": 1}))


def test_another_file_makes_a_plan_no_current_one(bundle, tmp_path):
    """A dry run takes the plan on disk only while the files that it was made from have the same content."""
    asked = ["settings", "code"]
    config = config_of(**upf(tmp_path, [{"id": "RUN0", "index": 0}]))
    config = config.model_copy(update={"results": str(tmp_path / "results")})
    plan = make_plan(config, "e", bundle)
    plan.attrs[MADE_FROM] = made_from(asked, bundle, plan_files(config, "e", None))
    write_parquet(tmp_path / "results" / "e" / "plan.parquet", plan)
    assert current_plan(config, "e", asked, bundle)[0].attrs == plan.attrs
    upf(tmp_path, [{"id": f"RUN{i}", "index": i} for i in range(2)])
    assert len(current_plan(config, "e", asked, bundle)[0]) == 2


def test_a_plan_is_the_same_read_from_its_file(bundle, tmp_path):
    table = plan_of(bundle, losses=[{"name": "mse"}, POLY])
    write_parquet(tmp_path / "plan.parquet", table)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "plan.parquet"), table, check_dtype=False)


def test_a_model_called_as_a_naive_baseline_is_told_from_it(bundle):
    """Both are in one comparison, and one would else take the other's place."""
    config = parse_config(
        {"models": {"tanimoto_knn": {"kind": "tanimoto_knn"}}, "experiments": {"e": {"models": ["tanimoto_knn"]}}}
    )
    assert set(make_plan(config, "e", bundle)["method"]) == {"tanimoto_knn~2"}
