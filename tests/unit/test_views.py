"""Views: the registry, each view's values, cells without one, and what a network is given of them."""

from __future__ import annotations

import builtins
import dataclasses
import hashlib
import importlib
import os
import subprocess
import sys
import warnings
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import hedflow.features
import hedflow.sources
from hedflow import HedflowError
from hedflow.bundle import Bundle, bundle_files, open_bundle
from hedflow.bundle.build import build_bundle
from hedflow.config import Data, Features, Model, Split, parse_config
from hedflow.features import VIEWS, compute_drugs, in_order, read_cells
from hedflow.features.genes import gene_set
from hedflow.identity.cells import read_depmap
from hedflow.integrate import Integrated
from hedflow.simulate import World
from hedflow.simulate.catalogue import GENES
from hedflow.simulate.output import write_rdata
from hedflow.splits import make_rows
from hedflow.training.inputs import make_inputs

PINNED = "ec1f2db70d33bdfb1f754961c5561d6ab1a02dc648faf3d27d801c14dd3c4d0f"
WITHOUT = 7  # cell lines of the world that get no mutation calls
BOTH = ["expression", "mutations"]


@pytest.fixture(scope="module")
def depmap(world: World) -> Path:
    return world.folder / "expression" / "DepMap23Q2" / "CCLE.RData"


@pytest.fixture(scope="module")
def lacking(
    depmap: Path, world_integrated: Integrated, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, set[str]]:
    """DepMap's file with no mutation calls for some measured cell lines, and their ids."""
    frames = read_depmap(depmap)
    has = frames["expression"]["ModelID"]
    measured = sorted(set(world_integrated.response["cell_id"]) & set(has))[:WITHOUT]
    frames["mutation"] = frames["mutation"][~frames["mutation"]["ModelID"].isin(measured)]
    path = tmp_path_factory.mktemp("lacking") / "CCLE.RData"
    write_rdata(path, {name: frames[name].astype({"ModelID": str}) for name in ("mutation", "expression", "metadata")})
    return path, set(measured)


def build(made: Integrated, file: Path, out: Path, **features: object) -> tuple[Bundle, pd.DataFrame]:
    losses = build_bundle(made.response, made.cells, made.drugs, [file], Features(**features), out)  # type: ignore[arg-type]
    return open_bundle(out, verify=True), losses


# ---- the registries


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_a_row_and_a_module(name: str) -> None:
    module = importlib.import_module(hedflow.features.module_of(name))
    assert callable(module.read if VIEWS[name].axis == "cell" else module.compute)
    assert bool(VIEWS[name].of) == (VIEWS[name].axis == "cell")


@pytest.mark.parametrize("name", hedflow.sources.SOURCES)
def test_a_source_is_a_row_and_a_module(name: str) -> None:
    assert callable(importlib.import_module(hedflow.sources.module_of(name)).read)


def test_the_registries_import_none_of_their_modules() -> None:
    """The configuration reads them: RDKit and R files are for the jobs that need them."""
    code = "import sys, hedflow.config; print([m for m in ('rdkit', 'rdata', 'torch', 'mordred') if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_bundle_has_the_views_that_are_listed_and_fingerprints(
    world_integrated: Integrated, depmap: Path, tmp_path: Path
) -> None:
    assert in_order(["mordred", "expression"]) == ["expression", "fingerprints", "mordred"]
    bundle, _ = build(world_integrated, depmap, tmp_path, views=["mutations"])
    assert list(bundle.manifest["views"]) == ["mutations", "fingerprints"]
    assert {path.name for path in tmp_path.iterdir()} == {*bundle_files(bundle.manifest["views"]), "manifest.json"}
    with pytest.raises(
        HedflowError, match=r"no view 'expression'; it has mutations, fingerprints\. Add it to features"
    ):
        bundle.array("expression")


def test_a_cell_or_a_column_that_is_there_twice(depmap: Path, tmp_path: Path) -> None:
    frames = read_depmap(depmap)
    mutation = pd.concat([frames["mutation"], frames["mutation"].head(1)])
    write_rdata(
        tmp_path / "CCLE.RData",
        {"mutation": mutation, "metadata": frames["metadata"], "expression": frames["expression"]},
    )
    with pytest.raises(HedflowError, match=r"mutations: cell ACH-.* is there twice; expected once"):
        read_cells("mutations", [tmp_path / "CCLE.RData"])


# ---- mutations


