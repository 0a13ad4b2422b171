"""Candidates: for every cell line the drugs that a method puts first, beside the drugs that truly are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from hedflow import HedflowError
from hedflow.analysis.experiment import Experiment
from hedflow.bundle import Bundle
from hedflow.config import nearest
from hedflow.identity.synonyms import normalise

_FLAT = 1e-6  # AUC; predictions of one list that spread no more than this put no drug first
LIST = ["source", "cell"]
# Why the report shows a line, in its order.
WHY = ["asked for", "best", "median", "worst"]


def candidates_tables(experiment: Experiment, lines: pd.DataFrame, bundle: Bundle) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`candidates_table` of all lines and `shown_lines_table` of those the report shows.

    They are of the methods, and of the naive baseline that orders drugs best.

    Args:
        lines: the table `cell_ranking`.
    """
    settings, naive = experiment.settings, ordering_baseline(experiment.naive)
    names = [*experiment.methods, *([naive] if naive else [])]
    ranked, frames = ({name: every[name] for name in names} for every in (experiment.ranked, experiment.frames))
    chosen = shown_lines(lines, experiment.reference, settings.show_cells)
    given = (bundle.cells, bundle.drugs, settings.top_k)
    return (
        candidates_table(ranked, frames, *given),
        shown_lines_table(ranked, frames, chosen, lines, *given),
    )


def candidates_table(
    ranked: Mapping[str, pd.DataFrame],
    frames: Mapping[str, pd.DataFrame],
    cells: pd.DataFrame,
    drugs: pd.DataFrame,
    k: int,
) -> pd.DataFrame:
    """The drugs that are among the k first of a cell line's list, by prediction or in truth.

    A list is the drugs tested on one line by one source; those with fewer than 2k drugs have no candidates.

    Args:
        ranked: prediction frames as drugs are ranked by them, by method: all rows, or those of some lines.
        frames: the same rows with the predictions as they are.
        cells, drugs: the bundle's tables.

    Returns:
        One row a (method, source, cell, drug), the first predicted first: method, source, cell, cell_id, cell_name,
        n (drugs of the list), drug, drug_id, drug_name, auc_pred, auc (low = potent), rank_pred (1 = predicted
        lowest; ties in the order of the drugs' numbers), rank_true (1 = lowest AUC; equal ones share the better
        rank), hit (both ranks within k). A method that predicts the same for all drugs of a list has no row of it.
    """
    tables = [
        _lists(ranked[name], frames[name]["auc_pred"].to_numpy(), k).assign(method=name)
        for name in ranked
        if len(ranked[name])
    ]
    empty = pd.DataFrame(columns=[*LIST, "drug", "auc", "auc_pred", "n", "rank_pred", "rank_true", "method"])
    table = pd.concat(tables, ignore_index=True) if tables else empty
    table = table[(table["rank_pred"] <= k) | (table["rank_true"] <= k)].reset_index(drop=True)
    return named(table.assign(hit=(table["rank_pred"] <= k) & (table["rank_true"] <= k)), cells, drugs)


def named(table: pd.DataFrame, cells: pd.DataFrame, drugs: pd.DataFrame) -> pd.DataFrame:
    """`table` with the ids and names of its cells and drugs (numbers of the bundle), in a fixed order of columns."""
    for axis, names in (("cell", cells), ("drug", drugs)):
        for column in (f"{axis}_id", f"{axis}_name"):
            table[column] = names[column].to_numpy()[table[axis].to_numpy(dtype=np.int64)]
    first = ["method", *LIST, "cell_id", "cell_name", "n", "drug", "drug_id", "drug_name", "auc_pred", "auc"]
    order = [*first, "rank_pred", "rank_true"]
    return table[[*order, *(name for name in table if name not in order)]]


def _lists(ranked: pd.DataFrame, auc_pred: np.ndarray, k: int) -> pd.DataFrame:
    """Every drug of the lists of 2k drugs or more, with its places; lists that are predicted flat left out."""
    table = ranked[[*LIST, "drug", "auc"]].assign(by=ranked["auc_pred"].astype(np.float64), auc_pred=auc_pred)
    table = table[np.isfinite(table["by"])].assign(source=lambda t: t["source"].astype(str))
    table = table.sort_values([*LIST, "by", "drug"], kind="stable", ignore_index=True)
    lists = table.groupby(LIST, sort=False)
    table["n"] = lists["drug"].transform("size").astype(np.int32)
    table["rank_pred"] = (lists.cumcount() + 1).astype(np.int32)
    table["rank_true"] = lists["auc"].rank(method="min").astype(np.int32)
    spread = lists["by"].transform("max") - lists["by"].transform("min")
    kept = table[(table["n"] >= 2 * k) & (spread > _FLAT)].drop(columns="by")
    lists_of_2k: pd.DataFrame = kept.astype({"auc": np.float32, "auc_pred": np.float32}).reset_index(drop=True)
    return lists_of_2k


