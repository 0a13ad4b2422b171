"""Writing a csa folder: what is written is what the bundle has, and reading it gives the bundle back."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from csa import Csa
from test_improve_read import bundled, with_parameters

from hedflow import HedflowError
from hedflow.bundle import Bundle, open_bundle
from hedflow.bundle.build import build_bundle
from hedflow.cli import main
from hedflow.config import Config, Features, parse_config
from hedflow.features import compute_drugs
from hedflow.files import read_json, write_npy, write_parquet
from hedflow.improve import RESPONSE_COLUMNS, find_layout
from hedflow.improve.write import Extras, export_experiment
from hedflow.integrate import Integrated, integrate_improve
from hedflow.plan import make_plan, parts_of
from hedflow.schemas import CURVE
from hedflow.splits import labels, make_rows


def config_of(**split) -> Config:
    return parse_config({"experiments": {"x": {"split": split}}})


def export(bundle: Bundle, out: Path, extras: Extras | None = None, **split) -> Path:
    export_experiment(bundle, make_plan(config_of(**split), "x", bundle), out, extras)
    return out


def back(folder: Path, out: Path) -> Bundle:
    """The bundle of an exported folder, features as by default."""
    layout = find_layout(folder)
    made = integrate_improve(layout)
    build_bundle(made.response, made.cells, made.drugs, layout.identity, Features(), out, improve=layout)
    return open_bundle(out, verify=True)


def content(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def exported(world_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world's bundle with three drug-blind folds."""
    return export(world_bundle, tmp_path_factory.mktemp("out") / "csa", kind="drug_blind", folds=3)


