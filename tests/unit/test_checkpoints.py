"""Checkpoints: a run that was stopped goes on as if it had not been, whatever is damaged, full or pruned."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from hedflow import HedflowError
from hedflow.config import Checkpoints, Model, Split, Training, parse_config
from hedflow.files import read_json, write_parquet
from hedflow.plan import make_plan
from hedflow.splits import labels, make_rows
from hedflow.training.checkpoints import WEIGHTS, CheckpointFolder, chosen
from hedflow.training.fit import Job, fit_stack
from hedflow.training.inputs import make_inputs
from hedflow.training.module import DrugResponse, Interrupted
from hedflow.training.run import GO_ON_LATER, train_runs

SMALL = Model(width=16, tower_depth=1, head_depth=2, dropout=0.2, drug_features=["fingerprints"])
ALWAYS = {"minutes": 0}
QUICK = {"device": "cpu", "epochs": 5, "batch_size": 256, "learning_rate": 0.003, "warmup_epochs": 1}
DEADLINE_S = 120


def training(**checkpoints):
    return Training(**QUICK, checkpoints={**ALWAYS, **checkpoints})


def jobs_of(bundle, folder, count=1):
    split = Split(kind="leave_one_drug_out")
    made = []
    for run, label in enumerate(labels(split, bundle)[:count]):
        rows = make_rows(split, label, bundle)
        made.append(
            Job(f"r{run}", rows, make_inputs(bundle, rows, SMALL), None, 10 + run, "d1", {}, folder / f"r{run}")
        )
    return made


def stop_after(monkeypatch, batches, runs=None):
    """SIGTERM during a certain batch of the next training; with `runs`, of those when only so many are left."""
    seen = iter(range(10_000))
    step = DrugResponse.step

    def counted(self, *arguments):
        if (runs is None or len(self.runs) <= runs) and next(seen) == batches:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self, *arguments)

    monkeypatch.setattr(DrugResponse, "step", counted)


def same(a, b):
    """Two trained runs, bit for bit."""
    assert a.history == b.history
    assert a.state.best_epoch == b.state.best_epoch
    left, right = a.network.state_dict(), b.network.state_dict()
    assert all(torch.equal(left[name], right[name]) for name in left)


# --- resume


@pytest.mark.parametrize("stops", [[0], [5], [14, 30], [13, 1]])  # 14 batches an epoch
def test_a_run_that_goes_on_is_the_uninterrupted_one_bit_for_bit(stops, world_bundle, tmp_path, monkeypatch):
    job = jobs_of(world_bundle, tmp_path)[0]
    assert -(-len(job.rows.train) // QUICK["batch_size"]) in range(10, 15)
    whole = fit_stack([Job(**{**vars(job), "folder": None})], SMALL, training(), "mse")[0]
    before = signal.getsignal(signal.SIGTERM)
    for batches in stops:
        with monkeypatch.context() as patch:
            stop_after(patch, batches)
            with pytest.raises(Interrupted):
                fit_stack([job], SMALL, training(), "mse")
        assert signal.getsignal(signal.SIGTERM) == before
    resumed = fit_stack([job], SMALL, training(), "mse")[0]
    same(resumed, whole)
    assert len(resumed.state.resumed) == 1
    assert job.folder.exists()  # until its result is written down
    resumed.finish()
    assert not job.folder.exists()


def test_runs_of_a_stack_go_on_each_from_its_own(world_bundle, tmp_path, monkeypatch):
    """One has lost its last checkpoint: it repeats what it lacks; the others do not."""
    jobs = jobs_of(world_bundle, tmp_path, 3)
    whole = fit_stack([Job(**{**vars(job), "folder": None}) for job in jobs], SMALL, training(), "mse")
    with monkeypatch.context() as patch:
        stop_after(patch, 40)
        with pytest.raises(Interrupted):
            fit_stack(jobs, SMALL, training(keep=9), "mse")
    last = sorted((tmp_path / "r1").glob("[0-9]*.pt"))[-1]
    last.write_bytes(last.read_bytes()[:-100])
    resumed = fit_stack(jobs, SMALL, training(), "mse")
    for a, b in zip(resumed, whole, strict=True):
        for ours, theirs in zip(a.history, b.history, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3)
    assert resumed[1].state.resumed[0] < resumed[0].state.resumed[0]
    assert "checksum" in resumed[1].notes[0]


# --- what is saved


def test_what_a_checkpoint_says(world_bundle, tmp_path):
    job = Job(**{**vars(jobs_of(world_bundle, tmp_path)[0]), "about": {"spec": {"a": 1}, "versions": {"torch": "x"}}})
    trained = fit_stack([job], SMALL, training(when_done="keep", keep=9), "mse")[0]
    trained.finish()
    facts = [read_json(path) for path in sorted(job.folder.glob("[0-9]*.json"))]
    assert [entry["epoch"] for entry in facts] == [1, 2, 3, 4]  # the last epoch is the run's end
    assert facts[-1]["history"] == trained.history[:4]
    assert facts[-1]["value"] == trained.history[3]["validation_balanced_mae"]
    assert {**facts[0], "spec": None}.keys() >= {
        "run",
        "digest",
        "sha256",
        "bytes",
        "step",
        "host",
        "saved",
        "versions",
    }
    assert facts[0]["spec"] == {"a": 1}
    steps = [entry["step"] for entry in facts]
    assert os.readlink(job.folder / "last.pt") == f"{steps[-1]:09d}.pt"
    best = min(facts, key=lambda entry: entry["value"])
    assert os.readlink(job.folder / "best.pt") == f"{best['step']:09d}.pt"
    weights = torch.load(job.folder / WEIGHTS, weights_only=True)
    assert all(torch.equal(weights[name], value) for name, value in trained.network.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ({"interval": 2, "keep": 9}, [2, 4]),
        ({"skip_epochs": 2, "keep": 9}, [3, 4]),
        ({"minutes": 5}, []),
        ({"restart": "off"}, []),
    ],
)
def test_when_a_run_saves(settings, epochs, world_bundle, tmp_path):
    job = jobs_of(world_bundle, tmp_path)[0]
    fit_stack([job], SMALL, training(**{"when_done": "keep", **settings}), "mse")
    assert [read_json(path)["epoch"] for path in sorted(job.folder.glob("[0-9]*.json"))] == epochs


def test_a_finished_run_keeps_its_best_weights_alone(world_bundle, tmp_path):
    job = jobs_of(world_bundle, tmp_path)[0]
    fit_stack([job], SMALL, training(when_done="best"), "mse")[0].finish()
    assert [path.name for path in job.folder.iterdir()] == [WEIGHTS]


def folder_of(path, digest="d", **settings):
    return CheckpointFolder(path, Checkpoints(**ALWAYS, **settings), "run", digest, {})


def state_at(step):
    return {
        "step": step,
        "epoch": step // 10,
        "batch": 0,
        "best_epoch": 0,
        "seconds": 1.0,
        "history": [],
        "weights": {"w": torch.full((3,), float(step))},
    }


def steps_in(path):
    return [int(entry.stem) for entry in sorted(path.glob("[0-9]*.json"))]


def test_the_best_and_the_last_are_always_kept(tmp_path):
    folder = folder_of(tmp_path, keep=1)
    for step, value in ((10, 0.3), (20, 0.1), (30, 0.2), (40, 0.4)):
        folder.save(state_at(step), value)
    assert steps_in(tmp_path) == [20, 40]
    assert sorted(path.name for path in tmp_path.glob("*.pt") if not path.is_symlink()) == [
        "000000020.pt",
        "000000040.pt",
    ]
    assert (tmp_path / "best.pt").resolve().name == "000000020.pt"


def test_which_checkpoints_are_kept():
    steps = list(range(10, 1010, 10))
    assert chosen(steps, 3, "newest") == {980, 990, 1000}
    spread = sorted(chosen(steps, 5, "spread"))
    assert spread[0] == 10
    assert spread[-1] == 1000
    gaps = np.diff(spread)
    assert (gaps[:-1] > 1.5 * gaps[1:]).all()
    assert chosen([1, 2], 5, "spread") == {1, 2}
    assert chosen([7], 1, "spread") == chosen([3, 7], 1, "spread") == {7}


# --- what goes wrong


@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone", "description"])
def test_a_damaged_checkpoint_is_passed_over_and_said(damage, tmp_path, capsys):
    folder = folder_of(tmp_path, keep=5)
    for step in (10, 20, 30):
        folder.save(state_at(step), 0.1)
    path = tmp_path / "000000030.pt"
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "gone":
        path.unlink()
    else:
        path.with_suffix(".json").write_text('{"step": 3')
    again = folder_of(tmp_path, keep=5)
    assert again.newest()["step"] == 20
    assert again.notes[0].startswith("checkpoint of step 30 is damaged (")
    assert "run: checkpoint of step 30 is damaged" in capsys.readouterr().err
    assert steps_in(tmp_path) == [10, 20]


def test_a_half_written_checkpoint_is_none(tmp_path):
    """Killed between the two files, or in the middle of one: the one before is the newest."""
    folder = folder_of(tmp_path)
    folder.save(state_at(10), 0.1)
    (tmp_path / "000000020.pt").write_bytes(b"half")
    (tmp_path / ".000000030.pt.x.pt").write_bytes(b"half")
    again = folder_of(tmp_path)
    assert again.newest()["step"] == 10
    assert again.notes == ["checkpoint of step 20 is half written; the one before it is used"]
    assert not (tmp_path / "000000020.pt").exists()


def test_a_checkpoint_of_another_digest_is_none_of_the_runs(tmp_path):
    folder_of(tmp_path, digest="old").save(state_at(10), 0.1)
    assert folder_of(tmp_path, digest="new").newest() is None
    assert steps_in(tmp_path) == []


def test_restart_required_and_off(tmp_path):
    with pytest.raises(HedflowError, match=r"restart is required, and .* has no sound checkpoint"):
        folder_of(tmp_path, restart="required").newest()
    folder_of(tmp_path).save(state_at(10), 0.1)
    assert folder_of(tmp_path, restart="required").newest()["step"] == 10
    off = folder_of(tmp_path, restart="off")
    assert off.newest() is None
    assert not off.save(state_at(20), 0.1)


FULL = """
import resource, sys, torch
sys.path[:0] = sys.argv[3:]
from pathlib import Path
from hedflow.config import Checkpoints
from hedflow.training.checkpoints import CheckpointFolder
folder = CheckpointFolder(Path(sys.argv[1]), Checkpoints(minutes=0), "run", "d", {})
state = {"step": 10, "epoch": 1, "batch": 0, "best_epoch": 0, "seconds": 1.0, "history": [], "w": torch.ones(100)}
assert folder.save(state, 0.1)
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
assert not folder.save({**state, "step": 20, "w": torch.ones(1_000_000)}, 0.1)
assert folder.newest()["step"] == 10
print(folder.notes)
"""


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    """A real one: the system refuses to write more than so many bytes to a file."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "c"), "100000", *sys.path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "checkpoint of step 20 could not be written (File too large)" in done.stdout
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "000000010.json",
        "000000010.pt",
        "best.pt",
        "last.pt",
    ]


