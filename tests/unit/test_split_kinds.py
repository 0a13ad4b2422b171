"""Kinds of split beyond folds of drugs, cells and pairs: the law of each, on simulated screens and on any data."""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem, DataStructs
from rdkit.Chem.Scaffolds import MurckoScaffold
from test_splits import PARTS, make_bundle

from hedflow import HedflowError
from hedflow.audit import UNUSED, audit, audit_plan
from hedflow.baselines import BASELINES, informed
from hedflow.bundle import open_bundle
from hedflow.config import IMPROVE_SPLITS, SPLIT_KEYS, Split, SplitKind, parse_config
from hedflow.files import write_parquet
from hedflow.high_error import read_drug_errors
from hedflow.plan import make_plan, summary
from hedflow.splits import Rows, empty_ranges, labels, make_rows
from hedflow.splits.groups import cluster_groups, scaffold, scaffold_groups, twin_groups
from hedflow.splits.kinds import balanced_folds, range_of_drugs, take_share

# IMPROVE's take their rows from a csa folder: test_improve_splits.py.
KINDS = tuple(kind for kind in get_args(SplitKind) if kind not in IMPROVE_SPLITS)
DRUG_KINDS = {"drug_blind", "leave_one_drug_out", "scaffold", "tanimoto_cluster", "disjoint", "auc_range", "high_error"}
TISSUES = ("Lung", "Skin", "Breast", "Bowel", "unknown")


def split_of(kind, bundle, **settings):
    """A split of the kind for a bundle; a few drugs stand for those that an earlier experiment found."""
    names = list(bundle.drugs["drug_id"])
    extra = {
        "drug_lists": {"drugs": names[:1], "validation_drugs": names[-1:]},
        "high_error": {"experiment": "earlier", "high_error_z": 1.0, "drugs": names[:2]},
        "leave_one_drug_out": {"drugs": names[:3]},
    }.get(kind, {})
    return Split(kind=kind, **{"folds": 3, **extra, **settings})


def errors_of(split, bundle):
    """Drug errors of an earlier experiment in which the split's drugs lie above z = 1, and no other does."""
    found = bundle.drugs["drug_id"].isin(split.drugs or [])
    mae = np.where(found, 0.9, 0.1)
    z = (mae - mae.mean()) / mae.std(ddof=1)
    return pd.DataFrame({"drug_id": bundle.drugs["drug_id"], "drug_name": "x", "mae": mae, "mae_z": z})


def all_rows(split, bundle) -> dict[str, Rows]:
    return {label: make_rows(split, label, bundle) for label in labels(split, bundle)}


def changed(bundle, folder, cells=None, drugs=None, response=None, prints=None):
    """The bundle with columns of its tables, or its fingerprints, replaced."""
    for name, columns in (("cells", cells), ("drugs", drugs), ("response", response)):
        if columns:
            write_parquet(folder / f"{name}.parquet", getattr(bundle, name).assign(**columns))
    if prints is not None:
        np.save(folder / "fingerprints.npy", prints)
    return open_bundle(folder)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """18 drugs of three sources, with twins (0 = 1, 2 = 3), five tissues of which one is unknown, and rings."""
    return any_bundle(tmp_path_factory.mktemp("three"), 0)


