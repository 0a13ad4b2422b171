"""Uno: its size, and that computing towers once a distinct cell and drug is the plain network."""

import pytest
import torch
from torch.nn import functional

from hedflow.models.dropout import RunDropout
from hedflow.models.uno import Uno, UnoStack

GENES, DESCRIPTORS, ROWS = 13, 9, 40


def plain(network, cells, drugs, cell, drug):
    """The network as published: gather and join the rows' inputs, then every layer on every row; no dropout."""

    def linears(part):
        return [m for m in part.modules() if isinstance(m, torch.nn.Linear)]

    towers = []
    for part, x in ((network.cell_tower, cells[cell]), (network.drug_tower, drugs[drug])):
        for layer in linears(part):
            x = torch.relu(functional.linear(x, layer.weight, layer.bias))
        towers.append(x)
    *hidden, last = [network.join, *linears(network.head)]
    x = torch.cat(towers, dim=1)
    for layer in hidden:
        x = torch.relu(functional.linear(x, layer.weight, layer.bias))
    return torch.sigmoid(functional.linear(x, last.weight, last.bias))[:, 0]


def world(seed=0, cells=6, drugs=5):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(cells, GENES, generator=generator),
        torch.randn(drugs, DESCRIPTORS, generator=generator),
        torch.randint(0, cells, (ROWS,), generator=generator),
        torch.randint(0, drugs, (ROWS,), generator=generator),
    )


def uno(towers=3, head=5, dropout=0.0, start=0.5, width=16):
    torch.manual_seed(1)
    return Uno(GENES, DESCRIPTORS, width, towers, head, dropout, start)


def test_parameters_of_the_published_network():
    with torch.device("meta"):
        network = Uno(958, 1613, 1000, 3, 5, 0.1)
    assert sum(p.numel() for p in network.parameters()) == 12_583_001


@pytest.mark.parametrize(("towers", "head"), [(3, 5), (1, 1), (2, 3)])
def test_the_same_function_as_the_plain_network(towers, head):
    network = uno(towers, head, dropout=0.3).eval()
    inputs = world()
    predicted = network(*inputs)
    assert predicted.shape == (ROWS,)
    assert predicted.std() > 1e-4
    torch.testing.assert_close(predicted, plain(network, *inputs), rtol=0, atol=1e-5)


def test_the_same_gradients_as_the_plain_network():
    cells, drugs, cell, drug = world()
    target = torch.rand(ROWS, generator=torch.Generator().manual_seed(3))
    gradients = []
    for forward in (Uno.forward, plain):
        network = uno().double().train()
        predicted = forward(network, cells.double(), drugs.double(), cell, drug)
        ((predicted - target) ** 2).sum().backward()
        gradients.append({k: p.grad for k, p in network.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-9, atol=1e-12)


def test_rows_do_not_see_one_another():
    network, (cells, drugs, cell, drug) = uno().eval(), world()
    whole = network(cells, drugs, cell, drug)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(network(cells, drugs, cell[order], drug[order]), whole[order], rtol=0, atol=1e-6)
    one_by_one = torch.cat([network(cells, drugs, cell[i : i + 1], drug[i : i + 1]) for i in range(ROWS)])
    torch.testing.assert_close(one_by_one, whole, rtol=0, atol=1e-6)


def test_output_is_an_auc():
    network, (cells, drugs, cell, drug) = uno().eval(), world()
    for scale in (1.0, 1e4):
        predicted = network(cells * scale, drugs * scale, cell, drug)
        assert ((predicted >= 0) & (predicted <= 1)).all()


@pytest.mark.parametrize("start", [0.05, 0.5, 0.8, 0.99])
def test_it_begins_at_start(start):
    predicted = uno(start=start, width=256).eval()(*world())
    assert (predicted - start).abs().max() < 0.05


def test_dropout_is_for_training_only():
    network, inputs = uno(dropout=0.5), world()
    torch.manual_seed(0)
    assert not torch.equal(network.train()(*inputs), network(*inputs))
    assert torch.equal(network.eval()(*inputs), network(*inputs))


@pytest.mark.parametrize("stacked", [False, True])
def test_with_bfloat16_products_predictions_and_the_gathers_gradient_are_float32(stacked):
    """bfloat16 has 128 numbers from 0.5 to 1, and adds 1 to 256 in vain."""
    torch.manual_seed(0)
    network = Uno(10, 8, 16, 1, 2, 0.0)
    cells, drugs = torch.randn(100, 10), torch.randn(4, 8)
    cell, drug = torch.arange(100).repeat(40), torch.arange(4).repeat_interleave(1000)

    def gradient(precision):
        network.zero_grad()
        whole = UnoStack([network, network]) if stacked else network
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            if stacked:
                of = (x.expand(2, -1) for x in (cell, drug))
                predicted = whole(cells[None], drugs[None], *of, (4000, 4000))[0]
            else:
                predicted = whole(cells, drugs, cell, drug)
        assert predicted.dtype == torch.float32
        assert len(predicted.detach().unique()) > 350  # of 400 pairs
        predicted.sum().backward()
        tower = whole.weights[whole.names.index("drug_tower.0.weight")] if stacked else network.drug_tower[0].weight
        return (tower.grad[0] if stacked else tower.grad).clone()

    wanted = gradient("float32")
    assert ((gradient("bfloat16") - wanted).norm() / wanted.norm()) < 0.02


def test_dropout_in_bfloat16_keeps_the_mean():
    dropout = RunDropout(0.1).train()
    dropout.generators = [torch.Generator().manual_seed(0)]
    x = torch.rand(2000, 2000).bfloat16() + 0.5
    found = dropout(x)
    assert found.dtype == torch.bfloat16
    assert found.float().mean() / x.float().mean() == pytest.approx(1, abs=1e-3)