@pytest.fixture(scope="module")
def returned(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return back(exported, tmp_path_factory.mktemp("back"))


def table(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / "raw_data" / name, sep="\t")


@pytest.mark.parametrize("name", ["response.parquet", "expression.npy", "descriptors.npy", "fingerprints.npy"])
def test_the_bundle_comes_back_byte_for_byte(name: str, world_bundle: Bundle, returned: Bundle) -> None:
    assert returned.manifest["files"][name] == world_bundle.manifest["files"][name]


def test_identities_come_back(world_bundle: Bundle, returned: Bundle) -> None:
    for mine, theirs in ((world_bundle.cells, returned.cells), (world_bundle.drugs, returned.drugs)):
        assert mine.iloc[:, 0].tolist() == theirs.iloc[:, 0].tolist()
    assert world_bundle.drugs["smiles"].tolist() == returned.drugs["smiles"].tolist()
    assert world_bundle.view("expression")["columns"] == returned.view("expression")["columns"]
    assert world_bundle.view("descriptors")["columns"] == returned.view("descriptors")["columns"]


def test_splits_come_back_whole_and_by_study(world_bundle: Bundle, returned: Bundle) -> None:
    split = config_of(kind="drug_blind", folds=3).experiments["x"].split
    own = config_of(kind="improve_drug_blind").experiments["x"].split
    sources = world_bundle.response["source"].to_numpy(dtype=str)
    found = labels(own, returned)
    assert {"all_split_0", "all_split_1", "all_split_2", "CTRPv2_split_0"} <= set(found)
    for label in found:
        study, _, number = label.rsplit("_", 2)
        wanted, got = make_rows(split, f"f{number}", world_bundle), make_rows(own, label, returned)
        for part in ("train", "validation", "test"):
            rows = getattr(wanted, part)
            assert getattr(got, part).tolist() == rows[(sources[rows] == study) | (study == "all")].tolist()


def test_what_was_read_from_a_csa_folder_is_written_under_its_own_split_names(tmp_path: Path) -> None:
    csa = Csa()
    csa.split("CCLE", range(4), range(4, 8), range(8, 12), name="split_3")
    bundle = bundled(csa.write(tmp_path / "csa"), tmp_path / "bundle")[1]
    folder = export(bundle, tmp_path / "again", kind="improve", studies=["CCLE"])
    names = {path.name for path in (folder / "raw_data" / "splits").iterdir()}
    stages = ("train", "val", "test")
    assert names == {
        *("CCLE_all.txt", "gCSI_all.txt"),
        *(f"CCLE_split_{number}_{stage}.txt" for number in (0, 3) for stage in stages),
    }
    returned = back(folder, tmp_path / "back")
    for label in ("CCLE_split_0", "CCLE_split_3"):
        assert np.array_equal(returned.improve_split(label), bundle.improve_split(label))


def test_the_response_has_improves_columns_and_only_what_is_known(exported: Path, world_bundle: Bundle) -> None:
    raw = (exported / "raw_data" / "y_data" / "response.tsv").read_bytes()
    assert raw.startswith(("\t".join(RESPONSE_COLUMNS) + "\r\n").encode())
    assert raw.count(b"\n") == raw.count(b"\r\n") == world_bundle.manifest["rows"] + 1
    response = table(exported, "y_data/response.tsv")
    assert np.array_equal(response["auc"].to_numpy(np.float32), world_bundle.response["auc"].to_numpy())
    assert response[list(RESPONSE_COLUMNS[5:])].isna().all(axis=None)
    text = (exported / "README.txt").read_text()
    for name in RESPONSE_COLUMNS:
        assert name in text
    assert "LOW = POTENT" in text


def test_parameters_of_the_curves_are_written_where_they_are_known(
    world_integrated: Integrated, world_bundle: Bundle, tmp_path: Path
) -> None:
    known = world_integrated.response
    known = known.assign(r2=known["auc"] - 1, ec50_se=0.25, auc_tested=known["auc"] / 2)
    known.loc[known["source"] == "gCSI", ["r2", "auc_tested"]] = np.nan
    write_parquet(tmp_path / "response.parquet", known)
    folder = export(world_bundle, tmp_path / "csa", Extras(response=tmp_path / "response.parquet"))
    written = table(folder, "y_data/response.tsv")
    measured = written["source"] != "gCSI"
    assert np.allclose(written["r2fit"], (written["auc"] - 1).where(measured), atol=1e-6, equal_nan=True)
    assert np.allclose(written["auc1"], (written["auc"] / 2).where(measured), atol=1e-6, equal_nan=True)
    assert np.allclose(written["aac1"], 1 - written["auc1"], atol=1e-6, equal_nan=True)
    assert (written["ec50se"] == 0.25).all()
    text = (folder / "README.txt").read_text()
    assert f"r2fit: R2 of the curve's fit; in {measured.sum()} of {len(written)} rows" in text
    assert "ec50se: standard error of ec50, decades; in every row" in text
    for source, rule in known[["source", "auc_rule"]].drop_duplicates().itertuples(index=False):
        assert f"{source}: {rule} ({(written['source'] == source).sum()} rows)" in text
    # The bundle of another response has other rows or another AUC.
    write_parquet(tmp_path / "response.parquet", known.assign(auc=1 - known["auc"]))
    with pytest.raises(HedflowError, match=r"it is not what the bundle .* was made from"):
        export(world_bundle, tmp_path / "other", Extras(response=tmp_path / "response.parquet"))


def test_a_folders_own_parameters_come_back(tmp_path: Path) -> None:
    with_parameters(tmp_path / "csa")
    made, bundle, _ = bundled(tmp_path / "csa", tmp_path / "bundle")
    write_parquet(tmp_path / "response.parquet", made.response)
    folder = export(bundle, tmp_path / "again", Extras(response=tmp_path / "response.parquet"), kind="improve")
    again = integrate_improve(find_layout(folder)).response
    keys = ["source", "cell_id", "drug_id"]
    ours, theirs = (r.sort_values(keys, ignore_index=True)[[*keys, *CURVE]] for r in (made.response, again))
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-7)