def any_bundle(folder, seed, n_cells=15):
    rng = np.random.default_rng(seed)
    ring = ["c1ccccc1", "c1ccncc1", "C1CCCCC1", "c1ccc2ccccc2c1"]
    smiles = [ring[i % 4] + "C" * (1 + i // 4) if i % 5 else "C" * (i + 1) + "O" for i in range(18)]
    bundle = make_bundle(folder, [0, 0, 1, 1, *range(2, 16)], n_cells=n_cells, seed=seed, smiles=smiles)
    n = len(bundle.response)
    auc = rng.uniform(0, 1, n) * 0.2 + 0.8 * (bundle.response["drug"].to_numpy() / 18)
    source = rng.choice(["CCLE", "gCSI", "GDSCv1", "GDSCv2"], n)
    response = {"auc": auc.astype(np.float32), "source": source}
    return changed(bundle, folder, {"tissue": rng.choice(TISSUES, n_cells)}, response=response)


# --- what every kind keeps


def test_every_kind_is_known_to_all_that_need_to():
    assert set(SPLIT_KEYS) == set(get_args(SplitKind))
    for kind in SPLIT_KEYS:
        assert set(informed(kind)) <= set(BASELINES)
    with pytest.raises(ValueError, match="no kind of split called 'x'"):
        informed("x")


def assert_lawful(split, rows, bundle):
    """Disjoint; every row in a part, or in none for a reason that the kind has; twins on one side."""
    together = np.concatenate([getattr(rows, p) for p in PARTS])
    assert len(np.unique(together)) == len(together)
    assert len(together) == len(bundle.response) or split.kind in UNUSED
    for part in PARTS:
        at = getattr(rows, part)
        assert at.dtype == np.int32
        assert (np.diff(at) > 0).all()
        assert len(at) > 0
    if split.kind in DRUG_KINDS:
        twin = twin_groups(bundle.array("fingerprints"))[bundle.response["drug"].to_numpy()]
        sides = [set(twin[getattr(rows, p)]) for p in PARTS]
        assert sum(map(len, sides)) == len(set().union(*sides))


@settings(max_examples=60)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 10**6), validation=st.floats(0.05, 0.5), data=st.data())
def test_any_kind_on_any_data(kind, seed, validation, data):
    with tempfile.TemporaryDirectory() as folder:
        bundle = any_bundle(Path(folder), seed)
        more = {
            "tanimoto_cluster": {"similarity": data.draw(st.sampled_from([0.55, 0.7, 1.0]))},
            "auc_range": {"ranges": data.draw(st.sampled_from([10, 2, [0, 0.3, 0.6], [0.25, 0.75]]))},
            "leave_source_out": {"shared_pairs": data.draw(st.sampled_from(["remove", "keep"]))},
            "drug_lists": {"drugs": list(bundle.drugs["drug_id"][4:5])},
        }.get(kind, {})
        split = split_of(kind, bundle, seed=seed, validation=validation, **more)
        try:
            made = all_rows(split, bundle)
        except HedflowError as error:
            # Three of few units may leave a part without rows: said, never given.
            assert "has no row" in str(error) or "folds of" in str(error)  # noqa: PT017
            return
        for rows in made.values():
            assert_lawful(split, rows, bundle)
        records = audit(split, made.items(), bundle, errors_of(split, bundle))
        assert [r["unused"] for r in records] == [
            len(bundle.response) - sum(len(getattr(rows, p)) for p in PARTS) for rows in made.values()
        ]
        again = all_rows(split, bundle)
        assert all(np.array_equal(getattr(made[x], p), getattr(again[x], p)) for x in made for p in PARTS)


@pytest.mark.parametrize("kind", ["tissue_blind", "scaffold", "tanimoto_cluster"])
def test_folds_of_groups_test_each_row_once(kind, three):
    made = all_rows(split_of(kind, three, similarity=0.6), three)
    tested = np.concatenate([rows.test for rows in made.values()])
    used = np.sort(np.concatenate([np.concatenate([getattr(r, p) for p in PARTS]) for r in made.values()]))
    assert np.array_equal(np.sort(tested), np.unique(used))


@pytest.mark.parametrize("kind", [k for k in KINDS if "folds" in SPLIT_KEYS[k]])
def test_the_seed_changes_the_folds(kind, three):
    tests = {
        make_rows(split_of(kind, three, seed=seed, similarity=0.7), "f0", three).test.tobytes() for seed in range(5)
    }
    assert len(tests) > 1


