"""Estimates of a plan: the laws of their arithmetic, and real runs beside them."""

import dataclasses
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedflow.config import Training, parse_config
from hedflow.estimate import (
    Estimate,
    Part,
    Span,
    _part,
    checkpoint_bytes,
    epochs_of,
    estimate,
    finished_runs,
    look,
    makespan,
)
from hedflow.estimate_words import range_said, said, size_said, span_said, time_said
from hedflow.files import read_json, write_parquet
from hedflow.machine import Machine, this_machine
from hedflow.plan import make_plan
from hedflow.speed import SPEED_FILE, Kept, Speed, kind_of, measure, specs_of
from hedflow.training import train_run

SETTINGS = {
    "models": {"m": {"width": 16, "tower_depth": 1, "head_depth": 1, "drug_features": ["fingerprints"]}},
    "experiments": {
        "e": {
            "models": ["m"],
            "split": {"folds": 3},
            "losses": [{"name": "mse"}, {"name": "mae_poly", "alpha": [2]}],
            "training": {"device": "cpu", "epochs": 4, "batch_size": 256, "warmup_epochs": 1, "patience": 1},
        }
    },
}
MACHINE = Machine("here", "a processor", 4, 100_000)
SPEED = Speed(
    row=1e-4,
    test_row=1e-5,
    start=0.5,
    train=2000,
    test=1000,
    parameters=1,
    epoch_bytes=100,
    device="cpu",
    finished=0,
    at=0,
)


def plan_of(bundle, **experiment):
    settings = {**SETTINGS, "experiments": {"e": {**SETTINGS["experiments"]["e"], **experiment}}}
    return make_plan(parse_config(settings), "e", bundle)


def train(bundle, folder, plan, run):
    """Train a run of a plan where the workflow would."""
    write_parquet(folder / "e" / "plan.parquet", plan)
    files = [folder / "e" / "runs" / run / name for name in ("predictions.parquet", "run.json")]
    train_run(bundle.folder, folder / "e" / "plan.parquet", run, *files)
    return read_json(files[1])


@pytest.fixture(scope="module")
def begun(world_bundle, tmp_path_factory):
    """A plan of six runs of which two are finished: results folder, plan, records."""
    folder, plan = tmp_path_factory.mktemp("begun"), plan_of(world_bundle)
    return folder, plan, [train(world_bundle, folder, plan, run) for run in plan["run"].iloc[[0, 4]]]


SECONDS = Span(10, 20)


def some_part(world_bundle, runs, seconds=SECONDS, memory_mb=1000, **training):
    spec = specs_of(plan_of(world_bundle))[0]
    spec = {**spec, "training": {**spec["training"], **training}}
    return Part("m", (spec,) * runs, SPEED, Span(1, 4), seconds, memory_mb, 50.0)


# --- arithmetic

durations = st.lists(st.tuples(st.floats(0.1, 1e4), st.integers(1, 20)), min_size=1, max_size=8)


@given(durations, st.integers(1, 12))
def test_the_makespan_lies_between_its_bounds_and_falls_with_slots(tasks, slots):
    work, longest = sum(seconds * runs for seconds, runs in tasks), max(seconds for seconds, _ in tasks)
    found = makespan(tasks, slots)
    assert found >= max(longest, work / slots) * (1 - 1e-9)
    assert found <= (work / slots + longest) * (1 + 1e-9)  # Graham 1966
    assert makespan(tasks, slots + 1) <= found * (1 + 1e-9)
    assert makespan(tasks, 1) == pytest.approx(work)


@given(
    epochs=st.integers(1, 300),
    warmup=st.integers(0, 20),
    patience=st.integers(1, 40),
    had=st.lists(st.integers(1, 300), max_size=40),
)
def test_epochs_lie_between_what_patience_asks_for_and_the_limit(epochs, warmup, patience, had):
    training = Training(epochs=epochs, warmup_epochs=warmup, patience=patience).model_dump()
    spec = {"model": {"kind": "uno"}, "training": training}
    had = [min(number, epochs) for number in had]
    first, found = epochs_of(spec), epochs_of(spec, had)
    assert 1 <= first.least <= first.most == epochs
    assert first.likely is None
    if had:
        assert found.least <= found.likely <= found.most <= epochs
        assert found.likely == pytest.approx(sum(had) / len(had))
        assert found.most - found.least <= epochs
        again = epochs_of(spec, had * 4)
        assert again.most - again.least == pytest.approx((found.most - found.least) / 2)


