"""The losses against NumPy: formulas, the lean toward low AUC, and that nothing overflows or vanishes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hedflow import HedflowError
from hedflow.losses import make_loss

LEANING = ("mae_poly", "mae_exp")


def weights(name, y, alpha):
    return (1 - y) ** alpha if name == "mae_poly" else np.exp(-alpha * y)


def expected(name, y, p, alpha=None):
    """The formulas of the docstring in float64."""
    y, p = y.double().numpy(), p.double().numpy()
    if name == "mse":
        return np.mean((y - p) ** 2)
    if name == "mae":
        return np.mean(np.abs(y - p))
    w = weights(name, y, alpha)
    return np.mean(w / w.mean() * np.abs(y - p))


def batch(seed, n=50, low=0.0, high=1.0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.uniform((low, 0), (high, 1), (n, 2)).astype(np.float32)).T


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 200),
    alpha=st.floats(0, 50),
    name=st.sampled_from(["mse", "mae", *LEANING]),
    low=st.floats(0, 0.9),
)
def test_formulas(seed, n, alpha, name, low):
    """Also of a batch of resistant pairs at the largest alpha, where every plain weight is below 1e-40."""
    y, p = batch(seed, n, low=low)
    loss = make_loss(name, alpha if name in LEANING else None)(y, p)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected(name, y, p, alpha), rel=1e-4)


@pytest.mark.parametrize("name", LEANING)
def test_alpha_0_is_the_mean_absolute_error(name):
    for y, p in (batch(1), (torch.ones(4), torch.tensor([0.1, 0.5, 0.9, 1.0]))):
        assert make_loss(name, 0.0)(y, p).item() == pytest.approx(make_loss("mae", None)(y, p).item(), rel=1e-6)


@pytest.mark.parametrize("name", LEANING)
@pytest.mark.parametrize("alpha", [0.5, 2.0, 7.0, 50.0])
def test_weights_have_mean_1(name, alpha):
    """So an error that is the same everywhere costs itself, whatever alpha: the learning rate keeps its meaning."""
    y = torch.linspace(0.3, 0.99, 64)
    assert make_loss(name, alpha)(y, y - 0.25).item() == pytest.approx(0.25, rel=1e-5)


def test_a_shift_of_auc_only_scales_the_exponential_weights():
    y, p = batch(2, high=0.5)
    loss = make_loss("mae_exp", 6.0)
    assert loss(y + 0.5, p + 0.5).item() == pytest.approx(loss(y, p).item(), rel=1e-5)


@pytest.mark.parametrize("name", LEANING)
def test_the_lean_toward_low_auc_grows_with_alpha(name):
    y = torch.tensor([0.1, 0.3, 0.6, 0.8, 0.95])
    shares = []
    for alpha in (0.0, 1.0, 2.0, 4.0, 8.0):
        p = torch.full_like(y, 0.5, requires_grad=True)
        make_loss(name, alpha)(y, p).backward()
        push = p.grad.abs() / p.grad.abs().sum()
        assert (push.diff() <= 1e-7).all()  # never more for a weaker drug
        assert torch.equal(p.grad.sign(), torch.sign(0.5 - y))
        shares.append(push[0].item())
    assert shares[0] == pytest.approx(0.2)
    assert np.all(np.diff(shares) > 0.01)


@pytest.mark.parametrize(
    ("name", "alpha"), [("mse", None), ("mae", None), *((n, a) for n in LEANING for a in (0, 2, 50))]
)
@pytest.mark.parametrize("auc", [1.0, 0.0, 0.99])
def test_a_batch_of_one_auc_gives_a_finite_gradient(name, alpha, auc):
    y, p = torch.full((8,), auc), torch.linspace(0.01, 0.9, 8, requires_grad=True)
    loss = make_loss(name, alpha)(y, p)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(p.grad).all()
    if (name, auc) != ("mae_poly", 1.0) or not alpha:  # (1 - 1)^a: these have no weight at all
        assert p.grad.abs().max() > 0.01


@pytest.mark.parametrize(("name", "alpha"), [("huber", None), ("mae_poly", None), ("mae_exp", None), ("mae_pol", 2.0)])
def test_a_loss_that_there_is_not(name, alpha):
    with pytest.raises(HedflowError, match=f"loss '{name}' with alpha {alpha}: expected mse, mae, or mae_poly"):
        make_loss(name, alpha)