def test_another_process_makes_the_same_rows(three):
    code = """
import hashlib, json, sys
from hedflow.bundle import open_bundle
from hedflow.config import Split
from hedflow.splits import labels, make_rows
bundle, out = open_bundle(sys.argv[1]), {}
for text in sys.argv[2:]:
    split = Split(**json.loads(text))
    for label in labels(split, bundle):
        rows = make_rows(split, label, bundle)
        parts = b"|".join(x.tobytes() for x in (rows.train, rows.validation, rows.test))
        out[f"{split.kind} {label}"] = hashlib.sha256(parts).hexdigest()
print(json.dumps(out))
"""
    every_drug = {"leave_one_drug_out": {"drugs": None}}
    splits = [split_of(kind, three, similarity=0.7, **every_drug.get(kind, {})) for kind in KINDS]
    command = [sys.executable, "-c", code, str(three.folder), *(split.model_dump_json() for split in splits)]
    found = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout)
        for env in ({**os.environ, "PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": s} for s in "12")
    ]
    assert found[0] == found[1]
    parts = Counter(key.split()[0] for key in found[0])
    assert set(parts) == set(KINDS)
    assert parts["drug_blind"] == parts["cell_blind"] == parts["random_pairs"] == 3
    assert parts["leave_one_drug_out"] == len(three.drugs)
    assert parts["drug_lists"] == 1


# --- each kind's own law


def test_tissues_are_whole_and_unknown_ones_used_nowhere(three):
    tissue = three.cells["tissue"].to_numpy()[three.response["cell"]]
    for rows in all_rows(split_of("tissue_blind", three, folds=4), three).values():
        sides = [set(tissue[getattr(rows, p)]) for p in PARTS]
        assert len(sides[2]) == 1
        assert set().union(*sides) == {"Lung", "Skin", "Breast", "Bowel"}
        assert sum(map(len, sides)) == 4
        assert sum(len(getattr(rows, p)) for p in PARTS) == (tissue != "unknown").sum()


def test_without_tissues_the_sentence_says_how_to_get_some(three, tmp_path):
    bare = changed(make_bundle(tmp_path), tmp_path, {"tissue": "unknown"})
    with pytest.raises(HedflowError, match=r"no cell line has a tissue: the wheel-only edition.*Set data\.mirror"):
        make_rows(split_of("tissue_blind", bare), "f0", bare)
    with pytest.raises(HedflowError, match="5 folds of 4 units; use fewer folds"):
        make_rows(Split(kind="tissue_blind"), "f0", three)


def test_scaffolds_by_hand(three):
    assert scaffold("Cc1ccccc1C(=O)Nc1ccncc1") == scaffold("O=C(Nc1ccncc1)c1ccccc1F")
    assert scaffold("CCO") == ""
    assert scaffold("C[C@H]1CC[C@@H](O)CC1") == "C1CCCCC1"
    smiles = pd.Series(["Cc1ccccc1", "CCc1ccccc1", "CCO", "CCCO", "c1ccncc1", "CCCCO"])
    prints = np.eye(6, 8, dtype=np.uint8)
    prints[5] = prints[4]  # a twin by its bits belongs to its twin's scaffold
    groups = scaffold_groups(smiles, prints)
    assert [frozenset(np.flatnonzero(groups == g)) for g in sorted(set(groups))] == [
        frozenset(x) for x in ([0, 1], [2], [3], [4, 5])
    ]


def test_no_scaffold_on_two_sides(world_bundle):
    mols = [Chem.MolFromSmiles(s) for s in world_bundle.drugs["smiles"]]
    frames = [MurckoScaffold.MurckoScaffoldSmiles(mol=m) or f"none {i}" for i, m in enumerate(mols)]
    assert max(Counter(frames).values()) > 1
    unit = np.array(frames)[world_bundle.response["drug"]]
    for rows in all_rows(split_of("scaffold", world_bundle), world_bundle).values():
        assert not set(unit[rows.test]) & set(unit[rows.train])
        assert not set(unit[rows.validation]) & set(unit[np.concatenate([rows.train, rows.test])])


