"""hedflow.bundle: the same inputs give the same bundle anywhere, and a changed one is found out."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hedflow import HedflowError
from hedflow.bundle import Bundle, bundle_files, open_bundle
from hedflow.bundle.build import build_bundle
from hedflow.config import Features
from hedflow.features import compute_drugs, read_cells, usable_columns
from hedflow.integrate import Integrated
from hedflow.schemas import LOSSES
from hedflow.simulate import World

FEW = 6  # drugs of a small bundle
FILES = bundle_files(Features().views)


@pytest.fixture(scope="module")
def expression(world: World) -> list[Path]:
    return [world.folder / "expression" / "DepMap23Q2" / "CCLE.RData"]


@pytest.fixture(scope="module")
def small(world_integrated: Integrated) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """response, cells and drugs of a few drugs: quick to build."""
    drugs = world_integrated.drugs.head(FEW)
    response = world_integrated.response
    return response[response["drug_id"].isin(drugs["drug_id"])], world_integrated.cells, drugs


Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


@pytest.fixture(scope="module")
def small_bundle(small: Tables, expression: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("small")
    build_bundle(*small, expression, Features(), out)
    return open_bundle(out)


def digest_of(small: Tables, expression: list[Path], out: Path, features: Features | None = None) -> str:
    build_bundle(*small, expression, features or Features(), out)
    return open_bundle(out, verify=True).digest


# ---- identity


BUILD = """
import sys
from pathlib import Path
import pandas as pd
from hedflow.bundle import open_bundle
from hedflow.bundle.build import build_bundle
from hedflow.config import Features
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
tables = [pd.read_parquet(folder / f"{name}.parquet") for name in ("response", "cells", "drugs")]
build_bundle(*tables, [Path(sys.argv[3])], Features(), out)
"""


def test_same_inputs_same_bytes_in_every_process(
    small: Tables, small_bundle: Bundle, expression: list[Path], tmp_path: Path
) -> None:
    for name, table in zip(("response", "cells", "drugs"), small, strict=True):
        table.to_parquet(tmp_path / f"{name}.parquet")
    running = []
    for seed in ("1", "2"):
        command = [sys.executable, "-c", BUILD, str(tmp_path), str(tmp_path / seed), str(expression[0])]
        running.append(subprocess.Popen(command, env={**os.environ, "PYTHONHASHSEED": seed}))
    assert [process.wait() for process in running] == [0, 0]
    for seed in ("1", "2"):
        assert open_bundle(tmp_path / seed, verify=True).digest == small_bundle.digest
        for name in (*FILES, "manifest.json"):
            assert (tmp_path / seed / name).read_bytes() == (small_bundle.folder / name).read_bytes(), name


def test_row_order_of_the_tables_does_not_matter(
    small: Tables, small_bundle: Bundle, expression: list[Path], tmp_path: Path
) -> None:
    shuffled = tuple(table.sample(frac=1, random_state=k) for k, table in enumerate(small))
    assert digest_of(shuffled, expression, tmp_path) == small_bundle.digest  # type: ignore[arg-type]


def test_another_input_has_another_digest(
    small: Tables, small_bundle: Bundle, expression: list[Path], tmp_path: Path
) -> None:
    response, cells, drugs = small
    auc = response["auc"].copy()
    auc.iloc[0] = 1 - auc.iloc[0]
    # CCC for another drug's structure: its descriptors and its fingerprint change.
    smiles = drugs["smiles"].where(drugs.index != drugs.index[0], "CCC")
    changed: dict[str, tuple[Tables, Features]] = {
        "one AUC": ((response.assign(auc=auc), cells, drugs), Features()),
        "one row less": ((response.iloc[1:], cells, drugs), Features()),
        "one structure": ((response, cells, drugs.assign(smiles=smiles)), Features()),
        "one tissue": ((response, cells.assign(tissue="x"), drugs), Features()),
        "fingerprint": (small, Features(fingerprint_bits=512)),
        "radius": (small, Features(fingerprint_radius=3)),
    }
    digests = {
        name: digest_of(tables, expression, tmp_path / name, features) for name, (tables, features) in changed.items()
    }
    assert len({*digests.values(), small_bundle.digest}) == len(changed) + 1


def test_digest_is_of_the_content_and_not_of_the_place(small_bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(small_bundle.folder, tmp_path / "copy")
    assert open_bundle(tmp_path / "copy", verify=True).digest == small_bundle.digest


# ---- content


def test_types_and_shapes(world_bundle: Bundle) -> None:
    manifest, response = world_bundle.manifest, world_bundle.response
    assert response.dtypes.astype(str).to_dict() == {
        "cell": "int32",
        "drug": "int32",
        "auc": "float32",
        "source": "str",
    }
    cells, drugs, prints = (world_bundle.array(name) for name in Features().views)
    assert (cells.dtype, drugs.dtype, prints.dtype) == (np.float32, np.float32, np.uint8)
    assert (
        cells.shape
        == (manifest["cells"], len(manifest["views"]["expression"]["columns"]))
        == (len(world_bundle.cells), cells.shape[1])
    )
    assert drugs.shape == (manifest["drugs"], len(manifest["views"]["descriptors"]["columns"]))
    assert prints.shape == (manifest["drugs"], Features().fingerprint_bits)
    assert manifest["rows"] == len(response) == sum(manifest["sources"].values())
    assert set(np.unique(prints)) == {0, 1}


def test_indices_are_within_range_and_all_in_use(world_bundle: Bundle) -> None:
    response = world_bundle.response
    for name, table in (("cell", world_bundle.cells), ("drug", world_bundle.drugs)):
        assert sorted(response[name].unique()) == list(range(len(table)))
    assert response["auc"].between(0, 1).all()
    assert not response.duplicated(["source", "cell", "drug"]).any()


def test_rows_are_those_of_the_table_with_expression(
    world: World, world_integrated: Integrated, world_bundle: Bundle, expression: list[Path]
) -> None:
    has = world.cells.loc[world.cells["has_expression"], "model_id"]
    expected = world_integrated.response
    expected = expected[expected["cell_id"].isin(has)]
    found = world_bundle.response
    found = pd.DataFrame(
        {
            "source": found["source"],
            "cell_id": world_bundle.cells["cell_id"].to_numpy()[found["cell"]],
            "drug_id": world_bundle.drugs["drug_id"].to_numpy()[found["drug"]],
            "auc": found["auc"],
        }
    )
    both = expected.merge(found, on=["source", "cell_id", "drug_id"], how="outer", suffixes=("", "_bundle"))
    assert len(both) == len(expected) == len(found)
    np.testing.assert_allclose(both["auc"], both["auc_bundle"], rtol=0, atol=1e-7)
    values = read_cells("expression", expression)
    gene = world_bundle.manifest["views"]["expression"]["columns"][3]
    np.testing.assert_array_equal(
        world_bundle.array("expression")[:, 3], values.loc[world_bundle.cells["cell_id"], gene].to_numpy()
    )


def test_lost_rows_are_counted(
    world_integrated: Integrated, small: Tables, expression: list[Path], tmp_path: Path
) -> None:
    losses = build_bundle(*small, expression, Features(), tmp_path)
    LOSSES.validate(losses)
    assert losses["rows_before"].sum() == len(small[0])
    assert losses["rows_after"].sum() == open_bundle(tmp_path).manifest["rows"]
    assert losses["rows_lost"].sum() > 0  # two cell lines of the world have no expression
    assert set(losses["reason"]) == {"no expression for the cell line"}


def test_constant_and_mostly_missing_columns_are_left_out(world_bundle: Bundle) -> None:
    manifest = world_bundle.manifest
    everything = compute_drugs("descriptors", world_bundle.drugs["smiles"], Features())
    left_out = set(manifest["views"]["descriptors"]["left_out"])
    assert left_out | set(manifest["views"]["descriptors"]["columns"]) == set(everything.columns)
    assert not left_out & set(manifest["views"]["descriptors"]["columns"])
    constant = set(everything.columns[everything.max() == everything.min()])
    assert constant
    assert constant <= left_out
    array = world_bundle.array("descriptors")
    assert (np.isfinite(array).mean(axis=0) >= 1 - Features().max_missing).all()
    assert (np.nanmax(array, axis=0) > np.nanmin(array, axis=0)).all()
    assert not np.isinf(array).any()


def test_usable_columns_by_hand() -> None:
    nan = np.nan
    table = pd.DataFrame(
        {"good": [1, 2, 3, 4.0], "constant": 1.0, "one missing": [nan, 1, 2, 3], "two": [nan, nan, 1, 2], "none": nan}
    )
    table["constant but missing"] = [5, 5, 5, nan]
    assert usable_columns(table, 0).tolist() == ["good"]
    assert usable_columns(table, 0.25).tolist() == ["good", "one missing"]
    assert usable_columns(table, 0.5).tolist() == ["good", "one missing", "two"]
    assert usable_columns(table, 1).tolist() == ["good", "one missing", "two"]


def test_what_rdkit_cannot_compute_stays_missing(small: Tables, expression: list[Path], tmp_path: Path) -> None:
    """A bare metal ion has no partial charges: NaN in its row, never a number in its place."""
    response, cells, drugs = small
    platinum = drugs["smiles"].where(drugs.index != drugs.index[0], "[NH3][Pt](Cl)(Cl)[NH3]")
    table = compute_drugs("descriptors", platinum, Features())
    missing = table.columns[table.iloc[0].isna()]
    assert len(missing) > 0
    assert table.iloc[1:][missing].notna().any().all()
    build_bundle(response, cells, drugs.assign(smiles=platinum), expression, Features(max_missing=0.5), tmp_path)
    bundle = open_bundle(tmp_path)
    kept = [name for name in missing if name in bundle.manifest["views"]["descriptors"]["columns"]]
    assert kept
    columns = [bundle.manifest["views"]["descriptors"]["columns"].index(name) for name in kept]
    row = int(np.flatnonzero(bundle.drugs["drug_id"] == drugs["drug_id"].iloc[0])[0])
    assert np.isnan(bundle.array("descriptors")[row, columns]).all()


def test_fingerprints_are_of_the_structure() -> None:
    def fingerprints(smiles: list[str], bits: int) -> np.ndarray:
        return compute_drugs("fingerprints", pd.Series(smiles), Features(fingerprint_bits=bits)).to_numpy()

    a, b, same = fingerprints(["CCO", "c1ccccc1O", "OCC"], bits=128)
    assert (a == same).all()
    assert (a != b).any()
    assert fingerprints(["CCO"], bits=64).shape == (1, 64)


# ---- reading


@pytest.mark.parametrize("name", Features().views)
def test_arrays_are_mapped_and_read_only(world_bundle: Bundle, name: str) -> None:
    array = world_bundle.array(name)
    assert isinstance(array, np.memmap)
    assert array.mode == "r"
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1


@pytest.fixture
def copy(small_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_bundle.folder, tmp_path / "bundle"))


@pytest.mark.parametrize("name", FILES)
def test_verify_finds_a_changed_byte(copy: Path, name: str) -> None:
    open_bundle(copy, verify=True)
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(HedflowError, match=rf"{name}: the content is not what the manifest says; build it anew"):
        open_bundle(copy, verify=True)


@pytest.mark.parametrize("name", FILES)
def test_verify_finds_a_missing_file(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(HedflowError, match=rf"{name}: .*build it anew"):
        open_bundle(copy, verify=True)


@pytest.mark.parametrize("version", [0, 2, None, "3"])
def test_unknown_format_is_refused(copy: Path, version: object) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "format": version}))
    with pytest.raises(HedflowError, match=f"bundle format {version}, expected 3; build it anew"):
        open_bundle(copy)


def test_no_bundle_and_a_broken_manifest_are_named(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(HedflowError, match=r"expected a bundle \(manifest\.json\); run `snakemake bundle`"):
        open_bundle(tmp_path)
    (copy / "manifest.json").write_text('{"format": 1')
    with pytest.raises(HedflowError, match=r"manifest\.json: expected JSON"):
        open_bundle(copy)


def test_manifest_names_the_files_digests(small_bundle: Bundle) -> None:
    found = {name: hashlib.sha256((small_bundle.folder / name).read_bytes()).hexdigest() for name in FILES}
    assert small_bundle.manifest["files"] == found


# ---- what cannot be built


def test_unknown_ids_are_refused(small: Tables, expression: list[Path], tmp_path: Path) -> None:
    """An id without a row would become the index -1, that is the last cell or drug."""
    response, cells, drugs = small
    measured = response.loc[response["drug_id"] == drugs["drug_id"].iloc[0]]
    with pytest.raises(HedflowError, match=r"bundle: drug_id .* has responses, but no row in the table of drugs"):
        build_bundle(measured.assign(drug_id="A" * 14), cells, drugs, expression, Features(), tmp_path)
    with pytest.raises(HedflowError, match=r"bundle: drug_id .* no row in the table of drugs"):
        build_bundle(response, cells, drugs.iloc[1:], expression, Features(), tmp_path)
    with pytest.raises(HedflowError, match=r"bundle: cell_id .* no row in the table of cells"):
        build_bundle(response, cells.iloc[1:], drugs, expression, Features(), tmp_path)
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize("rows", ["none", "other cells"])
def test_nothing_to_bundle_is_an_error(small: Tables, expression: list[Path], tmp_path: Path, rows: str) -> None:
    response, cells, drugs = small
    response = response.iloc[:0] if rows == "none" else response.assign(cell_id="ACH-000060")
    with pytest.raises(HedflowError, match="no measured cell line has expression"):
        build_bundle(response, cells, drugs, expression, Features(), tmp_path)


def test_unreadable_structure_is_named(small: Tables, expression: list[Path], tmp_path: Path) -> None:
    response, cells, drugs = small
    with pytest.raises(HedflowError, match="RDKit cannot read the structure C1CC;"):
        build_bundle(response, cells, drugs.assign(smiles="C1CC"), expression, Features(), tmp_path)


def test_without_expression_files() -> None:
    with pytest.raises(HedflowError, match=r"expected expression in CCLE\.RData, GDSC_EXP\.pkl or"):
        read_cells("expression", [Path("other.csv")])


def test_a_bundle_half_overwritten_is_no_bundle(
    small: Tables, small_bundle: Bundle, expression: list[Path], copy: Path
) -> None:
    """The new build stops at a file that cannot be replaced: the old manifest must not vouch for the mixture."""
    (copy / "fingerprints.npy").unlink()
    (copy / "fingerprints.npy").mkdir()
    with pytest.raises(IsADirectoryError):
        build_bundle(small[0].iloc[1:], small[1], small[2], expression, Features(), copy)
    with pytest.raises(HedflowError, match="expected a bundle"):
        open_bundle(copy)