def test_a_run_that_diverges_falls_back_to_its_best_weights(world_bundle, tmp_path):
    """With a rate at which it diverges and the half of which it does not."""
    job = jobs_of(world_bundle, tmp_path)[0]
    rates = [10.0**power for power in range(3, 39, 5)]

    def run(rate, rollback):
        changed = {**QUICK, "learning_rate": rate, "warmup_epochs": 0, "epochs": 4}
        return fit_stack([job], SMALL, Training(**changed, checkpoints={"rollback": rollback}), "mse")[0].state

    rate = next(rate for rate in rates if run(rate, 0).failure)
    again = run(rate, 3)
    assert again.rollbacks > 0
    assert again.rate == rate / 2**again.rollbacks
    assert again.failure is None or again.rollbacks == 3
    # Its epochs run out before one of them ends well: it has learnt nothing, and is no result.
    spent = run(1e38, 9)
    assert spent.rollbacks == 4
    assert "training diverged in epoch 3" in spent.failure


def test_the_record_of_a_run_that_fell_back(world_bundle, tmp_path):
    """Its history has a gap; what it says of the best epoch is that epoch's."""
    plan = plan_of(
        tmp_path, world_bundle, split={"folds": 3, "use_folds": [0]}, training={**QUICK, "checkpoints": {"rollback": 1}}
    )
    ends = DrugResponse.on_validation_epoch_end

    def diverges_once(self):
        if self.runs[0].epoch == 1 and not self.runs[0].rollbacks:
            self._losses.append((torch.tensor([float("nan")]), (1,)))
        ends(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DrugResponse, "on_validation_epoch_end", diverges_once)
        files = {plan["run"].item(): (tmp_path / "p.parquet", tmp_path / "run.json")}
        train_runs(world_bundle.folder, tmp_path / "plan.parquet", files)
    record = read_json(tmp_path / "run.json")
    assert (record["status"], record["rollbacks"]) == ("trained", 1)
    assert [epoch["epoch"] for epoch in record["history"]] == [0, 2, 3, 4]
    best = next(epoch for epoch in record["history"] if epoch["epoch"] == record["best"]["epoch"])
    assert record["best"]["validation_mae"] == best["validation_mae"]


