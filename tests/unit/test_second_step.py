"""The second step of an experiment: its configuration, its plan, its audit, and what its tables say."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from test_splits import make_bundle

from hedflow import HedflowError
from hedflow.analysis import SECOND_STEP_TABLES
from hedflow.analysis.second_step import (
    ALL,
    HIGH,
    OTHERS,
    Step,
    about_table,
    chosen_drugs,
    controls,
    drugs_table,
    earlier_methods,
    errors_table,
    ranking_table,
)
from hedflow.audit import audit, audit_plan
from hedflow.config import Analysis, Split, parse_config
from hedflow.figures.second_step import draw_second_step
from hedflow.files import write_parquet
from hedflow.high_error import read_drug_errors
from hedflow.plan import likely_plan, make_plan
from hedflow.report.second_step import second_step_page
from hedflow.splits import make_rows

POLY = {"name": "mae_poly", "alpha": [2]}
SETTINGS = Analysis(bootstrap=200, top_k=2)


def config_of(**experiments):
    return parse_config({"models": {"m": {"width": 4}}, "experiments": {"losses": None, **experiments}})


def hed(**more):
    return {"models": ["m"], "losses": [{"name": "mse"}, POLY], "split": {"folds": 3}, **more}


# --- configuration


def test_a_second_step_is_two_experiments_with_seeds_of_their_own():
    config = config_of(hed=hed(seeds=[0, 4], second_step={"high_error_z": 1.5, "factors": [2, 1, 5]}))
    assert list(config.experiments) == ["hed", "hed_move", "hed_weigh"]
    first, move, weigh = config.experiments.values()
    assert not {*first.seeds} & {*move.seeds}
    assert len(move.seeds) == 2
    assert move.seeds == weigh.seeds
    assert (move.split.kind, move.split.high_error_z, move.weigh) == ("high_error", 1.5, None)
    assert weigh.split == first.split
    assert weigh.weigh.all_factors == (1, 2, 5)
    assert [e.earlier for e in config.experiments.values()] == [None, "hed", "hed"]
    assert move.losses == weigh.losses == first.losses


def test_the_arm_that_moves_drugs_weighs_none():
    """An experiment that weighs a's drugs holds out its own ones in its second step, under its own name."""
    weigh = {"experiment": "a", "factors": [5]}
    config = config_of(a=hed(), b=hed(weigh=weigh, second_step={"arms": ["move"]}))
    move = config.experiments["b_move"]
    assert (move.earlier, move.split.kind, move.weigh) == ("b", "high_error", None)
    with pytest.raises(
        HedflowError, match=r"second_step has the arm weigh, and this experiment weighs the drugs of an"
    ):
        config_of(a=hed(), b=hed(weigh=weigh, second_step={}))


def test_arms_losses_and_seeds_of_the_second_step_can_be_said():
    config = config_of(hed=hed(second_step={"arms": ["weigh"], "losses": [{"name": "mae"}], "seeds": [0]}))
    assert list(config.experiments) == ["hed", "hed_weigh"]
    weigh = config.experiments["hed_weigh"]
    assert [loss.name for loss in weigh.losses] == ["mae"]
    assert weigh.seeds == [0]


def test_the_ready_example(repo, bundle, tables):
    """config/hed.yaml over config.yaml, as Snakemake merges them."""
    raw = [yaml.safe_load((repo / name).read_text()) for name in ("config.yaml", "config/hed.yaml")]
    config = parse_config({**raw[0], "experiments": {**raw[0]["experiments"], **raw[1]["experiments"]}})
    assert list(config.experiments) == ["hed", "hed_move", "hed_weigh"]
    runs = [len(make_plan(config, name, bundle, tables)) for name in config.experiments]
    methods = 6
    assert runs == [5 * methods, methods, 2 * 5 * methods]