@pytest.mark.parametrize("similarity", [0.2, 0.3, 0.5])
def test_no_test_drug_has_a_similar_training_drug(similarity, world_bundle):
    """By RDKit's own similarity, not by the splitter's."""
    vectors = [DataStructs.CreateFromBitString("".join(map(str, row))) for row in world_bundle.array("fingerprints")]
    drug = world_bundle.response["drug"].to_numpy()
    joined = 0
    for rows in all_rows(split_of("tanimoto_cluster", world_bundle, similarity=similarity), world_bundle).values():
        inside, outside = set(drug[rows.test]), set(drug[np.concatenate([rows.train, rows.validation])])
        for a in inside:
            assert max(DataStructs.BulkTanimotoSimilarity(vectors[a], [vectors[b] for b in outside])) < similarity
            joined += sum(DataStructs.TanimotoSimilarity(vectors[a], vectors[b]) >= similarity for b in inside - {a})
    assert joined > 0 or similarity > 0.3  # else the law would hold of any split


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), threshold=st.sampled_from([0.2, 0.4, 0.5, 0.6, 0.75]), bits=st.integers(3, 8))
def test_clusters_are_as_coarse_as_needed_and_no_coarser(seed, threshold, bits):
    prints = np.random.default_rng(seed).integers(0, 2, (12, bits)).astype(np.uint8)
    groups = cluster_groups(prints, threshold)
    either = (prints[:, None] | prints[None]).sum(axis=2)
    near = ((prints[:, None] & prints[None]).sum(axis=2) >= threshold * either - 1e-9) & (either > 0)
    near |= (prints[:, None] == prints[None]).all(axis=2)
    for i, j in np.argwhere(near):
        assert groups[i] == groups[j]
    for group in set(groups):  # connected: no smaller clusters would do
        reached, members = {int(np.argmax(groups == group))}, set(np.flatnonzero(groups == group))
        while more := {int(j) for i in reached for j in np.flatnonzero(near[i])} - reached:
            reached |= more
        assert reached == members


def test_disjoint_shares_neither_drug_nor_cell(three):
    cell, drug = three.response["cell"].to_numpy(), three.response["drug"].to_numpy()
    made = all_rows(split_of("disjoint", three), three)
    for rows in made.values():
        for unit in (cell, drug):
            sides = [set(unit[getattr(rows, p)]) for p in PARTS]
            assert sum(map(len, sides)) == len(set().union(*sides))
        # All that has a test drug and a test cell is tested, and likewise trained.
        for part in ("test", "train"):
            at = getattr(rows, part)
            assert np.array_equal(at, np.flatnonzero(np.isin(cell, cell[at]) & np.isin(drug, drug[at])))
    assert set(drug) == set(np.concatenate([drug[rows.test] for rows in made.values()]))
    assert set(cell) == set(np.concatenate([cell[rows.test] for rows in made.values()]))


@pytest.mark.parametrize("shared", ["remove", "keep"])
def test_a_source_and_its_pairs(shared, three):
    source = three.response["source"].to_numpy(dtype=str)
    twin = twin_groups(three.array("fingerprints"))[three.response["drug"].to_numpy()]
    pair = np.char.add(np.char.add(three.response["cell"].to_numpy().astype(str), " "), twin.astype(str))
    made = all_rows(split_of("leave_source_out", three, shared_pairs=shared), three)
    assert set(made) == {"CCLE", "gCSI", "GDSCv1", "GDSCv2"}
    repeated = 0
    for name, rows in made.items():
        assert np.array_equal(rows.test, np.flatnonzero(source == name))
        assert not set(source[rows.train]) & set(source[rows.validation])
        held = {*pair[rows.test], *pair[rows.validation]}
        repeated += len(held & set(pair[rows.train]))
        assert len(np.concatenate([getattr(rows, p) for p in PARTS])) == len(source) or shared == "remove"
    assert (repeated == 0) == (shared == "remove")


def test_some_sources_and_too_few(three, tmp_path):
    assert labels(split_of("leave_source_out", three, sources=["gCSI"]), three) == ["gCSI"]
    with pytest.raises(HedflowError, match="the bundle has no source 'CTRPv2'"):
        labels(split_of("leave_source_out", three, sources=["CTRPv2"]), three)
    with pytest.raises(HedflowError, match=r"the bundle has CCLE and gCSI; .* there must be three"):
        labels(Split(kind="leave_source_out"), make_bundle(tmp_path))


