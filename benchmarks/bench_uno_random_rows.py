"""Is this port of Uno plausible? R2 on row-random splits within one source, beside IMPROVE's published R2.

Full width (1000, towers of 3, head of 5), one split 8:1:1 of (cell, drug) pairs. Published: mean of 10 splits,
Partin et al. 2025 (arXiv 2503.14356). It needs the five-source mirror and, on two cores, some twenty minutes.
Prints one JSON line a source with the ratio of the two R2, then a table.

    python benchmarks/bench_uno_random_rows.py --mirror ../shared/data
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from real_bundle import build, of_source

from hedflow.bundle import Bundle
from hedflow.config import Model, Split, Training
from hedflow.errors import point_metrics
from hedflow.splits import Rows, make_rows
from hedflow.training.fit import fit

PUBLISHED = {"CCLE": 0.796, "CTRPv2": 0.841, "gCSI": 0.774, "GDSCv1": 0.739, "GDSCv2": 0.775}
# batch, epochs: what two cores do in a few minutes a source
SETTINGS = {"CCLE": (256, 40), "gCSI": (256, 40), "GDSCv2": (1024, 15), "GDSCv1": (1024, 15), "CTRPv2": (1024, 15)}
DIFFERENCES = (
    "What differs from IMPROVE: {genes} genes here (DepMap 23Q2 subset), 958 LINCS genes there; {descriptors} RDKit "
    "descriptors, 1,613 Mordred there; the provider's own AUC over the tested doses here, one refit over 10^-10..10^-4 "
    "M there; one split, not ten; newer GDSC release with other drugs; batch and epochs as printed."
)


def within(bundle: Bundle, source: str) -> Rows:
    """A random 8:1:1 split of one source's pairs."""
    rows = make_rows(Split(kind="random_pairs", folds=10, validation=1 / 9), "f0", bundle)
    return of_source(rows, bundle, source)


def main() -> None:
    """Train each source and print its line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mirror", default="../shared/data")
    parser.add_argument("--sources", nargs="+", default=["CCLE", "GDSCv2"])
    parser.add_argument("--epochs", type=int, help="at most this many")
    given = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    table = []
    with tempfile.TemporaryDirectory() as folder:
        bundle = build(given.mirror, Path(folder))
        sizes = {
            name: len(bundle.view(view)["columns"])
            for name, view in (("genes", "expression"), ("descriptors", "descriptors"))
        }
        for source in given.sources:
            batch, epochs = SETTINGS[source]
            training = Training(
                epochs=given.epochs or epochs,
                batch_size=batch,
                learning_rate=5e-4,
                warmup_epochs=2,
                patience=8,
                plateau_patience=1,
                monitor="mae",
            )
            rows, start = within(bundle, source), time.time()
            trained = fit(bundle, rows, Model(), training, "mse", None, 0)
            seconds = time.time() - start
            found = point_metrics(bundle.response["auc"].to_numpy()[rows.test], trained.predict(rows.test))
            row = {
                "benchmark": "uno_random_rows",
                "source": source,
                "r2": round(found["r2"], 3),
                "published_r2": PUBLISHED[source],
                "ratio": round(found["r2"] / PUBLISHED[source], 3),
                "rmse": round(found["rmse"], 4),
                "test_rows": len(rows.test),
                "epochs": len(trained.history),
                "batch": batch,
                "seconds": round(seconds),
                "rows_per_second": round(len(trained.history) * len(rows.train) / seconds),
            }
            print(json.dumps(row), flush=True)
            table.append(row)
    columns = ["source", "r2", "published_r2", "ratio", "rmse", "test_rows", "epochs"]
    print(pd.DataFrame(table)[columns].to_string(index=False))
    print(DIFFERENCES.format(**sizes))


if __name__ == "__main__":
    main()