def test_a_line_without_expression_has_no_row_and_costs_no_gene(world_bundle: Bundle, tmp_path: Path) -> None:
    genes = np.array(world_bundle.array("expression"))
    genes[2] = np.nan
    folder = export(changed(world_bundle, tmp_path / "bundle", expression=genes), tmp_path / "csa")
    written = table(folder, "x_data/cancer_gene_expression.tsv").iloc[2:, 0].tolist()
    assert written == [cell for i, cell in enumerate(world_bundle.cells["cell_id"]) if i != 2]
    text = (folder / "README.txt").read_text()
    assert f"{genes.shape[1]} genes as in the bundle" in text
    assert "1 cell lines have no expression and no row" in text


def test_features_are_of_the_drugs_and_cells_in_their_rows(exported: Path, world_bundle: Bundle) -> None:
    bits = table(exported, "x_data/drug_ecfp4_nbits512.tsv").set_index("improve_chem_id")
    smiles = table(exported, "x_data/drug_SMILES.tsv").set_index("improve_chem_id")["canSMILES"]
    made = compute_drugs("fingerprints", smiles, Features(fingerprint_radius=2, fingerprint_bits=512))
    for drug in smiles.index:
        assert bits.loc[drug].tolist() == made.loc[drug].tolist()
    described = table(exported, "x_data/drug_rdkit_descriptors.tsv")
    assert np.isfinite(described.iloc[:, 1:]).all(axis=None)
    assert not (exported / "raw_data" / "x_data" / "drug_mordred.tsv").exists()


def test_the_same_export_has_the_same_bytes(exported: Path, world_bundle: Bundle, tmp_path: Path) -> None:
    again = export(world_bundle, tmp_path / "elsewhere" / "again", kind="drug_blind", folds=3)
    assert content(again) == content(exported)
    export(world_bundle, again, kind="drug_blind", folds=3)  # over itself
    assert content(again) == content(exported)
    assert [path.name for path in again.parent.iterdir()] == ["again"]


def test_an_older_export_leaves_nothing_behind(world_bundle: Bundle, tmp_path: Path) -> None:
    export(world_bundle, tmp_path / "csa", kind="drug_blind", folds=4)
    export(world_bundle, tmp_path / "csa", kind="drug_blind", folds=2)
    assert not list((tmp_path / "csa").rglob("*_split_3_*"))


def test_a_folder_of_the_users_is_not_overwritten(world_bundle: Bundle, tmp_path: Path) -> None:
    Csa().write(tmp_path / "csa")
    before = content(tmp_path / "csa")
    with pytest.raises(HedflowError, match="is there and is no earlier export"):
        export(world_bundle, tmp_path / "csa")
    assert content(tmp_path / "csa") == before


def test_an_empty_part_has_no_files_and_is_said(exported: Path) -> None:
    """improvelib cannot read an empty file."""
    splits = exported / "raw_data" / "splits"
    assert all(path.stat().st_size > 0 for path in splits.iterdir())
    for line in (exported / "README.txt").read_text().splitlines():
        if "hedflow's f" in line:
            name = line.strip().split(":")[0]
            written = len(list(splits.glob(f"{name}_*.txt")))
            assert written == (0 if "no files: a part is empty" in line else 3)


def test_numbers_of_folds_are_kept(world_bundle: Bundle, tmp_path: Path) -> None:
    folder = export(world_bundle, tmp_path / "csa", kind="cell_blind", folds=5, use_folds=[1, 4])
    numbers = {path.stem.split("_")[2] for path in (folder / "raw_data" / "splits").glob("*_split_*")}
    assert numbers == {"1", "4"}


def test_splits_that_leak_are_not_written(world_bundle: Bundle, tmp_path: Path, monkeypatch) -> None:
    from hedflow import audit

    def leaking(split, label, bundle):
        rows = make_rows(split, label, bundle)
        return type(rows)(rows.train, rows.validation, np.append(rows.test, rows.train[0]))

    monkeypatch.setattr(audit, "make_rows", leaking)
    with pytest.raises(HedflowError, match="leak audit"):
        export(world_bundle, tmp_path / "csa")
    assert not list(tmp_path.iterdir())


def changed(bundle: Bundle, folder: Path, **tables) -> Bundle:
    """A copy of a bundle whose tables or arrays are replaced."""
    folder.mkdir()
    for path in bundle.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    for name, value in tables.items():
        if isinstance(value, pd.DataFrame):
            value.to_parquet(folder / f"{name}.parquet")
        else:
            write_npy(folder / f"{name}.npy", value)
    return open_bundle(folder)


