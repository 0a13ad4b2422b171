"""How fast this machine trains: by the records of finished runs, or by a short measurement with the real bundle.

What was measured is kept in `results/speed.json`, by machine, settings, bundle and training code: a second look is
instant, and a number of another machine or of older code is never used.
"""

from __future__ import annotations

import functools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hedflow.bundle import Bundle
from hedflow.config import Split, Training, parse_model
from hedflow.files import digest, read_json, write_json
from hedflow.loss_kinds import cost_of
from hedflow.machine import Machine
from hedflow.models import code_digest_of, find
from hedflow.models.settings import ModelSettings
from hedflow.splits import Rows, make_rows

SPEED_FILE = "speed.json"
# Settings of the training that decide how long it goes on, or what it learns, not how fast it goes.
NOT_SPEED = (
    *("epochs", "learning_rate", "warmup_epochs", "plateau_patience", "plateau_factor", "patience", "monitor"),
    *("align", "checkpoints"),
)
# A measurement is long enough when its last step took this much more than its first, seconds.
LONG_ENOUGH = 1.0
GROWTH = 4
# Parts of a split whose sizes are averaged: some hold out a drug with few rows, some one with many.
SAMPLED_PARTS = 5


@dataclass(frozen=True)
class Speed:
    """How long runs of one kind take on one machine, and how large they are.

    row: seconds a training row, its share of the validation included. test_row: seconds a predicted test row.
    start: seconds before and after the epochs. Of runs that are trained together each has its share of the time.
    train, test: rows of a part, the mean over the split's parts.
    epoch_bytes: what an epoch adds to a run's record. busy: how many times as fast the machine would have been without
    what else it did meanwhile.
    """

    row: float
    test_row: float
    start: float
    train: float
    test: float
    parameters: int
    epoch_bytes: float
    device: str
    finished: int  # runs whose records it comes from; 0: measured for its own sake
    at: float  # when, seconds since 1970
    busy: float = 1.0

    @property
    def rows_per_second(self) -> float:
        """Training rows a second, the validation's time included."""
        return 1 / self.row if self.row > 0 else float("inf")

    def seconds(self, spec: dict[str, Any], epochs: float) -> float:
        """Time of a run of so many epochs."""
        limit = spec["training"]["epoch_rows"] if has_epochs(spec) else None
        return self.start + epochs * min(self.train, limit or self.train) * self.row + self.test * self.test_row


def has_epochs(spec: dict[str, Any]) -> bool:
    """Whether a run is a network's, trained in epochs; another model trains itself, in one go."""
    return find(spec["model"]["kind"]).network


def kind_of(spec: dict[str, Any]) -> str:
    """Key of the runs that go at one speed and are of one size: model and its code, loss, batch, device, split, ...

    Losses that go row by row cost nothing beside the network, and are of one speed.
    """
    training = {key: value for key, value in spec["training"].items() if key not in NOT_SPEED}
    return digest(
        spec["model"],
        cost_of(spec["loss"]),
        training,
        spec["split"],
        _code_of(json.dumps(spec["model"], sort_keys=True)),
    )[:16]


@functools.cache
def _code_of(model: str) -> str:
    return code_digest_of(parse_model(json.loads(model)))