@pytest.mark.parametrize(
    ("experiments", "said"),
    [
        ({"hed": hed(second_step={}), "hed_move": hed()}, "makes the experiment 'hed_move', and there is another one"),
        ({"hed": hed(second_step={"arm": ["move"]})}, "'experiments.hed.second_step.arm'; did you mean arms?"),
        (
            {"hed": hed(second_step={"losses": [{"name": "mse", "alfa": 1}]})},
            "second_step.losses.0.alfa'; did you mean alpha?",
        ),
        ({"hed": hed(second_step={"arms": ["weight"]})}, "which is not a valid name; did you mean weigh?"),
        ({"hed": hed(second_step={"factors": [1]})}, "factors has nothing but 1, the control"),
        ({"hed": hed(upf="runs.txt", second_step={})}, "second_step is made from the axes of its first step"),
        ({"a": hed(weigh={"experiment": "b"}), "b": hed(weigh={"experiment": "a"})}, "'a' weighs the high error drugs"),
        ({"a": hed(weigh={"experiment": "hd"}), "hed": hed()}, "switched off; did you mean hed?"),
        (
            {"a": hed(weigh={"experiment": "b"}, split={"kind": "high_error", "experiment": "b"}), "b": hed()},
            "weigh needs high error drugs in training, and a high_error split holds them out",
        ),
    ],
)
def test_what_does_not_go_together_is_one_sentence(experiments, said):
    with pytest.raises(HedflowError) as error:
        config_of(**experiments)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


# --- plan and audit


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def tables(bundle, tmp_path):
    """Tables of a first step: drug i has the error i / 10, but for the last two."""
    mae = np.append(np.arange(10) / 10, [4.0, 5.0])
    z = (mae - mae.mean()) / mae.std(ddof=1)
    drugs = bundle.drugs[["drug_id", "drug_name"]].assign(mae=mae, mae_z=z, method="mse")
    write_parquet(tmp_path / "drugs.parquet", drugs)
    write_parquet(tmp_path / "comparison.parquet", pd.DataFrame({"reference": ["mse"]}))
    return tmp_path


def weigh_plan(bundle, tables, z=1.0, factors=(5,), **more):
    weigh = {"experiment": "hed", "high_error_z": z, "factors": list(factors)}
    return make_plan(config_of(hed=hed(), e=hed(weigh=weigh, **more)), "e", bundle, tables)


def test_factors_are_an_axis_and_1_is_the_first_step_itself(bundle, tables):
    first = make_plan(config_of(hed=hed()), "hed", bundle)
    plan = weigh_plan(bundle, tables, factors=(5, 2.5))
    assert len(plan) == 2 * 3 * 3
    assert list(dict.fromkeys(plan["method"])) == [
        "mse", "mse.weigh-5", "mse.weigh-2.5", "mae_poly-2", "mae_poly-2.weigh-5", "mae_poly-2.weigh-2.5"
    ]  # fmt: skip
    assert "m.mse.weigh-5.drug_blind-f0.s0" in set(plan["run"])
    assert set(plan.loc[plan["reference"], "method"]) == {"mse"}
    alike = plan[plan["factor"] == 1].set_index("run")
    assert alike["digest"].to_dict() == first.set_index("run")["digest"].to_dict()
    assert alike["spec"].to_dict() == first.set_index("run")["spec"].to_dict()
    weighed = plan[plan["factor"] == 5]
    drugs = sorted(bundle.drugs["drug_id"].iloc[10:])
    assert all(json.loads(spec)["weights"] == {"drugs": drugs, "factor": 5.0} for spec in weighed["spec"])
    assert plan["digest"].is_unique
    assert chosen_drugs(plan) == drugs
    assert chosen_drugs(first) == []


def test_models_of_all_kinds_have_a_control_and_factors_if_they_can_weigh(bundle, tables):
    models = {name: {"kind": name} for name in ("ridge", "tanimoto_knn")} | {"m": {"width": 4}}
    weigh = {"experiment": "hed", "high_error_z": 1.0, "factors": [5]}
    experiment = hed(weigh=weigh, seeds=[3, 4]) | {
        "models": ["m", "ridge", "tanimoto_knn"],
        "losses": [{"name": "mse"}],
    }
    config = parse_config({"models": models, "experiments": {"losses": None, "hed": hed(), "e": experiment}})
    plan = make_plan(config, "e", bundle, tables)
    of_m = dict.fromkeys(("ridge", "tanimoto_knn~2", "m.mse.weigh-5"), "m.mse")  # ~2: the baseline has the name itself
    assert controls(plan) == {"m.mse": None, "ridge.weigh-5": "ridge", **of_m}
    assert len(audit_plan(plan, bundle, read_drug_errors(tables))) == 3


