"""Accuracy at batch 4096 with hedflow's own learning rate and warm-up, beside batch 32, on the same split and seeds.

    python benchmarks/bench_batch_size.py [--bundle results/bundle | --mirror ../shared/data] [--epochs 15] [--seeds 2]

The small Uno on GDSCv2, random pairs and drug-blind, mean squared error, equal epochs; plain validation MAE picks the
weights. Batch 32 has Uno's rate, 1e-5 x 32. A line of JSON a run, then one a split: mean R2 and MAE of either batch
over the seeds, their difference, and its standard error over the seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

from real_bundle import add_options, of_source, report, the_bundle

from hedflow.bundle import Bundle
from hedflow.config import DEFAULT_MODELS, Split, Training
from hedflow.errors import point_metrics
from hedflow.splits import Rows, make_rows
from hedflow.training.fit import fit

SMALL_BATCH = 32


def one(bundle: Bundle, rows: Rows, training: Training, seed: int) -> dict[str, Any]:
    """A run's test R2 and MAE, and the seconds it took."""
    begun = time.perf_counter()
    trained = fit(bundle, rows, DEFAULT_MODELS["uno_small"], training, "mse", None, seed)
    seconds = time.perf_counter() - begun
    found = point_metrics(bundle.response["auc"].to_numpy()[rows.test], trained.predict(rows.test))
    return {
        "batch": training.batch_size,
        "seed": seed,
        "r2": round(found["r2"], 4),
        "mae": round(found["mae"], 5),
        "best_epoch": trained.state.best_epoch,
        "seconds": round(seconds),
    }


def main() -> None:
    """Train both batch sizes on each split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--source", default="GDSCv2")
    parser.add_argument("--splits", nargs="+", default=["random_pairs", "drug_blind"])
    parser.add_argument("--large", type=int, default=4096, help="the large batch")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--warmup-epochs", type=int, default=Training().warmup_epochs)
    parser.add_argument("--learning-rate", type=float, help="of the large batch; default: hedflow's own rule")
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    common = {
        "epochs": given.epochs,
        "patience": given.epochs,
        "monitor": "mae",
        "threads": given.threads,
        "device": given.device,
        "warmup_epochs": given.warmup_epochs,
    }
    both = {
        "small": Training(batch_size=SMALL_BATCH, learning_rate=1e-5 * SMALL_BATCH, **common),
        "large": Training(batch_size=given.large, learning_rate=given.learning_rate, **common),
    }
    with the_bundle(given) as bundle:
        for kind in given.splits:
            rows = of_source(make_rows(Split(kind=kind), "f0", bundle), bundle, given.source)
            runs: dict[str, list[dict[str, Any]]] = {name: [] for name in both}
            for seed in range(given.seeds):
                for name, training in both.items():
                    runs[name].append(one(bundle, rows, training, seed))
                    print(json.dumps({"split": kind, **runs[name][-1]}), flush=True)
            report(benchmark="batch_size", source=given.source, split=kind, epochs=given.epochs, **compared(runs))


def compared(runs: dict[str, list[dict[str, Any]]]) -> dict[str, float | None]:
    """Means of either side and the differences large - small, paired by seed."""
    found: dict[str, float | None] = {}
    for metric in ("r2", "mae"):
        pairs = [(large[metric], small[metric]) for large, small in zip(runs["large"], runs["small"], strict=True)]
        differences = [large - small for large, small in pairs]
        found |= {
            f"{metric}_small": round(statistics.fmean(small for _, small in pairs), 4),
            f"{metric}_large": round(statistics.fmean(large for large, _ in pairs), 4),
            f"{metric}_difference": round(statistics.fmean(differences), 4),
            f"{metric}_difference_se": None
            if len(differences) < 2
            else round(statistics.stdev(differences) / len(differences) ** 0.5, 4),
        }
    seconds = {name: statistics.fmean(run["seconds"] for run in side) for name, side in runs.items()}
    return found | {"times_as_fast": round(seconds["small"] / max(seconds["large"], 1), 1)}


if __name__ == "__main__":
    main()
