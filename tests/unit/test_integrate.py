"""hedflow.integrate: every row of the screens' files is in the result or in the count of what was lost, and why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hedflow import HedflowError
from hedflow.config import SOURCES, Data
from hedflow.identity.parents import parent
from hedflow.integrate import Integrated, integrate
from hedflow.registry import identity_files, needed_files, read_registry, source_files
from hedflow.retrieve import retrieve
from hedflow.schemas import CELLS, CURVE, DRUGS, LOSSES, RESPONSE, checked
from hedflow.simulate import BLINDED_DRUG, MIXTURE, World
from hedflow.sources import read_source

KEY = ["source", "cell_id", "drug_id"]
Inputs = tuple[dict[str, list[Path]], list[Path]]

REAL = """
import json, resource, sys
from pathlib import Path
from hedflow.bundle.build import build_bundle
from hedflow.config import Data, Features
from hedflow.integrate import integrate
from hedflow.registry import identity_files, needed_files, read_registry, source_files
from hedflow.retrieve import retrieve

out, mirror, registry = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
data = Data(mirror=mirror, registry=registry)
rows = read_registry(registry)
for key in needed_files(data, rows):
    retrieve(rows[key], out / key, mirror=mirror)
sources = {name: [out / key for key in source_files(data, name)] for name in data.names}
identity = [out / key for key in identity_files(data, rows)]
made = integrate(sources, identity)
losses = build_bundle(made.response, made.cells, made.drugs, identity, Features(), out / "bundle")
print(json.dumps({
    "manifest": json.loads((out / "bundle" / "manifest.json").read_text()),
    "losses": [*made.losses.to_dict("records"), *losses.to_dict("records")],
    "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
}))
"""


@pytest.fixture(scope="module", autouse=True)
def real_run(
    request: pytest.FixtureRequest, repo: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[subprocess.Popen[str] | None]:
    """The five real screens down to a bundle, in a process of its own that runs beside this module's tests."""
    wanted = any(item.get_closest_marker("mirror") for item in request.session.items if item.fspath == request.path)
    folder = repo.parent / "shared" / "data"
    if not wanted or not folder.is_dir():
        yield None
        return
    out = tmp_path_factory.mktemp("real")
    command = [sys.executable, "-c", REAL, str(out), str(folder), str(repo / "resources" / "datasets.csv")]
    # RDKit's graph descriptors multiply small matrices: BLAS threads make them three times dearer.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def inputs(world: World, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    raw = tmp_path_factory.mktemp("raw")
    data = Data(mirror=str(world.folder), registry=str(world.folder / "datasets.csv"))
    registry = read_registry(data.registry)
    for key in needed_files(data, registry):
        retrieve(registry[key], raw / key, mirror=data.mirror)
    sources = {source: [raw / key for key in source_files(data, source)] for source in SOURCES}
    return sources, [raw / key for key in identity_files(data, registry)]


@pytest.fixture(scope="module")
def readings(inputs: Inputs) -> dict[str, pd.DataFrame]:
    return {source: read_source(source, paths) for source, paths in inputs[0].items()}


def lost(made: Integrated, source: str) -> dict[str, int]:
    rows = made.losses[made.losses["source"] == source]
    return dict(zip(rows["reason"], rows["rows_lost"], strict=True))


def assert_adds_up(losses: pd.DataFrame, before: int, after: int) -> None:
    """Each step begins with what the one before it left."""
    assert losses["rows_before"].tolist() == [before, *losses["rows_after"].tolist()[:-1]]
    assert losses["rows_after"].iloc[-1] == after


# ---- counts


@pytest.mark.parametrize("source", SOURCES)
def test_counts_add_up_from_the_file_to_the_result(
    world_integrated: Integrated, readings: dict[str, pd.DataFrame], source: str
) -> None:
    made = world_integrated
    response = made.response[made.response["source"] == source]
    losses = made.losses[made.losses["source"] == source]
    assert_adds_up(losses, len(readings[source]), len(response))
    assert response["replicates"].sum() == losses["rows_after"].iloc[-2]  # all rows kept are in some average


