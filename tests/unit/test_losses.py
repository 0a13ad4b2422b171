"""The losses against NumPy: formulas, the lean toward low AUC, stacks, metrics, and that nothing overflows."""

import importlib.metadata

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from hedflow import HedflowError
from hedflow.loss_kinds import LOSSES, LossKind, loss_kinds
from hedflow.losses import MSELDS, make_loss

LEANING = ("mae_poly", "mse_poly", "mae_exp", "mse_linear", "mse_lds")  # alpha 0 is the plain loss
EXAMPLE = {name: None if not kind.alpha else min(0.7, kind.high) for name, kind in LOSSES.items()}


def weights(name, y, alpha):
    return {
        "mae_poly": lambda: (1 - y) ** alpha,
        "mse_poly": lambda: (1 - y) ** alpha,
        "mae_exp": lambda: np.exp(-alpha * y),
        "mse_linear": lambda: 1 + alpha * (1 - y),
        "mse_inverse": lambda: 1 / (y + alpha),
    }.get(name, lambda: np.ones_like(y))()


def errors(name, y, p, alpha):
    e = y - p
    return {
        "log_cosh": lambda: np.log(np.cosh(e)),
        "huber": lambda: np.where(np.abs(e) < alpha, e**2 / 2, alpha * (np.abs(e) - alpha / 2)),
        "pinball": lambda: np.where(p < y, alpha * e, (1 - alpha) * -e),
        "balanced_mse": lambda: balanced(y, p, alpha),
    }.get(name, lambda: np.abs(e) if name.startswith("mae") else e**2)()


def balanced(y, p, alpha):
    """Cross-entropy of the row's own y among the batch's, times 2 alpha^2."""
    score = -((p[:, None] - y[None]) ** 2) / (2 * alpha**2)
    return -2 * alpha**2 * (np.diag(score) - logsumexp(score, axis=1))


def expected(name, y, p, alpha=None):
    """The formulas of the docstring in float64."""
    y, p = y.double().numpy(), p.double().numpy()
    w = weights(name, y, alpha)
    return np.mean(w / w.mean() * errors(name, y, p, alpha))


def batch(seed, n=50, low=0.0, high=1.0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.uniform((low, 0), (high, 1), (n, 2)).astype(np.float32)).T


def fitted(name, alpha, auc=None):
    loss = make_loss(name, alpha)
    loss.fit([torch.linspace(0, 1, 500) if auc is None else auc])
    return loss


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 200),
    share=st.floats(0.01, 1),
    name=st.sampled_from([name for name in LOSSES if name != "mse_lds"]),
    low=st.floats(0, 0.9),
)
def test_formulas(seed, n, share, name, low):
    """Also of a batch of resistant pairs at the largest alpha, where every plain weight is below 1e-40."""
    y, p = batch(seed, n, low=low)
    kind = LOSSES[name]
    alpha = min(float(np.float32(kind.low + share * (kind.high - kind.low))), kind.high) if kind.alpha else None
    loss = make_loss(name, alpha)(y, p)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected(name, y, p, alpha), rel=2e-4, abs=1e-6)


@pytest.mark.parametrize("name", LEANING)
def test_alpha_0_is_the_plain_loss(name):
    plain = make_loss(name.split("_")[0], None)
    for y, p in (batch(1), (torch.ones(4), torch.tensor([0.1, 0.5, 0.9, 1.0]))):
        assert fitted(name, 0.0)(y, p).item() == pytest.approx(plain(y, p).item(), rel=1e-6)


@pytest.mark.parametrize("name", LEANING)
@pytest.mark.parametrize("share", [0.01, 0.1, 1.0])
def test_weights_have_mean_1(name, share):
    """So an error that is the same everywhere costs itself, whatever alpha: the learning rate keeps its meaning."""
    y = torch.linspace(0.3, 0.99, 64)
    cost = 0.25 if name.startswith("mae") else 0.25**2
    assert fitted(name, share * LOSSES[name].high)(y, y - 0.25).item() == pytest.approx(cost, rel=1e-5)


