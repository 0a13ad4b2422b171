"""Splits on real bundle folders: what a run is blind to, that nothing is lost, that anybody gets the same rows."""

import string
import tempfile
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedflow import HedflowError
from hedflow.bundle import FORMAT, Bundle, bundle_files, open_bundle
from hedflow.config import Split
from hedflow.files import digest, sha256, write_json, write_npy, write_parquet
from hedflow.splits import Rows, find_drugs, labels, make_rows, twin_groups

PARTS = ("train", "validation", "test")
FOLDED = ("drug_blind", "random_pairs", "cell_blind")


def make_bundle(
    folder: Path, groups=range(12), n_cells: int = 9, seed: int = 0, smiles: list[str] | None = None
) -> Bundle:
    """A bundle by hand. Drugs of one number in `groups` have one fingerprint: they are twins.

    Every (cell, drug) is measured by CCLE, and about half of them by gCSI again. Drug i is `Drug i`; CCLE calls
    it `brand-i` and gCSI `code:i`. Its structure is the alcohol of i + 1 carbons, or `smiles[i]`.
    """
    rng = np.random.default_rng(seed)
    groups = np.array(groups)
    n = len(groups)
    cell, drug = (x.ravel() for x in np.meshgrid(range(n_cells), range(n), indexing="ij"))
    again = rng.random(len(cell)) < 0.5
    cell, drug = np.concatenate([cell, cell[again]]), np.concatenate([drug, drug[again]])
    source = np.repeat(["CCLE", "gCSI"], [n_cells * n, again.sum()])
    response = pd.DataFrame(
        {
            "cell": cell.astype(np.int32),
            "drug": drug.astype(np.int32),
            "auc": rng.uniform(0, 1, len(cell)).astype(np.float32),
            "source": source,
        }
    )
    drugs = pd.DataFrame(
        {
            "drug_id": ["ABCDEFGHIJKL" + a + b for a, b in _letters(n)],
            "drug_name": [f"Drug {i}" for i in range(n)],
            "smiles": smiles or ["C" * (i + 1) + "O" for i in range(n)],
            "names": [f"CCLE:brand-{i}|gCSI:code:{i}" for i in range(n)],
            "target": "",
            "mechanism": "unknown",
            "mechanism_from": "",
        }
    )
    cells = pd.DataFrame({"cell_id": [f"ACH-{i:06d}" for i in range(n_cells)]})
    cells = cells.assign(cell_name=[f"CELL{i}" for i in range(n_cells)], tissue="Lung", disease="Cancer")
    prints = rng.integers(0, 2, (groups.max() + 1, 64)).astype(np.uint8)
    prints[:, :8] = (np.arange(len(prints))[:, None] >> np.arange(8)) & 1  # no two groups alike by chance
    write_parquet(folder / "response.parquet", response)
    write_parquet(folder / "cells.parquet", cells)
    write_parquet(folder / "drugs.parquet", drugs)
    write_npy(folder / "fingerprints.npy", prints[groups])
    write_npy(folder / "expression.npy", rng.normal(size=(n_cells, 7)).astype(np.float32))
    write_npy(folder / "descriptors.npy", rng.normal(size=(n, 5)).astype(np.float32))
    views = {
        name: {"axis": axis, "file": f"{name}.npy", "columns": [f"{name}{i}" for i in range(columns)]}
        for name, axis, columns in (("expression", "cell", 7), ("descriptors", "drug", 5), ("fingerprints", "drug", 64))
    }
    files = {name: sha256(folder / name) for name in bundle_files(views)}
    manifest = {"format": FORMAT, "digest": digest(files)[:16], "views": views, "files": files}
    write_json(folder / "manifest.json", manifest)
    return open_bundle(folder, verify=True)