def test_the_earliest_end_by_patience_is_what_a_training_does(begun):
    """A run that gets no better after the warm-up ends where the estimate says it does at the earliest."""
    spec = begun[2][0]["spec"]
    training, least = spec["training"], epochs_of(spec).least
    assert least == 3  # warm-up, the best one, and one without progress
    for record in begun[2]:
        assert least <= len(record["history"]) <= training["epochs"]
        best = record["best"]["epoch"]
        assert len(record["history"]) in (best + 1 + training["patience"], training["epochs"])


def test_work_adds_up_over_runs_and_more_cores_are_not_slower(world_bundle):
    one, two = some_part(world_bundle, 3), some_part(world_bundle, 5, Span(2, 30))

    def total(cores, *parts):
        return Estimate("e", 8, 0, parts, dataclasses.replace(MACHINE, cores=cores))

    both, alone = total(1, one, two), [total(1, one), total(1, two)]
    for name in ("least", "most"):
        assert getattr(both.wall, name) == pytest.approx(sum(getattr(part.wall, name) for part in alone))
        assert getattr(both.core_seconds, name) == pytest.approx(getattr(both.wall, name))
    assert both.lasting == sum(part.lasting for part in alone) == 8 * 50
    walls = [total(cores, one, two).wall for cores in range(1, 12)]
    for slower, faster in itertools.pairwise(walls):
        assert faster.least <= slower.least
        assert faster.most <= slower.most
    assert all(wall.least <= wall.most for wall in walls)
    assert walls[-1].most == 30  # all at once: as long as the longest


def test_memory_and_threads_bound_what_goes_at_once(world_bundle):
    def at_once(runs=100, memory_mb=1000, threads=1, has_mb=100_000):
        part = some_part(world_bundle, runs, memory_mb=memory_mb, threads=threads)
        return Estimate("e", runs, 0, (part,), dataclasses.replace(MACHINE, memory_mb=has_mb))

    assert at_once().at_once == 4
    assert at_once(threads=2).at_once == 2
    assert at_once(threads=8).at_once == 1  # Snakemake scales a job down to the cores that there are
    assert at_once(memory_mb=40_000).at_once == 2
    assert at_once(memory_mb=40_000).memory_mb == 80_000
    assert at_once(runs=3).memory_mb == 3000
    assert at_once(memory_mb=40_000, has_mb=0).at_once == 4  # where the machine's memory is not known


def test_jobs_on_a_device_go_at_once_only_on_other_devices(world_bundle):
    """The speed is that of one job alone on the device; more cores do not make it more."""
    part = dataclasses.replace(
        some_part(world_bundle, 8, Span(10, 10)), speed=dataclasses.replace(SPEED, device="cuda")
    )
    for devices, wall in ((0, 80), (1, 80), (2, 40)):
        machine = dataclasses.replace(MACHINE, cores=16, devices=devices)
        whole = Estimate("e", 8, 0, (part,), machine)
        assert whole.wall.most == wall
        assert (whole.core_seconds.most, whole.device_seconds.most) == (0, 80)
        assert "0.022 device-hours" in said(whole, "8 runs")
        assert "core-hours" not in said(whole, "8 runs")