def test_a_shift_of_auc_only_scales_the_exponential_weights():
    y, p = batch(2, high=0.5)
    loss = make_loss("mae_exp", 6.0)
    assert loss(y + 0.5, p + 0.5).item() == pytest.approx(loss(y, p).item(), rel=1e-5)


@pytest.mark.parametrize("name", ["mae_poly", "mse_poly", "mae_exp", "mse_linear"])
def test_the_lean_toward_low_auc_grows_with_alpha(name):
    y = torch.tensor([0.1, 0.3, 0.6, 0.8, 0.95])
    shares = []
    for alpha in (0.0, 1.0, 2.0, 4.0, 8.0):
        p = (y + 0.1).requires_grad_()
        make_loss(name, alpha)(y, p).backward()
        push = p.grad.abs() / p.grad.abs().sum()
        assert (push.diff() <= 1e-6).all()  # never more for a weaker drug
        shares.append(push[0].item())
    assert shares[0] == pytest.approx(0.2)
    assert np.all(np.diff(shares) > 0.005)


def test_rare_aucs_weigh_more_by_lds():
    rng = np.random.default_rng(0)
    auc = torch.from_numpy(np.concatenate([rng.normal(0.9, 0.03, 900), rng.uniform(0.1, 0.5, 100)]).clip(0, 1))
    weight = torch.exp(fitted("mse_lds", 1.0, auc).log_weight(torch.tensor([[0.3, 0.7, 0.9]])))[0]
    assert weight[0] > 10 * weight[2]
    assert weight[1] == pytest.approx(weight.max().item())  # where there is nothing it weighs as the rarest that is
    # The density is that of the training AUCs, smoothed: in the middle of a broad one it is the histogram's.
    flat = fitted("mse_lds", 1.0, torch.linspace(0, 0.999, 100_000))
    middle = torch.exp(flat.log_weight(torch.linspace(0.2, 0.8, 30)[None]))
    assert middle.max().item() == pytest.approx(middle.min().item(), rel=0.01)