def test_ranges_hold_the_drugs_whose_mean_lies_in_them(three):
    mean = three.response["auc"].astype(float).groupby(three.response["drug"].to_numpy()).mean()
    # Twins have one mean.
    for a, b in ((0, 1), (2, 3)):
        both = three.response["auc"][three.response["drug"].isin([a, b])].astype(float).mean()
        mean[a] = mean[b] = both
    split = split_of("auc_range", three)
    made = all_rows(split, three)
    for label, rows in made.items():
        low, high = map(float, label.removeprefix("auc").split("-"))
        drugs = set(three.response["drug"][rows.test])
        assert drugs == set(mean.index[(mean >= low) & (mean < high)])
    assert sum(len(rows.test) for rows in made.values()) == len(three.response)
    names = [f"auc{i / 10:g}-{(i + 1) / 10:g}" for i in range(10)]
    assert set(names) == {*made, *empty_ranges(split, three)}
    assert empty_ranges(split, three)
    assert list(all_rows(split_of("auc_range", three, ranges=2), three)) == ["auc0-0.5", "auc0.5-1"]


def test_edges_are_closed_below_and_the_last_one_above(tmp_path):
    bundle = make_bundle(tmp_path, range(4))
    auc = np.array([0.7, 0.5, 1.0, 0.0], np.float32)[bundle.response["drug"]]
    bundle = changed(bundle, tmp_path, response={"auc": auc})
    assert list(range_of_drugs(Split(kind="auc_range"), bundle)) == [7, 5, 9, 0]
    assert list(range_of_drugs(Split(kind="auc_range", ranges=2), bundle)) == [1, 1, 1, 0]
    assert list(range_of_drugs(Split(kind="auc_range", ranges=[0.5, 0.7]), bundle)) == [0, 0, -1, -1]


def test_high_error_drugs_and_their_twins_are_held_out(three):
    split = split_of("high_error", three, drugs=["Drug 0", "Drug 9"])
    assert labels(split, three) == ["high"]
    rows = make_rows(split, "high", three)
    assert set(three.response["drug"][rows.test]) == {0, 1, 9}
    with pytest.raises(HedflowError, match="the high error drugs of 'earlier' are not known"):
        make_rows(split.model_copy(update={"drugs": None}), "high", three)


@settings(max_examples=50)
@given(weights=st.lists(st.integers(1, 1000), min_size=3, max_size=40), seed=st.integers(0, 99))
def test_balanced_folds_differ_by_no_more_than_the_heaviest(weights, seed):
    weights = np.array(weights, float)
    folds = balanced_folds(weights, 3, np.random.default_rng(seed))
    assert sorted(np.concatenate(folds)) == list(range(len(weights)))
    total = [weights[fold].sum() for fold in folds]
    assert max(total) - min(total) <= weights.max()
    assert min(map(len, folds)) >= 1
    taken = take_share(np.arange(len(weights)), weights, 0.3)
    assert len(taken) == 1 or weights[taken].sum() <= 0.3 * weights.sum() + weights[taken].max() / 2


# --- the audit finds what breaks each law, whoever made the rows


def leak(rows, part="test", into="train"):
    """One row of `part` in `into` instead."""
    parts = {name: getattr(rows, name) for name in PARTS}
    parts[into] = np.sort(np.append(parts[into], parts[part][0]))
    parts[part] = parts[part][1:]
    return Rows(**parts)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "drug_lists"])
@pytest.mark.parametrize(("part", "into"), [("test", "train"), ("test", "validation"), ("validation", "train")])
def test_one_row_on_the_wrong_side(kind, part, into, three):
    split = split_of(kind, three, similarity=0.7)
    label, rows = next(iter(all_rows(split, three).items()))
    audit(split, [(label, rows)], three, errors_of(split, three))
    if kind == "random_pairs":  # a pair that is measured once may be anywhere
        pair = three.response["cell"] * 100 + three.response["drug"]
        twice = pair.duplicated(keep=False).to_numpy()
        rows = Rows(**{p: getattr(rows, p)[np.argsort(~twice[getattr(rows, p)], kind="stable")] for p in PARTS})
    with pytest.raises(HedflowError, match=f"leak audit: split {kind} {label}: "):
        audit(split, [(label, leak(rows, part, into))], three, errors_of(split, three))


