"""The naive baselines and the nearest training drugs, on the very splits that an experiment's runs used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from hedflow.analysis.collect import frame_of
from hedflow.baselines import fit_predict
from hedflow.bundle import Bundle
from hedflow.config import Split
from hedflow.similarity import tanimoto
from hedflow.splits import make_rows


def predict_baselines(parts: Iterable[tuple[str, Split]], bundle: Bundle, neighbours: int) -> pd.DataFrame:
    """The naive baselines of every part of a split: label, row, and a column a baseline.

    They are fitted on the training and validation rows: none of them stops early.
    """
    prints, tissue = np.asarray(bundle.array("fingerprints")), bundle.cells["tissue"].to_numpy(dtype=str)
    tables = []
    for label, split in parts:
        rows = make_rows(split, label, bundle)
        train = np.sort(np.concatenate([rows.train, rows.validation]))
        made = fit_predict(bundle.response, train, rows.test, tissue, prints, neighbours)
        tables.append(made.rename_axis("row").reset_index().assign(label=label))
    return pd.concat(tables, ignore_index=True)


def baseline_frames(table: pd.DataFrame, names: Sequence[str], bundle: Bundle) -> dict[str, pd.DataFrame]:
    """Prediction frames of the named baselines; rows tested by several parts get the mean."""
    mean = table.groupby("row")[list(names)].mean()
    return {name: frame_of(bundle, mean.index.to_numpy(), mean[name].to_numpy()) for name in names}


def nearest_training_drug(parts: Iterable[tuple[str, Split]], bundle: Bundle) -> pd.DataFrame:
    """For each tested drug the most similar training drug: drug, nearest (its name), similarity (Tanimoto, 0..1).

    Where a drug is tested in several parts, the part with the most similar one counts.
    """
    similarity = tanimoto(bundle.array("fingerprints"), bundle.array("fingerprints"))
    drug = bundle.response["drug"].to_numpy()
    names = bundle.drugs["drug_name"].to_numpy()
    tables = []
    for label, split in parts:
        rows = make_rows(split, label, bundle)
        train, test = (np.flatnonzero(np.bincount(drug[part])) for part in (rows.train, rows.test))
        closest = similarity[np.ix_(test, train)]
        tables.append(
            pd.DataFrame(
                {"drug": test, "nearest": names[train[closest.argmax(axis=1)]], "similarity": closest.max(axis=1)}
            )
        )
    found = pd.concat(tables).sort_values(["drug", "similarity"], ascending=[True, False])
    return found.drop_duplicates("drug", ignore_index=True)
