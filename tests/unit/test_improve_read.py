"""Reading a csa folder: the same data however it is written, and one clear sentence for each way to be broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from csa import CELLS, Csa
from hypothesis import given, settings
from hypothesis import strategies as st

from hedflow import HedflowError
from hedflow.bundle import Bundle, open_bundle
from hedflow.bundle.build import build_bundle
from hedflow.config import Data, Features, Quality, parse_config
from hedflow.files import write_parquet
from hedflow.identity.explain import explain
from hedflow.identity.page import make_page
from hedflow.identity.parents import parent
from hedflow.identity.sections import read_annotation
from hedflow.improve import PARAMETERS, find_layout
from hedflow.improve.read import read_expression, read_response, read_structures
from hedflow.integrate import Integrated, integrate_improve


def bundled(folder: Path, out: Path, studies: list[str] | None = None) -> tuple[Integrated, Bundle, pd.DataFrame]:
    """A csa folder integrated and bundled, with the bundle's losses."""
    layout = find_layout(folder)
    made = integrate_improve(layout, studies)
    features = Features(fingerprint_bits=64, max_missing=0)
    losses = build_bundle(made.response, made.cells, made.drugs, layout.identity, features, out, improve=layout)
    return made, open_bundle(out, verify=True), losses


def lost(losses: pd.DataFrame) -> dict[tuple[str, str], int]:
    """Rows lost by (source, reason), where there are any."""
    some = losses[losses["rows_lost"] > 0]
    return dict(zip(zip(some["source"], some["reason"], strict=True), some["rows_lost"], strict=True))


def test_a_csa_folder_gives_its_own_responses_and_identities(tmp_path: Path) -> None:
    csa = Csa()
    made, bundle, losses = bundled(csa.write(tmp_path / "csa"), tmp_path / "bundle")
    expected = {(r[0], r[1], parent(dict(csa.smiles)[r[2]])[0]): float(r[4]) for r in csa.rows}
    response = made.response.set_index(["source", "cell_id", "drug_id"])["auc"]
    assert response.to_dict() == expected
    assert set(made.drugs["drug_name"]) == {"Drug_1", "Drug_2", "Drug_3"}
    assert bundle.cells["cell_id"].tolist() == list(CELLS)
    assert bundle.view("expression")["columns"] == ["TP53", "EGFR", "BRAF"]
    assert bundle.array("expression").tolist() == [[i, i + 0.25, i + 0.5] for i in range(4)]
    assert lost(pd.concat([made.losses, losses])) == {}


FITTED = {"ic50": 6.0, "ec50": 5.5, "ec50se": 0.1, "r2fit": 0.9, "einf": 0.2, "hs": 1.5, "auc1": 0.6, "dss1": 0.3}


def with_parameters(folder: Path) -> Csa:
    """A csa folder whose curves have all parameters, each another one in each row; no ic50 in the first row."""
    csa = Csa()
    for name, value in FITTED.items():
        if name not in csa.header:
            csa.header.append(name)
            for row in csa.rows:
                row.append("")
        csa.column(name, lambda row, value=value: round(value + 0.004 * row, 3))
    csa.column("ic50", lambda row: "" if row == 0 else 5)
    csa.column("aac1", lambda row: round(1 - FITTED["auc1"] - 0.004 * row, 3))
    csa.write(folder)
    return csa


def test_fitted_parameters_are_those_of_the_folder(tmp_path: Path) -> None:
    csa = with_parameters(tmp_path / "csa")
    response = integrate_improve(find_layout(tmp_path / "csa")).response
    first = csa.rows[0]
    one = response.query("source == @first[0] and cell_id == @first[1]").set_index("drug_id")
    row = one.loc[parent(dict(csa.smiles)[first[2]])[0]]
    for theirs, ours in PARAMETERS.items():
        if theirs != "ic50":
            assert row[ours] == FITTED[theirs]
    assert np.isnan(row["ic50"])
    assert response["ic50"].notna().sum() == 23
    assert (response["auc_fixed"] == response["auc"]).all()
    assert response[["rmse", "doses", "x_low", "x_high"]].isna().all(axis=None)


def test_a_folder_without_parameters_has_none(tmp_path: Path) -> None:
    response = integrate_improve(find_layout(Csa().write(tmp_path / "csa"))).response
    assert response[list(PARAMETERS.values())].isna().all(axis=None)


