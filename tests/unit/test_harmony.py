"""hedflow.harmony and hedflow.alignment: known noise comes back; maps are monotone and see training pairs only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedflow.alignment import MIN_PAIRS, fit_alignment
from hedflow.bundle import Bundle
from hedflow.config import Split
from hedflow.figures.harmony import draw_agreement
from hedflow.harmony import AGREEMENT_COLUMNS, NOISE_COLUMNS, agreement, noise, reliabilities, shared_pairs
from hedflow.integrate import NO_CURVES, Integrated
from hedflow.splits import make_rows

SDS = {"A": 0.05, "B": 0.10, "C": 0.08}


def measured(pairs: int, seed: int) -> tuple[pd.DataFrame, float]:
    """Responses of three sources with known noise, A's as means of two measurements; and the SD of the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0.6, 0.12, pairs)
    tables = []
    for source, sd in SDS.items():
        repeats = 2 if source == "A" else 1
        values = truth[:, None] + rng.normal(0, sd, (pairs, repeats))
        tables.append(
            pd.DataFrame(
                {
                    "source": source,
                    "cell_id": [f"c{i % 50}" for i in range(pairs)],
                    "drug_id": [f"d{i // 50}" for i in range(pairs)],
                    "auc": values.mean(axis=1),
                    "auc_sd": values.std(axis=1, ddof=1) if repeats > 1 else np.nan,
                    "replicates": repeats,
                }
            )
        )
    return pd.concat(tables, ignore_index=True), 0.12


def test_known_noise_comes_back_by_repeats_and_by_other_sources() -> None:
    response, spread = measured(20_000, 0)
    shared = shared_pairs(response)
    table = noise(response, shared, agreement(shared), NO_CURVES).set_index(["source", "estimate"])
    assert tuple(table.reset_index().columns) == NOISE_COLUMNS
    assert table.loc[("A", "repeats"), "sd"] == pytest.approx(0.05, rel=0.03)
    assert table.loc[("A", "repeats"), "best_mae"] == pytest.approx(0.05 * np.sqrt(2 / np.pi), rel=0.05)
    expected = {"A": 0.05 / np.sqrt(2), "B": 0.10, "C": 0.08}  # a mean of two has less
    for source, sd in expected.items():
        row = table.loc[(source, "other sources")]
        assert row["sd"] == pytest.approx(sd, rel=0.05), source
        assert row["best_r2"] == pytest.approx(spread**2 / (spread**2 + sd**2), abs=0.02), source


def test_plates_of_one_series_give_the_noise_of_one_curve() -> None:
    rng = np.random.default_rng(1)
    response, _ = measured(100, 1)
    level = rng.uniform(0.3, 0.9, 2000)
    curves = pd.DataFrame(
        {
            "source": "B",
            "cell_name": [f"c{i}" for i in range(2000)] * 3,
            "drug_name": "d",
            "used": [True] * 4000 + [False] * 2000,
            "auc_tested": np.concatenate([level, level, level + 5]) + rng.normal(0, 0.04, 6000),
        }
    )
    shared = shared_pairs(response)
    table = noise(response, shared, agreement(shared), curves).set_index(["source", "estimate"])
    assert table.loc[("B", "plates"), "sd"] == pytest.approx(0.04, rel=0.05)  # a series that does not count is left out


def test_agreement_counts_and_signs() -> None:
    response, _ = measured(500, 2)
    response = response[(response["source"] != "C") | (response["drug_id"] == "d0")]
    response.loc[response["source"] == "B", "auc"] += 0.1
    table = agreement(shared_pairs(response))
    assert tuple(table.columns) == AGREEMENT_COLUMNS
    whole = table[table["drug_id"] == ""].set_index(["source", "other"])
    assert whole["n"].to_dict() == {("A", "B"): 500, ("A", "C"): 50, ("B", "C"): 50}
    assert whole.loc[("A", "B"), "bias"] == pytest.approx(-0.1, abs=0.02)  # source less other
    drugs = table[(table["drug_id"] != "") & (table["source"] == "A") & (table["other"] == "B")]
    assert drugs["n"].sum() == 500
    lonely = response[response["source"] == "A"]
    assert agreement(shared_pairs(lonely)).empty
    assert reliabilities(agreement(shared_pairs(lonely))) == {}


def test_the_worlds_sources_and_their_figure(world_integrated: Integrated, tmp_path: Path) -> None:
    made = world_integrated
    shared = shared_pairs(made.response)
    agreed = agreement(shared)
    table = noise(made.response, shared, agreed, made.curves)
    assert set(table["source"]) == set(made.response["source"])
    assert (table["sd"] > 0).all()
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    draw_agreement(agreed, first)
    draw_agreement(agreed, second)
    assert first.read_bytes() == second.read_bytes()
    draw_agreement(agreed.iloc[:0], tmp_path / "none.png")  # one source only: nothing to compare


# ---- alignment


def scaled(pairs: int, seed: int) -> pd.DataFrame:
    """Source B measures the square of what A measures."""
    auc = np.random.default_rng(seed).uniform(0.1, 1, pairs)
    index = np.arange(pairs)
    table = pd.DataFrame({"cell": index % 97, "drug": index // 97, "auc": auc, "source": "A"})
    return pd.concat([table, table.assign(auc=auc**2, source="B")], ignore_index=True)


@given(st.integers(0, 2**31), st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_a_map_is_increasing_and_can_be_undone(seed: int, values: list[float]) -> None:
    alignment = fit_alignment(scaled(400, seed), "A")
    auc = np.sort(np.array(values))
    source = np.full(len(auc), "B", dtype=object)
    mapped = alignment.to_reference(auc, source)
    assert (np.diff(mapped) >= 0).all()
    assert ((mapped >= 0) & (mapped <= 1)).all()
    assert alignment.to_own(mapped, source) == pytest.approx(auc, abs=1e-6)
    assert (alignment.to_reference(auc, np.full(len(auc), "A", dtype=object)) == auc).all()


def test_a_known_distortion_is_undone() -> None:
    response = scaled(5000, 3)
    alignment = fit_alignment(response, "A")
    theirs = response[response["source"] == "B"]
    back = alignment.to_reference(theirs["auc"].to_numpy(), theirs["source"].to_numpy())
    assert back == pytest.approx(np.sqrt(theirs["auc"].to_numpy()), abs=0.03)


def test_too_few_shared_pairs_leave_a_source_as_it_is() -> None:
    alignment = fit_alignment(scaled(MIN_PAIRS - 1, 4), "A")
    assert alignment.summary() == {"reference": "A", "mapped": [], "pairs": {"B": MIN_PAIRS - 1}}
    auc = np.array([0.1, 0.7])
    assert (alignment.to_reference(auc, np.array(["B", "B"], dtype=object)) == auc).all()


def test_held_out_measurements_do_not_move_the_map(world_bundle: Bundle) -> None:
    rows = make_rows(Split(kind="random_pairs", folds=3), "f0", world_bundle)
    response = world_bundle.response.copy()
    before = fit_alignment(response.iloc[rows.train], "GDSCv1")
    assert before.knots
    held_out = np.concatenate([rows.validation, rows.test])
    response.loc[held_out, "auc"] = 1 - response.loc[held_out, "auc"]
    after = fit_alignment(response.iloc[rows.train], "GDSCv1")
    for name, (own, reference) in before.knots.items():
        assert (after.knots[name][0] == own).all()
        assert (after.knots[name][1] == reference).all()
