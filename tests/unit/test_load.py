"""The figure of the load: its numbers are the pools' own."""

from __future__ import annotations

import json
from pathlib import Path

from hedflow.figures.load import draw_load, pools_folder, read_pools, said


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


def test_the_figure_is_drawn_of_none_and_of_many(tmp_path: Path):
    for count in (0, 1, 6):
        draw_load([pool(float(number)) for number in range(count)], tmp_path / f"{count}.png")
    sizes = [(tmp_path / f"{count}.png").read_bytes()[16:24] for count in (0, 1, 6)]
    assert sizes[0] == sizes[1] != sizes[2]