def test_what_counts_is_which_drugs_are_weighed_not_how_they_were_found(bundle, tables):
    digests = [set(weigh_plan(bundle, tables, z)["digest"]) for z in (1.0, 1.1, -0.6)]
    assert digests[0] == digests[1]
    assert len(digests[0] & digests[2]) == 6  # the controls
    with pytest.raises(HedflowError, match=r"no drug of 'hed' has an error above z = 9 .* high_error_z in its weigh"):
        weigh_plan(bundle, tables, 9)
    with pytest.raises(HedflowError, match=r"drugs\.parquet: no such table; .*must have run"):
        weigh_plan(bundle, tables / "none")


def test_a_look_before_the_first_step_has_run_counts_all_runs(bundle, tmp_path, tables):
    config = config_of(hed=hed(second_step={"high_error_z": 1.0}))
    expected = {"hed": 6, "hed_move": 2, "hed_weigh": 12}
    for name, runs in expected.items():
        plan, word = likely_plan(config, name, bundle, tmp_path / "results")
        assert len(plan) == runs
        assert word == ("" if name == "hed" else "; which drugs is known when 'hed' has run, here 1 stand for them")
    (tmp_path / "results" / "hed").mkdir(parents=True)
    (tmp_path / "results" / "hed" / "tables").symlink_to(tables)
    plan, word = likely_plan(config, "hed_move", bundle, tmp_path / "results")
    assert word == ""
    assert len(chosen_drugs(plan)) == 2


def test_the_audit_looks_up_who_is_weighed(bundle, tables):
    plan, errors = weigh_plan(bundle, tables), read_drug_errors(tables)
    assert len(audit_plan(plan, bundle, errors)) == 3
    with pytest.raises(HedflowError, match="none knows why"):
        audit_plan(plan, bundle)
    other = errors.assign(mae=errors["mae"].to_numpy()[::-1])
    with pytest.raises(HedflowError, match=r"audit: 2 drugs are weighed, the least wrong of them with .* has 5\.0000"):
        audit_plan(plan, bundle, other)
    mixed = pd.concat([plan, weigh_plan(bundle, tables, -0.6)])
    with pytest.raises(HedflowError, match="not the same ones"):
        audit_plan(mixed, bundle, errors)


def test_leave_one_drug_out_tests_the_drug_that_its_name_says(bundle):
    plan = make_plan(config_of(e=hed(split={"kind": "leave_one_drug_out"})), "e", bundle)
    assert len(audit_plan(plan, bundle)) == 12
    split = Split(kind="leave_one_drug_out")
    rows = make_rows(split, plan["label"][0], bundle)
    with pytest.raises(HedflowError, match=r"row \d+ is (not )?tested, and by its drug it should"):
        audit(split, [(bundle.drugs["drug_id"][5], rows)], bundle)


# --- tables


N_DRUGS, N_CELLS = 40, 30


def step(plan_rows, rng, luck=0.1, gain=None, drugs=range(N_DRUGS)):
    """Predictions of a plan's methods: AUC 0.6, a drug's error its own luck, new in each step, less `gain`."""
    plan = pd.DataFrame(plan_rows)
    row = np.arange(N_DRUGS * N_CELLS)
    drug, cell = row // N_CELLS, row % N_CELLS
    auc = np.where(cell < 10, 0.3, 0.9).astype(np.float32)
    tables = []
    for method in dict.fromkeys(plan["method"]):
        off = 0.3 + luck * rng.random(N_DRUGS)
        table = pd.DataFrame({"row": row, "cell": cell, "drug": drug, "source": "A", "auc": auc, "method": method})
        table["auc_pred"] = auc + off[drug] - (gain or {}).get(method, 0.0)
        tables.append(table.assign(offset=0.0)[np.isin(drug, list(drugs))])
    return Step(plan, pd.concat(tables, ignore_index=True), "mse")


def rows_of(*methods, kind="drug_blind", seed=0):
    """Rows of a plan for methods like `mse`, `mse.weigh-5`."""
    found = []
    for method in methods:
        loss, _, factor = method.partition(".weigh-")
        row = {"method": method, "model": "m", "loss": loss, "factor": float(factor or 1), "split_kind": kind}
        spec = json.dumps({"model": {"kind": "uno"}, "split": {"kind": kind}, "training": {"epochs": 3}})
        row |= {"split": kind, "seed": seed, "spec": spec}
        found.append({**row, "reference": method == "mse", "digest": f"{method} {seed}"})
    return found


