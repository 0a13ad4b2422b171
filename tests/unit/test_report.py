"""The report's page and figures, of experiments of every kind: one method and dozens, no potent pair, one drug."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from docutils import nodes
from docutils.core import publish_doctree
from written import DRUGS, ODD, experiment_of, frame, naive_frames, tables_of, write_results

from hedflow.analysis import TABLES
from hedflow.config import Split
from hedflow.figures import FIGURES, losses
from hedflow.figures.integration import draw_lost_rows
from hedflow.figures.style import family_styles, shades
from hedflow.figures.tables import MANY, Tables, family
from hedflow.files import write_json
from hedflow.report import details, headline, make_answer
from hedflow.report.numbers import experiment_numbers
from hedflow.report.page import escaped, list_table
from hedflow.report.page import frame as page_frame
from hedflow.report.summary import paragraph

NAMES = [
    "- minus", "A. foo", "1. one", "x::", ".. image:: http://evil/x.png", ".. include:: /etc/hostname", ":field: x",
    "two\nlines", "losses_", "(+)-JQ1 <b>", "---", "", "a\\", ">>> x", "| line", "-o option",
]  # fmt: skip
# The figures that many methods change; the others show the reference, and perhaps the best one.
BY_METHOD = [
    "tradeoff", "contrasts", "ranges2", "ranges10", "ranks", "ranking", "distance", "training", "convergence",
]  # fmt: skip


@pytest.fixture(scope="module")
def published(repo) -> Path:
    return repo / "resources" / "published_hed.csv"


@pytest.fixture(scope="module")
def answer(written, published):
    return make_answer(written, ["e"], published)


@pytest.fixture(scope="module")
def least(tmp_path_factory) -> Path:
    """One method without epochs, one drug, no potent pair, too few drugs to rank."""

    def only(rows: pd.DataFrame) -> pd.DataFrame:
        return rows[(rows["drug"] == 0) & (rows["auc"] >= 0.5)].reset_index(drop=True)

    methods = {"ridge": only(frame(lambda auc, drug, rng: auc + 0.1 * rng.normal(size=len(auc))))}
    experiment = experiment_of(methods, {name: only(rows) for name, rows in naive_frames().items()})
    split = Split(kind="drug_lists", drugs=["Drug 0"], validation_drugs=["Drug 1", "Drug 2"])
    made = tables_of(experiment, tmp_path_factory.mktemp("bundle"), {"ridge": (None, None)}, split, "Drug {}".format)
    return write_results(tmp_path_factory.mktemp("least"), made)


@pytest.fixture(scope="module")
def most(tmp_path_factory) -> Path:
    """More methods than one panel holds: losses with alphas, and a model without epochs."""
    axes = {f"mae_poly-{a:g}": ("mae_poly", float(a)) for a in (4, 0.5, 2)} | {
        f"mae_exp-{a:g}": ("mae_exp", float(a)) for a in (1, 4, 7)
    }
    axes |= {"mse": ("mse", None), "mae": ("mae", None), "kernel_ridge": (None, None)}
    assert len(axes) > MANY
    methods = {
        name: frame(lambda auc, drug, _, i=i: auc - 0.03 * i + 0.1 * np.random.default_rng(i).normal(size=len(auc)), 12)
        for i, name in enumerate(axes)
    }
    experiment = experiment_of(methods, naive_frames(12), high_error_z=-1.0)
    made = tables_of(experiment, tmp_path_factory.mktemp("bundle"), axes, drugs=12)
    return write_results(tmp_path_factory.mktemp("most"), made, names=BY_METHOD)


def test_the_page_opens_with_an_answer_that_can_be_quoted(answer, written):
    page, numbers = answer
    quoted = page.splitlines()[6].strip()
    assert quoted.startswith(
        "On drugs that the models had not seen (30 drugs, 1,440 measured pairs, 6 training runs), "
    )
    overall = pd.read_parquet(written / "e/tables/methods.parquet").query("source == 'all'").set_index("method")
    low, mse = (f"{overall.loc[name, 'mae_low']:.3f}" for name in ("low", "mse"))
    assert f"low errs {1 - float(low) / float(mse):.0%} less than mse on potent pairs" in quoted
    assert f"mean absolute error {low} instead of {mse} (difference -" in quoted
    assert "No model clearly beats the strongest naive baseline, the Tanimoto kNN" in quoted
    assert "truly best ones; 17% by chance" in quoted
    assert quoted.index("errs") < page.index("data:image/png") < page.index("**Methods.**") < page.index("<iframe")
    found = numbers["e"]
    assert (found["best_low"], found["strongest_naive"], found["drugs"]) == ("low", "tanimoto_knn", DRUGS)
    contrast = pd.read_parquet(written / "e/tables/contrasts.parquet")
    contrast = contrast.query("method == 'low' and against == 'mse' and part == 'mae_low'").iloc[0]
    assert found["low"]["difference"] == pytest.approx(contrast["difference"], abs=1e-6)
    assert found["low"]["p_holm"] == pytest.approx(contrast["p_holm"], abs=1e-6)


def test_of_drugs_chosen_by_the_reference_no_difference_to_it_is_a_finding(answer, written, tmp_path):
    numbers = {**answer[1]["e"], "split": "high_error"}
    tables = {name: pd.read_parquet(written / f"e/tables/{name}.parquet") for name in TABLES}
    said = paragraph(tables, numbers)
    assert "exactly as good on the whole is better on these drugs" in said
    assert not re.search("errs|beats|p <|p =|instead of", said)
    change = {"mae": 0.1, "difference_change": -0.01, "difference_change_lower": -0.02, "difference_change_upper": 0.0}
    numbers["second_step"] = {"high error": {"mse": dict.fromkeys(change), "low": change}}
    write_json(tmp_path / "report/answer.json", {"e": numbers})
    last = headline(tmp_path).splitlines()[2:]
    assert last == ["  low against mse, more than in the first step: MAE -0.0100 [-0.0200 to +0.0000]"]


def test_a_method_that_is_clearly_better_is_named_before_one_with_a_lower_error_that_is_not(answer, written):
    tables = {name: pd.read_parquet(written / f"e/tables/{name}.parquet") for name in TABLES}
    contrasts = tables["contrasts"]
    low = contrasts[(contrasts["method"] == "low") & (contrasts["against"] == "mse")]
    lower = low.assign(method="wild", difference=low["difference"] - 0.1, p_holm=0.2)
    methods = tables["methods"]
    wild = methods[methods["method"] == "low"].assign(method="wild")
    tables |= {"contrasts": pd.concat([contrasts, lower]), "methods": pd.concat([methods, wild], ignore_index=True)}
    numbers = experiment_numbers(tables)
    assert numbers["best_low"] == "low"
    said = paragraph(tables, numbers)
    assert "less than mse on potent pairs" in said
    assert "no method errs clearly less" not in said


def test_the_best_of_many_rankings_is_better_only_after_holm(answer, written):
    found = answer[1]["e"]["ranking"]
    table = pd.read_parquet(written / "e/tables/ranking_differences.parquet")
    assert (table["p_holm"].dropna() >= table["p"].dropna()).all()
    assert (found["best"], found["of"]) == ("tanimoto_knn", 4)
    assert f", the best of 4 (difference {found['difference_lower']:+.0%} to {found['difference_upper']:+.0%}; p " in (
        answer[0].splitlines()[6].replace("\\", "")
    )
    unsure = table.assign(p_holm=0.2, low=0.1)
    tables = {"ranking": pd.read_parquet(written / "e/tables/ranking.parquet"), "ranking_differences": unsure}
    assert set(details.rankings(tables, "mse", 5)["better than mse by recall"]) == {"none"}


def test_means_of_seeds_and_runs_without_epochs_are_said():
    runs = pd.DataFrame({"method": ["mse", "mse", "mae", "ridge"], "split": "f0", "seed": [0, 1, 0, 0]}).assign(
        status="trained", best_epoch=pd.array([1, 2, 3, None], dtype="Int64"), run=list("abcd"), reason=None
    )
    classes = runs[["method"]].assign(**{"class": ["converged"] * 3 + ["not iterative"]})
    said = " ".join(details.trained({"runs": runs, "convergence": classes}))
    assert "All 3 runs with epochs converged; 1 run has no epochs." in said
    assert "mean prediction of 2 seeds (mse)" in said
    assert "methods with other numbers of seeds do not compare" in said
    alike = runs.assign(seed=[0, 1, 0, 0], method=["mse", "mse", "ridge", "ridge"]).iloc[[0, 1, 3]]
    assert "do not compare" not in " ".join(details.trained({"runs": alike, "convergence": classes}))


def test_the_page_says_what_it_rests_on(answer):
    page = answer[0]
    assert "A 1 (25.0%)" in page  # set to 1
    assert "Used nowhere, by part of the split: 3 to 1,200 rows (no tissue)." in page
    assert "Features: expression 1, mutations 1 (training means for 2 cell lines without them)." in page
    assert "better: -" in page  # low against mse on potent pairs
    assert r"recall\@5, mse" in page  # a bare @ would become a mail address
    assert r"\*drug\_" in page  # a drug's name is no markup
    assert max(map(len, page.splitlines())) < 10_000  # more is refused by docutils
    assert not re.search(r"""<(script|link|img|iframe)[^>]+(src|href)=["']?https?:""", page)