def test_curves_of_a_folder_are_filtered_by_quality(tmp_path: Path) -> None:
    with_parameters(tmp_path / "csa")
    made = integrate_improve(find_layout(tmp_path / "csa"), quality=Quality(min_r2=0.94))
    # 0.9 + 0.004 x row: rows 0 to 9.
    assert lost(made.losses) == {("CCLE", "R2 of the curve below 0.94"): 10}
    assert len(made.response) == 14
    unknown = Quality(min_doses=5, unknown="drop")
    with pytest.raises(HedflowError, match="no row has both"):
        integrate_improve(find_layout(tmp_path / "csa"), quality=unknown)


def test_stereoisomers_are_two_drugs_if_asked_for(tmp_path: Path) -> None:
    csa = Csa()
    csa.smiles[:2] = [("Drug_1", "C[C@H](N)C(=O)O"), ("Drug_2", "C[C@@H](N)C(=O)O")]
    csa.split("CCLE", range(4), range(4, 8), range(8, 12))
    layout = find_layout(csa.write(tmp_path / "csa"))
    for stereo, drugs, moved in (("ignore", 2, 4), ("keep", 3, 0)):
        made = integrate_improve(layout, stereo=stereo)
        out = tmp_path / stereo
        build_bundle(made.response, made.cells, made.drugs, layout.identity, Features(), out, improve=layout)
        assert len(made.drugs) == drugs
        counts = open_bundle(out).manifest["improve_splits"]["CCLE_split_0"]
        assert (counts["moved"], counts["lost"]) == (moved, 0)


def test_the_identity_page_says_whose_the_ids_are(tmp_path: Path) -> None:
    csa = Csa()
    csa.smiles[1] = ("Drug_2", "not a structure")
    layout = find_layout(csa.write(tmp_path / "csa"))
    csa.rows[0][2] = "Drug_9"
    csa.write(tmp_path / "csa")
    made = integrate_improve(layout)
    page = make_page(made.cell_identity, made.drug_identity, read_annotation(layout.identity))
    assert "carries its own ids" in page
    assert "wheel-only" not in page
    assert "not in drug_SMILES.tsv 1 (1 rows)" in page
    assert "is no drug&#x27;s that RDKit can read 2 (8 rows)" in page
    assert made.drug_identity.query("drug_name == 'Drug_1'")["rows"].sum() == 7


def test_why_a_name_of_the_folder_has_its_id(tmp_path: Path) -> None:
    folder = Csa().write(tmp_path / "csa")
    config = parse_config({"data": {"improve": str(folder)}, "results": str(tmp_path / "results")})
    made = integrate_improve(find_layout(folder))
    for name in ("cell_identity", "drug_identity"):
        write_parquet(tmp_path / "results" / "integration" / f"{name}.parquet", getattr(made, name))
    assert "is ACH-000001 (ACH-000001), by improve_sample_id" in explain(config, "ACH-000001")
    drug_id = parent(dict(Csa().smiles)["Drug_1"])[0]
    assert f"is {drug_id}, by exact name 'Drug_1' in drug_SMILES.tsv" in explain(config, "Drug_1")


def test_raw_data_itself_may_be_named(tmp_path: Path) -> None:
    folder = Csa().write(tmp_path)
    assert find_layout(folder) == find_layout(folder / "raw_data")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The small csa folder's bundle, with CRLF and three header rows."""
    folder = tmp_path_factory.mktemp("plain")
    return bundled(Csa().write(folder / "csa"), folder / "bundle")[1]


@settings(max_examples=25)  # each makes a bundle
@given(
    order=st.permutations(range(24)),
    end=st.sampled_from(["\n", "\r\n"]),
    header_rows=st.sampled_from([1, 3]),
    cells=st.permutations(range(4)),
    drugs=st.permutations(range(3)),
)
def test_order_line_ends_and_header_rows_do_not_change_the_bundle(
    plain: Bundle, tmp_path_factory: pytest.TempPathFactory, order, end, header_rows, cells, drugs
) -> None:
    csa, folder = Csa(end=end, header_rows=header_rows), tmp_path_factory.mktemp("csa")
    csa.rows = [csa.rows[i] for i in order]
    csa.expression = [csa.expression[i] for i in cells]
    csa.smiles = [csa.smiles[i] for i in drugs]
    place = np.argsort(order)
    for name, text in csa.splits.items():
        csa.splits[name] = "".join(f"{place[int(row)]}{end}" for row in text.split())
    assert bundled(csa.write(folder / "csa"), folder / "bundle")[1].manifest == plain.manifest


def test_studies_are_chosen_by_name(tmp_path: Path) -> None:
    made, bundle, _ = bundled(Csa().write(tmp_path / "csa"), tmp_path / "bundle", ["gCSI"])
    assert set(made.response["source"]) == {"gCSI"}
    assert list(bundle.manifest["improve_splits"]) == ["gCSI_split_0"]