def test_tables_keep_their_contracts(world_integrated: Integrated) -> None:
    made = world_integrated
    for table, schema in (
        (made.response, RESPONSE),
        (made.cells, CELLS),
        (made.drugs, DRUGS),
        (made.losses, LOSSES),
    ):
        schema.validate(table)
    assert set(made.response["cell_id"]) == set(made.cells["cell_id"])
    assert set(made.response["drug_id"]) == set(made.drugs["drug_id"])


def test_mixture_and_blinded_drug_are_left_out_and_counted(
    world_integrated: Integrated, readings: dict[str, pd.DataFrame]
) -> None:
    for source in SOURCES:
        table = readings[source]
        reasons = lost(world_integrated, source)
        assert reasons["combination of drugs"] == (table["drug_name"] == MIXTURE).sum()
        assert reasons["no structure for the drug"] == (table["drug_name"] == BLINDED_DRUG).sum()
    assert lost(world_integrated, "CTRPv2")["combination of drugs"] > 0
    assert lost(world_integrated, "GDSCv1")["no structure for the drug"] > 0
    names = "|".join(world_integrated.drugs["names"])
    assert MIXTURE not in names
    assert BLINDED_DRUG not in names


# ---- values


def by_hand(readings: dict[str, pd.DataFrame], made: Integrated) -> pd.DataFrame:
    """The averages, computed with a plain loop over the readings."""
    cells = made.cell_identity.dropna(subset="cell_id").set_index(["source", "cell_name"])["cell_id"].to_dict()
    drugs = made.drug_identity.dropna(subset="drug_id").set_index(["source", "drug_name"])["drug_id"].to_dict()
    values: dict[tuple[str, str, str], list[float]] = {}
    for source, whole in readings.items():
        table = whole[~whole["repeated"]]
        for cell, drug, auc in zip(table["cell_name"], table["drug_name"], table["auc"], strict=True):
            if (source, cell) in cells and (source, drug) in drugs:
                values.setdefault((source, cells[source, cell], drugs[source, drug]), []).append(auc)
    rows = [
        (*key, np.mean(np.minimum(v, 1)), np.std(np.minimum(v, 1), ddof=1) if len(v) > 1 else np.nan, len(v))
        for key, v in values.items()
    ]
    return pd.DataFrame(rows, columns=[*KEY, "auc", "auc_sd", "replicates"])


