"""Did a run train as it should? A class that does not depend on the scale of its loss."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

Floats = np.ndarray

DIVERGED = "diverged"
NOT_TRAINED = "not trained"
NO_GAIN = "no better than the training mean"
OVERFITTED = "overfitted"
IMPROVING = "still improving"
CONVERGED = "converged"
NOT_ITERATIVE = "not iterative"
ONE_EPOCH = "one epoch"
CLASSES = (CONVERGED, IMPROVING, OVERFITTED, NO_GAIN, NOT_TRAINED, DIVERGED, ONE_EPOCH, NOT_ITERATIVE)
# A run that monitors its own loss is judged, and drawn, by this.
OWN_LOSS, BALANCED = "validation_loss", "validation_balanced_mae"

GAIN = 0.01  # of the training mean's validation error: less than this below it is no gain
FALL = 0.05  # of the first epoch's training loss: a loss that never fell by this was not trained
RISE = 0.05  # of the best validation error: the end lies this much above it
LATE = 0.05  # of the whole improvement: this much of it came in the last quarter of the epochs
BLOW_UP = 1.5  # times the training mean's validation error


def convergence_table(runs: pd.DataFrame, plan: pd.DataFrame, levels: pd.DataFrame) -> pd.DataFrame:
    """One row a run: how its training went. All rules use a validation MAE, or a ratio of the run's own losses.

    The MAE is the run's monitor; the balanced one where it monitors its loss, of which no scale and no naive level is
    known.

    Class, the first that holds:
        not iterative                       no epochs: solved in closed form, or a tree
        one epoch                           a network that was trained for a single one: nothing to judge by
        diverged                            the run failed; or a loss or validation error is not finite, or one at the
                                            end is more than 1.5 times the training mean's and above the first epoch's
        not trained                         the best validation error is less than 1 % below that of the training
                                            mean, and the training loss never fell by 5 % of its first epoch's
        no better than the training mean    as before, but the training loss did fall: what is learnt is of no use
                                            for what the split holds out
        overfitted                          the validation error ends (median of the last 3 epochs) more than 5 %
                                            above its best, while the training loss is lower than it was at the best
        still improving                     not stopped early, and at least 5 % of the improvement, from the worse of
                                            the first epoch and the training mean to the best, came in the last
                                            quarter of the epochs
        converged                           all others

    Args:
        runs: run, status, method, split, seed, monitor, history (JSON list of epoch, loss, validation_mae, ...).
        plan: run and spec (JSON), for the number of epochs that were planned.
        levels: split, and the training mean's validation_mae and validation_balanced_mae there.

    Returns:
        run, method, split, seed, monitor (that picked the weights), judged_by, class, epochs, planned_epochs (missing
        for a model without epochs), best_epoch (of judged_by), stopped_early (fewer epochs than planned), first, best,
        last (validation error, AUC), naive (that of the training mean), gain (share of naive that the best lies below
        it), late_gain, rise (last / best - 1), loss_fall (1 - lowest / first training loss).
    """
    specs = plan.set_index("run")["spec"].map(json.loads)
    by_part = levels.set_index("split").to_dict("index")
    rows = []
    for run in runs.itertuples():
        history = pd.DataFrame(json.loads(str(run.history)))
        judged_by = BALANCED if run.monitor == OWN_LOSS else str(run.monitor)
        naive = by_part[str(run.split)].get(judged_by, np.nan)
        epochs = specs[str(run.run)].get("training", {}).get("epochs", len(history))
        stopped = bool(0 < len(history) < epochs and str(run.status) != "failed")
        rows.append(
            {
                "run": run.run,
                "method": run.method,
                "split": run.split,
                "seed": run.seed,
                "monitor": run.monitor,
                "judged_by": judged_by,
                **judge(history, judged_by, naive, stopped),
                **({"class": DIVERGED} if run.status == "failed" else {}),
                "epochs": len(history),
                "planned_epochs": epochs if len(history) else np.nan,
                "stopped_early": stopped,
            }
        )
    return pd.DataFrame(rows)


def judge(history: pd.DataFrame, monitor: str, naive: float, stopped_early: bool = False) -> dict[str, Any]:
    """class, best_epoch, first, best, last, naive, gain, late_gain, rise and loss_fall of one run's history.

    ``naive``: validation error of the training mean; missing, no rule that needs it applies.
    """
    nothing = dict.fromkeys(("first", "best", "last", "gain", "late_gain", "rise", "loss_fall"), np.nan)
    if len(history) < 2 or not {monitor, "loss"} <= set(history.columns):
        kind = ONE_EPOCH if len(history) == 1 else NOT_ITERATIVE
        return {"class": kind, "best_epoch": len(history) - 1, "naive": naive, **nothing}
    error, loss = history[monitor].to_numpy(np.float64), history["loss"].to_numpy(np.float64)
    finite = np.isfinite(error) & np.isfinite(loss)
    if not finite.any():
        return {"class": DIVERGED, "best_epoch": -1, "naive": naive, **nothing}
    at = int(np.nanargmin(np.where(finite, error, np.nan)))
    found: dict[str, Any] = {"best_epoch": at, "naive": naive, **_measures(error[finite], loss[finite], naive)}
    found["class"] = _class(found, error, loss, at)
    if found["class"] == IMPROVING and stopped_early:
        found["class"] = CONVERGED
    return found


def _measures(error: Floats, loss: Floats, naive: float) -> dict[str, float]:
    first, best, last = float(error[0]), float(error.min()), float(np.median(error[-3:]))
    start = float(np.nanmax([first, naive]))
    earlier = error[: max(1, len(error) - len(error) // 4)].min()
    return {
        "first": first,
        "best": best,
        "last": last,
        "gain": 1 - best / naive,
        "late_gain": float((earlier - best) / (start - best)) if start > best else 0.0,
        "rise": last / best - 1 if best > 0 else 0.0,
        "loss_fall": float(1 - loss.min() / loss[0]) if loss[0] > 0 else np.nan,
    }


def _class(found: dict[str, Any], error: Floats, loss: Floats, at: int) -> str:
    blown = found["last"] > BLOW_UP * found["naive"] and found["last"] > found["first"]
    if blown or not (np.isfinite(error).all() and np.isfinite(loss).all()):
        return DIVERGED
    if found["gain"] < GAIN:
        return NOT_TRAINED if found["loss_fall"] < FALL else NO_GAIN
    if found["rise"] > RISE and np.median(loss[-3:]) < loss[at]:
        return OVERFITTED
    return IMPROVING if found["late_gain"] >= LATE else CONVERGED