def test_published_figures_stand_beside_ours(most, published):
    page, _ = make_answer(most, ["e"], published)
    start = page.index("**Beside the published figures.**")
    part = page[start : page.index("**High error drugs**")]
    overall = pd.read_parquet(most / "e/tables/methods.parquet").query("source == 'all'").set_index("method")
    for method, theirs in {
        "mae": (0.0771, 0.0654),
        "mae_poly-2": (0.0649, 0.1046),
        "mae_exp-7": (0.0537, 0.1045),
    }.items():
        ours = [f"{overall.loc[method, part]:.4f}" for part in ("mae_low", "mae_rest")]
        cells = [escaped(method), f"{theirs[0]:.4f}", ours[0], f"{theirs[1]:.4f}", ours[1]]
        assert "- \\ ".join(f"{cell}\n     " for cell in cells).rstrip() in part
    assert "log" not in part  # a loss that was not tried
    assert "494 test rows, 67 of them below 0.5" in part


def test_an_experiment_with_the_least_in_it_has_a_page(least, published):
    page, numbers = make_answer(least, ["e"], published)
    quoted = page.splitlines()[6]
    assert "no pair was potent (true AUC below 0.5)" in quoted
    assert "nan" not in quoted.lower()
    assert "No source has cell lines with enough tested drugs to rank." in page
    assert "have no epochs" in page
    assert numbers["e"]["low"] is None
    write_json(least / "report/answer.json", numbers)
    assert re.search(r"1\. .*\n  2\. .*\n  3\. ", headline(least))