def test_a_shared_tissue_scaffold_pair_or_neighbour_is_named(three, tmp_path):
    """Rows of a split that is blind to less: cells but not tissues, drugs but not scaffolds."""
    by_cell = make_rows(split_of("cell_blind", three), "f0", three)
    with pytest.raises(HedflowError, match=r"CELL\d+ \((Lung|Skin|Breast|Bowel|unknown)\)"):
        audit(split_of("tissue_blind", three), [("f0", by_cell)], three)
    by_drug = make_rows(split_of("drug_blind", three), "f0", three)
    with pytest.raises(HedflowError, match=r"Drug \d+.* is in \w+ as well"):
        audit(split_of("scaffold", three), [("f0", by_drug)], three)
    with pytest.raises(HedflowError, match=r"have a similarity of 0\.\d+; expected less than 0.3"):
        audit(split_of("tanimoto_cluster", three, similarity=0.3), [("f0", by_drug)], three)
    with pytest.raises(HedflowError, match=r"CELL\d+"):
        audit(split_of("disjoint", three), [("f0", by_drug)], three)
    kept = make_rows(split_of("leave_source_out", three, shared_pairs="keep"), "CCLE", three)
    with pytest.raises(HedflowError, match="pair in row"):
        audit(split_of("leave_source_out", three), [("CCLE", kept)], three)


def test_unknown_tissue_and_rows_in_no_part_are_found(three):
    rows = make_rows(split_of("tissue_blind", three), "f0", three)
    tissue = three.cells["tissue"].to_numpy()[three.response["cell"]]
    more = Rows(
        np.sort(np.append(rows.train, np.flatnonzero(tissue == "unknown")[:1])).astype(np.int32),
        rows.validation,
        rows.test,
    )
    with pytest.raises(HedflowError, match="of unknown tissue, which may be any"):
        audit(split_of("tissue_blind", three), [("f0", more)], three)
    rows = make_rows(split_of("drug_blind", three), "f0", three)
    with pytest.raises(HedflowError, match="1 rows are in no part"):
        audit(split_of("drug_blind", three), [("f0", Rows(rows.train[1:], rows.validation, rows.test))], three)


def test_a_part_that_is_not_what_its_name_says(three):
    split = split_of("auc_range", three)
    made = all_rows(split, three)
    first, second = list(made)[:2]
    with pytest.raises(HedflowError, match=rf"auc_range {second}: row \d+ is (not )?tested"):
        audit(split, [(second, made[first])], three)
    split = split_of("high_error", three)
    rows = make_rows(split, "high", three)
    other = split_of("high_error", three, drugs=["Drug 12"])
    with pytest.raises(HedflowError, match="split high_error high: row"):
        audit(split, [("high", rows)], three, errors_of(other, three))
    with pytest.raises(HedflowError, match="errors of 'earlier' are missing"):
        audit(split, [("high", rows)], three)


# --- through plan and audit


EARLIER = {"models": {"m": {"width": 4}}}


def config_of(**split):
    split = {"folds": 3, **split}
    return parse_config(
        {
            **EARLIER,
            "experiments": {"losses": None, "earlier": {"models": ["m"]}, "e": {"models": ["m"], "split": split}},
        }
    )


@pytest.fixture
def tables(world_bundle, tmp_path):
    """Tables of an earlier experiment on the world: the drugs' errors are their numbers, but for one of 99."""
    n = len(world_bundle.drugs)
    mae = np.append(np.arange(n - 1) / 100, 99.0)
    z = (mae - mae.mean()) / mae.std(ddof=1)
    drugs = world_bundle.drugs[["drug_id", "drug_name"]].assign(mae=mae, mae_z=z)
    both = pd.concat([drugs.assign(method="mse"), drugs.assign(method="other", mae_z=-z)], ignore_index=True)
    write_parquet(tmp_path / "drugs.parquet", both)
    write_parquet(tmp_path / "comparison.parquet", pd.DataFrame({"reference": ["mse"]}))
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_from_the_plan_to_the_audit(kind, world_bundle, tables):
    names = list(world_bundle.drugs["drug_name"])
    more = {
        "drug_lists": {"drugs": names[:1], "validation_drugs": names[1:2]},
        "high_error": {"experiment": "earlier"},
    }.get(kind, {})
    plan = make_plan(config_of(kind=kind, **more), "e", world_bundle, tables)
    errors = read_drug_errors(tables) if kind == "high_error" else None
    records = audit_plan(plan, world_bundle, errors)
    assert [r["label"] for r in records] == list(dict.fromkeys(plan["label"]))
    assert plan["run"].str.fullmatch(r"[A-Za-z0-9._~-]+").all()
    assert all(r["unused"] == 0 or r["unused_because"] for r in records)


