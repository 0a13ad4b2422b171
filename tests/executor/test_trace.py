"""The trace opens in the viewers even if the pool was killed, and the summary's numbers are those of the intervals."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snakemake_executor_plugin_worksteal import figure
from snakemake_executor_plugin_worksteal.tasks import Result
from snakemake_executor_plugin_worksteal.trace import BINS, BUSY, Intervals, Trace, core_lane, node_process, read_trace

START = 1_700_000_000.0


def result(number: int, start: float, end: float, cores: tuple[int, ...] = (0,), **more: Any) -> Result:
    """A result whose times count from the pool's start."""
    more = {"status": 0, **more}
    return Result(id=number, started=START + start, ended=START + end, cores=cores, **more)


def small(path: Path | None) -> Trace:
    """A pool of two nodes with four cores that has done a little of everything."""
    trace = Trace(path, START)
    trace.pool(0, "one", 2, 1)
    trace.pool(1, "two", 2, 0)
    trace.phase("staging", 0, START + 0.5, START + 1.5, {"read_bytes": 100, "written_bytes": 100}, source="/data")
    trace.phase("staging", 1, START + 1, START + 1.75, {"read_bytes": 0, "written_bytes": 100}, source="/data")
    trace.phase("staging", 1, START + 5, START + 5.25, {"read_bytes": 7, "written_bytes": 7}, source="/more")
    trace.counter(START + 1, queued=4, running=0, finished=0)
    trace.task("a 1", "a", result(1, 2, 6, (0, 1), max_rss_mb=100.25, devices=(0,)))
    trace.task('b "2"\n', "b", result(2, 2, 4, (0,), rank=1, status=3, reason="No such file – ümlaut"))
    trace.instant("steal", 1, START + 4, source=0, tasks=3)
    trace.task("b 3", "b", result(3, 4, 10, (0,), rank=1, status=None, signal=9, max_rss_mb=7))
    trace.task("b 4", "b", result(4, 2, 9, (1,), rank=1))
    trace.counter(START + 10, queued=0, running=0, finished=4)
    return trace


def check_format(events: list[dict[str, Any]]) -> None:
    """The rules of the Trace Event Format for the kinds of events that are used."""
    named: set[tuple[int, int]] = set()
    lanes: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for event in events:
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert event["pid"] > 0
        assert isinstance(event["tid"], int)
        assert isinstance(event["args"], dict)
        kind = event["ph"]
        if kind == "M":
            assert event["name"] in {"process_name", "process_sort_index", "thread_name", "thread_sort_index"}
            named.add((event["pid"], event["tid"] if event["name"].startswith("thread") else 0))
            continue
        assert isinstance(event["ts"], int)
        assert event["ts"] >= 0
        assert (event["pid"], 0) in named, "a process is named before its first event"
        if kind == "X":
            assert isinstance(event["dur"], int)
            assert event["dur"] >= 0
            assert (event["pid"], event["tid"]) in named
            lanes.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["ts"] + event["dur"]))
        elif kind == "i":
            assert event["s"] in {"g", "p", "t"}
        else:
            assert kind == "C"
            assert all(isinstance(value, int | float) for value in event["args"].values())
    for spans in lanes.values():
        for (_, before), (after, _) in zip(sorted(spans), sorted(spans)[1:], strict=False):
            assert before <= after, "tasks of one lane do not overlap"