def test_columns_with_a_missing_value_are_left_out_and_counted(world_bundle: Bundle, tmp_path: Path) -> None:
    genes, described = np.array(world_bundle.array("expression")), np.array(world_bundle.array("descriptors"))
    genes[0, 3], described[1, 2], described[0, 5] = np.nan, np.inf, np.nan
    bundle = changed(world_bundle, tmp_path / "bundle", expression=genes, descriptors=described)
    folder = export(bundle, tmp_path / "csa")
    header = (folder / "raw_data" / "x_data" / "cancer_gene_expression.tsv").read_text().splitlines()[2].split("\t")
    assert header[1:] == [name for i, name in enumerate(bundle.view("expression")["columns"]) if i != 3]
    columns = list(table(folder, "x_data/drug_rdkit_descriptors.tsv"))[1:]
    assert columns == [
        f"rdkit.{name}" for i, name in enumerate(bundle.view("descriptors")["columns"]) if i not in (2, 5)
    ]
    text = (folder / "README.txt").read_text()
    assert "1 left out for a missing value. Header rows" in text
    assert "raw; left out for a missing value: 2" in text


@pytest.mark.parametrize("bad", ["NA", "nan", "A\tB", 'A"B'])
def test_an_id_that_improvelib_would_misread_is_refused(bad: str, world_bundle: Bundle, tmp_path: Path) -> None:
    cells = world_bundle.cells.copy()
    cells.loc[0, "cell_id"] = bad
    bundle = changed(world_bundle, tmp_path / "bundle", cells_=np.zeros(1))
    cells.to_parquet(bundle.folder / "cells.parquet")
    with pytest.raises(HedflowError, match="improvelib would not read the cell id"):
        export(open_bundle(bundle.folder), tmp_path / "csa")


def test_gene_ids_stand_where_they_are_known_and_symbols_elsewhere(world_bundle: Bundle, tmp_path: Path) -> None:
    first, second, *_ = world_bundle.view("expression")["columns"]
    (tmp_path / "genes.tsv").write_text(f"Entrez ID\tSymbol\n7157\t{first}\n1\t{second}\n2\t{second}\n3\tELSEWHERE\n")
    folder = export(world_bundle, tmp_path / "csa", Extras(genes=tmp_path / "genes.tsv"))
    lines = (folder / "raw_data" / "x_data" / "cancer_gene_expression.tsv").read_text().splitlines()[:3]
    ensembl, entrez, symbol = (line.split("\t")[1:] for line in lines)
    assert entrez == ["7157", *symbol[1:]]
    assert ensembl == symbol == world_bundle.view("expression")["columns"]
    assert "1 genes have an Ensembl or Entrez id" in (folder / "README.txt").read_text()
    assert back(folder, tmp_path / "back").view("expression")["columns"] == world_bundle.view("expression")["columns"]
    (tmp_path / "genes.tsv").write_text("gene\tid\n")
    with pytest.raises(HedflowError, match="expected tab-separated columns Gene_Symbol"):
        export(world_bundle, tmp_path / "other", Extras(genes=tmp_path / "genes.tsv"))


def test_mordred_is_written_when_asked_for_and_its_absence_is_a_sentence(
    world_bundle: Bundle, tmp_path: Path, monkeypatch
) -> None:
    if importlib.util.find_spec("mordred"):
        folder = export(world_bundle, tmp_path / "csa", Extras(mordred=True))
        made = table(folder, "x_data/drug_mordred.tsv").set_index("improve_chem_id")
        assert made.index.tolist() == world_bundle.drugs["drug_id"].tolist()
        assert np.isfinite(made).all(axis=None)
        from rdkit.Chem import MolFromSmiles
        from rdkit.Chem.Descriptors import ExactMolWt

        weights = [ExactMolWt(MolFromSmiles(smiles)) for smiles in world_bundle.drugs["smiles"]]
        assert np.allclose(made["mordred.MW"], weights, rtol=1e-5)
    monkeypatch.setitem(__import__("sys").modules, "mordred", None)
    with pytest.raises(HedflowError, match="need the package mordredcommunity"):
        export(world_bundle, tmp_path / "without", Extras(mordred=True))
    assert not (tmp_path / "without").exists()