def test_balanced_mse_of_rows_left_out():
    """A row of weight 0 is nobody's alternative: a padded batch costs what the batch costs."""
    y, p = batch(3, 20)
    padded = torch.cat([y, torch.full((5,), 0.5)]), torch.cat([p, torch.full((5,), 0.1)])
    weight = torch.cat([torch.ones(20), torch.zeros(5)])
    loss = make_loss("balanced_mse", 0.1)
    assert loss(*padded, weight).item() == pytest.approx(loss(y, p).item(), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("auc", [1.0, 0.0, 0.99])
def test_a_batch_of_one_auc_gives_a_finite_gradient(name, auc):
    kind = LOSSES[name]
    for alpha in {kind.low or 0.01, 0.9 * kind.high} if kind.alpha else {None}:
        y, p = torch.full((8,), auc), torch.linspace(0.01, 0.9, 8, requires_grad=True)
        loss = fitted(name, alpha)(y, p)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(p.grad).all()
        if name != "balanced_mse" and alpha != kind.low:  # (all alternatives are alike: nothing to tell apart)
            assert p.grad.abs().max() > 0.0005


@pytest.mark.parametrize("name", LOSSES)
def test_a_stack_is_its_runs_one_by_one(name):
    """Each with its own alpha and rows; a run without a row costs nothing and moves nothing."""
    kind = LOSSES[name]
    alphas = [None] * 3 if not kind.alpha else [0.9 * kind.high, 0.3 * kind.high, 0.5 * kind.high]
    y, p = batch(4, 90).view(2, 3, 30)
    weight = torch.ones(3, 30)
    weight[1, 20:], weight[2] = 0, 0
    auc = [torch.linspace(0, 1, 50) ** (run + 1) for run in range(3)]
    stack = make_loss(name, alphas)
    stack.fit(auc)
    p = p.clone().requires_grad_()
    found = stack(y, p, weight)
    found.sum().backward()
    assert found.shape == (3,)
    assert found[2].item() == 0
    assert (p.grad[2] == 0).all()
    assert (p.grad[1, 20:] == 0).all()
    for run, rows in ((0, 30), (1, 20)):
        alone = fitted(name, alphas[run], auc[run])
        mine = p.detach()[run, :rows].clone().requires_grad_()
        cost = alone(y[run, :rows], mine)
        cost.backward()
        assert found[run].item() == pytest.approx(cost.item(), rel=1e-5)
        torch.testing.assert_close(p.grad[run, :rows], mine.grad, rtol=1e-4, atol=1e-7)
    stack.select(torch.tensor([1]))
    assert stack(y[1:2], p[1:2], weight[1:2]).item() == pytest.approx(found[1].item(), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_as_a_metric_it_is_the_mean_over_all_rows(name):
    """In whatever batches, in whatever order; Balanced MSE compares within a batch, so it is asked in one."""
    y, p = batch(5, 60)
    loss = fitted(name, EXAMPLE[name])
    for part in [slice(0, 60)] if name == "balanced_mse" else [slice(40, 60), slice(0, 7), slice(7, 40)]:
        loss.update(y[part], p[part])
    assert loss.compute().item() == pytest.approx(loss(y, p).item(), rel=1e-4)
    loss.reset()
    with pytest.raises(ValueError, match="seen no rows yet"):
        loss.compute()


def test_more_weight_on_a_row_is_the_row_several_times():
    y, p = batch(6, 10)
    weight = torch.ones(10)
    weight[3] = 3
    loss = make_loss("mae_exp", 4.0)
    again = torch.cat([torch.arange(10), torch.tensor([3, 3])])
    assert loss(y, p, weight).item() == pytest.approx(loss(y[again], p[again]).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "alpha", "said"),
    [
        ("huber", None, "loss 'huber' with alpha None: it takes an alpha above 0 to 1"),
        ("mae_poly", None, "it takes an alpha from 0 to 50"),
        ("mae_exp", -1.0, "loss 'mae_exp' with alpha -1.0: it takes an alpha from 0 to 50"),
        ("mse", 2.0, "loss 'mse' with alpha 2.0: it takes no alpha"),
        ("mae_pol", 2.0, "there is no loss 'mae_pol'; there are mse, mae, "),
    ],
)
def test_a_loss_that_there_is_not(name, alpha, said):
    with pytest.raises(HedflowError, match=f".*{said}"):
        make_loss(name, alpha)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that offers a loss by an entry point; `write(module, name)` makes it."""

    def write(module, name="cubic"):
        (tmp_path / "cubic_loss.py").write_text(module)
        info = tmp_path / "cubic_loss-1.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cubic-loss\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[hedflow.losses]\n{name} = cubic_loss:KIND\n")
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()
        loss_kinds.cache_clear()

    yield write
    loss_kinds.cache_clear()


CUBIC = """
from hedflow.loss_kinds import LossKind
from hedflow.losses import Loss

KIND = LossKind("cubic_loss:Cubic")

class Cubic(Loss):
    def error(self, y, p):
        return (y - p).abs() ** 3
"""


def test_a_loss_of_another_package(package):
    package(CUBIC)
    y, p = batch(7)
    assert make_loss("cubic", None)(y, p).item() == pytest.approx(((y - p).abs() ** 3).mean().item(), rel=1e-5)
    assert isinstance(loss_kinds()["cubic"], LossKind)


@pytest.mark.parametrize(
    ("module", "name", "said"),
    [
        ("import nothing_of_that_name", "cubic", "cannot be loaded: No module named 'nothing_of_that_name'"),
        ("KIND = 3", "cubic", "expected a LossKind, got 3"),
        (CUBIC, "mse", "hedflow has a loss of that name"),
    ],
)
def test_a_package_that_offers_no_loss(module, name, said, package, monkeypatch):
    monkeypatch.delitem(__import__("sys").modules, "cubic_loss", raising=False)
    package(module, name)
    with pytest.raises(HedflowError, match=said):
        loss_kinds()


def test_lds_has_a_bin_for_every_auc():
    assert MSELDS([1.0])._bin(torch.tensor([0.0, 0.5, 1.0])).tolist() == [0, 50, 99]