def test_the_trace_follows_the_format(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    small(path).close(None, ended=START + 10)
    events = json.loads(path.read_text())
    check_format(events)
    assert events == read_trace(path)
    tasks = {event["args"]["id"]: event for event in events if event.get("cat") == "task"}
    assert (tasks[1]["ts"], tasks[1]["dur"]) == (2_000_000, 4_000_000)
    assert (tasks[4]["pid"], tasks[4]["tid"]) == (node_process(1), core_lane(1))
    assert tasks[1]["args"]["cores"] == [0, 1]
    assert tasks[1]["args"]["devices"] == [0]
    assert tasks[2]["args"]["reason"] == "No such file – ümlaut"
    assert tasks[3]["args"]["signal"] == 9


def test_every_beginning_of_the_file_can_be_read(tmp_path: Path) -> None:
    path, cut = tmp_path / "trace.json", tmp_path / "cut.json"
    small(path).close(None, ended=START + 10)
    whole, events = path.read_bytes(), read_trace(path)
    for size in range(len(whole) + 1):
        cut.write_bytes(whole[:size])
        got = read_trace(cut)
        assert got == events[: len(got)]
        assert len(got) >= whole[:size].count(b"\n{") - 1
    (tmp_path / "no.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match="is no trace"):
        read_trace(tmp_path / "no.json")


def test_a_killed_writer_leaves_every_event_it_wrote(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from snakemake_executor_plugin_worksteal.trace import Trace\n"
        "trace = Trace(Path(sys.argv[1]), 0.0)\n"
        "for number in range(100): trace.instant('steal', 0, number, tasks=1)\n"
        "print('written', flush=True); time.sleep(60)\n"
    )
    path = tmp_path / "trace.json"
    with subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        writer.send_signal(signal.SIGKILL)
    # the viewers' own mending: nothing but the closing bracket is missing
    assert len([each for each in json.loads(path.read_text() + "]") if each["ph"] == "i"]) == 100


def test_the_summary(tmp_path: Path) -> None:
    path = tmp_path / "out" / "summary.json"
    summary = small(None).close(path, {"steals": 1, "waits": {"idle_s": 2.5}}, ended=START + 12)
    assert json.loads(path.read_text()) == summary
    assert [each.name for each in path.parent.iterdir()] == ["summary.json"]
    assert (summary["nodes"], summary["cores"], summary["devices"]) == (2, 4, 1)
    assert summary["tasks"] == {"total": 4, "done": 2, "failed": 1, "killed": 1, "later": 0}
    assert summary["rules"]["b"] == {"tasks": 3, "mean_s": 5.0, "max_s": 7.0, "max_rss_mb": 7}
    assert summary["busy_core_s"] == pytest.approx(8 + 2 + 6 + 7)
    assert summary["utilisation"] == pytest.approx(23 / 48)
    assert summary["tasks_per_s"] == pytest.approx(4 / 12)
    assert summary["ramp_up_s"] == 2
    assert summary["tail_s"] == 6  # all four cores were busy until second 6 of 12
    assert summary["phases"]["staging"] == {
        "times": 3,
        "nodes": 2,
        "total_s": 2.0,
        "started_s": 0.5,
        "ended_s": 5.25,
        "wall_s": 1.5,  # what overlaps counts once
        "spans": [[0.5, 1.75], [5.0, 5.25]],
        "read_bytes": 107,
        "written_bytes": 207,
    }
    assert summary["events"] == {"steal": 1}
    assert summary["steals"] == {"times": 1, "tasks": 3}
    assert sum(summary["running_tasks"]["mean"]) * summary["running_tasks"]["bin_s"] == pytest.approx(4 + 2 + 6 + 7)
    assert summary["statistics"] == {"steals": 1, "waits": {"idle_s": 2.5}}
    assert summary["wall_s"] == 12


def test_a_task_in_pieces_is_one_task_and_keeps_cores_busy_in_each() -> None:
    trace = Trace(None, START)
    trace.pool(0, "one", 1, 0)
    trace.piece("a 1", "a", result(1, 0, 3, status=75))
    trace.piece("a 2", "a", result(2, 3, 4, status=75))
    trace.task("a 1", "a", result(3, 4, 6), 5.0)
    trace.leave()
    summary = trace.close(None, ended=START + 10)
    assert summary["tasks"] == {"total": 2, "done": 1, "failed": 0, "killed": 0, "later": 1}
    assert summary["rules"]["a"] == {"tasks": 1, "mean_s": 5.0, "max_s": 5.0, "max_rss_mb": 0.0}
    assert summary["busy_core_s"] == pytest.approx(6.0)
    assert summary["events"] == {"piece": 2}
    assert summary["tasks_per_s"] == pytest.approx(0.1)


def test_an_empty_pool_has_a_summary() -> None:
    summary = Trace(None, START).close(None, ended=START)
    assert summary["tasks"]["total"] == summary["utilisation"] == summary["busy_core_s"] == 0
    assert summary["ramp_up_s"] is summary["tail_s"] is None


def test_a_full_disk_ends_the_trace_and_not_the_pool() -> None:
    trace = small(Path("/dev/full"))
    summary = trace.close(None, ended=START + 10)
    assert summary["tasks"]["total"] == 4
    assert "No space left on device" in summary["problem"]


moments = st.floats(-5, 105, allow_nan=False)
tasks = st.lists(st.tuples(moments, moments, st.integers(0, 8)), max_size=30)


@settings(max_examples=300, deadline=None)
@given(tasks=tasks, wall=st.floats(0.001, 100), bins=st.integers(1, BINS))
def test_bins_are_exact(tasks: list[tuple[float, float, int]], wall: float, bins: int) -> None:
    intervals = Intervals()
    for start, end, cores in tasks:
        intervals.add(start, end, cores)
    width = wall / bins
    got = intervals.binned(wall, bins)
    assert len(got) == bins
    for which, mean in enumerate(got):
        low, high = which * width, (which + 1) * width
        overlaps = (cores * max(0.0, min(high, end) - max(low, start)) for start, end, cores in tasks)
        assert math.isclose(mean, sum(overlaps) / width, rel_tol=1e-6, abs_tol=1e-6)


@settings(max_examples=300, deadline=None)
@given(tasks=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 4)), max_size=20))
def test_ramp_up_and_tail_are_those_of_the_definition(tasks: list[tuple[int, int, int]]) -> None:
    intervals = Intervals()
    for start, length, cores in tasks:
        intervals.add(start, start + length, cores)

    def busy(now: float) -> int:
        return sum(cores for start, length, cores in tasks if start <= now < start + length)

    after = [busy(second + 0.5) for second in range(41)]
    assert {now: number for now, number in intervals.steps() if number != after[int(now)]} == {}
    most = max(after)
    assert intervals.ramp_up() == (next(n for n, each in enumerate(after) if each >= BUSY * most) if most else None)
    full = [second for second, each in enumerate(after) if each >= BUSY * 4]
    assert intervals.full_until(4) == (full[-1] + 1 if full else None)