def test_runs_of_a_stack_that_are_done_are_saved_too(world_bundle, tmp_path, monkeypatch):
    """They are not trained again with those that SIGTERM stopped."""
    jobs = jobs_of(world_bundle, tmp_path, 3)
    whole = fit_stack([Job(**{**vars(job), "folder": None}) for job in jobs], SMALL, impatient(), "mse")
    lengths = [len(one.history) for one in whole]
    assert min(lengths) < max(lengths)
    with monkeypatch.context() as patch:
        stop_after(patch, 1, runs=2)
        with pytest.raises(Interrupted) as stopped:
            fit_stack(jobs, SMALL, impatient(), "mse")
    assert stopped.value.saved
    resumed = fit_stack(jobs, SMALL, impatient(), "mse")
    for run, (a, b) in enumerate(zip(resumed, whole, strict=True)):
        assert len(a.history) == lengths[run]
        np.testing.assert_allclose(a.predict(jobs[run].rows.test), b.predict(jobs[run].rows.test), atol=1e-4)
    monkeypatch.setattr(DrugResponse, "step", lambda *_: pytest.fail("trained again"))
    fit_stack(jobs[lengths.index(min(lengths)) :][:1], SMALL, impatient(), "mse")


def impatient():
    changed = {"epochs": 30, "patience": 1, "learning_rate": 0.03}
    return Training(**{**QUICK, **changed}, checkpoints={"minutes": 60})


