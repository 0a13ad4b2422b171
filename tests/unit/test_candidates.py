"""Candidates of cell lines: against obvious loops, and the lines that the report shows."""

import pandas as pd
import pytest
from written import CELLS, DRUGS

from hedflow import HedflowError
from hedflow.analysis.candidates import ordering_baseline, shown_lines

K = 5


@pytest.mark.parametrize("method", ["mse", "low", "tanimoto_knn"])
def test_candidates_are_the_k_predicted_and_the_k_truly_lowest(experiment, made, method):
    table = made["candidates"].query("method == @method")
    frame = experiment.ranked[method]
    assert len(table.drop_duplicates(["source", "cell"])) == 2 * CELLS
    for (source, cell), rows in table.groupby(["source", "cell"]):
        own = frame[(frame["source"] == source) & (frame["cell"] == cell)].set_index("drug")
        predicted, true = (own[column].sort_values().index[:K] for column in ("auc_pred", "auc"))
        assert rows.sort_values("rank_pred")["drug"].head(K).tolist() == predicted.tolist()
        assert set(rows["drug"]) == {*predicted, *true}
        assert set(rows.loc[rows["hit"], "drug"]) == set(predicted) & set(true)
        assert (rows["n"] == len(own)).all()
        assert rows["auc"].tolist() == pytest.approx(own.loc[rows["drug"], "auc"].tolist())


def test_hits_are_the_recall_of_the_line(made):
    hits = made["candidates"].groupby(["method", "source", "cell"])["hit"].sum() / K
    recall = made["cell_ranking"].set_index(["method", "source", "cell"])["recall"]
    assert hits.tolist() == pytest.approx(recall.loc[hits.index].tolist())


def test_a_method_that_predicts_the_same_for_all_drugs_has_no_candidates(experiment, made):
    assert "global_mean" not in set(made["candidates"]["method"])
    assert ordering_baseline(experiment.naive) == "tanimoto_knn"
    assert ordering_baseline({"global_mean": experiment.naive["global_mean"]}) is None


def test_best_median_and_worst_are_of_one_source(made):
    lines = made["cell_ranking"].query("method == 'mse'")
    chosen = shown_lines(made["cell_ranking"], "mse", []).merge(lines, on=["source", "cell"]).set_index("why")["recall"]
    own = lines[lines["source"] == "A"]["recall"]
    assert chosen[["best", "worst"]].tolist() == [own.max(), own.min()]
    assert own.min() <= chosen["median"] <= own.max()
    assert set(made["shown_lines"]["why"]) == {"best", "median", "worst"}
    assert len(made["shown_lines"].query("method == 'mse'")) == 3 * DRUGS


def test_a_line_that_is_asked_for_is_found_by_name_or_id(made):
    by_name, by_id = (shown_lines(made["cell_ranking"], "mse", [name]) for name in ("cell-3", "ACH-000003"))
    pd.testing.assert_frame_equal(by_name, by_id)
    asked = by_name.query("why == 'asked for'")
    assert asked[["source", "cell"]].to_numpy().tolist() == [["A", 3], ["B", 3]]


def test_a_line_that_cannot_be_shown_is_one_sentence(made):
    with pytest.raises(HedflowError, match=r"names 'CELL33', and no such cell line was tested; did you mean CELL3"):
        shown_lines(made["cell_ranking"], "mse", ["CELL33"])
    few = made["cell_ranking"].assign(ranked=False)
    with pytest.raises(HedflowError, match=r"no source tested enough drugs on it to rank them \(the most: 30\)"):
        shown_lines(few, "mse", ["CELL3"])
    assert shown_lines(few, "mse", []).empty