def test_the_command_writes_and_names_what_it_wrote(world_bundle: Bundle, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "bundle").symlink_to(world_bundle.folder)
    (tmp_path / "config.yaml").write_text("experiments: {mine: {split: {kind: random_pairs, folds: 2}}}\n")
    assert main(["export-improve", "mine", "--out", "csa"]) == 0
    assert "12 splits (random_pairs)" in capsys.readouterr().out
    assert main(["export-improve", "mein", "--out", "csa"]) == 1
    assert "unknown experiment 'mein'; did you mean mine?" in capsys.readouterr().err


def test_the_plan_decides_which_splits_are_written(world_bundle: Bundle, tmp_path: Path) -> None:
    plan = make_plan(config_of(kind="leave_one_drug_out"), "x", world_bundle)
    export_experiment(world_bundle, plan.iloc[:2], tmp_path / "csa")
    names = [label for label, _ in parts_of(plan.iloc[:2])]
    text = (tmp_path / "csa" / "README.txt").read_text()
    assert f"all_split_0: hedflow's {names[0]};" in text
    assert f"all_split_1: hedflow's {names[1]};" in text
    assert "all_split_2" not in text


@pytest.mark.skipif(importlib.util.find_spec("improvelib") is None, reason="improvelib is not installed")
def test_improvelibs_own_loaders_read_what_is_written(exported: Path, world_bundle: Bundle) -> None:
    from improvelib.applications.drug_response_prediction import drp_utils, drug_utils, omics_utils

    raw = exported / "raw_data"
    params = {
        "y_data_files": "[['response.tsv']]",
        "x_data_canc_files": "[['cancer_gene_expression.tsv', ['Gene_Symbol']]]",
        "x_data_drug_files": "[['drug_SMILES.tsv'], ['drug_ecfp4_nbits512.tsv'], ['drug_rdkit_descriptors.tsv']]",
        "y_col_name": "auc",
        "canc_col_name": "improve_sample_id",
        "drug_col_name": "improve_chem_id",
        "y_data_path": str(raw / "y_data"),
        "x_data_path": str(raw / "x_data"),
        "splits_path": str(raw / "splits"),
    }
    omics = omics_utils.OmicsLoader(params, verbose=False).dfs["cancer_gene_expression.tsv"]
    assert omics["improve_sample_id"].tolist() == world_bundle.cells["cell_id"].tolist()
    assert np.array_equal(omics.iloc[:, 1:].to_numpy(np.float32), world_bundle.array("expression"))
    drugs = drug_utils.DrugsLoader(params, verbose=False).dfs
    assert drugs["drug_SMILES.tsv"].index.tolist() == world_bundle.drugs["drug_id"].tolist()
    assert np.array_equal(
        drugs["drug_rdkit_descriptors.tsv"].to_numpy(np.float32)[:, :5], world_bundle.array("descriptors")[:, :5]
    )
    split = config_of(kind="drug_blind", folds=3).experiments["x"].split
    rows = make_rows(split, "f1", world_bundle)
    for stage, part in (("train", rows.train), ("val", rows.validation), ("test", rows.test)):
        loaded = drp_utils.DrugResponseLoader(params, f"all_split_1_{stage}.txt", verbose=False).dfs["response.tsv"]
        assert loaded.index.tolist() == part.tolist()
        assert np.array_equal(loaded["auc"].to_numpy(np.float32), world_bundle.response["auc"].to_numpy()[part])


def test_manifest_of_other_bundles_is_as_before(world_bundle: Bundle) -> None:
    manifest = read_json(world_bundle.folder / "manifest.json")
    assert "improve_splits" not in manifest
    assert "improve_splits.parquet" not in manifest["files"]
