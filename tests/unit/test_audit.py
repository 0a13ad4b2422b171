"""The leak audit on rows made by hand: it passes what is clean and names what leaks."""

import re

import numpy as np
import pandas as pd
import pytest
from test_splits import make_bundle

from hedflow import HedflowError
from hedflow.audit import audit, audit_plan
from hedflow.config import Split, parse_config
from hedflow.plan import make_plan
from hedflow.splits import Rows, labels, make_rows

# Drugs 0 and 1 share a fingerprint; 2 and 3 are mirror images, 4 is the salt of 5: one connectivity each, though
# their fingerprints differ here.
GROUPS = [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]
SMILES = ["CCO", "CCCO", "C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", "CCCCN.Cl", "CCCCN", *("C" * i for i in range(6, 10))]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"), GROUPS, smiles=SMILES)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """All drugs unlike: any split of them is clean."""
    return make_bundle(tmp_path_factory.mktemp("plain"))


def of_kind(kind, **settings):
    lists = {"drugs": ["Drug 0"], "validation_drugs": ["Drug 2"]} if kind == "drug_lists" else {}
    return Split(kind=kind, **lists, **settings)


def rows_by_drug(bundle, test, validation):
    drug = bundle.response["drug"].to_numpy()
    held = np.isin(drug, test), np.isin(drug, validation)
    return Rows(*(np.flatnonzero(mask).astype(np.int32) for mask in (~(held[0] | held[1]), held[1], held[0])))


def moved(rows, part, into):
    """The first row of `part` in `into` instead."""
    parts = {name: getattr(rows, name) for name in ("train", "validation", "test")}
    parts[into] = np.sort(np.append(parts[into], parts[part][0]))
    parts[part] = parts[part][1:]
    return Rows(**parts)


@pytest.mark.parametrize("kind", ["drug_blind", "leave_one_drug_out", "drug_lists"])
def test_a_clean_split_by_drugs_passes_with_its_counts(kind, bundle):
    rows = rows_by_drug(bundle, [0, 1], [2, 3, 4, 5])
    assert audit(of_kind(kind), [("x", rows), ("y", rows)], bundle) == [
        {
            "split": kind,
            "label": label,
            "train": len(rows.train),
            "validation": len(rows.validation),
            "test": len(rows.test),
            "unused": 0,
            "leaks": 0,
        }
        for label in "xy"
    ]


@pytest.mark.parametrize(
    "split",
    [
        Split(folds=3),
        Split(kind="leave_one_drug_out"),
        Split(kind="random_pairs", folds=3),
        Split(kind="cell_blind", folds=3),
        Split(kind="drug_lists", drugs=["Drug 1"], validation_drugs=["Drug 2"]),
    ],
)
def test_what_the_splitter_makes_passes(split, plain):
    parts = [(label, make_rows(split, label, plain)) for label in labels(split, plain)]
    assert [r["leaks"] for r in audit(split, parts, plain)] == [0] * len(parts)


@pytest.mark.parametrize(
    ("test", "validation", "said"),
    [
        pytest.param([0], [6], ["Drug 0 (test) is in train as well, as Drug 1"], id="fingerprint twin in train"),
        pytest.param([2, 6], [7], ["Drug 2 (test) is in train as well, as Drug 3"], id="mirror image in train"),
        pytest.param([5], [7], ["Drug 5 (test) is in train as well, as Drug 4"], id="salt in train"),
        pytest.param([2], [3], ["Drug 2 (test) is in validation as well, as Drug 3"], id="twin validates"),
        pytest.param([6], [0], ["Drug 0 (validation) is in train as well, as Drug 1"], id="validation twin in train"),
    ],
)
@pytest.mark.parametrize("kind", ["drug_blind", "leave_one_drug_out", "drug_lists"])
def test_a_twin_that_leaks_is_named(kind, test, validation, said, bundle):
    with pytest.raises(HedflowError) as error:
        audit(of_kind(kind), [("f0", rows_by_drug(bundle, test, validation))], bundle)
    assert str(error.value).startswith(f"leak audit: split {kind} f0: ")
    assert all(words in str(error.value) for words in said)


@pytest.mark.parametrize(
    ("part", "into", "said"),
    [
        ("test", "train", "Drug 6 (test) is in train as well, as Drug 6"),
        ("test", "validation", "Drug 6 (test) is in validation as well, as Drug 6"),
        ("validation", "train", "Drug 7 (validation) is in train as well, as Drug 7"),
    ],
)
def test_one_row_of_a_held_out_drug_is_a_leak(part, into, said, bundle):
    rows = moved(rows_by_drug(bundle, [6], [7]), part, into)
    with pytest.raises(HedflowError, match=re.escape(said)):
        audit(of_kind("drug_blind"), [("f0", rows)], bundle)


def test_many_leaking_drugs_are_counted(plain):
    drug = plain.response["drug"].to_numpy()
    half = plain.response["cell"].to_numpy() < 4
    rows = Rows(*(np.flatnonzero(m) for m in ((drug < 9) & half, drug >= 9, (drug < 9) & ~half)))
    with pytest.raises(HedflowError, match="Drug 0, Drug 1, Drug 2, Drug 3, Drug 4 and 4 more"):
        audit(of_kind("drug_blind"), [("f0", rows)], plain)


@pytest.mark.parametrize("kind", ["drug_blind", "random_pairs", "cell_blind"])
@pytest.mark.parametrize(("part", "into"), [("test", "train"), ("test", "validation"), ("validation", "train")])
def test_a_row_in_two_parts(kind, part, into, plain):
    rows = make_rows(Split(kind=kind, folds=3), "f0", plain)
    parts = {name: getattr(rows, name) for name in ("train", "validation", "test")}
    row = parts[part][0]
    parts[into] = np.append(parts[into], row)
    name = {
        "drug_blind": f"Drug {plain.response['drug'][row]}",
        "cell_blind": f"CELL{plain.response['cell'][row]}",
        "random_pairs": r"pair in row \d+(, pair in row \d+)?",
    }[kind]
    with pytest.raises(HedflowError, match=rf"{kind} f0: {name} \({part}\) is in {into} as well"):
        audit(of_kind(kind), [("f0", Rows(**parts))], plain)


@pytest.mark.parametrize("kind", ["drug_blind", "random_pairs", "cell_blind"])
@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_row_that_is_there_twice(kind, part, plain):
    rows = make_rows(Split(kind=kind, folds=3), "f0", plain)
    parts = {name: getattr(rows, name) for name in ("train", "validation", "test")}
    parts[part] = np.append(parts[part], parts[part][0])
    with pytest.raises(HedflowError, match=f"{kind} f0: row {parts[part][0]} is"):
        audit(of_kind(kind), [("f0", Rows(**parts))], plain)


@pytest.mark.parametrize(("part", "into"), [("test", "train"), ("test", "validation"), ("validation", "train")])
def test_a_cell_in_two_parts_is_named(part, into, plain):
    rows = make_rows(Split(kind="cell_blind", folds=3), "f0", plain)
    name = plain.cells["cell_name"][plain.response["cell"][getattr(rows, part)[0]]]
    with pytest.raises(HedflowError, match=rf"cell_blind f0: {name} \({part}\) is in {into} as well"):
        audit(of_kind("cell_blind"), [("f0", moved(rows, part, into))], plain)


def test_a_pair_in_two_parts(plain):
    pair = plain.response["cell"].to_numpy(np.int64) * 100 + plain.response["drug"].to_numpy()
    twice = np.flatnonzero(pd.Series(pair).duplicated(keep=False))
    first = np.flatnonzero(pair == pair[twice[0]])
    others = np.setdiff1d(np.arange(len(pair)), twice)
    more = np.setdiff1d(twice, first)
    others = np.concatenate([others, more])
    clean = Rows(np.concatenate([others[4:], first]), others[:2], others[2:4])
    assert audit(of_kind("random_pairs"), [("f0", clean)], plain)[0]["leaks"] == 0
    leaky = Rows(np.append(others[4:], first[0]), others[:2], np.append(others[2:4], first[1]))
    with pytest.raises(HedflowError, match=rf"pair in row {first[1]} \(test\) is in train as well, as pair in row"):
        audit(of_kind("random_pairs"), [("f0", leaky)], plain)


def test_the_audit_of_a_plan_finds_what_the_splitter_overlooks(bundle):
    """The splitter's twins are those by fingerprint; listed drugs are not even moved with these."""

    def plan(split):
        config = {"models": {"m": {"width": 4}}, "experiments": {"e": {"models": ["m"], "split": split}}}
        return make_plan(parse_config(config), "e", bundle)

    clean = plan({"kind": "drug_lists", "drugs": ["Drug 0", "Drug 1"], "validation_drugs": ["Drug 6"]})
    assert [r["label"] for r in audit_plan(clean, bundle)] == ["lists"]
    with pytest.raises(HedflowError, match="Drug 0"):
        audit_plan(plan({"kind": "drug_lists", "drugs": ["Drug 0"], "validation_drugs": ["Drug 6"]}), bundle)
    with pytest.raises(HedflowError, match=r"Drug [2-5] \(\w+\) is in \w+ as well, as Drug [2-5];"):
        audit_plan(plan({"kind": "leave_one_drug_out"}), bundle)
    folds = plan({"kind": "cell_blind", "folds": 3})
    assert [(r["label"], r["leaks"]) for r in audit_plan(folds, bundle)] == [("f0", 0), ("f1", 0), ("f2", 0)]