def test_the_plan_looks_up_the_high_error_drugs(world_bundle, tables):
    plan = make_plan(config_of(kind="high_error", experiment="earlier"), "e", world_bundle, tables)
    spec = json.loads(plan["spec"].item())
    assert spec["split"]["drugs"] == [world_bundle.drugs["drug_id"].iloc[-1]]
    assert plan["run"].item() == "m.mse.high_error-high.s0"
    # What counts is which drugs they are, not how they were found.
    same = make_plan(config_of(kind="high_error", experiment="earlier", high_error_z=2.5), "e", world_bundle, tables)
    assert same["digest"].item() == plan["digest"].item()
    lower = make_plan(config_of(kind="high_error", experiment="earlier", high_error_z=-0.21), "e", world_bundle, tables)
    assert lower["digest"].item() != plan["digest"].item()
    with pytest.raises(HedflowError, match=r"no drug of 'earlier' has an error above z = 90 \(the highest is 4\.\d+\)"):
        make_plan(config_of(kind="high_error", experiment="earlier", high_error_z=90), "e", world_bundle, tables)
    with pytest.raises(HedflowError, match=r"drugs\.parquet: no such table; .*must have run"):
        make_plan(config_of(kind="high_error", experiment="earlier"), "e", world_bundle, tables / "none")


def test_ranges_without_drugs_are_said_and_none_at_all_is_an_error(world_bundle):
    config = config_of(kind="auc_range")
    plan = make_plan(config, "e", world_bundle)
    empty = empty_ranges(config.experiments["e"].split, world_bundle)
    assert set(empty).isdisjoint(plan["label"])
    assert len(empty) + len(plan) == 10
    assert f"no drug's mean AUC lies in {', '.join(empty)}" in summary(plan, empty)
    with pytest.raises(HedflowError, match="no drug's mean AUC lies in any"):
        make_plan(config_of(kind="auc_range", ranges=[0.001, 0.002]), "e", world_bundle)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_keys_of_a_kind_decide_its_runs(kind, world_bundle, tables):
    names = list(world_bundle.drugs["drug_name"])
    needed = {
        "drug_lists": {"drugs": names[:1], "validation_drugs": names[1:2]},
        "high_error": {"experiment": "earlier"},
    }.get(kind, {})

    def digests(**split):
        plan = make_plan(config_of(**{"kind": kind, **needed, **split}), "e", world_bundle, tables)
        return dict(zip(plan["run"], plan["digest"], strict=True))

    before = digests()
    for key, value in {"folds": 4, "similarity": 0.9, "ranges": 2, "shared_pairs": "keep", "seed": 1}.items():
        after = digests(**{key: value})
        same = [after[run] == before[run] for run in before if run in after]
        assert not any(same) if key in (*SPLIT_KEYS[kind], "seed") else all(same)


@pytest.mark.mirror
def test_groups_of_the_real_drugs(mirror):
    """Butina-like splits of the real drugs stay balanced at the default similarity: no cluster swallows a fold."""
    drugs = (
        pd.read_csv(mirror / "derived" / "drug_map.csv").dropna(subset=["smiles"]).drop_duplicates("inchikey14_parent")
    )
    from hedflow.config import Features
    from hedflow.features import compute_drugs

    prints = compute_drugs("fingerprints", drugs["smiles"], Features()).to_numpy()
    sizes = np.bincount(cluster_groups(prints, Split().similarity))
    assert sizes.sum() == len(drugs)
    assert sizes.max() < len(drugs) / 10
    assert np.bincount(scaffold_groups(drugs["smiles"].reset_index(drop=True), prints)).max() < len(drugs) / 10
