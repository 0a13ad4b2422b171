"""A stack of runs: index batches, batched networks, and that each run gets what it would get alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hedflow.config import Model, Split, Training
from hedflow.models.dropout import RunDropout, seed_dropout
from hedflow.models.stack import One, distinct, take
from hedflow.models.uno import Uno
from hedflow.splits import labels, make_rows
from hedflow.training.batches import Batches, Ordered, mix, stack_rows
from hedflow.training.fit import Job, fit_stack
from hedflow.training.inputs import make_inputs, row_weights

GENES, DESCRIPTORS = 13, 9


# --- batches


def drawn(batches):
    """Rows of each run in one round, batch by batch."""
    return [[batch.rows[run, : batch.sizes[run]].tolist() for batch in batches] for run in range(len(batches.rows))]


@pytest.mark.parametrize("size", [1, 5, 37, 100])
def test_a_round_holds_each_row_of_each_run_once(size):
    rows = [np.arange(100, 137, dtype=np.int32), np.arange(200, 211, dtype=np.int32)]
    batches = Batches(rows, size, seeds=[3, 4])
    for run, found in enumerate(drawn(batches)):
        assert sorted(row for batch in found for row in batch) == rows[run].tolist()
        assert [len(batch) for batch in found if batch] == [size] * (len(rows[run]) // size) + (
            [len(rows[run]) % size] if len(rows[run]) % size else []
        )
        assert batches.count(run) == sum(bool(batch) for batch in found)


def test_a_run_draws_the_same_in_any_company_and_anew_each_epoch():
    rows = [np.arange(50), np.arange(20), np.arange(70)]
    together = Batches(rows, 8, seeds=[1, 2, 1])
    epochs = []
    for epoch in range(3):
        together.begin([epoch] * 3, [0] * 3)
        epochs.append(drawn(together))
        for run in range(3):
            alone = Batches([rows[run]], 8, seeds=[[1, 2, 1][run]])
            alone.begin([epoch], [0])
            assert [batch for batch in epochs[-1][run] if batch] == drawn(alone)[0]
    assert len({str(found[0]) for found in epochs}) == 3
    other = Batches(rows[:1], 8, seeds=[2])
    assert drawn(other)[0] != epochs[0][0]


def test_a_run_goes_on_in_the_middle_of_an_epoch():
    rows = [np.arange(50), np.arange(30)]
    batches = Batches(rows, 8, seeds=[1, 2])
    batches.begin([4, 2], [0, 0])
    whole = drawn(batches)
    batches.begin([4, 2], [3, 4])
    rest = drawn(batches)
    assert rest[0] == whole[0][3:]
    assert rest[1] == [[], [], [], []]
    assert whole[1][4:] == [[], [], []]


def test_an_epoch_of_fewer_rows():
    batches = Batches([np.arange(50)], 8, seeds=[1], limit=20)
    epochs = []
    for epoch in range(12):
        batches.begin([epoch], [0])
        epochs.append([row for batch in drawn(batches)[0] for row in batch])
    assert batches.count(0) == 3
    assert all(len(set(epoch)) == len(epoch) == 20 for epoch in epochs)
    assert {row for epoch in epochs for row in epoch} == set(range(50))  # another sample each epoch


def test_rows_in_order_padded():
    ordered = Ordered([np.arange(5), np.arange(10, 12)], 4)
    assert len(ordered) == 3
    found = list(ordered)
    assert [batch.sizes for batch in found] == [(2, 2), (2, 0), (1, 0)]
    assert [batch.valid is None for batch in found] == [True, False, False]
    assert [row for batch in found for row in batch.rows[0, : batch.sizes[0]].tolist()] == list(range(5))
    padded = stack_rows([torch.tensor([7, 8]), torch.tensor([9])])
    assert padded.rows.tolist() == [[7, 8], [9, 0]]
    assert padded.valid.tolist() == [[True, True], [True, False]]


def test_seeds_of_near_numbers_differ():
    seeds = {mix(a, b, c) for a in range(20) for b in range(20) for c in (0, 1)}
    assert len(seeds) == 800
    assert all(0 <= seed < 2**63 for seed in seeds)
    bits = [[seed >> bit & 1 for bit in range(63)] for seed in seeds]
    assert np.abs(np.mean(bits, axis=0) - 0.5).max() < 0.1  # 5.7 standard errors


# --- networks


def test_take_and_distinct():
    matrix = torch.arange(24).view(2, 4, 3)
    number = torch.tensor([[0, 3, 3], [2, 1, 0]])
    for run in range(2):
        assert torch.equal(take(matrix, number)[run], matrix[run][number[run]])
        assert torch.equal(take(matrix[:1], number)[run], matrix[0][number[run]])
    values, at, counts = distinct(torch.tensor([[5, 2, 5, 2], [7, 0, 0, 0]]), [4, 1])
    assert values.tolist() == [[2, 5], [7, 0]]
    assert counts == [2, 1]
    assert at.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("rows", [20, 400])  # fewer and more than there are cells and drugs
@pytest.mark.parametrize("shared", [False, True])
def test_a_stack_of_unos_is_its_networks(rows, shared):
    torch.manual_seed(0)
    networks = [Uno(GENES, DESCRIPTORS, 16, 2, 3, 0.3, 0.7).double().train() for _ in range(3)]
    for network in networks:
        network.batch_rows = rows
    cells, drugs = torch.randn(3, 60, GENES).double(), torch.randn(3, 50, DESCRIPTORS).double()
    if shared:
        cells, drugs = cells[:1], drugs[:1]
    sizes = [rows, rows - 7, 0 if rows == 20 else 5]
    cell, drug = torch.randint(0, 60, (3, rows)), torch.randint(0, 50, (3, rows))

    def streams():
        return [torch.Generator().manual_seed(run + 5) for run in range(3)]

    stack = Uno.stack(networks).train()
    seed_dropout(stack, streams())
    for run in range(3):
        stack.tie(run)
    found = stack(cells, drugs, cell, drug, sizes)
    sum(found[run, :size].sum() for run, size in enumerate(sizes)).backward()
    for run, size in enumerate(sizes):
        network = networks[run]
        seed_dropout(network, [streams()[run]])
        alone = One(network)(
            cells[run % len(cells)][None], drugs[run % len(drugs)][None], cell[run : run + 1, :size],
            drug[run : run + 1, :size], [size],
        ) if size else torch.zeros(1, 0)  # fmt: skip
        torch.testing.assert_close(found[run, :size], alone[0].to(found.dtype), rtol=0, atol=1e-12)
        if size:
            alone.sum().backward()
        for name, weights in zip(stack.names, stack.weights, strict=True):
            gradient = dict(network.named_parameters())[name].grad
            expected = torch.zeros_like(weights[run]) if gradient is None else gradient
            torch.testing.assert_close(weights.grad[run], expected, rtol=0, atol=1e-10)
    assert found.shape == (3, rows)


def test_a_run_of_a_stack_is_moved_alone():
    torch.manual_seed(0)
    networks = [Uno(GENES, DESCRIPTORS, 8, 1, 1, 0.0) for _ in range(3)]
    stack = Uno.stack(networks)
    before = [stack.state_of(run) for run in range(3)]
    assert all(torch.equal(before[1][name], value) for name, value in networks[1].state_dict().items())
    optimiser = torch.optim.Adam(stack.tie(1), lr=0.1, fused=True)
    stack(torch.randn(1, 6, GENES), torch.randn(1, 5, DESCRIPTORS), torch.zeros(3, 4).long(), torch.zeros(3, 4).long(),
          [4] * 3).sum().backward()  # fmt: skip
    optimiser.step()
    for run in (0, 2):
        assert all(torch.equal(before[run][name], value) for name, value in stack.state_of(run).items())
    assert not torch.equal(before[1]["join.weight"], stack.state_of(1)["join.weight"])
    stack.load(1, before[1])
    stack.select([1, 2])
    assert len(stack) == 2
    for run in (0, 1):
        assert all(torch.equal(before[run + 1][name], value) for name, value in stack.state_of(run).items())
    stack.clear() if stack.tie(0) else None
    networks[0].load_state_dict(stack.state_of(0))  # names and shapes are a network's own


def test_dropout_by_bytes():
    dropout = RunDropout(0.2).train()
    dropout.generators = [torch.Generator().manual_seed(run) for run in range(2)]
    x = torch.ones(2, 300, 400)
    found = dropout(x)
    kept = found > 0
    assert kept.float().mean().item() == pytest.approx(205 / 256, abs=0.003)  # 4 standard errors
    assert found[kept].unique().tolist() == pytest.approx([256 / 205])
    assert found.mean().item() == pytest.approx(1, abs=0.004)
    assert not torch.equal(kept[0], kept[1])
    assert kept.float().mean(dim=(0, 1)).std() < 0.03  # no column is special
    assert torch.equal(dropout.eval()(x), x)
    assert torch.equal(RunDropout(0.0).train()(x), x)


# --- training


SMALL = Model(width=16, tower_depth=1, head_depth=2, dropout=0.1, drug_features=["fingerprints"])


def jobs_of(bundle, weights=None, alphas=(None,) * 4):
    """Four runs of unlike splits: leave one drug out, of which one validates on other drugs."""
    split = Split(kind="leave_one_drug_out")
    made = []
    for run, label in enumerate(labels(split, bundle)[:4]):
        rows = make_rows(split, label, bundle)
        inputs = make_inputs(bundle, rows, SMALL, weights if run == 2 else None)
        made.append(Job(f"r{run}", rows, inputs, alphas[run], seed=10 + run))
    return made


def settings(**changes):
    return Training(
        **{
            "device": "cpu",
            "epochs": 4,
            "batch_size": 256,
            "learning_rate": 0.003,
            "warmup_epochs": 1,
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("loss", "alphas", "changes"),
    [
        ("mse", (None,) * 4, {}),
        (
            "mae_poly",
            (0.5, 1.0, 2.0, 4.0),
            {"epoch_rows": 300, "batch_size": 64, "epochs": 8, "patience": 1, "plateau_patience": 0},
        ),
        ("mse_lds", (0.0, 0.5, 1.0, 2.0), {"batch_size": 2048, "epochs": 3}),
        ("balanced_mse", (0.05, 0.1, 0.2, 0.3), {"batch_size": 200, "monitor": "loss"}),
    ],
)
def test_runs_get_together_what_they_get_alone(loss, alphas, changes, world_bundle):
    training = settings(**changes)
    jobs = jobs_of(world_bundle, alphas=alphas)
    together = fit_stack(jobs, SMALL, training, loss)
    lengths = set()
    for job, one in zip(jobs, together, strict=True):
        alone = fit_stack([job], SMALL, training, loss)[0]
        assert len(alone.history) == len(one.history)
        lengths.add(len(one.history))
        for a, b in zip(alone.history, one.history, strict=True):
            assert a == pytest.approx(b, rel=2e-3)
        np.testing.assert_allclose(one.predict(job.rows.test), alone.predict(job.rows.test), atol=2e-3)
    if "patience" in changes:
        assert len(lengths) > 1  # some stopped early, and left the stack


def test_weights_of_some_drugs_in_a_stack(world_bundle):
    """A run with weights beside runs without: each as alone; and the weights matter."""
    heavy = {"drugs": sorted(world_bundle.drugs["drug_id"])[:3], "factor": 8.0}
    jobs, plain = jobs_of(world_bundle, heavy), jobs_of(world_bundle)
    together = fit_stack(jobs, SMALL, settings(epochs=3), "mse")
    for run in (2, 3):
        alone = fit_stack([jobs[run]], SMALL, settings(epochs=3), "mse")[0]
        assert alone.history[-1] == pytest.approx(together[run].history[-1], rel=1e-3)
    without = fit_stack([plain[2]], SMALL, settings(epochs=3), "mse")[0]
    assert without.history[0]["loss"] != pytest.approx(together[2].history[0]["loss"], rel=1e-3)


def test_row_weights(world_bundle):
    drugs = list(world_bundle.drugs["drug_id"][:2])
    found = row_weights(world_bundle, {"drugs": drugs, "factor": 3.0})
    assert set(found) == {1.0, 3.0}
    assert np.array_equal(found == 3, world_bundle.response["drug"].isin([0, 1]))
    assert len(row_weights(world_bundle, None)) == 0


def test_one_run_that_diverges_leaves_the_others_as_they_are(world_bundle):
    jobs = jobs_of(world_bundle)
    bad = jobs[1].inputs.auc.clone()
    bad[jobs[1].rows.train[3]] = float("nan")
    spoilt = [*jobs]
    spoilt[1] = Job("r1", jobs[1].rows, replace(jobs[1].inputs, auc=bad), None, jobs[1].seed)
    found = fit_stack(spoilt, SMALL, settings(epochs=3), "mse")
    assert found[1].state.failure.startswith("training diverged in epoch 0")
    for run in (0, 2, 3):
        alone = fit_stack([jobs[run]], SMALL, settings(epochs=3), "mse")[0]
        assert found[run].state.failure is None
        np.testing.assert_allclose(
            found[run].predict(jobs[run].rows.test), alone.predict(jobs[run].rows.test), atol=2e-3
        )