def test_a_study_of_ones_own_is_read(tmp_path: Path) -> None:
    csa = Csa()
    csa.column("source", lambda row: "My-lab.2" if row < 12 else "gCSI")
    made, _, _ = bundled(csa.write(tmp_path / "csa"), tmp_path / "bundle")
    assert set(made.response["source"]) == {"My-lab.2", "gCSI"}


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    csa = Csa()
    csa.column("improve_chem_id", lambda row: "Drug_9" if row in (0, 1, 2) else csa.rows[row][2])
    csa.column("improve_sample_id", lambda row: "ACH-000099" if row in (13, 18) else csa.rows[row][1])
    csa.column("auc", lambda row: {3: "", 15: "inf", 16: "-0.5"}.get(row, csa.rows[row][4]))
    made, _, losses = bundled(csa.write(tmp_path / "csa"), tmp_path / "bundle")
    assert lost(pd.concat([made.losses, losses])) == {
        ("CCLE", "no structure for the drug"): 3,
        ("CCLE", "no AUC"): 1,
        ("gCSI", "AUC not between 0 and 2"): 2,
        ("gCSI", "no expression for the cell line"): 2,
    }


def test_an_unreadable_structure_is_counted_and_not_guessed(tmp_path: Path) -> None:
    csa = Csa()
    # Names that differ in punctuation only are two ids here, unlike in the screens' own files.
    csa.smiles = [("Drug_1", "not a structure"), ("Drug-1", "CCO"), *csa.smiles[1:]]
    made, _, losses = bundled(csa.write(tmp_path / "csa"), tmp_path / "bundle")
    assert lost(pd.concat([made.losses, losses])) == {
        ("CCLE", "no structure for the drug"): 4,
        ("gCSI", "no structure for the drug"): 4,
    }


def test_ids_of_one_structure_are_one_drug_and_their_measurements_are_averaged(tmp_path: Path) -> None:
    csa = Csa()
    csa.smiles[2] = ("Drug_3", "[Na+].CC(=O)Oc1ccccc1C(=O)[O-]")  # a salt of Drug_1
    made, _, losses = bundled(csa.write(tmp_path / "csa"), tmp_path / "bundle")
    assert lost(pd.concat([made.losses, losses])) == {
        ("CCLE", "replicates averaged"): 4,
        ("gCSI", "replicates averaged"): 4,
    }
    first = made.response.query("source == 'CCLE' and cell_id == 'ACH-000001'").set_index("drug_id")
    assert first.loc[parent("CC(=O)Oc1ccccc1C(=O)O")[0], "auc"] == pytest.approx((0.50 + 0.58) / 2)


def _percent(csa: Csa) -> None:
    csa.column("auc", lambda row: 50 + row)
    csa.column("aac1", lambda row: "")


def _aac_without_aac1(csa: Csa) -> None:
    csa.column("auc", lambda row: round(0.2 - 0.001 * row, 3))
    csa.column("aac1", lambda row: "")


BROKEN: dict[str, tuple[Callable[[Csa], object], str]] = {
    "no auc": (lambda c: c.header.__setitem__(4, "AUC_"), "auc missing. Found: source, improve_sample_id"),
    "no chem id": (lambda c: c.header.__setitem__(2, "drug"), "improve_chem_id missing"),
    "header only": (lambda c: c.rows.clear(), "response.tsv: the file has a header and no rows"),
    "percent": (_percent, "source CCLE: the median AUC is 55.5, expected 0.3 to 1.2"),
    "AAC in auc": (lambda c: c.column("auc", lambda r: c.rows[r][6]), "`auc` rises with `aac1` (r = 1.00)"),
    "AAC, low": (_aac_without_aac1, "expected 0.3 to 1.2 on a scale of 0..1 with low = potent"),
    "text": (lambda c: c.column("auc", lambda r: "high"), "column 'auc' has 'high' in data row 1, expected a number"),
    "no source": (lambda c: c.rows[5].__setitem__(0, ""), "data row 6 has no source; expected the name of its study"),
    "odd study": (lambda c: c.rows[5].__setitem__(0, "my study"), "a study is called 'my study'; expected letters"),
    "all": (lambda c: c.rows[5].__setitem__(0, "all"), "a study is called 'all'"),
    "bad slope": (
        lambda c: (c.header.__setitem__(5, "hs"), c.column("hs", lambda r: r - 3)),
        "CCLE: column 'hs' breaks",
    ),
    "two structures": (lambda c: c.smiles.append(("Drug_1", "CCO")), "Drug_1 is there twice with different struc"),
    "cell twice": (lambda c: c.expression.append(c.expression[0]), "cell ACH-000001 is there twice; expected once"),
    "gene text": (lambda c: c.expression[2].__setitem__(2, "x"), "EGFR of ACH-000003 is 'x', expected a number"),
    "no cells": (lambda c: c.expression.clear(), "cancer_gene_expression.tsv: "),
    "no genes": (lambda c: (c.genes.clear(), c.genes.append(("", "", "")), _no_genes(c)), "expected"),
}