def test_a_run_that_was_saved_before_its_validation_goes_on_alone(world_bundle, tmp_path, monkeypatch):
    """In a stack the shorter run waits with no batch left while the longer one has some: then SIGTERM."""
    jobs = jobs_of(world_bundle, tmp_path, 2)
    short, long = (replace(job.rows, train=job.rows.train[:rows]) for job, rows in zip(jobs, (512, 1024), strict=True))
    jobs = [Job(**{**vars(job), "rows": rows}) for job, rows in zip(jobs, (short, long), strict=True)]
    whole = fit_stack([Job(**{**vars(jobs[0]), "folder": None})], SMALL, training(), "mse")[0]
    with monkeypatch.context() as patch:
        stop_after(patch, 2)  # of 4, where the short run has 2
        with pytest.raises(Interrupted):
            fit_stack(jobs, SMALL, training(), "mse")
    alone = fit_stack(jobs[:1], SMALL, training(), "mse")[0]
    assert alone.state.resumed == [2]
    assert len(alone.history) == len(whole.history)
    np.testing.assert_allclose(alone.predict(short.test), whole.predict(short.test), atol=1e-5)


def test_a_disk_that_takes_no_checkpoint_is_not_called_saved(world_bundle, tmp_path, monkeypatch):
    job = jobs_of(world_bundle, tmp_path)[0]
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Interrupted, match="not saved, so that it begins anew") as stopped:
            fit_stack([job], SMALL, training(restart="off"), "mse")
    assert not stopped.value.saved


def test_rollback_decides_a_result_and_what_else_checkpoints_say_does_not(world_bundle, tmp_path):
    def digest(**checkpoints):
        changed = {**QUICK, "checkpoints": checkpoints}
        return plan_of(tmp_path, world_bundle, split={"folds": 3, "use_folds": [0]}, training=changed)["digest"].item()

    assert digest() == digest(minutes=1, keep=7, restart="off") == digest(rollback=0)
    assert len({digest(), digest(rollback=1), digest(rollback=2)}) == 3


# --- a run of the plan in a process of its own


