"""Draws how busy a pool was: `worksteal figure FOLDER [-o utilisation.png]`.

FOLDER is a run's own folder with summary.json and, for the lower panel, trace.json. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .trace import read_trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LANES = 64  # rows of single cores; more cores are drawn as a map of how busy groups of them were
NAMES = 16  # of nodes beside the rows
COLUMNS = 400  # of that map
# Okabe and Ito's colours, which people with any colour vision can tell apart; red is kept for what failed
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#56B4E9", "#CC79A7", "#F0E442")
OTHER, FAILED, STAGING, TASKS = "#999999", "#D00000", "#8C6BB1", "#003B6F"


def draw(summary: dict[str, Any], trace: list[dict[str, Any]] | None, out: Path) -> None:
    """Draw a summary, and its trace if there is one, to a file of any format that matplotlib knows.

    Raises ImportError if matplotlib is missing.
    """
    from matplotlib.figure import Figure

    lanes, tasks = _lanes(trace or []), [event for event in trace or [] if event.get("cat") == "task"]
    if not tasks:
        lanes = []
    height = min(8.0, 1.2 + 0.16 * len(lanes)) if lanes else 0.0
    figure = Figure(figsize=(10, 3.4 + height), layout="constrained")
    if lanes:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, height))
        if len(lanes) > LANES:
            _draw_map(below, lanes, tasks, summary["wall_s"])
        else:
            _draw_tasks(below, lanes, tasks)
            figure.legend(*below.get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False)
    else:
        above = below = figure.subplots()
    _draw_busy(above, summary, legend_below=3.5 if above is below else 0.7)
    below.set_xlabel("seconds since the start of the pool")
    figure.savefig(out, dpi=150)


def _draw_busy(axes: Axes, summary: dict[str, Any], legend_below: float) -> None:
    """Running tasks and busy cores over time, the number of cores, ramp-up, tail and staging; the legend so many lines
    below.
    """
    wall, cores, mean = summary["wall_s"], summary["cores"], summary["busy_cores"]["mean"]
    edges = [summary["busy_cores"]["bin_s"] * number for number in range(len(mean) + 1)]
    axes.stairs(mean, edges, fill=True, color=COLOURS[3], label="busy cores")
    running = summary["running_tasks"]["mean"]
    axes.stairs(running, edges, baseline=None, color=TASKS, linewidth=1.2, label="running tasks")
    axes.axhline(cores, color="black", linewidth=1, label=f"{cores:,} cores")
    ramp_up, tail = summary["ramp_up_s"], summary["tail_s"]
    if ramp_up is not None:
        axes.axvspan(0, ramp_up, color="0.82", zorder=0, linewidth=0, label=f"ramp-up {_seconds(ramp_up)}")
    if tail is not None:
        axes.axvspan(wall - tail, wall, color="0.91", zorder=0, linewidth=0, label=f"tail {_seconds(tail)}")
    for name, phase in summary["phases"].items():
        spans = [(start, end - start) for start, end in phase["spans"]]
        # Some are shorter than a pixel: the edge of the bar shows them.
        bar = axes.broken_barh(spans, (0, 1.09 * max(cores, 1)), color=STAGING, alpha=0.45, linewidth=1.5, zorder=3)
        bar.set_label(f"{name} {_seconds(phase['wall_s'])}")
    axes.set(xlim=(0, wall), ylim=(0, 1.12 * max(cores, 1)), ylabel="running tasks, busy cores")
    axes.spines[["top", "right"]].set_visible(False)
    tasks, steals = summary["tasks"], summary["steals"]["times"]
    lost = tasks["total"] - tasks["done"]
    axes.set_title(
        f"{summary['utilisation']:.1%} of {cores:,} cores on {summary['nodes']:,} "
        f"{'node' if summary['nodes'] == 1 else 'nodes'} busy over {_seconds(wall)}: {tasks['total']:,} tasks"
        + (f", {lost:,} of them failed" if lost else "")
        + (f", {steals:,} {'steal' if steals == 1 else 'steals'}" if steals else ""),
        loc="left",
        fontsize="medium",
    )
    axes.locator_params(axis="y", integer=True)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=legend_below, ncols=6, frameon=False)


def _draw_tasks(axes: Axes, lanes: list[tuple[int, int]], tasks: list[dict[str, Any]]) -> None:
    """One row a core with the tasks on it, coloured by rule."""
    rows = {lane: row for row, lane in enumerate(lanes)}
    common = [rule for rule, _ in Counter(task["args"]["rule"] for task in tasks).most_common(len(COLOURS))]
    spans: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for task in tasks:
        arguments = task["args"]
        rule = arguments["rule"] if arguments["rule"] in common else "other rules"
        kind = rule if arguments["status"] == 0 else "failed"
        for core in arguments["cores"]:
            if (row := rows.get((arguments["rank"], core))) is not None:
                spans.setdefault((kind, row), []).append((task["ts"] / 1e6, task["dur"] / 1e6))
    kinds = [*common, *(kind for kind in ("other rules", "failed") if any(kind == known for known, _ in spans))]
    colours = {**dict(zip(common, COLOURS, strict=False)), "other rules": OTHER, "failed": FAILED}
    # Thousands of outlines would hide the bars, and make a PDF that no viewer scrolls
    edge = 0.4 if len(tasks) < 2000 else 0.0
    for (kind, row), bars in spans.items():
        axes.broken_barh(
            bars,
            (row - 0.42, 0.84),
            facecolor=colours[kind],
            edgecolor="white" if edge else "none",
            linewidth=edge,
            rasterized=len(tasks) > 500,
        )
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    _label_nodes(axes, lanes, len(lanes))
    for kind in kinds:
        axes.fill_between([], [], color=colours[kind], label=kind)


def _draw_map(axes: Axes, lanes: list[tuple[int, int]], tasks: list[dict[str, Any]], wall: float) -> None:
    """The share of busy cores over time, in rows of neighbouring cores."""
    row_of = {lane: number * LANES // len(lanes) for number, lane in enumerate(lanes)}
    sizes = Counter(row_of.values())
    width = wall / COLUMNS
    busy = [[0.0] * COLUMNS for _ in range(LANES)]
    for task in tasks:
        start = task["ts"] / 1e6
        end = min(start + task["dur"] / 1e6, wall)
        rows = [row_of[lane] for core in task["args"]["cores"] if (lane := (task["args"]["rank"], core)) in row_of]
        for column in range(int(start / width), min(COLUMNS, int(end / width) + 1)):
            overlap = min(end, (column + 1) * width) - max(start, column * width)
            for row in rows:
                busy[row][column] += max(0.0, overlap) / (sizes[row] * width)
    extent = (0, wall, LANES - 0.5, -0.5)
    image = axes.imshow(busy, aspect="auto", extent=extent, vmin=0, vmax=1, cmap="viridis", interpolation="none")
    axes.figure.colorbar(image, ax=axes, label="share of busy cores", fraction=0.03, pad=0.01)
    _label_nodes(axes, lanes, LANES)


def _label_nodes(axes: Axes, lanes: list[tuple[int, int]], rows: int) -> None:
    """Names of the nodes beside their rows, and lines between them while they are few."""
    firsts = [number for number, (rank, _) in enumerate(lanes) if number == 0 or lanes[number - 1][0] != rank]
    middles = [(first + end) / 2 for first, end in zip(firsts, [*firsts[1:], len(lanes)], strict=True)]
    step = -(-len(firsts) // NAMES)
    scale = rows / len(lanes)
    if step == 1:
        for first in firsts[1:]:
            axes.axhline(first * scale - 0.5, color="black", linewidth=0.5)
    axes.set_yticks([middle * scale - 0.5 for middle in middles[::step]])
    axes.set_yticklabels([f"node {lanes[first][0]}" for first in firsts[::step]])
    axes.set_ylabel(f"{len(lanes):,} cores" + (f" in {rows} rows" if rows < len(lanes) else ""))


def _lanes(trace: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Rank and core of every lane of the trace, in order."""
    lanes: set[tuple[int, int]] = set()
    for event in trace:
        if event["name"] == "process_name" and "rank" in event["args"]:
            lanes.update((event["args"]["rank"], core) for core in range(event["args"]["cores"]))
    return sorted(lanes)


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:,.0f} s"


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="worksteal figure", description=__doc__)
    parser.add_argument("folder", type=Path, help="a run's folder, with summary.json and trace.json")
    parser.add_argument("-o", "--output", type=Path, help="FOLDER/utilisation.png unless given")
    given = parser.parse_args(arguments)
    trace_path = given.folder / "trace.json"
    try:
        summary = json.loads((given.folder / "summary.json").read_text(encoding="utf-8"))
        trace = read_trace(trace_path) if trace_path.exists() else None
        draw(summary, trace, given.output or given.folder / "utilisation.png")
    except ImportError:
        print("The figure needs matplotlib, which is not installed: pip install matplotlib", file=sys.stderr)
        return 1
    except (OSError, ValueError, KeyError) as error:
        print(f"No figure of {given.folder}: {error!r}. Expected the folder of a run that has ended.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