def test_the_devices_of_a_mask_are_counted(monkeypatch):
    for mask, count in (("0,1,3", 3), ("", 0), ("-1", 0), ("GPU-12ab", 1)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
        assert this_machine().devices == count


def test_a_loss_that_compares_a_batchs_rows_takes_memory(world_bundle, tmp_path):
    """Its (batch x batch) matrices are more than the small network."""
    training = {**SETTINGS["experiments"]["e"]["training"], "batch_size": 4096}
    losses = [{"name": "mse"}, {"name": "balanced_mse", "alpha": [0.1]}]
    plan = plan_of(world_bundle, training=training, losses=losses)
    manifest = world_bundle.manifest
    plain, square = look(plan, tmp_path, MACHINE, manifest, {}).parts
    assert square.memory_mb - plain.memory_mb == pytest.approx(6 * 4 * 4096**2 / 1e6, abs=1)


# --- real runs


def test_finished_runs_are_not_counted(begun, world_bundle):
    folder, plan, records = begun
    done = finished_runs(plan, folder / "e" / "runs")
    assert list(plan["run"][done]) == [record["run"] for record in records]
    # Another plan for the same run: it is to be trained again.
    other = plan.assign(digest=["0" * 16, *plan["digest"].iloc[1:]])
    assert finished_runs(other, folder / "e" / "runs").sum() == 1
    found = look(plan, folder, this_machine(), world_bundle.manifest, {})
    assert (found.runs, found.finished) == (6, 2)
    assert sum(part.runs for part in found.parts) == 4
    labels = [spec["label"] for part in found.parts for spec in part.specs]
    assert sorted(labels) == ["f0", "f1", "f2", "f2"]


def test_the_speed_is_that_of_the_finished_runs(begun, world_bundle):
    folder, plan, records = begun
    machine = this_machine()
    (part,) = look(plan, folder, machine, world_bundle.manifest, {}).parts
    speeds = sorted(record["rows_per_second"] for record in records)
    assert speeds[0] <= part.speed.rows_per_second <= speeds[1]
    assert part.speed.finished == 2
    assert part.epochs.likely == pytest.approx(sum(len(record["history"]) for record in records) / 2)
    had = sum(sum(record["seconds"].values()) for record in records) / 2
    assert part.seconds.least <= part.seconds.likely <= part.seconds.most
    assert part.seconds.likely == pytest.approx(had, rel=0.5)
    sizes = [sum(f.stat().st_size for f in (folder / "e" / "runs" / r["run"]).iterdir()) for r in records]
    assert part.lasting == pytest.approx(sum(sizes) / 2)


def test_records_of_another_machine_say_how_long_runs_go_on_but_not_how_fast(begun, world_bundle):
    folder, plan, _ = begun
    elsewhere = dataclasses.replace(this_machine(), host="elsewhere")
    (part,) = look(plan, folder, elsewhere, world_bundle.manifest, {}).parts
    assert part.speed is None
    assert part.seconds is None
    assert part.epochs.likely is not None


def test_a_measurement_is_of_the_real_bundle_and_kept(world_bundle, tmp_path, capsys):
    plan, machine = plan_of(world_bundle), this_machine()
    unknown = estimate(plan, tmp_path, machine, world_bundle)
    assert unknown.wall is None
    assert not list(tmp_path.iterdir())
    assert "`hedflow plan` measures" in said(unknown, "6 runs")
    measured = estimate(plan, tmp_path, machine, world_bundle, measuring=True)
    assert capsys.readouterr().err.count("measuring") == 1  # both losses go at one speed
    assert 0 < measured.wall.least <= measured.wall.most
    assert [path.name for path in tmp_path.iterdir()] == [SPEED_FILE]
    before = (tmp_path / SPEED_FILE).read_bytes()
    assert estimate(plan, tmp_path, machine, world_bundle, measuring=True).wall == measured.wall
    assert (tmp_path / SPEED_FILE).read_bytes() == before
    # Neither another machine nor another bundle has that speed.
    assert estimate(plan, tmp_path, dataclasses.replace(machine, host="other"), world_bundle).wall is None
    assert not Kept(tmp_path, machine, "another bundle").read()
    # What it says of a run is what a run's record says.
    run = plan["run"].iloc[0]
    record = train(world_bundle, tmp_path, plan, run)
    speed = measured.parts[0].speed
    assert speed.parameters == record["parameters"]
    assert speed.test == pytest.approx(len(world_bundle.response) / 3)  # the mean over the folds
    files = sum(f.stat().st_size for f in (tmp_path / "e" / "runs" / run).iterdir())
    assert measured.parts[0].lasting == pytest.approx(files, rel=0.4)


def test_runs_of_one_speed_are_told_by_what_decides_it(world_bundle):
    spec = specs_of(plan_of(world_bundle))[0]
    others = [
        {**spec, "training": {**spec["training"], "batch_size": 128}},
        {**spec, "training": {**spec["training"], "epoch_rows": 100}},
        {**spec, "training": {**spec["training"], "threads": 2}},
        {**spec, "model": {**spec["model"], "width": 17}},
        {**spec, "loss": "balanced_mse", "alpha": 0.1},  # it compares all rows of a batch
    ]
    assert len({kind_of(other) for other in (spec, *others)}) == 6
    same = [{**spec, "seed": 9}, {**spec, "loss": "mae"}, {**spec, "training": {**spec["training"], "epochs": 99}}]
    assert {kind_of(other) for other in same} == {kind_of(spec)}


def test_a_measurement_leaves_the_threads_as_they_were(world_bundle):
    import torch

    specs = specs_of(plan_of(world_bundle, training={**SETTINGS["experiments"]["e"]["training"], "threads": 2}))
    before = torch.get_num_threads()
    measured = measure(world_bundle, specs[:1])
    assert torch.get_num_threads() == before
    assert measured.row + measured.start > 0
    assert measured.start > 0
    assert measured.busy == 1  # of two threads it cannot be told


def test_a_busy_machine_widens_the_range_downwards(world_bundle):
    spec = specs_of(plan_of(world_bundle))[0]
    alone, busy = (
        _part("m", (spec,), [], dataclasses.replace(SPEED, busy=b), world_bundle.manifest) for b in (1.0, 3.0)
    )
    assert busy.seconds.least == pytest.approx(alone.seconds.least / 3)
    assert busy.seconds.most == alone.seconds.most
    assert "busy: 3.0 times as slow as alone" in said(Estimate("e", 1, 0, (busy,), MACHINE), "1 run")
    assert "busy" not in said(Estimate("e", 1, 0, (alone,), MACHINE), "1 run")


# --- words


def test_the_words_of_an_estimate(world_bundle):
    part = some_part(world_bundle, 10, Span(60, 120))
    whole = Estimate("e", 12, 2, (part,), MACHINE)
    assert said(whole, "12 runs").splitlines()[:4] == [
        "e: 12 runs; 2 finished, 10 to do",
        "  time    3 to 6 min on 4 cores, 4 jobs at once; 0.17 to 0.33 core-hours",
        "  memory  1 GB a job, 4 GB together",
        "  disk    0.5 kB that the runs leave",
    ]
    assert said(Estimate("e", 12, 12, (), MACHINE), "12 runs") == "e: 12 runs; all of them are finished"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0.4 s"), (89, "89 s"), (90, "1.5 min"), (3600, "60 min"), (36_000, "10 h"), (1e6, "12 days")],
)
def test_a_time_in_words(seconds, words):
    assert time_said(seconds) == words