def test_mutations_are_depmaps_calls(world_integrated: Integrated, depmap: Path, tmp_path: Path) -> None:
    bundle, losses = build(world_integrated, depmap, tmp_path, views=[*BOTH, "descriptors"])
    table = read_depmap(depmap)["mutation"].set_index("ModelID")
    array, columns = bundle.array("mutations"), bundle.view("mutations")["columns"]
    assert set(columns) <= set(GENES)
    assert array.dtype == np.float32
    expected = table.loc[bundle.cells["cell_id"], [f"{gene}_Mut" for gene in columns]].to_numpy(dtype=np.float32)
    np.testing.assert_array_equal(array, expected)
    assert losses.loc[losses["reason"] == "no mutation calls for the cell line", "rows_lost"].sum() == 0
    assert bundle.view("mutations")["cells_imputed"] == 0


def test_cells_without_calls_are_dropped_and_counted(
    world_integrated: Integrated, lacking: tuple[Path, set[str]], tmp_path: Path
) -> None:
    file, without = lacking
    bundle, losses = build(world_integrated, file, tmp_path, views=BOTH)
    assert not without & set(bundle.cells["cell_id"])
    lost = losses.query("reason == 'no mutation calls for the cell line'").set_index("source")["rows_lost"]
    rows = world_integrated.response
    expected = rows[rows["cell_id"].isin(without)].groupby("source").size()
    assert lost.to_dict() == expected.reindex(lost.index, fill_value=0).to_dict()
    for _, steps in losses.groupby("source"):
        assert (steps["rows_after"].to_numpy()[:-1] == steps["rows_before"].to_numpy()[1:]).all()
    assert losses.groupby("source")["rows_after"].last().sum() == bundle.manifest["rows"]


def test_cells_without_calls_are_imputed_and_counted(
    world_integrated: Integrated, lacking: tuple[Path, set[str]], depmap: Path, tmp_path: Path
) -> None:
    file, without = lacking
    bundle, losses = build(world_integrated, file, tmp_path / "a", views=BOTH, missing_cells="impute")
    whole, _ = build(world_integrated, depmap, tmp_path / "b", views=["expression"])
    assert without <= set(bundle.cells["cell_id"])
    assert bundle.manifest["rows"] >= whole.manifest["rows"]
    lines = bundle.cells["cell_id"].isin(without).to_numpy()
    array = bundle.array("mutations")
    assert np.isnan(array[lines]).all()
    assert np.isfinite(array[~lines]).all()  # whole lines that lack it do not cost the view its columns
    view = bundle.view("mutations")
    assert view["cells_imputed"] == WITHOUT
    assert view["rows_imputed"] == np.isin(bundle.response["cell"], np.flatnonzero(lines)).sum()
    assert set(losses["reason"]) == {"neither expression nor mutation calls for the cell line"}
    # To the network such a line is the average training line.
    rows = make_rows(Split(folds=3), "f0", bundle)
    inputs = make_inputs(bundle, rows, Model(cell_features=["mutations"], drug_features=["fingerprints"]))
    assert (inputs.cells[np.flatnonzero(lines)] == 0).all()


def test_without_depmaps_file_there_are_no_mutations() -> None:
    with pytest.raises(
        HedflowError, match=r"mutation calls come with DepMap's CCLE\.RData, which is not among the files"
    ):
        read_cells("mutations", [Path("GDSC_EXP.pkl")])


# ---- Mordred

SMILES = pd.Series(["CC(=O)Oc1ccccc1C(=O)O", "[NH3][Pt](Cl)(Cl)[NH3]", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "CCO"])


def test_mordred_gives_its_2d_descriptors() -> None:
    pytest.importorskip("mordred")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = compute_drugs("mordred", SMILES, Features())
    assert table.shape == (4, 1613)
    assert (table.dtypes == np.float32).all()
    assert not np.isinf(table).any().any()
    assert list(table["nHeavyAtom"]) == [13, 5, 14, 3]
    np.testing.assert_allclose(table["MW"].iloc[[0, 3]], [180.042, 46.042], atol=1e-3)
    assert table.iloc[1].isna().sum() > table.iloc[0].isna().sum() > 0  # a metal has few parameters


def test_mordred_is_the_same_in_every_process() -> None:
    pytest.importorskip("mordred")
    code = """
import hashlib, sys
import pandas as pd
from hedflow.config import Features
from hedflow.features import compute_drugs
table = compute_drugs("mordred", pd.Series(sys.argv[1:]), Features())
print(hashlib.sha256(table.to_numpy().tobytes()).hexdigest())
"""
    found = set()
    for seed in "12":
        environment = {**os.environ, "PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code, *SMILES]
        found.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(found) == 1


def test_mordred_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name == "mordred":
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        HedflowError, match=r"package mordredcommunity; install it \(pip install 'hedflow\[mordred\]'\)"
    ):
        compute_drugs("mordred", SMILES, Features())