@pytest.mark.parametrize("cores", [4, 40])
def test_the_figure(tmp_path: Path, cores: int) -> None:
    pytest.importorskip("matplotlib")
    trace = Trace(tmp_path / "trace.json", START)
    for rank in range(2):
        trace.pool(rank, "host", cores, 0)
        for core in range(cores):
            trace.task("a", "a", result(core, core, core + 5, (core,), rank=rank, status=core % 2))
    trace.phase("staging", 0, START, START + 1)
    trace.close(tmp_path / "summary.json", ended=START + cores + 5)
    assert figure.main([str(tmp_path)]) == 0
    assert (tmp_path / "utilisation.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "trace.json").unlink()
    assert figure.main([str(tmp_path), "-o", str(tmp_path / "busy.svg")]) == 0
    assert (tmp_path / "busy.svg").stat().st_size > 1000


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Trace, float], tuple[Any, dict[str, Any]]]:
    """Ends a pool of which trace.json is written, and draws it: the figure itself, and the summary."""
    figures: list[Any] = []
    own = pytest.importorskip("matplotlib.figure").Figure.savefig

    def kept(drawing: Any, *given: Any, **named: Any) -> None:
        figures.append(drawing)
        own(drawing, *given, **named)

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", kept)

    def draw(trace: Trace, seconds: float) -> tuple[Any, dict[str, Any]]:
        summary = trace.close(tmp_path / "summary.json", ended=START + seconds)
        assert figure.main([str(tmp_path)]) == 0
        return figures[-1], summary

    return draw


def labels(legend: Any) -> list[str]:
    """Of a legend."""
    return [text.get_text() for text in legend.get_texts()]


def spans(bars: Any) -> list[list[float]]:
    """From where to where bars reach."""
    return [[round(float(x), 6) for x in path.get_extents().intervalx] for path in bars.get_paths()]