def high_of(first, n=8):
    frame = first.frame("mse")
    error = (frame["auc_pred"] - frame["auc"]).abs().groupby(frame["drug"]).mean()
    return set(error.nlargest(n).index.tolist())


def at(table, method, drugs=HIGH, part="mae"):
    return table.query("method == @method and drugs == @drugs and part == @part").iloc[0]


def test_each_method_has_its_control():
    plan = pd.DataFrame(rows_of("mse", "mse.weigh-5", "mae", "mae.weigh-5"))
    assert controls(plan) == {"mse": None, "mse.weigh-5": "mse", "mae": "mse", "mae.weigh-5": "mae"}
    two = pd.concat([plan, plan.assign(model="n", method="n." + plan["method"])])
    assert controls(two)["n.mae.weigh-5"] == "n.mae"
    assert controls(two)["n.mae"] == "n.mse"
    assert controls(two)["n.mse"] is None


def test_a_method_continues_its_own_or_its_controls():
    first = step(rows_of("mse", "mae"), np.random.default_rng(0))
    plan = pd.DataFrame(rows_of("mse", "mse.weigh-5", "mae", "huber", "huber.weigh-5"))
    assert earlier_methods(plan, first) == {
        "mse": "mse", "mse.weigh-5": "mse", "mae": "mae", "huber": "mse", "huber.weigh-5": "mse"
    }  # fmt: skip


def test_regression_to_the_mean_is_no_gain_over_the_control():
    """Errors are luck alone: the chosen drugs get better by nothing, and no method is better than its control."""
    rng, better, gains = np.random.default_rng(1), 0, 0
    for _ in range(12):
        first = step(rows_of("mse"), rng)
        second = step(rows_of("mse", "mse.weigh-5", seed=1), rng)
        table = errors_table(second, first, high_of(first, 15), Analysis(bootstrap=100))
        better += at(table, "mse")["change_upper"] < 0
        better += at(table, "mse", OTHERS)["change_lower"] > 0
        gains += at(table, "mse.weigh-5")["difference_upper"] < 0
    assert better >= 18
    assert gains <= 2


def test_a_real_gain_is_one_and_the_numbers_are_those_of_the_rows():
    rng = np.random.default_rng(2)
    first = step(rows_of("mse", "mae"), rng)
    second = step(rows_of("mse", "mae", seed=1), rng, gain={"mae": 0.1})
    high = high_of(first)
    table = errors_table(second, first, high, SETTINGS)
    frames = {name: second.frame(name) for name in ("mse", "mae")} | {"first": first.frame("mae")}
    for drugs, among in ((HIGH, lambda d: d.isin(high)), (OTHERS, lambda d: ~d.isin(high)), (ALL, lambda d: d >= 0)):
        for part, keep in (("mae", lambda y: y > -1), ("mae_low", lambda y: y < 0.5), ("mae_rest", lambda y: y >= 0.5)):
            size = {
                name: (f["auc_pred"] - f["auc"]).abs()[among(f["drug"]) & keep(f["auc"])] for name, f in frames.items()
            }
            row = at(table, "mae", drugs, part)
            assert row["n"] == len(size["mae"])
            assert row["mae"] == pytest.approx(size["mae"].mean())
            assert row["difference"] == pytest.approx(size["mae"].mean() - size["mse"].mean())
            assert row["mae_first"] == pytest.approx(size["first"].mean())
            assert row["change"] == pytest.approx(size["mae"].mean() - size["first"].mean())
            assert row["mae_lower"] < row["mae"] < row["mae_upper"]
    assert at(table, "mae")["difference_upper"] < -0.05
    assert at(table, "mae", ALL)["p_holm"] < 0.05
    assert pd.isna(at(table, "mae")["p_holm"])  # the drugs are chosen by the errors of mse
    assert pd.isna(at(table, "mse")["p"])
    assert pd.isna(at(table, "mse")["difference"])
    assert pd.isna(at(table, "mse")["control"])


def test_rows_in_another_order_say_the_same():
    rng = np.random.default_rng(3)
    first, second = step(rows_of("mse"), rng), step(rows_of("mse", "mae", seed=1), rng)
    high = high_of(first)
    shuffled = [Step(s.plan, s.scores.sample(frac=1, random_state=4), s.reference) for s in (second, first)]
    again = errors_table(*shuffled, high, SETTINGS)
    pd.testing.assert_frame_equal(again, errors_table(second, first, high, SETTINGS))


