"""Fit all dose-response curves at once: bounded Levenberg-Marquardt, vectorised over curves, analytic Jacobian.

Curves with the same number of points are fitted together as arrays (points, curves). Each begins at the best places
of a grid of (ec50, hs), at which the remaining, linear parameter is solved for; the method is then the projected one: a
parameter at its bound whose gradient points outwards is held there for the step, a step that leaves the box is cut
at it, and a curve that has converged leaves the arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import pandas as pd

from hedflow import HedflowError
from hedflow.curves import hill

LossName = Literal["linear", "huber", "soft_l1", "cauchy"]
# Of IMPROVE's curve fitting (einf 0..1, ec50 0..12, hs 0..4), and a control that may be off by half.
BOUNDS = {"einf": (0.0, 1.0), "ec50": (0.0, 12.0), "hs": (0.0, 4.0), "e0": (0.5, 1.5)}
GRID_EC50 = np.arange(0.0, 12.01, 0.5)
GRID_HS = np.array([0.03, 0.1, 0.3, 0.6, 1.0, 1.6, 2.5, 4.0])
# One start in each range of slopes: a step between two doses and a long slope are often both local optima.
START_SLOPES = ((0.0, 0.5), (0.5, 2.0), (2.0, np.inf))
MOST_STEPS = 200
PATIENT_STEPS = 40
FEW_STEPS = 8
HOPELESS = 2.0  # times the best start's cost
CHUNK = 6_000
# Curves that the grid is tried on at once: small enough for the cache, and for BLAS not to wake its threads.
GRID_CURVES = 128
STATUS = ("converged", "too few doses", "not converged")


@dataclass(frozen=True)
class Options:
    """How curves are fitted.

    Attributes:
        parameters: 3 (e0 = 1) or 4 (e0 fitted).
        loss: linear (least squares) or a robust one, as defined by scipy.optimize.least_squares.
        scale: residual (fraction of control) beyond which a robust loss counts a point less.
        bounds: of each parameter, (lowest, highest).
        clip: viability is first clipped to 0..1.
    """

    parameters: Literal[3, 4] = 3
    loss: LossName = "linear"
    scale: float = 0.1
    bounds: dict[str, tuple[float, float]] = field(default_factory=lambda: dict(BOUNDS))
    clip: bool = True

    def __post_init__(self) -> None:
        if self.parameters not in (3, 4) or self.loss not in get_args(LossName) or not self.scale > 0:
            raise HedflowError(
                f"curve fitting: {self.parameters} parameters, loss {self.loss!r}, scale {self.scale}; expected "
                f"3 or 4, {', '.join(get_args(LossName))}, and a scale above 0."
            )


COLUMNS = (
    "points", "doses", "x_low", "x_high", "status", "steps",
    "einf", "ec50", "hs", "e0", "einf_se", "ec50_se", "hs_se", "e0_se", "rss", "rmse", "r2",
    "auc_fixed", "auc_tested", "aac_tested", "ic50", "dss1",
)  # fmt: skip


def fit_curves(
    curve: np.ndarray, dose: np.ndarray, viability: np.ndarray, options: Options | None = None
) -> pd.DataFrame:
    """Fit Hill curves to points in any order; curves may have any number of points, and a dose may come repeatedly.

    Args:
        curve: which curve a point belongs to, any sortable label, shape (points,).
        dose: concentration in **mol/l** (M), above 0, shape (points,).
        viability: fraction of the untreated control (1 = no effect), shape (points,); NaN: the point is left out.
        options: three parameters and least squares, unless told otherwise.

    Returns:
        One row a curve, indexed by its label, sorted: `points` and distinct `doses` used; `x_low`, `x_high` the tested
        range (-log10 M); `status` (one of STATUS); `einf`, `ec50` (-log10 M), `hs`, `e0`, and their standard errors
        `_se` (NaN for a parameter at its bound, or without a degree of freedom left); `rss`, `rmse` (fractions, of the
        plain residuals) and `r2`; `auc_fixed` and `auc_tested` (mean viability over 10^-10..10^-4 M and over the tested
        range, low = potent), `aac_tested` = 1 - `auc_tested` (high = potent); `ic50` (-log10 M, only if reached within
        the tested doses); `dss1`.
        A curve with fewer distinct doses than parameters has the status `too few doses` and NaN.

    Raises:
        HedflowError: arrays of different length, or a dose that is not a positive number of mol/l.
    """
    options = options or Options()
    curve, dose, viability = np.asarray(curve), np.asarray(dose, float), np.asarray(viability, float)
    if not curve.shape == dose.shape == viability.shape or curve.ndim != 1:
        raise HedflowError(
            f"curve fitting: {curve.shape} curve labels, {dose.shape} doses, {viability.shape} viabilities; "
            "expected as many."
        )
    wrong = ~(np.isfinite(dose) & (dose > 0))
    if wrong.any():
        raise HedflowError(
            f"curve fitting: a dose of {dose[wrong][0]} mol/l ({int(wrong.sum())} such points); expected "
            "a number above 0."
        )
    if len(dose) and np.median(dose) > 0.1:
        raise HedflowError(
            f"curve fitting: the median dose is {np.median(dose):.3g} mol/l; expected mol/l, not micromol/l or nmol/l."
        )
    labels, index = np.unique(curve, return_inverse=True)
    x = -np.log10(dose)
    used = np.isfinite(viability)
    index, x, y = index[used], x[used], viability[used]
    if options.clip:
        y = np.clip(y, 0, 1)
    # Sorted, so that the order in which the points came changes not even the last bit.
    order = np.lexsort((y, x, index))
    index, x, y = index[order], x[order], y[order]
    counts = np.bincount(index, minlength=len(labels))
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    fitted = {name: np.full(len(labels), np.nan) for name in COLUMNS if name != "status"}
    fitted["points"] = counts.astype(float)
    fitted["doses"] = np.zeros(len(labels))
    new = np.ones(len(x), bool)
    new[1:] = (x[1:] != x[:-1]) | (index[1:] != index[:-1])
    np.add.at(fitted["doses"], index, new)
    status = np.full(len(labels), 1, dtype=np.int64)
    for count in np.unique(counts[fitted["doses"] >= options.parameters]):
        same = np.flatnonzero((counts == count) & (fitted["doses"] >= options.parameters))
        for part in _parts_of(same, CHUNK):
            at = first[part] + np.arange(count)[:, None]
            _fit_block(x[at], y[at], part, options, fitted, status)
    _derive(fitted)
    table = pd.DataFrame(
        {name: np.array(STATUS)[status] if name == "status" else fitted[name] for name in COLUMNS},
        index=pd.Index(labels, name="curve"),
    )
    return table.astype({"points": "int32", "doses": "int32", "steps": "Int32", "status": "str"})


def _fit_block(
    x: np.ndarray,
    y: np.ndarray,
    part: np.ndarray,
    options: Options,
    fitted: dict[str, np.ndarray],
    status: np.ndarray,
) -> None:
    """Fit curves with equally many points, x and y of shape (points, curves), into the rows `part`."""
    problem = _Problem(options)
    theta, steps, converged = _minimise(x, y, _starts(x, y, problem), problem)
    for i, name in enumerate(problem.names):
        fitted[name][part] = theta[i]
        fitted[f"{name}_se"][part] = np.nan
    if options.parameters == 3:
        fitted["e0"][part] = 1.0
    residual, jacobian = problem.residual_and_jacobian(x, y, theta)
    rss = (residual**2).sum(axis=0)
    total = ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    fitted["rss"][part] = rss
    fitted["rmse"][part] = np.sqrt(rss / len(x))
    with np.errstate(divide="ignore", invalid="ignore"):
        # As scikit-learn has it: of points without any spread a perfect fit explains all, another one nothing.
        fitted["r2"][part] = np.where(total > 1e-20, 1 - rss / total, np.where(rss < 1e-20, 1.0, 0.0))
    for name, error in zip(problem.names, _standard_errors(theta, jacobian, rss, problem), strict=True):
        fitted[f"{name}_se"][part] = error
    fitted["steps"][part] = steps
    fitted["x_low"][part], fitted["x_high"][part] = x[0], x[-1]
    status[part] = np.where(converged, 0, 2)


def _derive(fitted: dict[str, np.ndarray]) -> None:
    """Areas, IC50 and DSS from the parameters, in place."""
    shape = fitted["einf"], fitted["ec50"], fitted["hs"], fitted["e0"]
    tested = fitted["x_low"], fitted["x_high"]
    fitted["auc_fixed"] = hill.auc_fixed(*shape)
    fitted["auc_tested"] = hill.mean_viability(*tested, *shape)
    fitted["aac_tested"] = 1 - fitted["auc_tested"]
    ic50 = hill.dose_reaching(0.5, *shape)
    fitted["ic50"] = np.where(ic50 >= fitted["x_low"], ic50, np.nan)
    fitted["dss1"] = hill.dss1(*tested, *shape)


class _Problem:
    """The residuals of one form of the curve and one loss, over arrays (points, curves)."""

    def __init__(self, options: Options) -> None:
        self.names = ("einf", "ec50", "hs", "e0")[: options.parameters]
        self.count = options.parameters
        self.loss: LossName = options.loss
        self.scale = options.scale
        self.low = np.array([options.bounds[name][0] for name in self.names])[:, None]
        self.high = np.array([options.bounds[name][1] for name in self.names])[:, None]

    def _parts(self, x: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | float]:
        away = x - theta[1]
        share = 0.5 * (1 + np.tanh(away * (theta[2] * (hill.LN10 / 2))))
        return away, share, theta[3] if self.count == 4 else 1.0

    def residual(self, x: np.ndarray, y: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """Curve less measurement, (points, curves)."""
        _, share, e0 = self._parts(x, theta)
        result: np.ndarray = theta[0] + (e0 - theta[0]) * share - y
        return result

    def residual_and_jacobian(
        self, x: np.ndarray, y: np.ndarray, theta: np.ndarray
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Also the derivatives by each parameter, each (points, curves)."""
        away, share, e0 = self._parts(x, theta)
        slope = (e0 - theta[0]) * share * (1 - share) * hill.LN10
        jacobian = [1 - share, -slope * theta[2], slope * away]
        if self.count == 4:
            jacobian.append(share)
        return theta[0] + (e0 - theta[0]) * share - y, jacobian

    def settled(self, x: np.ndarray, y: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`theta` with its linear parameter einf at the best value for the others, and the cost there.

        Without it a curve that only the highest dose bends creeps along the valley of einf against ec50.
        """
        _, share, e0 = self._parts(x, theta)
        effect, target = 1 - share, y - e0 * share
        weights = self.weights(theta[0] * effect - target)
        weighted = effect if weights is None else weights * effect
        square = np.einsum("pc,pc->c", weighted, effect)
        with np.errstate(divide="ignore", invalid="ignore"):
            einf = np.einsum("pc,pc->c", weighted, target) / square
        einf = np.where(square > 1e-30, np.clip(einf, self.low[0], self.high[0]), theta[0])
        cost = self.cost(einf * effect - target)
        if weights is not None:  # the best for these weights may be worse for the loss itself
            as_it_was = self.cost(theta[0] * effect - target)
            einf, cost = np.where(cost < as_it_was, einf, theta[0]), np.minimum(cost, as_it_was)
        return np.concatenate([einf[None], theta[1:]]), cost

    def cost(self, residual: np.ndarray) -> np.ndarray:
        """Sum of rho((r/scale)^2) scale^2 over the points, (curves,): scipy.optimize.least_squares' cost, doubled."""
        squared = residual**2
        if self.loss == "linear":
            return np.asarray(squared.sum(axis=0))
        z = squared / self.scale**2
        if self.loss == "huber":
            rho = np.where(z <= 1, z, 2 * np.sqrt(np.maximum(z, 1)) - 1)
        elif self.loss == "soft_l1":
            rho = 2 * (np.sqrt(1 + z) - 1)
        else:
            rho = np.log1p(z)
        return np.asarray(rho.sum(axis=0) * self.scale**2)

    def weights(self, residual: np.ndarray) -> np.ndarray | None:
        """rho'(z), the weight of each point's square; None = all 1."""
        if self.loss == "linear":
            return None
        z = residual**2 / self.scale**2
        if self.loss == "huber":
            return 1 / np.sqrt(np.maximum(z, 1))
        return np.asarray(1 / np.sqrt(1 + z) if self.loss == "soft_l1" else 1 / (1 + z))


def _starts(x: np.ndarray, y: np.ndarray, problem: _Problem) -> list[np.ndarray]:
    """The best place of the grid for each curve in each range of slopes, (parameters, curves).

    With ec50 and hs given, y = einf q + e0 (1 - q) is linear in einf and e0: its residual is a few dot products, and q
    is the same for all curves with the same doses.
    """
    ec50, hs = (grid.ravel() for grid in np.meshgrid(GRID_EC50, GRID_HS, indexing="ij"))
    patterns, which = np.unique(x, axis=1, return_inverse=True)
    order = np.argsort(which.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(which.ravel()))
    starts = [np.empty((problem.count, y.shape[1])) for _ in START_SLOPES]
    groups = [(i, part) for i, mine in enumerate(np.split(order, ends[:-1])) for part in _parts_of(mine, GRID_CURVES)]
    for pattern, mine in ((patterns[:, i], part) for i, part in groups):
        gone = 0.5 * (1 - np.tanh((pattern[:, None] - ec50) * (hs * (hill.LN10 / 2))))
        einf, e0, rss = _linear_part(gone, y[:, mine], problem)
        places = np.arange(len(ec50))
        for start, slopes in zip(starts, START_SLOPES, strict=True):
            allowed = places[(hs >= slopes[0]) & (hs <= slopes[1])]
            best = allowed[rss[allowed].argmin(axis=0)], np.arange(len(mine))
            values = [einf[best], ec50[best[0]], hs[best[0]], e0[best]]
            start[:, mine] = np.clip(np.stack(values[: problem.count]), problem.low, problem.high)
    return starts


def _parts_of(rows: np.ndarray, most: int) -> list[np.ndarray]:
    """`rows` in about equal parts of at most `most`."""
    return np.array_split(rows, -(-len(rows) // most)) if len(rows) else []


def _linear_part(gone: np.ndarray, y: np.ndarray, problem: _Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """einf, e0 within their bounds and the residual sum of squares less that of y, each (places, curves).

    Args:
        gone: share of the effect that is there, (points, places); y: (points, curves).
    """
    left = 1 - gone
    # A dose half-way far above the tested ones has no effect at all: einf is then anything.
    gg, gl, ll = ((a * b).sum(axis=0)[:, None] + 1e-300 for a, b in ((gone, gone), (gone, left), (left, left)))
    gy = gone.T @ y
    ly = y.sum(axis=0) - gy
    if problem.count == 3:
        einf = np.clip((gy - gl) / gg, problem.low[0], problem.high[0])
        return einf, np.ones_like(einf), einf * (einf * gg + 2 * (gl - gy)) + ll - 2 * ly
    with np.errstate(divide="ignore", invalid="ignore"):
        e0 = np.where(gg * ll > gl**2 * (1 + 1e-9), (gg * ly - gl * gy) / (gg * ll - gl**2), 1.0)
    e0 = np.clip(e0, problem.low[3], problem.high[3])
    einf = np.clip((gy - e0 * gl) / gg, problem.low[0], problem.high[0])
    return einf, e0, einf**2 * gg + e0**2 * ll + 2 * einf * e0 * gl - 2 * (einf * gy + e0 * ly)


def _minimise(
    x: np.ndarray, y: np.ndarray, starts: list[np.ndarray], problem: _Problem
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(parameters, steps, converged) of each curve: the best that its starts lead to.

    All starts run side by side; after a few steps those go on that may still win.
    """
    curves, count = y.shape[1], len(starts)
    curve = np.tile(np.arange(curves), count)
    result = np.concatenate(starts, axis=1)
    least = problem.cost(problem.residual(x[:, curve], y[:, curve], result))
    steps, converged = np.zeros(len(curve)), np.zeros(len(curve), bool)
    alive = np.arange(len(curve))
    x, y, theta, cost, damping = x[:, curve], y[:, curve], result.copy(), least.copy(), np.full(len(curve), 1e-3)
    for step in range(MOST_STEPS):
        residual, jacobian = problem.residual_and_jacobian(x, y, theta)
        matrix, gradient = _normal(jacobian, residual, problem)
        move, stuck = _bounded_step(matrix, gradient, theta, damping, problem)
        trial, trial_cost = problem.settled(x, y, np.clip(theta + move, problem.low, problem.high))
        better = trial_cost < cost
        gain = np.where(better, cost - trial_cost, 0)
        small = np.abs(trial - theta).max(axis=0) <= 1e-8
        # A curve that only its highest dose bends creeps along a valley: late, a gain of 1e-7 a step counts as none.
        least_gain = (1e-10 if step < PATIENT_STEPS else 1e-7) * (cost + 1e-12)
        done = stuck | (better & (gain <= least_gain)) | small | (damping > 1e8)
        theta = np.where(better, trial, theta)
        cost = np.where(better, trial_cost, cost)
        damping = np.where(better, np.maximum(damping * 0.2, 1e-12), damping * 6)
        converged[alive[done]] = True
        if step == FEW_STEPS:
            result[:, alive], least[alive] = theta, cost
            done |= _beaten(result.reshape(-1, count, curves), least.reshape(count, curves)).ravel()[alive]
        if done.any():
            out, keep = alive[done], ~done
            result[:, out], least[out], steps[out] = theta[:, done], cost[done], step + 1
            alive, x, y, theta, cost, damping = (
                alive[keep], x[:, keep], y[:, keep], theta[:, keep], cost[keep], damping[keep]
            )  # fmt: skip
        if not len(alive):
            break
    result[:, alive], least[alive], steps[alive] = theta, cost, MOST_STEPS
    best = least.reshape(count, curves).argmin(axis=0) * curves + np.arange(curves)
    return result[:, best], steps.reshape(count, curves).max(axis=0), converged[best]


def _beaten(theta: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Which starts, (starts, curves), need not go on: far worse than another, or at the place of an earlier one.

    Args:
        theta: (parameters, starts, curves); cost: (starts, curves).
    """
    beaten: np.ndarray = cost > HOPELESS * cost.min(axis=0) + 1e-9
    for late in range(1, len(cost)):
        for early in range(late):
            together = (np.abs(theta[:, late] - theta[:, early]) < 1e-3).all(axis=0)
            beaten[late] |= together & (cost[early] <= cost[late])
    return beaten


def _normal(
    jacobian: list[np.ndarray], residual: np.ndarray, problem: _Problem
) -> tuple[list[list[np.ndarray]], list[np.ndarray]]:
    """J'WJ and J'Wr, each entry (curves,)."""
    weights = problem.weights(residual)
    weighted = jacobian if weights is None else [weights * column for column in jacobian]
    gradient = [np.einsum("pc,pc->c", column, residual) for column in weighted]
    matrix = [[np.einsum("pc,pc->c", weighted[i], jacobian[j]) for j in range(i + 1)] for i in range(len(jacobian))]
    return matrix, gradient


def _bounded_step(
    matrix: list[list[np.ndarray]],
    gradient: list[np.ndarray],
    theta: np.ndarray,
    damping: np.ndarray,
    problem: _Problem,
) -> tuple[np.ndarray, np.ndarray]:
    """The damped step of the parameters that may move, and which curves cannot get any better: stationary."""
    slope = np.stack(gradient)
    held = ((theta <= problem.low) & (slope >= 0)) | ((theta >= problem.high) & (slope <= 0))
    free = (~held).astype(float)
    damped = []
    for i, row in enumerate(matrix):
        entries = [entry * free[i] * free[j] for j, entry in enumerate(row)]
        # A parameter that nothing depends on (the slope of a flat curve) gets a diagonal, and stays where it is.
        entries[i] = np.where(free[i] > 0, entries[i] * (1 + damping) + 1e-12, 1.0)
        damped.append(entries)
    move = _solve(damped, [-g * f for g, f in zip(slope, free, strict=True)])
    stationary = np.abs(slope * free).max(axis=0) <= 1e-14
    return np.stack(move) * free, stationary


def _factor(matrix: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """Cholesky factor (lower) of symmetric matrices given by their lower entries, each (curves,)."""
    lower: list[list[np.ndarray]] = []
    for i, row in enumerate(matrix):
        new: list[np.ndarray] = []
        for j in range(i + 1):
            value = row[j]
            for k in range(j):
                value = value - new[k] * (new[k] if i == j else lower[j][k])
            new.append(np.sqrt(np.maximum(value, 1e-30)) if i == j else value / lower[j][j])
        lower.append(new)
    return lower


def _solve(matrix: list[list[np.ndarray]], right: list[np.ndarray]) -> list[np.ndarray]:
    """Solve small symmetric positive systems, one a curve."""
    lower = _factor(matrix)
    count = len(lower)
    solution = list(right)
    for i in range(count):
        for k in range(i):
            solution[i] = solution[i] - lower[i][k] * solution[k]
        solution[i] = solution[i] / lower[i][i]
    for i in reversed(range(count)):
        for k in range(i + 1, count):
            solution[i] = solution[i] - lower[k][i] * solution[k]
        solution[i] = solution[i] / lower[i][i]
    return solution


def _standard_errors(theta: np.ndarray, jacobian: list[np.ndarray], rss: np.ndarray, problem: _Problem) -> np.ndarray:
    """Standard errors, (parameters, curves), from s^2 (J'J)^-1 over the parameters that are not at a bound."""
    points = len(jacobian[0])
    at_bound = (theta <= problem.low + 1e-9) | (theta >= problem.high - 1e-9)
    free = (~at_bound).astype(float)
    degrees = points - free.sum(axis=0)
    matrix = []
    for i in range(problem.count):
        row = [np.einsum("pc,pc->c", jacobian[i], jacobian[j]) * free[i] * free[j] for j in range(i + 1)]
        row[i] = np.where(free[i] > 0, row[i], 1.0)
        matrix.append(row)
    errors = np.full(theta.shape, np.nan)
    for i in range(problem.count):
        unit = [np.full(theta.shape[1], float(i == j)) for j in range(problem.count)]
        variance = _solve(matrix, unit)[i]
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.sqrt(variance * rss / degrees)
        errors[i] = np.where((free[i] > 0) & (degrees > 0), error, np.nan)
    return errors