def shown_lines(lines: pd.DataFrame, reference: str, wanted: Sequence[str]) -> pd.DataFrame:
    """The lists that the report shows: those asked for, and the best, the median and the worst by the reference.

    These three are of the source with the most ranked lines: by recall@k, equal ones by NDCG@k. (Between sources recall
    does not compare: of 20 drugs, 10 by chance hold half of the 10 best.)

    Args:
        lines: the table `cell_ranking` (source, cell, cell_id, cell_name, method, n, ranked, recall, ndcg).
        wanted: names or ids of cell lines (`analysis.show_cells`).

    Returns:
        why (`asked for`, `best`, `median`, `worst`), source, cell; a list once.

    Raises:
        HedflowError: a line that was not tested, with the nearest names, or with too few drugs to rank.
    """
    own = lines[lines["method"] == reference]
    if own.empty:  # it has no prediction
        return pd.DataFrame(columns=["why", *LIST])
    ranked = own[own["ranked"]]
    ranked = ranked[ranked["source"].isin(ranked["source"].mode().head(1))].sort_values(
        ["recall", "ndcg", "cell"], ascending=[False, False, True], ignore_index=True
    )
    rows = [_asked(own, name) for name in wanted]
    if len(ranked):
        places = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
        rows += [ranked.iloc[[at]].assign(why=why) for why, at in places.items()]
    columns = ["why", *LIST]
    if not rows:
        return pd.DataFrame(columns=columns)
    return pd.concat(rows)[columns].drop_duplicates(LIST, ignore_index=True)


def _asked(own: pd.DataFrame, name: str) -> pd.DataFrame:
    """The lists of one line, by its id or by its name without regard to case and punctuation."""
    found = own[(own["cell_id"] == name) | (own["cell_name"].map(normalise) == normalise(name))]
    if found.empty:
        raise HedflowError(
            f"analysis.show_cells names '{name}', and no such cell line was tested"
            f"{nearest(name, own['cell_name'].drop_duplicates())}"
        )
    if not found["ranked"].any():
        raise HedflowError(
            f"analysis.show_cells names '{name}', and no source tested enough drugs on it to rank them (the most: "
            f"{found['n'].max()}); leave it out, or lower analysis.top_k."
        )
    return found[found["ranked"]].assign(why="asked for")


def shown_lines_table(
    ranked: Mapping[str, pd.DataFrame],
    frames: Mapping[str, pd.DataFrame],
    chosen: pd.DataFrame,
    lines: pd.DataFrame,
    cells: pd.DataFrame,
    drugs: pd.DataFrame,
    k: int,
) -> pd.DataFrame:
    """Every tested drug of the `chosen` lists (`shown_lines`): the columns of `candidates_table`, why and recall@k.

    Args:
        lines: the table `cell_ranking`, which has the recall.
    """
    tables = []
    for name, frame in ranked.items():
        keys = pd.MultiIndex.from_arrays([frame["source"].astype(str), frame["cell"]])
        inside = keys.isin(pd.MultiIndex.from_frame(chosen[LIST]))
        lists = _lists(frame[inside], frames[name]["auc_pred"].to_numpy()[inside], k)
        tables.append(lists.assign(method=name, hit=(lists["rank_pred"] <= k) & (lists["rank_true"] <= k)))
    table = pd.concat(tables, ignore_index=True).merge(chosen, on=LIST, how="left")
    table = table.merge(lines[["method", *LIST, "recall"]], on=["method", *LIST], how="left")
    table = table.sort_values("why", key=lambda why: why.map(WHY.index), kind="stable", ignore_index=True)
    return named(table, cells, drugs)


def ordering_baseline(naive: Mapping[str, pd.DataFrame]) -> str | None:
    """Of the naive baselines that tell the drugs of a line apart, the one of the lowest squared error."""
    errors = {}
    for name, frame in naive.items():
        spread = frame.groupby([frame["source"].astype(str), frame["cell"]])["auc_pred"].agg(np.ptp)
        if (spread > _FLAT).mean() > 0.5:
            errors[name] = float(((frame["auc_pred"] - frame["auc"]).astype(np.float64) ** 2).mean())
    return min(errors, key=errors.__getitem__) if errors else None
