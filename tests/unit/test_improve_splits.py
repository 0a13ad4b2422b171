"""IMPROVE's split files as kinds of split: their rows, and what is refused in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from csa import Csa
from hypothesis import given, settings
from hypothesis import strategies as st
from test_improve_read import bundled

from hedflow import HedflowError
from hedflow.audit import audit, audit_plan
from hedflow.bundle import Bundle
from hedflow.config import Split, parse_config
from hedflow.identity.parents import parent
from hedflow.improve.splits import read_rows
from hedflow.plan import make_plan
from hedflow.splits import Rows, labels, make_rows


@pytest.fixture
def out(tmp_path: Path) -> Callable[[Csa], Bundle]:
    """Writes a csa folder and bundles it."""
    return lambda csa: bundled(csa.write(tmp_path / "csa"), tmp_path / "bundle")[1]


def members(csa: Csa, name: str) -> set[tuple[str, str, str]]:
    """(source, cell, drug id) of a split file's rows, taken from the csa folder alone."""
    smiles = dict(csa.smiles)
    rows = [csa.rows[int(line)] for line in csa.splits[name].split()]
    return {(row[0], row[1], parent(smiles[row[2]])[0]) for row in rows}


def in_bundle(bundle: Bundle, rows: np.ndarray) -> set[tuple[str, str, str]]:
    table = bundle.response.iloc[rows]
    cell, drug = bundle.cells["cell_id"].to_numpy(), bundle.drugs["drug_id"].to_numpy()
    return set(zip(table["source"], cell[table["cell"]], drug[table["drug"]], strict=True))


def same(csa: Csa, bundle: Bundle, label: str, rows: Rows) -> bool:
    ends = {"train": rows.train, "val": rows.validation, "test": rows.test}
    return all(in_bundle(bundle, part) == members(csa, f"{label}_{end}.txt") for end, part in ends.items())


@settings(max_examples=25)  # each makes a bundle
@given(order=st.permutations(range(24)), part=st.lists(st.integers(0, 3), min_size=24, max_size=24))
def test_a_split_holds_the_measurements_that_its_files_name(tmp_path_factory, order, part) -> None:
    csa = Csa()
    csa.rows = [csa.rows[i] for i in order]
    for stage, first in enumerate((0, 1, 2)):  # no part is empty
        part[first] = stage
    csa.split("all", *([row for row in range(24) if part[row] == stage] for stage in range(3)), name="split_7")
    csa.splits = {name: text for name, text in csa.splits.items() if name.startswith("all")}
    folder = tmp_path_factory.mktemp("csa")
    bundle = bundled(csa.write(folder / "csa"), folder / "bundle")[1]
    split = Split(kind="improve")
    assert labels(split, bundle) == ["all_split_7"]
    assert same(csa, bundle, "all_split_7", make_rows(split, "all_split_7", bundle))


def test_each_split_of_each_study_is_a_part(out) -> None:
    csa = Csa()
    csa.split("CCLE", range(4), range(4, 8), range(8, 12), name="split_10")
    csa.split("CCLE", range(4), range(4, 8), range(8, 12), name="drug_0")
    csa.splits["CCLE_all.txt"] = "0\r\n1\r\n"
    csa.splits["GDSCv1_split_0_train.txt"] = "of a study that is not there"
    bundle = out(csa)
    assert labels(Split(kind="improve"), bundle) == ["CCLE_split_0", "CCLE_split_10", "gCSI_split_0"]
    assert labels(Split(kind="improve", studies=["gCSI"]), bundle) == ["gCSI_split_0"]
    assert labels(Split(kind="improve", use_folds=[0]), bundle) == ["CCLE_split_0", "gCSI_split_0"]
    # Files named for it come before those named split.
    assert labels(Split(kind="improve_drug_blind"), bundle) == ["CCLE_drug_0", "gCSI_split_0"]
    for label in ("CCLE_split_0", "CCLE_split_10", "gCSI_split_0"):
        assert same(csa, bundle, label, make_rows(Split(kind="improve"), label, bundle))


def test_the_audit_proves_what_a_split_is_called(out) -> None:
    csa = Csa()
    csa.split("CCLE", range(4), range(4, 8), range(8, 12), name="drug_0")  # the rows are ordered by drug
    bundle = out(csa)
    rows = make_rows(Split(kind="improve_drug_blind"), "CCLE_drug_0", bundle)
    assert audit(Split(kind="improve_drug_blind"), [("CCLE_drug_0", rows)], bundle)[0]["leaks"] == 0
    random = make_rows(Split(kind="improve"), "gCSI_split_0", bundle)
    assert audit(Split(kind="improve"), [("gCSI_split_0", random)], bundle)[0]["leaks"] == 0
    for kind in ("improve_drug_blind", "improve_cell_blind"):
        with pytest.raises(HedflowError, match=f"leak audit: split {kind} gCSI_split_0"):
            audit(Split(kind=kind), [("gCSI_split_0", random)], bundle)


def test_drugs_of_one_structure_under_two_ids_leak_through_a_drug_split(out) -> None:
    csa = Csa()
    csa.smiles[2] = ("Drug_3", "[Na+].CC(=O)Oc1ccccc1C(=O)[O-]")  # a salt of Drug_1
    csa.column("improve_sample_id", lambda row: csa.rows[row][1] if row < 8 else "ACH-00000" + str(4 - row % 4))
    csa.rows = csa.rows[:10]  # two of its pairs are Drug_1's, under another id
    csa.splits = {}
    csa.split("CCLE", range(2, 4), range(4, 8), [8], name="drug_0")
    bundle = out(csa)
    rows = make_rows(Split(kind="improve_drug_blind"), "CCLE_drug_0", bundle)
    counts = bundle.manifest["improve_splits"]["CCLE_drug_0"]
    assert counts == {"train": 1, "validation": 4, "test": 1, "lost": 0, "moved": 1}
    with pytest.raises(HedflowError, match=r"Drug_1 \(test\) is in train as well"):
        audit(Split(kind="improve_drug_blind"), [("CCLE_drug_0", rows)], bundle)


