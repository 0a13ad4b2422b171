"""Mechanisms of drugs: the rule, on tables by hand and on the world's."""

import pandas as pd
import pytest

from hedflow import UNKNOWN
from hedflow.identity.mechanisms import FROM_GENES, FROM_SCREENED, mechanisms, read_targets

SCREENED = """DRUG_ID,SCREENING_SITE,DRUG_NAME,SYNONYMS,TARGET,TARGET_PATHWAY
1,MGH,Trametinib,"GSK1120212, Mekinist","MEK1, MEK2",ERK MAPK signaling
2,MGH,Sorafenib,Nexavar,RAF,"Other, kinases"
3,SANGER,Sorafenib,Nexavar,"PDGFR, RAF",RTK signaling
4,SANGER,Odd,,not defined,Unclassified
5,SANGER,Bare,,TOP1,
"""
COMPOUNDS = """master_cpd_id,cpd_name,gene_symbol_of_protein_target
1,trametinib,MAP2K1;MAP2K2
2,selumetinib,MAP2K2;MAP2K1
3,sorafenib,BRAF
4,dabrafenib,BRAF
5,odd,BRAF
6,mystery,NA
7,lonely,XYZ1
"""


@pytest.fixture
def found(tmp_path):
    (tmp_path / "screened_compounds_rel_8.4.csv").write_text(SCREENED)
    (tmp_path / "compound_info.csv").write_text(COMPOUNDS)
    targets = read_targets(
        {"CTRPv2": [tmp_path / "compound_info.csv"], "GDSCv1": []}, [tmp_path / "screened_compounds_rel_8.4.csv"]
    )
    names = {
        "T": [("CTRPv2", "trametinib"), ("GDSCv1", "Trametinib")],
        "S": [("CTRPv2", "selumetinib")],
        "R": [("CCLE", "Sorafenib"), ("CTRPv2", "sorafenib")],
        "D": [("CTRPv2", "dabrafenib")],
        "O": [("CTRPv2", "odd")],
        "B": [("GDSCv2", "Bare")],
        "M": [("CTRPv2", "mystery")],
        "L": [("CTRPv2", "lonely")],
        "N": [("gCSI", "nexavar")],
    }
    mapped = pd.DataFrame(
        [(source, name, drug) for drug, rows in names.items() for source, name in rows]
        + [("CCLE", "no structure", None)],
        columns=["source", "drug_name", "drug_id"],
    )
    pd.testing.assert_frame_equal(mechanisms(mapped, targets), mechanisms(mapped.iloc[::-1], targets))
    return mechanisms(mapped, targets).set_index("drug_id")


def test_a_pathway_of_gdsc_is_taken_under_any_name(found):
    assert found.loc["T"].tolist() == ["GDSC:MEK1, MEK2|CTRPv2:MAP2K1;MAP2K2", "ERK MAPK signaling", FROM_SCREENED]
    assert found.loc["N", "mechanism"] == "RTK signaling"  # by synonym


def test_of_two_pathways_the_one_that_says_more(found):
    assert found.loc["R"].tolist() == ["GDSC:PDGFR, RAF|CTRPv2:BRAF", "RTK signaling", FROM_SCREENED]
    assert found.loc["O", "mechanism"] == "Unclassified"  # GDSC's own word stays


def test_the_same_genes_give_the_same_pathway_where_it_is_one(found):
    assert found.loc["S"].tolist() == ["CTRPv2:MAP2K2;MAP2K1", "ERK MAPK signaling", FROM_GENES]
    assert found.loc["D"].tolist() == ["CTRPv2:BRAF", UNKNOWN, ""]  # sorafenib and odd differ


def test_what_no_source_says_is_unknown(found):
    assert found.loc["B"].tolist() == ["GDSC:TOP1", UNKNOWN, ""]
    assert found.loc["M"].tolist() == ["", UNKNOWN, ""]
    assert found.loc["L"].tolist() == ["CTRPv2:XYZ1", UNKNOWN, ""]
    assert len(found) == 9


def test_the_worlds_drugs_have_the_mechanism_of_their_class(world, world_integrated, world_bundle):
    drugs = world_integrated.drugs
    assert drugs["mechanism"].tolist() == world_bundle.drugs["mechanism"].tolist()
    classes = world.drugs.set_index("name")["class"]
    gdsc = drugs[drugs["names"].str.contains("GDSC")]
    assert (gdsc["mechanism_from"] == FROM_SCREENED).all()
    assert set(gdsc["mechanism"]) <= {f"{name} signaling" for name in classes}
    erlotinib = drugs[drugs["names"].str.contains("Erlotinib")].iloc[0]
    assert (erlotinib["mechanism"], erlotinib["target"]) == ("EGFR signaling", "GDSC:EGFR|CTRPv2:EGFR|CCLE:EGFR")


@pytest.mark.mirror
def test_most_of_the_mirrors_drugs_have_one(mirror):
    (folder,) = [mirror / "response" / "CTRPv2"]
    identity = [mirror / "drugs" / "screened_compounds_rel_8.4.csv"]
    targets = read_targets({"CTRPv2": [folder / "compound_info.csv"]}, identity)
    mapped = pd.read_csv(mirror / "derived" / "drug_map.csv").rename(
        columns={"study": "source", "native_name": "drug_name", "inchikey14_parent": "drug_id"}
    )
    found = mechanisms(mapped, targets)
    assert len(found) == 776
    assert found["mechanism_from"].value_counts().to_dict() == {FROM_SCREENED: 420, "": 316, FROM_GENES: 40}
