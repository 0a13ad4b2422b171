"""The explorer: its data against the tables, what a click shows in a real browser, nothing loaded, harmless names."""

from __future__ import annotations

import base64
import gzip
import json
import re

import numpy as np
import pandas as pd
import pytest
import vl_convert
from browser import run_in_browser
from written import ODD

from hedflow.explorer.charts import charts
from hedflow.explorer.data import POINTS, SCALE, explorer_data
from hedflow.explorer.page import make_page
from hedflow.files import write_parquet


@pytest.fixture(scope="module")
def tables(made, tmp_path_factory):
    """The folder of the experiment's tables."""
    folder = tmp_path_factory.mktemp("tables")
    for name, table in made.items():
        write_parquet(folder / f"{name}.parquet", table)
    return folder


@pytest.fixture(scope="module")
def page(tables) -> str:
    return make_page(tables, "e")


@pytest.fixture(scope="module")
def data(tables):
    return explorer_data(tables)


def unpacked(page: str, name: str) -> str:
    found = re.search(rf'id="{name}">\n(.*?)\n</script>', page, re.DOTALL)
    return gzip.decompress(base64.b64decode(found[1])).decode()


def test_the_page_loads_nothing_and_holds_its_data(page, data):
    assert not re.search(r"""(src|href)\s*=|@import|url\(""", page)
    assert json.loads(unpacked(page, "data"))["data"] == data
    assert max(map(len, page.splitlines())) < 9_000


def test_drugs_are_those_of_the_table(data, made):
    for method, errors in data["errors"].items():
        rows = made["drugs"][made["drugs"]["method"] == method].sort_values("drug")
        assert data["drugs"]["drug_name"] == rows["drug_name"].tolist()
        for column in ("mae", "bias", "mae_z"):
            assert np.array(errors[column]) / SCALE == pytest.approx(rows[column].to_numpy(), abs=1 / SCALE)
    assert [data["drugs"]["drug_name"][i] for i in data["high_error"]] == made["high_error_drugs"]["drug_name"].tolist()


def test_pairs_are_rows_of_the_predictions(data, experiment):
    pairs, sources = data["pairs"], data["pairs"]["sources"]
    assert pairs["count"] == [48] * 30  # fewer than may be shown: all of them
    drug = np.repeat(np.arange(30), pairs["count"])
    cells = [int(name.removeprefix("CELL")) for name in data["cells"]]
    for name in ("mse", "low"):
        rows = experiment.methods[name].set_index(["drug", "cell", "source"])
        keys = zip(drug, (cells[i] for i in pairs["cell"]), (sources[i] for i in pairs["source"]), strict=True)
        found = rows.loc[list(keys)]
        assert np.array(pairs["auc"]) / SCALE == pytest.approx(found["auc"].to_numpy(), abs=1 / SCALE)
        assert np.array(pairs["auc_pred"][name]) / SCALE == pytest.approx(found["auc_pred"].to_numpy(), abs=1 / SCALE)


def test_many_pairs_of_a_drug_are_thinned_evenly(tables, made, tmp_path):
    for path in tables.glob("*.parquet"):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "scores.parquet").unlink()
    scores = made["scores"]
    size = scores["row"].max() + 1
    pd.concat([scores.assign(row=scores["row"] + i * size) for i in range(10)]).to_parquet(tmp_path / "scores.parquet")
    pairs = explorer_data(tmp_path)["pairs"]
    assert set(pairs["count"]) == {POINTS[1]}
    own, kept = scores.query("method == 'mse' and drug == 0")["auc"], np.array(pairs["auc"][: POINTS[1]]) / SCALE
    assert (kept.min(), kept.max()) == pytest.approx((own.min(), own.max()), abs=1 / SCALE)
    assert np.median(kept) == pytest.approx(own.median(), abs=0.01)


def test_every_chart_is_valid_and_draws(data):
    made = charts()
    rows = {
        "scatter": ("drugs", [{"drug": 0, "name": "d", "auc_mean": 0.5, "mae": 0.1, "group": "g", "high": True}]),
        "cells": ("cells", [{"cell": "c", "source": "s", "auc": 0.2, "auc_pred": 0.7}]),
        "line": ("line", [{"name": "d", "auc": 0.2, "auc_pred": 0.7, "kind": "both: a hit"}]),
    }
    for chart, (name, values) in rows.items():
        spec = {**made[chart], "datasets": {**made[chart].get("datasets", {}), name: values}}
        assert "mark-symbol" in vl_convert.vegalite_to_svg(spec)


def test_a_click_on_a_drug_shows_its_cell_lines_and_the_method_can_be_chosen(page, made, tmp_path):
    act = """
      const marks = [...document.querySelectorAll("#scatter .mark-symbol path")];
      const mark = marks.find((item) => item.__data__ && item.__data__.datum.drug === 7);
      mark.dispatchEvent(new MouseEvent("click", { bubbles: true }));
      while (document.querySelectorAll("#cells .mark-symbol path").length < 48 || hedflow.state.drug !== 7)
        await new Promise((next) => setTimeout(next, 20));
      await hedflow.showMethod("low");
      const first = hedflow.data.lists.cell[0];
      await hedflow.showCell(first, "B");
      await hedflow.search("drug_11");
      const text = (id) => document.getElementById(id).textContent;
      const table = (id) => [...document.querySelectorAll(`#${id} tbody tr`)].map((row) =>
        [...row.cells].map((cell) => cell.textContent));
      return { name: text("drug-name"), about: text("list-about"), cell: hedflow.data.cells[first],
               drugs: table("drugs"), methods: table("methods"), candidates: table("candidates"),
               pairs: hedflow.drugCells(7, "low") };
    """
    found = run_in_browser(page, act, tmp_path)
    assert "error" not in found, found
    assert found["name"] == f"*drug_7*{ODD}"
    drugs = made["drugs"].query("drug == 7").set_index("method")["mae"]
    shown = {row[0].replace(" (naive)", ""): float(row[1]) for row in found["methods"]}
    assert shown["low"] == pytest.approx(drugs["low"], abs=1e-3)
    assert shown["Tanimoto kNN"] == pytest.approx(drugs["tanimoto_knn"], abs=1e-3)
    assert [row[1] for row in found["drugs"]] == [f"*drug_11*{ODD}"]
    lines = made["candidates"].query("method == 'low' and source == 'B'")
    lines = lines[lines["cell_name"] == found["cell"]]
    lines = lines.sort_values("rank_pred").head(5)
    assert [row[1] for row in found["candidates"]] == lines["drug_name"].tolist()
    assert [row[-1] == "hit" for row in found["candidates"]] == lines["hit"].tolist()
    assert f"{lines['hit'].sum()} of the 5 truly best are among the 5 predicted best" in found["about"]
    own = made["scores"].query("method == 'low' and drug == 7")
    assert np.mean([row["auc_pred"] for row in found["pairs"]]) == pytest.approx(own["auc_pred"].mean(), abs=1e-3)


def test_names_from_files_are_only_text(page, tmp_path):
    assert ODD not in page
    act = """
      await hedflow.showDrug(3);
      const name = document.getElementById("drug-name").textContent;
      return { name, bold: document.querySelectorAll("main b").length };
    """
    assert run_in_browser(page, act, tmp_path) == {"name": f"*drug_3*{ODD}", "bold": 0}