@pytest.mark.parametrize(("kind", "names"), [("written", FIGURES), ("least", FIGURES), ("most", BY_METHOD)])
def test_every_figure_is_drawn_and_has_a_caption(kind, names, repo, request):
    folder = request.getfixturevalue(kind) / "e/figures"
    assert {path.stem for path in folder.glob("*.png")} == set(names)
    for name in names:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (repo / "workflow" / "report" / f"{name}.rst").is_file()
    assert sorted(FIGURES.values()) == list(FIGURES.values())  # Snakemake sorts them by name


def test_a_figure_is_drawn_alike_twice(written, tmp_path):
    losses.draw_tradeoff(Tables(written / "e/tables"), tmp_path / "tradeoff.png")
    assert (tmp_path / "tradeoff.png").read_bytes() == (written / "e/figures/tradeoff.png").read_bytes()


def test_the_alphas_of_a_loss_are_one_family_in_their_order(most):
    read = Tables(most / "e/tables")
    assert read.families["mae_poly"] == ["mae_poly-0.5", "mae_poly-2", "mae_poly-4"]
    assert read.families["kernel_ridge"] == ["kernel_ridge"]
    assert family("uno.mae_exp-2~3", 2.0) == "uno.mae_exp~3"
    assert family("net-2.mae_poly-2", 2.0) == "net-2.mae_poly"
    few = read.few(4)
    assert {read.reference, read.best_low} <= set(few)
    assert len(few) == 4
    assert few == [name for name in read.methods if name in few]


def test_families_are_told_apart_and_alphas_go_from_light_to_dark():
    styles = family_styles([f"loss{i}" for i in range(18)])
    assert len({(style["color"], style["marker"], style["linestyle"]) for style in styles.values()}) == 18
    lightness = [sum(shade) for shade in shades("#0173b2", 4)]
    assert lightness == sorted(lightness, reverse=True)


def test_lost_rows_are_drawn(written, tmp_path):
    draw_lost_rows(pd.read_parquet(written / "integration_report.parquet"), tmp_path / "lost.png")
    assert (tmp_path / "lost.png").stat().st_size > 1000


def test_markup_and_templates_in_names_stay_text():
    assert escaped("a*b_c|`{{ x }}`@d") == r"a\*b\_c\|\`(( x ))\`\@d"


@pytest.mark.parametrize("name", NAMES)
def test_what_a_drug_is_called_is_no_markup_in_a_table(name):
    """Any name is the text of its cell, whatever it begins or ends with; nothing is included."""
    tree = publish_doctree("\n".join(list_table(pd.DataFrame({"drug": [name], "b": ["1"]}))))
    cells = [cell.astext() for cell in tree.findall(nodes.entry)]
    assert cells == ["drug", "b", " ".join(name.split()), "1"]
    assert not list(tree.findall(nodes.system_message))


def test_what_an_experiment_is_called_is_no_markup_in_its_title():
    title = f"Experiment {escaped('losses_')}"
    tree = publish_doctree(f"{title}\n{'-' * len(title)}\n\n* {escaped('The control, uno_ retrained.')}\n")
    assert "losses_" in tree.astext()
    assert not list(tree.findall(nodes.system_message))


def test_a_frame_holds_its_page_whatever_is_in_it():
    lines = page_frame(f'<p title="&amp;">{ODD}</p>\n</iframe>', "t")
    assert lines[0].endswith('srcdoc="')
    assert lines[-1] == '"></iframe>'
    assert not re.search('["<]', "".join(lines[1:-1]))