def _letters(n):
    return [(a, b) for a in string.ascii_uppercase for b in string.ascii_uppercase][:n]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Twelve drugs; 0, 5 and 7 are twins, so are 1 and 2."""
    return make_bundle(tmp_path_factory.mktemp("bundle"), [0, 1, 1, 2, 3, 0, 4, 0, 5, 6, 7, 8])


def splits_of(kind, seed=0, folds=3):
    if kind == "drug_lists":
        return Split(kind=kind, drugs=["Drug 0", "Drug 5", "Drug 7"], validation_drugs=["Drug 3"])
    return Split(kind=kind, seed=seed, folds=folds)


def units(kind, bundle):
    """What must not be divided between parts, row by row."""
    r = bundle.response
    if kind == "cell_blind":
        return r["cell"].to_numpy()
    if kind == "random_pairs":
        return np.array([f"{c} {d}" for c, d in zip(r["cell"], r["drug"], strict=True)])
    bits = np.asarray(bundle.array("fingerprints"))
    return np.array([bits[d].tobytes().hex() for d in r["drug"]])


def all_rows(split, bundle) -> dict[str, Rows]:
    return {label: make_rows(split, label, bundle) for label in labels(split, bundle)}


def assert_lawful(kind, rows, bundle):
    """One part of a split: every row in one place, int32 ascending, units whole."""
    together = np.concatenate([getattr(rows, p) for p in PARTS])
    assert np.array_equal(np.sort(together), np.arange(len(bundle.response)))
    unit = units(kind, bundle)
    for part in PARTS:
        at = getattr(rows, part)
        assert at.dtype == np.int32
        assert len(at) > 0
        assert (np.diff(at) > 0).all()
    for a, b in combinations(PARTS, 2):
        assert not set(unit[getattr(rows, a)]) & set(unit[getattr(rows, b)]), (a, b)


@pytest.mark.parametrize("kind", [*FOLDED, "leave_one_drug_out", "drug_lists"])
def test_every_kind_is_lawful(kind, bundle):
    made = all_rows(splits_of(kind), bundle)
    for rows in made.values():
        assert_lawful(kind, rows, bundle)
    if kind in FOLDED:
        tests = np.concatenate([rows.test for rows in made.values()])
        assert np.array_equal(np.sort(tests), np.arange(len(bundle.response)))  # each row is tested once
        sizes = [len(set(units(kind, bundle)[rows.test])) for rows in made.values()]
        assert max(sizes) - min(sizes) <= 1


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(FOLDED),
    distinct=st.integers(6, 10),
    twins=st.lists(st.integers(0, 5), max_size=4),
    folds=st.integers(2, 5),
    seed=st.integers(0, 10**6),
    validation=st.floats(0.01, 0.5),
)
def test_any_folds_of_any_twins(kind, distinct, twins, folds, seed, validation):
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder), [*range(distinct), *twins], n_cells=7, seed=seed)
        split = Split(kind=kind, folds=folds, seed=seed, validation=validation)
        made = all_rows(split, bundle)
        for rows in made.values():
            assert_lawful(kind, rows, bundle)
        tests = np.concatenate([rows.test for rows in made.values()])
        assert np.array_equal(np.sort(tests), np.arange(len(bundle.response)))


def test_twins_are_drugs_with_the_same_bits(bundle):
    group = twin_groups(bundle.array("fingerprints"))
    assert {frozenset(np.flatnonzero(group == g)) for g in set(group)} == {
        frozenset(x) for x in ([0, 5, 7], [1, 2], [3], [4], [6], [8], [9], [10], [11])
    }


def test_leave_one_drug_out_tests_that_drug_and_its_twins(bundle):
    split = splits_of("leave_one_drug_out")
    made = all_rows(split, bundle)
    assert list(made) == list(bundle.drugs["drug_id"])
    drug = bundle.response["drug"].to_numpy()
    for i, rows in enumerate(made.values()):
        family = next((f for f in ([0, 5, 7], [1, 2]) if i in f), [i])
        assert np.array_equal(rows.test, np.flatnonzero(np.isin(drug, family)))
    # Runs differ in what they test, hardly in what stops them early.
    validations = {tuple(np.unique(drug[rows.validation])) for rows in made.values()}
    assert len(validations) <= 3


def test_leave_one_drug_out_of_some_drugs(bundle):
    split = Split(kind="leave_one_drug_out", drugs=["BRAND-4", "Drug 2"])
    assert labels(split, bundle) == [bundle.drugs["drug_id"][2], bundle.drugs["drug_id"][4]]
    whole = make_rows(Split(kind="leave_one_drug_out"), bundle.drugs["drug_id"][4], bundle)
    some = make_rows(split, bundle.drugs["drug_id"][4], bundle)
    assert all(np.array_equal(getattr(whole, p), getattr(some, p)) for p in PARTS)


def test_use_folds_are_the_same_folds(bundle):
    whole = all_rows(Split(folds=4), bundle)
    some = all_rows(Split(folds=4, use_folds=[3, 1]), bundle)
    assert list(some) == ["f3", "f1"]
    assert all(np.array_equal(getattr(whole[f], p), getattr(some[f], p)) for f in some for p in PARTS)


def test_listed_drugs_are_taken_as_listed(bundle):
    rows = make_rows(
        Split(kind="drug_lists", drugs=["drug 1", "brand-0"], validation_drugs=["code:4"]), "lists", bundle
    )
    drug = bundle.response["drug"].to_numpy()
    # Their twins 2, 5 and 7 stay where they are: that is the audit's to find.
    assert set(drug[rows.test]) == {0, 1}
    assert set(drug[rows.validation]) == {4}
    assert set(drug[rows.train]) == {2, 3, 5, 6, 7, 8, 9, 10, 11}


@pytest.mark.parametrize("kind", FOLDED)
def test_the_seed_changes_the_folds(kind, bundle):
    tests = [make_rows(splits_of(kind, seed), "f0", bundle).test for seed in (0, 1)]
    assert not np.array_equal(*tests)


def test_validation_takes_its_share(bundle):
    for share, units_wanted in ((0.01, 1), (0.3, 2), (0.7, 4)):  # of the 6 groups that 3 folds of 9 leave
        rows = make_rows(Split(folds=3, validation=share), "f0", bundle)
        assert len(set(units("drug_blind", bundle)[rows.validation])) == units_wanted


def test_drugs_are_found_by_any_name(bundle):
    wanted = ["drug 3", "DRUG 3", "brand-3", "Code:3", bundle.drugs["drug_id"][3].lower(), "Drug 10"]
    assert find_drugs(bundle.drugs, wanted) == [3, 3, 3, 3, 3, 10]


def test_a_drugs_own_name_counts_before_a_sources_name_for_another(bundle):
    drugs = bundle.drugs.assign(names=["CCLE:Drug 9", *bundle.drugs["names"][1:]])
    assert find_drugs(drugs, ["drug 9", "brand-9"]) == [9, 9]


@pytest.mark.parametrize(
    "split",
    [
        Split(kind="leave_one_drug_out", drugs=["Drug 3", "Drog 11"]),
        Split(kind="drug_lists", drugs=["Drog 11"], validation_drugs=["Drug 3"]),
        Split(kind="drug_lists", drugs=["Drug 3"], validation_drugs=["Drog 11"]),
    ],
)
def test_an_unknown_drug_is_named_with_the_nearest(split, bundle):
    with pytest.raises(HedflowError, match=r"unknown drug 'Drog 11'; did you mean Drug 11"):
        all_rows(split, bundle)


def test_more_folds_than_units(bundle):
    with pytest.raises(HedflowError, match="split drug_blind: 10 folds of 9 units; use fewer folds"):
        make_rows(Split(folds=10), "f0", bundle)
    with pytest.raises(HedflowError, match="split cell_blind: 11 folds of 9 units; use fewer folds"):
        make_rows(Split(kind="cell_blind", folds=11), "f0", bundle)
    assert_lawful("drug_blind", make_rows(Split(folds=9), "f8", bundle), bundle)


def test_a_part_without_rows(tmp_path):
    two = make_bundle(tmp_path, [0, 1])
    with pytest.raises(HedflowError, match="split drug_blind f0: the train part has no row; use fewer folds"):
        make_rows(Split(folds=2), "f0", two)
    with pytest.raises(HedflowError, match="split drug_lists lists: the train part has no row; leave more"):
        make_rows(Split(kind="drug_lists", drugs=["Drug 0"], validation_drugs=["Drug 1"]), "lists", two)