def test_a_pair_measured_in_two_parts_is_held_out_and_counted(out) -> None:
    csa = Csa()
    csa.rows[0] = list(csa.rows[11])  # once in training, once in test
    csa.rows[1] = list(csa.rows[9])  # once in training, once in validation
    bundle = out(csa)
    rows = make_rows(Split(kind="improve"), "CCLE_split_0", bundle)
    assert in_bundle(bundle, rows.test) == members(csa, "CCLE_split_0_test.txt")
    assert in_bundle(bundle, rows.validation) == members(csa, "CCLE_split_0_val.txt")
    assert not in_bundle(bundle, rows.train) & (in_bundle(bundle, rows.test) | in_bundle(bundle, rows.validation))
    assert bundle.manifest["improve_splits"]["CCLE_split_0"]["moved"] == 2


def test_rows_that_are_lost_before_the_bundle_are_counted(out) -> None:
    csa = Csa()
    csa.expression = csa.expression[1:]
    bundle = out(csa)
    assert bundle.manifest["improve_splits"]["CCLE_split_0"] == {
        "train": 6, "validation": 1, "test": 2, "lost": 3, "moved": 0,
    }  # fmt: skip


def _set(name: str, text: str) -> Callable[[Csa], None]:
    return lambda csa: csa.splits.__setitem__(name, text)


BROKEN: dict[str, tuple[Callable[[Csa], object], str]] = {
    "out of range": (_set("CCLE_split_0_test.txt", "24\n"), "row 24 is named, but response.tsv has rows 0 to 23"),
    "text": (_set("CCLE_split_0_val.txt", "8\nnine\n"), "line 2 is 'nine', expected the 0-based number of a row"),
    "negative": (_set("CCLE_split_0_val.txt", "-1\n"), "line 1 is '-1', expected the 0-based number"),
    "fraction": (_set("CCLE_split_0_val.txt", "8.0\n"), "line 1 is '8.0', expected"),
    "empty": (_set("CCLE_split_0_val.txt", "\r\n\r\n"), "CCLE_split_0_val.txt: the file is empty; expected one row"),
    "twice": (_set("CCLE_split_0_train.txt", "3\n4\n3\n"), "row 3 is named twice; expected once"),
    "overlap": (_set("CCLE_split_0_test.txt", "10\n7\n"), "row 7 is in the train part as well; expected one part"),
    "other study": (_set("CCLE_split_0_test.txt", "12\n"), "row 12 of response.tsv is of gCSI, expected CCLE"),
    "no file": (lambda c: c.splits.pop("CCLE_split_0_val.txt"), "expected CCLE_split_0_val.txt beside CCLE_split_0's"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_split_is_one_clear_sentence(case: str, out) -> None:
    change, sentence = BROKEN[case]
    csa = Csa()
    change(csa)
    with pytest.raises(HedflowError) as error:
        out(csa)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_empty_lines_and_spaces_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"\xef\xbb\xbf3\r\n\r\n 1 \n\n2")
    assert read_rows(tmp_path / "x.txt", 4).tolist() == [3, 1, 2]


def test_what_the_folder_has_not_is_said(out, world_bundle: Bundle) -> None:
    csa = Csa()
    bundle = out(csa)
    with pytest.raises(HedflowError, match=r"GDSCv1 has no split files\. Valid: CCLE, gCSI"):
        labels(Split(kind="improve", studies=["GDSCv1"]), bundle)
    with pytest.raises(HedflowError, match=r"use_folds has \[3\], but CCLE has the splits \[0\]"):
        labels(Split(kind="improve", use_folds=[3]), bundle)
    with pytest.raises(HedflowError, match="it takes a csa folder"):
        labels(Split(kind="improve"), world_bundle)


def test_a_part_that_lost_all_its_rows_is_refused(out) -> None:
    csa = Csa()
    csa.split("CCLE", range(8), [8, 9], [11])
    csa.expression = csa.expression[:3]
    with pytest.raises(HedflowError, match="split improve CCLE_split_0: the test part has no row"):
        make_rows(Split(kind="improve"), "CCLE_split_0", out(csa))


def test_studies_belong_to_improves_splits() -> None:
    def config(**split) -> None:
        parse_config({"experiments": {"x": {"split": split}}})

    with pytest.raises(HedflowError, match="`studies` belongs to improve"):
        config(kind="drug_blind", studies=["CCLE"])
    with pytest.raises(HedflowError, match="splits are numbered from 0"):
        config(kind="improve", use_folds=[-1])
    config(kind="improve", use_folds=[9])  # of ten, whatever `folds` says


def test_a_run_a_split_and_a_choice_of_them_trains_no_other_again(out) -> None:
    csa = Csa()
    csa.split("CCLE", range(4), range(4, 8), range(8, 12), name="split_1")
    bundle = out(csa)

    def plan(**split):
        split = {"kind": "improve", **split}
        return make_plan(parse_config({"experiments": {"x": {"split": split}}}), "x", bundle)

    whole, chosen = plan(), plan(studies=["CCLE"], use_folds=[1])
    assert whole["split"].tolist() == ["improve-CCLE_split_0", "improve-CCLE_split_1", "improve-gCSI_split_0"]
    assert chosen["digest"].tolist() == [whole["digest"][1]]
    assert len(audit_plan(whole, bundle)) == 3