def _no_genes(csa: Csa) -> None:
    csa.expression = [row[:1] for row in csa.expression]


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_one_clear_sentence(case: str, tmp_path: Path) -> None:
    change, sentence = BROKEN[case]
    csa = Csa()
    change(csa)
    folder = csa.write(tmp_path / "csa")
    with pytest.raises(HedflowError) as error:
        bundled(folder, tmp_path / "bundle")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_structures_under_another_column_are_not_taken(tmp_path: Path) -> None:
    path = find_layout(Csa().write(tmp_path)).smiles
    path.write_text(path.read_text().replace("canSMILES", "smiles", 1))
    with pytest.raises(HedflowError, match="expected the columns improve_chem_id, canSMILES; canSMILES missing"):
        read_structures(path)


@pytest.mark.parametrize("name", ["y_data/response.tsv", "x_data/drug_SMILES.tsv", "x_data/cancer_gene_expression.tsv"])
def test_a_missing_or_empty_file_is_named(name: str, tmp_path: Path) -> None:
    folder = Csa().write(tmp_path / "csa")
    (folder / "raw_data" / name).write_text("")
    with pytest.raises(HedflowError, match=f"{name}: expected a table in UTF-8"):
        bundled(folder, tmp_path / "bundle")
    (folder / "raw_data" / name).unlink()
    with pytest.raises(HedflowError, match=f"expected .*{name}, but there is no such file; IMPROVE's csa layout"):
        find_layout(folder)


def test_a_folder_that_is_not_there_and_two_origins_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HedflowError, match="which is not a folder"):
        find_layout(tmp_path / "nowhere")
    with pytest.raises(HedflowError, match="two origins of the data"):
        parse_config({"data": {"improve": "a", "mirror": "b"}})
    assert Data(improve="a").names == ()
    assert Data(improve="a", sources=["gCSI", "CCLE"]).names == ("CCLE", "gCSI")


def test_a_study_that_is_not_there_is_named_with_the_nearest(tmp_path: Path) -> None:
    path = find_layout(Csa().write(tmp_path)).response
    with pytest.raises(HedflowError, match="names GDSCv1, which has no row"):
        read_response(path, ["GDSCv1"])


def test_a_repeated_row_of_a_drug_with_the_same_structure_is_one_drug(tmp_path: Path) -> None:
    csa = Csa()
    csa.smiles.append(("Drug_1", "OC(=O)c1ccccc1OC(C)=O"))
    assert list(read_structures(find_layout(csa.write(tmp_path)).smiles)) == ["Drug_1", "Drug_2", "Drug_3"]


def test_genes_that_share_a_symbol_or_have_none_keep_their_columns(tmp_path: Path) -> None:
    csa = Csa()
    csa.genes = [("ENSG01", "1", "A"), ("ENSG02", "2", "A"), ("ENSG03", "3", "0")]
    assert list(read_expression(find_layout(csa.write(tmp_path)).expression)) == ["A|ENSG01", "A|ENSG02", "0|ENSG03"]


def test_missing_expression_is_missing_and_not_text(tmp_path: Path) -> None:
    csa = Csa()
    csa.expression[0][1] = ""
    csa.expression[1][1] = "NA"
    table = read_expression(find_layout(csa.write(tmp_path)).expression)
    assert table["TP53"].isna().tolist() == [True, True, False, False]


@pytest.mark.mirror
def test_scale_and_spread_of_improves_own_auc(mirror: Path) -> None:
    """IMPROVE's published AUC, as they come in its own output, pass the scale that csa data are held to."""
    from hedflow.sources.scales import check_auc

    expected = {
        "CCLE": ("gCSI-CCLE", 0.786, 0.161),
        "gCSI": ("CCLE-gCSI", 0.711, 0.189),
        "GDSCv2": ("CCLE-GDSCv2", 0.827, 0.153),
    }
    for study, (pair, mean, spread) in expected.items():
        path = mirror / "improve_lgbm_csa_small" / pair / "split_0" / "test_y_data_predicted.csv"
        auc = pd.read_csv(path)["auc_true"]
        check_auc(study, auc)
        assert auc.between(0, 1).all()
        assert (round(auc.mean(), 3), round(auc.std(), 3)) == (mean, spread)
        # Its complement, an AAC, does not pass.
        with pytest.raises(HedflowError, match="low = potent"):
            check_auc(study, 1 - auc)