def test_only_high_error_drugs_and_a_drug_that_the_first_step_did_not_test():
    rng = np.random.default_rng(5)
    first = step(rows_of("mse"), rng, drugs=range(1, N_DRUGS))
    second = step(rows_of("mse", "mae", kind="high_error", seed=1), rng, drugs=range(6))
    only = errors_table(second, first, set(range(6)), SETTINGS)
    assert set(only["drugs"]) == {HIGH}
    with_twin = errors_table(second, first, set(range(1, 6)), SETTINGS)
    row = at(with_twin, "mae", OTHERS)
    assert (row["n"], row["n_drugs"]) == (N_CELLS, 1)
    assert pd.isna(row["mae_first"])
    assert pd.isna(row["change"])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with the tables of a second step, as the rule leaves them."""
    folder = tmp_path_factory.mktemp("hed_weigh")
    rng = np.random.default_rng(6)
    first = step(rows_of("mse"), rng)
    second = step(rows_of("mse", "mse.weigh-5", "mae", seed=1), rng, gain={"mae": 0.1})
    high = high_of(first)
    names = [f"DRUG{i}" for i in range(N_DRUGS)]
    drugs = pd.DataFrame({"drug_id": names, "drug_name": names})
    frame = first.frame("mse")
    mae = (frame["auc_pred"] - frame["auc"]).abs().groupby(frame["drug"]).mean()
    errors = drugs.assign(mae=mae, mae_z=(mae - mae.mean()) / mae.std())
    made = {
        "second_step": errors_table(second, first, high, SETTINGS),
        "second_step_drugs": drugs_table(second, first, high, drugs, errors),
        "second_step_ranking": ranking_table(second, first, high, SETTINGS),
        "second_step_about": about_table(second, first, "hed", high),
        "comparison": pd.DataFrame({"reference": ["mse"]}),
    }
    assert set(SECOND_STEP_TABLES) < set(made)
    for name, table in made.items():
        write_parquet(folder / "tables" / f"{name}.parquet", table)
    return folder


def test_every_drug_before_and_after(written):
    table = pd.read_parquet(written / "tables" / "second_step_drugs.parquet")
    assert len(table) == 3 * N_DRUGS
    assert table["high_error"].sum() == 3 * 8
    chosen = table[table["method"] == "mse"].set_index("drug_name")
    assert chosen.loc[chosen["high_error"], "z_first"].min() > chosen.loc[~chosen["high_error"], "z_first"].max()
    mae = table.pivot(index="drug", columns="method", values="mae")
    own = table[table["method"] == "mae"].set_index("drug")
    assert own["mae_control"].to_dict() == pytest.approx(mae["mse"].to_dict())
    assert own["mae_first"].to_dict() == pytest.approx(chosen.set_index("drug")["mae_first"].to_dict())
    assert (own["n"] == N_CELLS).all()
    assert own["low_share"].to_numpy() == pytest.approx(1 / 3)


def test_high_error_drugs_are_ranked_among_themselves(written):
    table = pd.read_parquet(written / "tables" / "second_step_ranking.parquet")
    assert set(table["method"]) == {"mse", "mse.weigh-5", "mae", "mse, first step"}
    assert set(table["n_drugs"]) == {8}
    recall = table[table["metric"] == "recall"].set_index("method")
    assert recall["random"].to_numpy() == pytest.approx(2 / 8)
    assert recall["difference"].drop("mse").notna().all()


def test_figure_and_page_of_a_second_step(written):
    draw_second_step(written / "tables", written / "second_step.png")
    assert (written / "second_step.png").read_bytes()[:4] == b"\x89PNG"
    lines, numbers = second_step_page(written)
    page = "\n".join(lines)
    assert "Second step: the 8 high error drugs of hed count more in training" in page
    assert "regression to the mean" in page
    assert "a test drug's own answers had a say" in page
    assert "have a seed of the first step" not in page
    assert numbers["arm"] == "weigh"
    assert numbers[HIGH]["mae"]["difference_upper"] < 0
    assert numbers[HIGH]["mse"]["difference"] is None
    json.dumps(numbers, allow_nan=False)


def test_runs_of_the_first_step_over_again_are_said():
    rng = np.random.default_rng(7)
    first = step(rows_of("mse"), rng)
    second = step(rows_of("mse", "mse.weigh-5"), rng)
    assert about_table(second, first, "hed", {1})["repeated"].item() == 1


def test_a_loss_as_good_on_the_whole_is_better_on_the_drugs_of_the_other_and_that_is_no_finding():
    """Each loss has drugs of its own that it does worst on, in both steps: the difference is there, its change not."""
    rng, apart, found = np.random.default_rng(8), 0, 0
    for _ in range(10):
        own = {method: rng.gamma(1, 0.1, N_DRUGS) for method in ("mse", "mae")}

        def exchangeable(kind, seed, own=own):
            made = step(rows_of("mse", "mae", kind=kind, seed=seed), rng, luck=0.01)
            scores = made.scores
            lift = [own[m][d] for m, d in zip(scores["method"], scores["drug"], strict=True)]
            return Step(made.plan, scores.assign(auc_pred=scores["auc_pred"] + lift), "mse")

        first, second = exchangeable("drug_blind", 0), exchangeable("high_error", 1)
        high = high_of(first, 6)
        second = Step(second.plan, second.scores[second.scores["drug"].isin(high)], "mse")
        row = at(errors_table(second, first, high, Analysis(bootstrap=100)), "mae")
        apart += row["difference_upper"] < 0
        found += row["difference_change_upper"] < 0
        assert pd.isna(row["p"])
        assert pd.isna(row["p_holm"])
        assert row["difference_change"] == pytest.approx(row["difference"] - row["difference_first"])
    assert apart >= 7
    assert found <= 1


def test_the_page_of_drugs_that_were_moved_says_by_whom_they_were_chosen(tmp_path):
    rng = np.random.default_rng(9)
    first = step(rows_of("mse", "mae"), rng)
    second = step(rows_of("mse", "mae", kind="high_error", seed=1), rng)
    page = paged(tmp_path, second, first, high_of(first))
    assert "exactly as good on the whole is better on these drugs" in page
    assert "more than in the first step" in page
    assert "these drugs are all absent from training" in page
    assert "That much is chance." not in page


def test_chance_is_said_only_of_a_control_that_is_the_first_step_with_other_seeds(tmp_path):
    rng = np.random.default_rng(10)
    first = step(rows_of("mse"), rng)
    high = high_of(first)
    cases = {
        "alike": (rows_of("mse", "mse.weigh-5", seed=1), ""),
        "again": (rows_of("mse", "mse.weigh-5"), "1 runs repeat a seed of the first step"),
        "more": (rows_of("mse", "mse.weigh-5", seed=1) + rows_of("mse", seed=2), "the mean of 2 seeds, not of 1"),
    }
    for name, (rows, differs) in cases.items():
        page = paged(tmp_path / name, step(rows, rng), first, high)
        assert ("That much is chance." in page) == (not differs)
        assert ("retrained with other seeds" in page) == (name != "again")
        assert differs in page


def test_a_second_step_that_tests_no_high_error_drug_says_so(tmp_path):
    rng = np.random.default_rng(11)
    first = step(rows_of("mse"), rng)
    second = step(rows_of("mse", "mse.weigh-5", seed=1), rng, drugs=range(20, N_DRUGS))
    assert "None of the high error drugs is tested here" in paged(tmp_path, second, first, {1, 2, 3})


def paged(folder, second, first, high):
    """The page and figure of two steps, by way of their tables."""
    names = [f"DRUG{i}" for i in range(N_DRUGS)]
    drugs = pd.DataFrame({"drug_id": names, "drug_name": names})
    made = {
        "second_step": errors_table(second, first, high, SETTINGS),
        "second_step_drugs": drugs_table(second, first, high, drugs, drugs.assign(mae_z=0.0)),
        "second_step_ranking": ranking_table(second, first, high, SETTINGS),
        "second_step_about": about_table(second, first, "hed", high),
        "comparison": pd.DataFrame({"reference": ["mse"]}),
    }
    for name, table in made.items():
        write_parquet(folder / "tables" / f"{name}.parquet", table)
    draw_second_step(folder / "tables", folder / "second_step.png")
    return "\n".join(second_step_page(folder)[0])