def test_replicates_are_averaged(world_integrated: Integrated, readings: dict[str, pd.DataFrame]) -> None:
    expected = by_hand(readings, world_integrated).sort_values(KEY, ignore_index=True)
    found = world_integrated.response.sort_values(KEY, ignore_index=True)
    assert found[KEY].equals(expected[KEY].astype(found[KEY].dtypes))
    np.testing.assert_array_equal(found["replicates"], expected["replicates"])
    np.testing.assert_allclose(found["auc"], expected["auc"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["auc_sd"], expected["auc_sd"], rtol=0, atol=1e-7)
    assert (found["replicates"] > 1).sum() > 50
    assert found["auc_sd"].isna().equals(found["replicates"] == 1)


def test_clipped_replicates_are_counted(world_integrated: Integrated, readings: dict[str, pd.DataFrame]) -> None:
    high = sum(
        int((table["auc"] > 1)[~table["drug_name"].isin([MIXTURE, BLINDED_DRUG])].sum()) for table in readings.values()
    )
    assert world_integrated.response["clipped"].sum() == high > 0


def test_sources_are_kept_apart(world_integrated: Integrated) -> None:
    response = world_integrated.response
    assert response["source"].unique().tolist() == list(SOURCES)
    sources = response.groupby(["cell_id", "drug_id"])["source"].nunique()
    assert sources.max() >= 4
    assert not response.duplicated(KEY).any()


def test_auc_recovers_the_truth(world: World, world_integrated: Integrated) -> None:
    truth = world.truth.assign(drug_id=world.truth["drug"].map(world.drugs.set_index("name")["smiles"].map(_drug_id)))
    # Doxorubicin and epirubicin are one drug by connectivity.
    truth = truth.groupby(["model_id", "drug_id"], as_index=False)["auc"].mean()
    both = world_integrated.response.merge(
        truth, left_on=["cell_id", "drug_id"], right_on=["model_id", "drug_id"], suffixes=("", "_true")
    )
    assert len(both) == len(world_integrated.response)
    for _, rows in both.groupby("source"):
        assert rows["auc"].corr(rows["auc_true"]) > 0.9


def _drug_id(smiles: str) -> str:
    found = parent(smiles)
    assert found is not None
    return found[0]


def rewritten(path: Path, folder: Path, change: Callable[[list[str]], list[str]]) -> Path:
    """A copy of a table, in `folder`, with its data lines changed."""
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    made = folder / path.name
    made.write_text("\n".join([header, *change(lines)]) + "\n", encoding="utf-8")
    return made


def test_row_order_of_the_inputs_does_not_matter(inputs: Inputs, world_integrated: Integrated, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    sources = {}
    for source, paths in inputs[0].items():
        (tmp_path / source).mkdir()
        sources[source] = [
            rewritten(path, tmp_path / source, lambda lines: [lines[i] for i in rng.permutation(len(lines))])
            for path in paths
        ]
    again = integrate(sources, inputs[1][::-1])
    pd.testing.assert_frame_equal(
        again.response.drop(columns="auc_sd"), world_integrated.response.drop(columns="auc_sd")
    )
    np.testing.assert_allclose(again.response["auc_sd"], world_integrated.response["auc_sd"], atol=1e-7)
    pd.testing.assert_frame_equal(again.cells, world_integrated.cells)
    pd.testing.assert_frame_equal(again.losses, world_integrated.losses)
    assert again.drugs["drug_id"].equals(world_integrated.drugs["drug_id"])
    assert again.drugs["names"].equals(world_integrated.drugs["names"])


# ---- rows that cannot be used


def with_rows(inputs: Inputs, folder: Path, *rows: str) -> Integrated:
    """GDSCv2 with more rows in its file."""
    path = rewritten(inputs[0]["GDSCv2"][0], folder, lambda lines: [*lines, *rows])
    return integrate({"GDSCv2": [path]}, inputs[1])


UNUSABLE = {
    "MCF-7,Erlotinib,": "no AUC",
    "MCF-7,Erlotinib,NaN": "no AUC",
    "MCF-7,Erlotinib,-0.01": "AUC not between 0 and 2",
    "MCF-7,Erlotinib,2.5": "AUC not between 0 and 2",
    "MCF-7,Erlotinib,inf": "AUC not between 0 and 2",
    ",Erlotinib,0.5": "no cell or drug name",
    "MCF-7,,0.5": "no cell or drug name",
    "MCF-7,Cetuximab,0.5": "no structure for the drug",
    "MCF-7,No such drug,0.5": "no structure for the drug",
    "No such line,No such drug,0.5": "no structure for the drug",
    "No such line,Erlotinib,0.5": "cell line not identified",
    "NA,Erlotinib,0.5": "cell line not identified",
}


def test_unusable_rows_are_counted_by_their_reasons(
    inputs: Inputs, world_integrated: Integrated, tmp_path: Path
) -> None:
    made = with_rows(inputs, tmp_path, *UNUSABLE)
    before = lost(world_integrated, "GDSCv2")
    expected = {reason: n + list(UNUSABLE.values()).count(reason) for reason, n in before.items()}
    assert lost(made, "GDSCv2") == expected
    old = world_integrated.response.query("source == 'GDSCv2'").reset_index(drop=True)
    pd.testing.assert_frame_equal(made.response, old)


def test_a_row_twice_is_a_replicate(inputs: Inputs, world_integrated: Integrated, tmp_path: Path) -> None:
    made = with_rows(inputs, tmp_path, "MCF-7,Erlotinib,0.0")
    before = lost(world_integrated, "GDSCv2")
    old = world_integrated.response.query("source == 'GDSCv2'").set_index(KEY)
    changed = made.response.set_index(KEY)
    changed = changed[changed["replicates"] != old["replicates"].reindex(changed.index, fill_value=0)]
    assert len(changed) == 1
    assert lost(made, "GDSCv2")["replicates averaged"] - before["replicates averaged"] in (0, 1)


def test_nothing_left_is_an_error(inputs: Inputs, tmp_path: Path) -> None:
    path = rewritten(inputs[0]["GDSCv2"][0], tmp_path, lambda lines: ["No line,No drug,0.9"] * 3)
    with pytest.raises(HedflowError, match="no row has both a known cell line and a drug structure"):
        integrate({"GDSCv2": [path]}, inputs[1])


def test_without_depmap_cells_are_known_by_name(inputs: Inputs) -> None:
    identity = [path for path in inputs[1] if path.parent.name == "structures"]
    made = integrate({"GDSCv2": inputs[0]["GDSCv2"]}, identity)
    assert not {"TT", "T-T"} & set(made.response["cell_id"])
    assert "697" in set(made.response["cell_id"])
    assert lost(made, "GDSCv2")["cell line not identified"] > 0
    assert set(made.cells["tissue"]) == {"unknown"}


# ---- contracts


def response_row(**changed: object) -> pd.DataFrame:
    row = {
        "source": "CCLE",
        "cell_id": "ACH-000001",
        "drug_id": "ABCDEFGHIJKLMN",
        "auc": 0.5,
        "auc_sd": np.nan,
        "replicates": np.int32(1),
        "clipped": np.int32(0),
        "auc_rule": "as given",
        **dict.fromkeys(CURVE, np.nan),
    }
    return pd.DataFrame([{**row, **changed}])


BROKEN = {
    "auc above 1": (response_row(auc=1.5), "column 'auc' breaks", "1.5"),
    "auc missing": (response_row(auc=np.nan), "column 'auc' breaks", "nan"),
    "id of another kind": (response_row(drug_id="abc"), "column 'drug_id' breaks", "'abc'"),
    "empty id": (response_row(cell_id=""), "column 'cell_id' breaks", "''"),
    "type": (response_row(replicates=1.0), "column 'replicates' breaks", "int32"),
    "no replicate": (response_row(replicates=np.int32(0)), "column 'replicates' breaks", "0"),
    "column missing": (response_row().drop(columns="auc_sd"), "column 'auc_sd', which is missing", "expected"),
    "column too many": (response_row(extra=1), "column 'extra' is not one of", "auc_rule"),
    "row twice": (
        pd.concat([response_row(), response_row(auc=0.7)], ignore_index=True),
        "source, cell_id, drug_id",
        "more than one row",
    ),
}


@pytest.mark.parametrize(("table", "named", "value"), BROKEN.values(), ids=BROKEN)
def test_broken_contract_names_the_column(table: pd.DataFrame, named: str, value: str) -> None:
    with pytest.raises(HedflowError) as caught:
        checked(table, RESPONSE, "integrated response")
    message = str(caught.value)
    assert message.startswith("integrated response: ")
    assert named in message
    assert value in message
    assert "\n" not in message


def test_counts_that_do_not_add_up_break_the_contract() -> None:
    checked(response_row(), RESPONSE, "a good row")
    losses = pd.DataFrame([("CCLE", "integrate", "x", 5, 1, 3)], columns=list(LOSSES.columns))
    with pytest.raises(HedflowError, match="rows add up"):
        checked(losses, LOSSES, "integration report")


# ---- the real screens (last, so that the process has had its time)


@pytest.mark.mirror
def test_the_real_screens(mirror: Path, real_run: subprocess.Popen[str]) -> None:
    said, _ = real_run.communicate()
    assert real_run.returncode == 0
    found = json.loads(said)
    manifest, losses = found["manifest"], pd.DataFrame(found["losses"])
    assert found["gib"] < 4
    assert list(manifest["sources"]) == list(SOURCES)
    # The pack counts 669,155 distinct pairs; what differs is in its README and in tests of identity.
    assert manifest["rows"] == pytest.approx(669_891, rel=0.001)
    assert manifest["rows"] == pytest.approx(669_155, rel=0.002)
    files = {"CCLE": 11_670, "CTRPv2": 395_263, "gCSI": 6_167, "GDSCv1": 333_161, "GDSCv2": 242_036}
    for source, rows in files.items():
        assert_adds_up(losses[losses["source"] == source], rows, manifest["sources"][source])
    # All 776 structures are measured in some line with expression.
    assert manifest["drugs"] == 776