def test_ranges_in_words():
    assert span_said(Span(80, 100)) == "80 s to 1.7 min"
    assert span_said(Span(120, 300, 240)) == "about 4 min (2 to 5 min)"
    assert span_said(Span(120, 120, 120)) == "2 min"
    assert range_said(7, 15) == "7 to 15"
    assert range_said(7, 7) == "7"
    assert [size_said(size) for size in (2e3, 3.14e6, 2e9, 5e12)] == ["2 kB", "3.1 MB", "2 GB", "5 TB"]


def test_the_machine_has_what_python_may_use():
    machine = this_machine()
    assert machine.cores >= 1
    assert this_machine(1).cores == 1
    assert this_machine(10**6).cores == machine.cores
    assert machine.memory_mb >= 0
    assert json.loads(json.dumps(dataclasses.asdict(machine))) == dataclasses.asdict(machine)


def test_runs_that_are_trained_together_are_fewer_jobs_of_the_same_work(world_bundle):
    alone, together = some_part(world_bundle, 10), some_part(world_bundle, 10, runs_per_job=4)
    one, other = (Estimate("e", 10, 0, (part,), dataclasses.replace(MACHINE, cores=1)) for part in (alone, together))
    assert (alone.jobs, together.jobs) == (10, 3)
    assert one.wall == other.wall
    assert one.core_seconds == other.core_seconds
    assert Estimate("e", 10, 0, (together,), MACHINE).at_once == 3
    assert alone.job_mb < together.job_mb < 4 * alone.job_mb


def test_checkpoints_take_room_while_runs_go(world_bundle):
    def room(seconds, **settings):
        spec = some_part(world_bundle, 1).specs[0]
        settings = {**spec["training"]["checkpoints"], **settings}
        spec = {**spec, "training": {**spec["training"], "checkpoints": settings}}
        return checkpoint_bytes(spec, dataclasses.replace(SPEED, parameters=1000), Span(0, seconds))

    assert room(100, minutes=5) == (0, 0)  # ended before the first is due
    assert room(1000, minutes=5, keep=2) == (3 * 16_000, 0)
    assert room(1000, minutes=5, keep=2, when_done="best") == (3 * 16_000, 4000)
    assert room(1000, minutes=5, keep=2, when_done="keep") == (3 * 16_000, 3 * 16_000 + 4000)
    assert room(1000, restart="off", when_done="keep") == (0, 0)
