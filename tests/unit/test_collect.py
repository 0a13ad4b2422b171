"""Collecting real runs: pooled by method, seeds averaged, baselines and neighbours against obvious loops."""

import json

import numpy as np
import pandas as pd
import pytest
from test_splits import make_bundle

from hedflow import HedflowError
from hedflow.analysis.collect import collect_runs, parts_of_rows, pool
from hedflow.analysis.naive import baseline_frames, predict_baselines
from hedflow.analysis.parts import describe_parts
from hedflow.baselines import BASELINES, fit_predict
from hedflow.config import Split, parse_config
from hedflow.files import read_json, write_json, write_parquet
from hedflow.plan import make_plan, parts_of
from hedflow.splits import labels, make_rows
from hedflow.training import train_run

EXPERIMENT = {
    "models": ["m"],
    "split": {"folds": 3},
    "losses": [{"name": "mse"}, {"name": "mae_exp", "alpha": [3]}],
    "seeds": [0, 1],
    "training": {"epochs": 1, "batch_size": 32, "device": "cpu"},
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Drugs 0 and 5 are twins, so are 1 and 2."""
    return make_bundle(tmp_path_factory.mktemp("bundle"), [0, 1, 1, 2, 3, 0, 4, 5, 6, 7, 8])


@pytest.fixture(scope="module")
def experiment(bundle, tmp_path_factory):
    """(plan, folder of its twelve finished runs)."""
    folder = tmp_path_factory.mktemp("runs")
    config = {"models": {"m": {"width": 4, "tower_depth": 1, "head_depth": 1}}, "experiments": {"e": EXPERIMENT}}
    plan = make_plan(parse_config(config), "e", bundle)
    write_parquet(folder / "plan.parquet", plan)
    for run in plan["run"]:
        files = [folder / run / name for name in ("predictions.parquet", "run.json")]
        train_run(bundle.folder, folder / "plan.parquet", run, *files)
    return plan, folder


def copy_of_run(folder, run, to):
    (to / run).mkdir()
    for name in ("predictions.parquet", "run.json"):
        (to / run / name).write_bytes((folder / run / name).read_bytes())
    return to / run


def test_records_and_predictions_of_some_runs(experiment, bundle):
    plan, folder = experiment
    runs = list(plan["run"][[7, 2]])
    predictions, records = collect_runs(plan, runs, folder)
    assert list(records["run"]) == runs
    assert list(dict.fromkeys(predictions["run"])) == runs
    for run, row in zip(runs, records.itertuples(), strict=True):
        planned = plan.set_index("run").loc[run]
        assert row.seed == planned["seed"]
        record = read_json(folder / run / "run.json")
        assert row.mae == record["metrics"]["mae"]
        assert (row.best_epoch, row.epochs, row.device) == (0, 1, "cpu")
        assert row.validation_mae == record["best"]["validation_mae"]
        assert row.train_seconds == record["seconds"]["train"]
        assert json.loads(row.history) == record["history"]
        mine = predictions[predictions["run"] == run].drop(columns="run").reset_index(drop=True)
        pd.testing.assert_frame_equal(mine, pd.read_parquet(folder / run / "predictions.parquet"))
        assert np.array_equal(mine["row"], make_rows(Split(folds=3), planned["label"], bundle).test)


def test_pooled_by_method_seeds_averaged(experiment, bundle):
    plan, folder = experiment
    predictions, _ = collect_runs(plan, list(plan["run"]), folder)
    frames = pool(plan, predictions.sample(frac=1, random_state=0), bundle)
    assert list(frames) == ["mse", "mae_exp-3"]
    for loss, frame in frames.items():
        wanted = {}
        for row in plan[plan["loss"] == loss].itertuples():
            table = pd.read_parquet(folder / row.run / "predictions.parquet")
            for at, value in zip(table["row"], table["auc_pred"], strict=True):
                wanted.setdefault(at, []).append(float(value))
        assert {len(values) for values in wanted.values()} == {2}  # two seeds; each row in one fold's test
        assert list(frame["row"]) == list(range(len(bundle.response)))
        assert frame["auc_pred"].to_numpy() == pytest.approx([np.mean(wanted[at]) for at in frame["row"]], abs=1e-6)
        pd.testing.assert_frame_equal(frame[list(bundle.response.columns)], bundle.response)
    assert not np.allclose(frames["mse"]["auc_pred"], frames["mae_exp-3"]["auc_pred"], atol=1e-4)


def test_pooling_a_part_of_the_rows(experiment, bundle):
    plan, folder = experiment
    some = plan[(plan["label"] == "f1") & (plan["seed"] == 1)]
    frame = pool(some, collect_runs(some, list(some["run"]), folder)[0], bundle)["mse"]
    test = make_rows(Split(folds=3), "f1", bundle).test
    assert np.array_equal(frame["row"], test)
    assert np.array_equal(frame["auc"], bundle.response["auc"][test])
    one = pd.read_parquet(folder / some["run"].iloc[0] / "predictions.parquet")
    assert np.array_equal(frame["auc_pred"], one["auc_pred"])


def test_the_part_that_tests_each_row(experiment, bundle):
    plan, folder = experiment
    predictions, _ = collect_runs(plan, list(plan["run"]), folder)
    part = parts_of_rows(plan, predictions)
    for number, label in enumerate(("f0", "f1", "f2")):
        assert sorted(part.index[part == number]) == list(make_rows(Split(folds=3), label, bundle).test)
    twice = plan.assign(split=plan["run"])  # as if each run were a part of its own: rows are tested by several
    assert set(parts_of_rows(twice, predictions)) == {-1}


def test_a_record_of_another_plan_is_refused(experiment, tmp_path):
    plan, folder = experiment
    run = plan["run"][3]
    path = copy_of_run(folder, run, tmp_path) / "run.json"
    collect_runs(plan, [run], tmp_path)
    write_json(path, {**read_json(path), "digest": "0" * 16})
    with pytest.raises(HedflowError, match=f"{run}: made by another plan; run `snakemake` again"):
        collect_runs(plan, [run], tmp_path)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(lambda t: t.assign(auc_pred=t["auc_pred"].where(t.index != 4)), "'auc_pred'", id="NaN"),
        pytest.param(lambda t: t.assign(row=t["row"].where(t.index != 4, t["row"][3])), "'row'", id="row twice"),
        pytest.param(lambda t: t.assign(auc_pred=t["auc_pred"].astype(float)), "'auc_pred'", id="float64"),
        pytest.param(lambda t: t.drop(columns="auc_pred"), "auc_pred", id="no predictions"),
    ],
)
def test_predictions_that_break_the_contract(spoil, said, experiment, tmp_path):
    plan, folder = experiment
    run = plan["run"][3]
    path = copy_of_run(folder, run, tmp_path) / "predictions.parquet"
    write_parquet(path, spoil(pd.read_parquet(path)))
    with pytest.raises(HedflowError, match=f"^predictions of {run}: .*column") as error:
        collect_runs(plan, [run], tmp_path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_the_parts_of_a_plan(experiment):
    plan, _ = experiment
    assert parts_of(plan) == [(f"f{i}", Split(folds=3)) for i in range(3)]


def test_baselines_are_fitted_on_training_and_validation(bundle):
    split = Split(folds=3)
    parts = [(label, split) for label in labels(split, bundle)]
    table = predict_baselines(parts, bundle, neighbours=2)
    assert sorted(table["row"]) == list(range(len(bundle.response)))
    for label, _ in parts:
        test = make_rows(split, label, bundle).test
        mine = table[table["label"] == label].set_index("row").loc[test, list(BASELINES)]
        others = np.setdiff1d(np.arange(len(bundle.response)), test)
        tissue, prints = bundle.cells["tissue"].to_numpy(dtype=str), np.asarray(bundle.array("fingerprints"))
        wanted = fit_predict(bundle.response, others, test, tissue, prints, 2)
        np.testing.assert_allclose(mine, wanted[list(BASELINES)], atol=1e-6)
        assert mine["global_mean"].to_numpy() == pytest.approx(bundle.response["auc"][others].mean(), abs=1e-6)
        assert mine["tanimoto_knn"].std() > 0.001
    frames = baseline_frames(table.sample(frac=1, random_state=1), ["cell_mean", "tanimoto_knn"], bundle)
    assert list(frames) == ["cell_mean", "tanimoto_knn"]
    for name, frame in frames.items():
        assert frame["auc_pred"].to_numpy() == pytest.approx(table.set_index("row")[name].loc[frame["row"]].to_numpy())
        pd.testing.assert_frame_equal(frame[list(bundle.response.columns)], bundle.response)


def test_a_row_tested_by_several_parts_gets_the_mean(bundle):
    """Twins are tested together: their rows appear in the runs of both."""
    split = Split(kind="leave_one_drug_out", drugs=["Drug 0", "Drug 5"])
    table = predict_baselines([(label, split) for label in labels(split, bundle)], bundle, neighbours=2)
    frame = baseline_frames(table, ["global_mean"], bundle)["global_mean"]
    assert np.array_equal(frame["row"], np.flatnonzero(bundle.response["drug"].isin([0, 5])))
    assert frame["auc_pred"].to_numpy() == pytest.approx(table.groupby("row")["global_mean"].mean().to_numpy())


@pytest.mark.parametrize("kind", ["drug_blind", "random_pairs", "leave_one_drug_out"])
def test_nearest_training_drug_against_a_loop(kind, bundle):
    split = Split(kind=kind, folds=3)
    parts = [(label, split) for label in labels(split, bundle)]
    found = describe_parts([(label, label, split) for label, _ in parts], bundle)[0].set_index("drug")
    prints = [set(np.flatnonzero(x)) for x in bundle.array("fingerprints")]
    drug, names = bundle.response["drug"].to_numpy(), list(bundle.drugs["drug_name"])
    best: dict = {}
    for label, _ in parts:
        rows = make_rows(split, label, bundle)
        for tested in set(drug[rows.test]):
            for other in set(drug[rows.train]):
                same = len(prints[tested] & prints[other]) / len(prints[tested] | prints[other])
                best.setdefault(tested, []).append((same, names[other]))
    assert sorted(found.index) == sorted(best)
    for tested, candidates in best.items():
        top = max(same for same, _ in candidates)
        assert found.loc[tested, "similarity"] == pytest.approx(top, abs=1e-6)
        assert found.loc[tested, "nearest"] in {name for same, name in candidates if same == top}
    assert (found["similarity"] == 1).all() == (kind == "random_pairs")  # else a drug, and its twin, is not seen
