"""Figure of the load: how many jobs ran over time in the pools of the executor `worksteal` that trained."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from hedflow.figures.style import PALETTE, figure, nothing

RULES = ("train", "train_together")
VERSION = 2  # of the summary: the first with running tasks and steals
SHOWN = 4  # pools, the newest
STAGING = PALETTE[7]


def pools_folder() -> Path:
    """Where the executor keeps what its pools have done: what it tells its jobs, else its default."""
    return Path(os.environ.get("WORKSTEAL_FOLDER", ".snakemake/worksteal/run")).parent


def read_pools(folder: Path) -> list[dict[str, Any]]:
    """Summaries of the pools that have trained, in the order of their beginnings."""
    found = []
    for path in folder.glob("*/summary.json"):
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue  # of a pool that was killed while it wrote
        if summary.get("version", 0) >= VERSION and any(rule in summary["rules"] for rule in RULES):
            found.append(summary)
    return sorted(found, key=lambda summary: float(summary["started"]))


def draw_load(pools: list[dict[str, Any]], path: str | Path) -> None:
    """A panel a pool, the newest SHOWN: running jobs and busy cores over time, ramp-up, tail, staging."""
    shown = pools[-SHOWN:]
    with figure(path, 11, max(3.2, 2.9 * len(shown)), max(1, len(shown))) as drawn:
        if not shown:
            nothing(drawn, "No pool of the executor worksteal has trained these runs.")
            return
        for axis, pool in zip(list(drawn.axes), shown, strict=True):
            _panel(axis, pool)
        drawn.axes[-1].set_xlabel("seconds since the start of the pool")
        named = {
            name: mark for axis in drawn.axes for mark, name in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        drawn.legend(named.values(), named.keys(), loc="outside lower center", ncols=6, frameon=False, fontsize=10)
        if len(pools) > len(shown):
            drawn.suptitle(f"The last {len(shown)} of {len(pools)} pools", fontsize=11)


def _panel(axis: Axes, pool: dict[str, Any]) -> None:
    wall, cores = pool["wall_s"], max(1, pool["cores"])
    busy, running = pool["busy_cores"], pool["running_tasks"]
    edges = np.arange(len(busy["mean"]) + 1) * busy["bin_s"]
    axis.stairs(busy["mean"], edges, fill=True, color=PALETTE[5], label="busy cores")
    axis.stairs(running["mean"], edges, baseline=None, color=PALETTE[0], linewidth=1.4, label="running jobs")
    axis.axhline(pool["cores"], color="black", linewidth=1, label="cores")
    axis.axvspan(0, pool["ramp_up_s"] or 0, color="0.82", linewidth=0, zorder=0, label="ramp-up")
    axis.axvspan(wall - (pool["tail_s"] or 0), wall, color="0.91", linewidth=0, zorder=0, label="tail")
    spans = [(start, end - start) for start, end in pool["phases"].get("staging", {}).get("spans", [])]
    if spans:
        axis.broken_barh(spans, (0, 1.12 * cores), color=STAGING, alpha=0.5, linewidth=1.5, label="staging")
    axis.set(xlim=(0, wall), ylim=(0, 1.12 * cores), ylabel="running jobs, busy cores")
    axis.set_title(said(pool), loc="left", fontsize=11)
    axis.locator_params(axis="y", integer=True)


def said(pool: dict[str, Any]) -> str:
    """The pool's numbers, in one or two lines."""
    begun = datetime.fromtimestamp(pool["started"]).strftime("%Y-%m-%d %H:%M")
    nodes, jobs, steals = pool["nodes"], pool["tasks"]["total"], pool["steals"]
    words = [
        f"{begun}: {jobs:,} jobs on {nodes:,} node{'' if nodes == 1 else 's'} ({pool['cores']:,} cores), "
        f"{pool['utilisation']:.0%} of core time busy over {_seconds(pool['wall_s'])}"
    ]
    more = [f"{steals['times']:,} steals ({steals['tasks']:,} jobs moved)"]
    more += [f"ramp-up {_seconds(pool['ramp_up_s'])}"] if pool["ramp_up_s"] is not None else []
    more += [f"tail {_seconds(pool['tail_s'])}"] if pool["tail_s"] is not None else ["never all cores busy"]
    if staging := pool["phases"].get("staging"):
        more.append(
            f"staging {_seconds(staging['wall_s'])}: {staging['read_bytes'] / 1e6:,.1f} MB read, "
            f"{staging['written_bytes'] / 1e6:,.1f} MB written on {staging['nodes']:,} nodes"
        )
    return f"{words[0]}\n{'; '.join(more)}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds / 60:,.0f} min"