CODE = """
import sys
sys.path[:0] = sys.argv[6:]
from hedflow.training import train_run
train_run(*sys.argv[1:4], sys.argv[4] + "/predictions.parquet", sys.argv[4] + "/run.json", sys.argv[5])
"""


def plan_of(folder, bundle, **experiment):
    """Plan an experiment of one small model and write it to `folder`."""
    wanted = {"models": ["m"], "training": QUICK, **experiment}
    plan = make_plan(parse_config({"models": {"m": SMALL.model_dump()}, "experiments": {"e": wanted}}), "e", bundle)
    write_parquet(folder / "plan.parquet", plan)
    return plan


def test_sigterm_saves_the_run_and_says_to_go_on_later(world_bundle, tmp_path):
    slow = {**QUICK, "epochs": 4000, "patience": 4000, "checkpoints": {**ALWAYS, "keep": 1000}}
    plan = plan_of(tmp_path, world_bundle, training=slow, split={"folds": 3, "use_folds": [0]})
    run, out = plan["run"].item(), tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-c", CODE, str(world_bundle.folder), str(tmp_path / "plan.parquet"), run, str(out)]
    command += [str(tmp_path / "checkpoints"), *sys.path]
    folder = tmp_path / "checkpoints"
    # At once, before it has trained anything; then after its first checkpoint; then once more.
    histories = []
    for _ in range(3):
        before = len(checkpoints_in(folder))
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            wait_until(lambda: catches_sigterm(process), process)
            if histories:
                wait_until(lambda before=before: len(checkpoints_in(folder)) > before, process)
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=DEADLINE_S)[1]
        assert process.returncode == GO_ON_LATER, said
        assert f"{run}: told to end; {'' if checkpoints_in(folder) else 'not '}saved" in said
        assert list(out.iterdir()) == []
        saved = [read_json(path) for path in checkpoints_in(folder)]
        histories.append(saved[-1]["history"] if saved else [])
    assert saved[-1]["digest"] == plan["digest"].item()
    assert saved[-1]["spec"] == json.loads(plan["spec"].item())
    assert len(histories[2]) >= len(histories[1]) > 0
    assert histories[2][: len(histories[1])] == histories[1]


def checkpoints_in(folder):
    return sorted(folder.glob("[0-9]*.json"))


def catches_sigterm(process):
    """Whether the process has a handler of SIGTERM of its own."""
    with open(f"/proc/{process.pid}/status") as status:
        caught = next(line for line in status if line.startswith("SigCgt"))
    return int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1


def wait_until(condition, process):
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def test_several_runs_of_a_plan_at_once(world_bundle, tmp_path):
    """The files are those of runs trained one by one, and a run's record says how many it was trained with."""
    losses = [{"name": "mse_poly", "alpha": [1]}]
    plan = plan_of(tmp_path, world_bundle, losses=losses, split={"kind": "leave_one_drug_out"})
    runs = list(plan["run"][:3])

    def train(names, folder):
        files = {name: (folder / name / "predictions.parquet", folder / name / "run.json") for name in names}
        train_runs(world_bundle.folder, tmp_path / "plan.parquet", files)
        return {name: (pd.read_parquet(files[name][0]), read_json(files[name][1])) for name in names}

    together = train(runs, tmp_path / "together")
    for name in runs[:2]:
        predictions, record = train([name], tmp_path / "alone")[name]
        assert np.array_equal(together[name][0]["row"], predictions["row"])
        np.testing.assert_allclose(together[name][0]["auc_pred"], predictions["auc_pred"], atol=2e-3)
        assert together[name][1]["spec"] == record["spec"]
        assert (together[name][1]["together"], record["together"]) == (3, 1)
    assert sum(record["seconds"]["train"] for _, record in together.values()) > 0


def test_runs_that_are_no_stack(world_bundle, tmp_path):
    plan = plan_of(tmp_path, world_bundle, losses=[{"name": "mse"}, {"name": "mae"}])
    runs = [plan.loc[plan["loss"] == loss, "run"].iloc[0] for loss in ("mse", "mae")]
    files = dict.fromkeys(runs, (tmp_path / "p", tmp_path / "r"))
    with pytest.raises(HedflowError, match="differ in model, loss or training"):
        train_runs(world_bundle.folder, tmp_path / "plan.parquet", files)