def test_what_the_figure_shows_of_the_load(tmp_path: Path, drawn: Any) -> None:
    shown, summary = drawn(small(tmp_path / "trace.json"), 12)
    above, _ = shown.axes
    parts = dict(zip(*reversed(above.get_legend_handles_labels()), strict=True))
    names = ["busy cores", "running tasks", "4 cores", "ramp-up 2 s", "tail 6 s", "staging 1.5 s"]
    assert sorted(parts) == sorted(labels(above.get_legend())) == sorted(names)
    for name, key, seconds in (("busy cores", "busy_cores", 23), ("running tasks", "running_tasks", 19)):
        values, edges, _ = parts[name].get_data()
        assert list(values) == summary[key]["mean"]
        assert sum(values) * (edges[1] - edges[0]) == pytest.approx(seconds)
        assert (edges[0], edges[-1]) == (0, pytest.approx(12))
    assert list(parts["4 cores"].get_ydata()) == [4, 4]
    assert (parts["ramp-up 2 s"].get_x(), parts["ramp-up 2 s"].get_width()) == (0, 2)
    assert (parts["tail 6 s"].get_x(), parts["tail 6 s"].get_width()) == (6, 6)
    assert spans(parts["staging 1.5 s"]) == [[0.5, 1.75], [5, 5.25]]
    assert above.get_xlim() == (0, 12)
    title = above.get_title(loc="left")
    assert title == "47.9% of 4 cores on 2 nodes busy over 12 s: 4 tasks, 2 of them failed, 1 steal"


def test_what_the_figure_shows_of_each_core(tmp_path: Path, drawn: Any) -> None:
    """A bar a task on each of its cores, in the colour that the legend has for its rule; red is for what failed."""
    shown, _ = drawn(small(tmp_path / "trace.json"), 12)
    below = shown.axes[1]
    assert labels(shown.legends[0]) == ["b", "a", "failed"]
    colours = {tuple(patch.get_facecolor()): text for patch, text in legend_of(shown)}
    bars = [
        (colours[tuple(bar.get_facecolor()[0])], round(sum(bar.get_paths()[0].get_extents().intervaly) / 2), spans(bar))
        for bar in below.collections
        if bar.get_paths() and len(bar.get_paths()[0].vertices)
    ]
    assert sorted(bars) == [
        ("a", 0, [[2, 6]]),
        ("a", 1, [[2, 6]]),
        ("b", 3, [[2, 9]]),
        ("failed", 2, [[2, 4], [4, 10]]),
    ]
    assert [text.get_text() for text in below.get_yticklabels()] == ["node 0", "node 1"]


def legend_of(shown: Any) -> list[tuple[Any, str]]:
    """The patches of the legend below, with their names."""
    (legend,) = shown.legends
    return list(zip(legend.get_patches(), labels(legend), strict=True))


def test_what_the_figure_shows_of_many_cores(tmp_path: Path, drawn: Any) -> None:
    """Of 80 cores, 64 rows: each is as bright as its cores are busy, where they are."""
    trace = Trace(tmp_path / "trace.json", START)
    for rank in range(2):
        trace.pool(rank, "host", 40, 0)
        for core in range(40):
            trace.task("a", "a", result(core, core, core + 5, (core,), rank=rank))
    shown, summary = drawn(trace, 50)
    (image,) = shown.axes[1].images
    share, width = image.get_array(), 50 / figure.COLUMNS
    cores = Counter(number * figure.LANES // 80 for number in range(80))
    assert share.shape == (figure.LANES, figure.COLUMNS)
    assert sum(share[row].sum() * width * cores[row] for row in cores) == pytest.approx(summary["busy_core_s"])
    assert list(image.get_extent())[:2] == [0, 50]
    busy = [column for column in range(figure.COLUMNS) if share[0][column] > 0]
    assert (busy[0], busy[-1]) == (0, round(6 / width) - 1), "cores 0 and 1, from 0 s to 6 s"
    words = [axes.get_ylabel() for axes in shown.axes]
    assert "80 cores in 64 rows" in words
    assert "share of busy cores" in words


def test_no_figure_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert figure.main([str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "Expected the folder of a run that has ended" in line
    Trace(None, START).close(tmp_path / "summary.json", ended=START + 1)
    (tmp_path / "matplotlib.py").write_text("raise ImportError")
    command = [sys.executable, "-m", "snakemake_executor_plugin_worksteal.figure", tmp_path]
    paths = os.pathsep.join([str(tmp_path), str(Path(figure.__file__).parents[1])])
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == ["The figure needs matplotlib, which is not installed: pip install matplotlib"]
