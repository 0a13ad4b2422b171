"""The figure of the load: its numbers are the pools' own."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hedflow.figures import load
from hedflow.figures.load import SHOWN, draw_load, pools_folder, read_pools, said


def pool(started: float, rule: str = "train") -> dict:
    """A summary as the executor writes it: two nodes, a pool of 100 s."""
    return {
        "started": started, "wall_s": 100.0, "nodes": 2, "cores": 4, "utilisation": 0.755,
        "version": 2, "ramp_up_s": 3.0, "tail_s": 2000.0,
        "tasks": {"total": 1200}, "steals": {"times": 7, "tasks": 30}, "rules": {rule: {}},
        "busy_cores": {"bin_s": 50.0, "mean": [4, 2]}, "running_tasks": {"bin_s": 50.0, "mean": [2, 1]},
        "phases": {"staging": {"spans": [[0.5, 1.5], [50.0, 50.1]], "wall_s": 1.1, "read_bytes": 2_500_000,
                               "written_bytes": 5_000_000, "nodes": 2}},
    }  # fmt: skip


def test_pools_that_trained_are_found_in_order(tmp_path, monkeypatch):
    for name, content in (
        ("b", pool(2.0)),
        ("a", pool(3.0, "train_together")),
        ("c", pool(1.0, "retrieve")),
        ("old", {**pool(0.0), "version": 1}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps(content))
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "summary.json").write_text("{")
    assert [each["started"] for each in read_pools(tmp_path)] == [2.0, 3.0]
    assert read_pools(tmp_path / "none") == []
    monkeypatch.setenv("WORKSTEAL_FOLDER", str(tmp_path / "b"))
    assert pools_folder() == tmp_path


def test_the_numbers_are_said():
    first, second = said(pool(0.0)).splitlines()
    assert first.endswith("1,200 jobs on 2 nodes (4 cores), 76% of core time busy over 100 s")
    assert second == (
        "7 steals (30 jobs moved); ramp-up 3 s; tail 33 min; staging 1.1 s: 2.5 MB read, 5.0 MB written on 2 nodes"
    )
    bare = {**pool(0.0), "phases": {}, "tail_s": None, "ramp_up_s": None}
    assert said(bare).splitlines()[1] == "7 steals (30 jobs moved); never all cores busy"


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Draws pools; the figure itself, which else is a file only."""
    figures: list[Figure] = []
    own = load.figure

    @contextmanager
    def kept(*given: Any, **named: Any):
        with own(*given, **named) as figure:
            figures.append(figure)
            yield figure

    monkeypatch.setattr(load, "figure", kept)

    def draw(pools: list[dict]) -> Figure:
        draw_load(pools, tmp_path / "load.png")
        assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")
        return figures[-1]

    return draw


def parts(axis: Axes) -> dict[str, Any]:
    """What is drawn, by its name in the legend."""
    return dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))


def named(figure: Figure) -> set[str]:
    """What the figure's legend has names for."""
    return {text.get_text() for legend in figure.legends for text in legend.get_texts()}


def test_what_a_pool_did_is_drawn(drawn):
    figure = drawn([{**pool(0.0), "tail_s": 20.0}])
    (axis,) = figure.axes
    shown = parts(axis)
    assert set(shown) == named(figure) == {"busy cores", "running jobs", "cores", "ramp-up", "tail", "staging"}
    for name, heights in (("busy cores", [4, 2]), ("running jobs", [2, 1])):
        values, edges, _ = shown[name].get_data()
        assert (list(values), list(edges)) == (heights, [0, 50, 100])
    assert list(shown["cores"].get_ydata()) == [4, 4]
    for name, span in (("ramp-up", [0, 3]), ("tail", [80, 100])):
        assert list(shown[name].get_window_extent().transformed(axis.transData.inverted()).intervalx) == approx(span)
    assert [list(path.get_extents().intervalx) for path in shown["staging"].get_paths()] == [[0.5, 1.5], [50, 50.1]]
    assert axis.get_title(loc="left") == said({**pool(0.0), "tail_s": 20.0})
    assert axis.get_xlim() == (0, 100)
    assert axis.get_ylim()[1] > 4


def approx(values: list[float]) -> Any:
    """Equal but for the rounding of a place in the figure."""
    return pytest.approx(values, abs=1e-6)


def test_what_a_pool_did_not_do_is_not_drawn(drawn):
    figure = drawn([{**pool(0.0), "phases": {}, "tail_s": None, "ramp_up_s": None}])
    assert "staging" not in named(figure)
    spans = [parts(figure.axes[0])[name].get_width() for name in ("ramp-up", "tail")]
    assert spans == [0, 0]


def test_the_newest_pools_are_drawn_each_in_a_panel(drawn):
    pools = [pool(86400.0 * number) for number in range(6)]
    figure = drawn(pools)
    assert [axis.get_title(loc="left") for axis in figure.axes] == [said(each) for each in pools[-SHOWN:]]
    assert figure.get_suptitle() == "The last 4 of 6 pools"
    assert len(named(figure)) == 6, "one legend, each thing once"


def test_no_pool_is_said(drawn):
    figure = drawn([])
    assert [text.get_text() for text in figure.texts] == ["No pool of the executor worksteal has trained these runs."]


def test_the_figure_is_drawn_of_none_and_of_many(tmp_path: Path):
    for count in (0, 1, 6):
        draw_load([pool(float(number)) for number in range(count)], tmp_path / f"{count}.png")
    sizes = [(tmp_path / f"{count}.png").read_bytes()[16:24] for count in (0, 1, 6)]
    assert sizes[0] == sizes[1] != sizes[2]