def test_a_network_reads_mordred(world_integrated: Integrated, depmap: Path, tmp_path: Path) -> None:
    pytest.importorskip("mordred")
    few = world_integrated.drugs.head(6)
    response = world_integrated.response
    made = dataclasses.replace(world_integrated, drugs=few, response=response[response["drug_id"].isin(few["drug_id"])])
    bundle, _ = build(made, depmap, tmp_path, views=[*BOTH, "mordred"])
    view = bundle.view("mordred")
    assert len(view["columns"]) + len(view["left_out"]) == 1613
    model = Model(cell_features=BOTH, drug_features=["mordred", "fingerprints"])
    inputs = make_inputs(bundle, make_rows(Split(folds=3), "f0", bundle), model)
    for matrix, views in ((inputs.cells, BOTH), (inputs.drugs, ["mordred", "fingerprints"])):
        assert matrix.shape[1] == sum(len(bundle.view(name)["columns"]) for name in views)
        assert matrix.isfinite().all()


# ---- genes


def test_the_landmark_genes_are_the_978_of_l1000() -> None:
    genes = gene_set("landmark")
    assert genes is not None
    assert len(genes) == 978
    assert {"CDK4", "MYC", "TP53", "EGFR"} & genes
    content = resources.files(hedflow.features).joinpath("landmark_genes.csv").read_bytes()
    # Part of no code digest: whoever changes the list changes this, and trains anew.
    assert hashlib.sha256(content).hexdigest() == PINNED
    assert gene_set("all") is None


@pytest.mark.mirror
def test_the_landmark_genes_are_the_mirrors(mirror: Path) -> None:
    table = pd.read_csv(mirror / "expression" / "landmark_genes.tsv", sep="\t")
    assert set(table["Symbol"]) == gene_set("landmark")


def test_a_model_of_the_landmark_genes(world_bundle: Bundle) -> None:
    rows = make_rows(Split(folds=3), "f0", world_bundle)
    columns = world_bundle.view("expression")["columns"]
    landmark = [i for i, gene in enumerate(columns) if gene in gene_set("landmark")]  # type: ignore[operator]
    assert 0 < len(landmark) < len(columns)
    every, some, few = (
        make_inputs(world_bundle, rows, Model(**settings)).cells.numpy()  # type: ignore[arg-type]
        for settings in ({}, {"gene_set": "landmark"}, {"gene_set": "landmark", "genes": 3})
    )
    np.testing.assert_array_equal(some, every[:, landmark])
    assert few.shape[1] == 3
    assert {column.tobytes() for column in few.T} <= {column.tobytes() for column in some.T}


# ---- the configuration


MINE = {"m": {"cell_features": ["expression", "mutations"], "drug_features": ["mordred"]}}


def config(views: list[str] | None = None, data: dict[str, object] | None = None, **model: object) -> object:
    return parse_config(
        {
            "data": data or {"mirror": "x"},
            "features": {"views": views} if views else {},
            "models": {"m": {**MINE["m"], **model}},
            "experiments": {"e": {"models": ["m"]}},
        }
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "experiment 'e' uses model 'm', which reads the view 'mutations', and the bundle has not got it; add mut"),
        ({"views": BOTH}, "which reads the view 'mordred'"),
        ({"views": [*BOTH, "mordred"], "data": {"mirror": None}}, "wheel-only edition has none; set data.mirror"),
        (
            {"views": [*BOTH, "mordred"], "data": {"improve": "csa_data"}},
            "a csa folder (data.improve) has none; leave the view out",
        ),
        ({"views": ["mordred"]}, "views has no view of cells; add one of expression, mutations"),
        ({"cell_features": ["mordred"]}, "cell_features names mordred, a view of drugs; views of cells are expression"),
        ({"drug_features": ["mutations"]}, "drug_features names mutations, a view of cells; views of drugs are desc"),
        ({"cell_features": []}, "'models.m.cell_features' is []"),
        ({"views": ["expresion"]}, "'features.views.0' is 'expresion', which is not a valid name; did you mean expr"),
        ({"gene_set": "landmarks"}, "'landmarks', which is not a valid name; did you mean landmark"),
    ],
)
def test_a_view_that_cannot_be_had_is_one_sentence(settings: dict[str, object], said: str) -> None:
    with pytest.raises(HedflowError) as error:
        config(**settings)  # type: ignore[arg-type]
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_views_that_can_be_had() -> None:
    config(views=[*BOTH, "mordred"])
    # Fingerprints are always there; one view need be no list.
    config(cell_features="expression", drug_features="fingerprints")
    assert Model(cell_features="expression").cell_features == ["expression"]  # type: ignore[arg-type]
    assert Data().annotated is False