def speed_of_records(records: Sequence[dict[str, Any]]) -> Speed | None:
    """The speed that finished runs of one kind had, medians; None without a run that was trained to its end."""
    records = [record for record in records if record["status"] == "trained" and record["rows_per_second"]]
    if not records:
        return None

    def middle(value: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(map(value, records))

    return Speed(
        row=1 / middle(lambda r: r["rows_per_second"]),
        test_row=0.0,
        start=middle(lambda r: r["seconds"]["load"] + r["seconds"]["predict"]),
        train=statistics.fmean(r["rows"]["train"] for r in records),
        test=statistics.fmean(r["rows"]["test"] for r in records),
        parameters=round(middle(lambda r: r["parameters"])),
        epoch_bytes=middle(lambda r: json_bytes(r["history"]) / max(1, len(r["history"]))),
        device=records[-1]["device"],
        finished=len(records),
        at=time.time(),
    )


def json_bytes(value: Any) -> int:
    """Size of a value as it is written in a record."""
    return len(json.dumps(value, indent=1))


class Kept:
    """`results/speed.json`: what was measured on this machine with this bundle."""

    def __init__(self, results: str | Path, machine: Machine, bundle_digest: str) -> None:
        self.path = Path(results) / SPEED_FILE
        place = asdict(replace(machine, cores=0, memory_mb=0, devices=0))
        self.key = digest(place, bundle_digest)[:16]
        self.machine = machine

    def read(self) -> dict[str, Speed]:
        """Speeds by kind of run."""
        return {kind: Speed(**speed) for kind, speed in self._all().get(self.key, {}).get("speeds", {}).items()}

    def add(self, kind: str, speed: Speed) -> None:
        """Keep one more; what this machine had with another bundle is dropped."""
        every, mine = self._all(), {k: asdict(v) for k, v in self.read().items()}
        others = {key: entry for key, entry in every.items() if entry["host"] != self.machine.host}
        entry = {"host": self.machine.host, "cpu": self.machine.cpu, "speeds": {**mine, kind: asdict(speed)}}
        write_json(self.path, {**others, self.key: entry})

    def _all(self) -> dict[str, Any]:
        return dict(read_json(self.path)) if self.path.is_file() else {}


def measure(bundle: Bundle, specs: Sequence[dict[str, Any]]) -> Speed:
    """Train some batches of one kind of run, a network's, with the real bundle, in some seconds.

    The time of a few more batches, not of the first ones, gives the speed: starting costs what it costs once. All
    training happens in this process, and nothing of it is kept. A model that trains itself has no batches to try.

    Args:
        specs: of runs of one kind; the first `runs_per_job` of them are trained, some more are asked for their sizes.
    """
    import torch

    training = Training(**specs[0]["training"])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(training.threads)
        begun = time.perf_counter()
        jobs = [(spec, _rows(spec, bundle)) for spec in specs[: training.runs_per_job]]
        load = (time.perf_counter() - begun) / len(jobs)
        labels = list({spec["label"]: spec for spec in specs}.values())
        sizes = [_rows(spec, bundle) for spec in labels[:: -(-len(labels) // SAMPLED_PARTS)]]
        speed = _Measurement(bundle, jobs, training).speed()
        train, test = (statistics.fmean(len(getattr(part, name)) for part in sizes) for name in ("train", "test"))
        return replace(speed, start=speed.start + load, train=train, test=test)
    finally:
        torch.set_num_threads(threads)


def _rows(spec: dict[str, Any], bundle: Bundle) -> Rows:
    return make_rows(Split(**spec["split"]), spec["label"], bundle)


class _Measurement:
    """Trainings of some runs together, each with more of an epoch than the last, until the difference is long enough.

    All times are a run's share.
    """

    def __init__(self, bundle: Bundle, jobs: Sequence[tuple[dict[str, Any], Rows]], training: Training) -> None:
        model = parse_model(jobs[0][0]["model"])
        assert isinstance(model, ModelSettings)  # as every network's are
        self.bundle, self.jobs, self.training, self.model = bundle, jobs, training, model
        rows = min(len(rows.train) for _, rows in jobs)
        self.epoch = min(rows, training.epoch_rows or rows)

    def speed(self) -> Speed:
        """Seconds a row, of a start, and a test row."""
        first = min(self.training.batch_size, self.epoch)
        self._seconds(first, 1)  # what only a process's first training pays
        begin, cpu = self._seconds(first, 1), -self.cpu
        drawn, epochs, seconds = first, 1, begin
        while seconds - begin < LONG_ENOUGH / len(self.jobs) and (drawn < self.epoch or epochs < self.training.epochs):
            if drawn < self.epoch:
                drawn = min(GROWTH * drawn, self.epoch)
            else:
                epochs = min(GROWTH * epochs, self.training.epochs)
            seconds = self._seconds(drawn, epochs)
        cpu += self.cpu
        more = drawn * epochs - first
        row = max(seconds - begin, 0.0) / more if more else begin / first
        history = self.trained.history
        return Speed(
            row=row,
            test_row=self._test_row(),
            start=max(begin - first * row, 0.0),
            train=self.epoch,
            test=len(self.jobs[0][1].test),
            parameters=self.trained.parameters,
            epoch_bytes=json_bytes(history) / len(history),
            device=self.trained.device.type,
            finished=0,
            at=time.time(),
            busy=self._busy(seconds - begin, cpu),
        )

    def _busy(self, wall: float, cpu: float) -> float:
        """How much one CPU thread waited for others; of more threads, and on a GPU, it cannot be told."""
        told = self.training.threads == 1 and self.trained.device.type == "cpu" and cpu > 0
        return max(1.0, wall / cpu) if told else 1.0

    def _seconds(self, drawn: int, epochs: int) -> float:
        """Time of a training of `drawn` rows an epoch, with its share of the validation."""
        from hedflow.training.fit import Job, fit_stack
        from hedflow.training.inputs import make_inputs

        changes = {"epochs": epochs, "epoch_rows": drawn, "patience": epochs + 1, "validation_rows": None}
        training = self.training.model_copy(update=changes)
        begun, cpu = time.perf_counter(), time.process_time()
        jobs = []
        for number, (spec, rows) in enumerate(self.jobs):
            validated = min(len(rows.validation), self.training.validation_rows or len(rows.validation))
            share = max(1, round(validated * drawn / self.epoch))
            some = Rows(rows.train, rows.validation[:share], rows.test)
            inputs = make_inputs(self.bundle, some, self.model, spec.get("weights"))
            jobs.append(Job(f"run {number}", some, inputs, spec["alpha"], spec["seed"]))
        self.trained = fit_stack(jobs, self.model, training, spec["loss"])[0]
        self.cpu = (time.process_time() - cpu) / len(jobs)
        return (time.perf_counter() - begun) / len(jobs)

    def _test_row(self) -> float:
        from hedflow.training.fit import PREDICT_ROWS

        some = self.jobs[0][1].test[:PREDICT_ROWS]
        begun = time.perf_counter()
        self.trained.predict(some)
        return (time.perf_counter() - begun) / len(some)


def described(spec: dict[str, Any]) -> str:
    """A kind of run in words, for the line that says it is being measured."""
    training = spec["training"]
    threads = f"{training['threads']} thread{'s' if training['threads'] > 1 else ''}"
    return f"batches of {training['batch_size']:,}, {threads}, device {training['device']}"


def specs_of(plan: Any) -> list[dict[str, Any]]:
    """The specs of a plan's runs."""
    return [json.loads(spec) for spec in plan["spec"]]
