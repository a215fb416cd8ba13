"""Drift of a line: is the newest stretch of frames drawn as the reference stretch was? Pure mathematics, no clock.

Neighbouring frames resemble each other (one batch of material, one state of a lamp) and some parts are bad, so frames
are no independent sample and no test may treat them so. Everything here is a test on means of blocks of frames (batch
means; Fishman 1978), whose spread is measured and not assumed: whatever the frames' law, autocorrelation and share of
defects, block means vary as the reference's block means do. What correlation is left between blocks widens the spread
by (1 + ρ)/(1 - ρ). The statistic is Student's t; a *persistent* change is asked for, the median of the newest blocks,
which one cluster of defects does not move.

A p-value comes from a finite calibration set: under another version its distribution is off by the calibration's own
error, of variance c(1 - c)/(n + 2) at level c (the order statistic's Beta law). That variance is added for each side.

False alarms are bounded over the whole run by Bonferroni: whatever the dependence between evaluations, the probability
of any false alarm in a month is at most the sum of the single ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.density import Gaussian

Array = NDArray[np.float64]
MONTH_S = 30 * 86_400.0
LEVELS = (0.5, 0.2)
"""Shares c at which the distribution of p-values is compared: P(p <= c) over blocks."""
MAX_RHO = 0.9


def alpha_of(per_month: float, every_s: float, tests: int) -> float:
    """The level of one test, so that all tests, evaluated at most every so often, alarm falsely that often a month."""
    if not (per_month > 0 and every_s > 0 and tests >= 1):
        raise FitError(f"{per_month} false alarms a month over {tests} tests every {every_s} s make no level")
    return per_month * every_s / (MONTH_S * tests)


def quantile_t(alpha: float, dof: float) -> float:
    """The two-sided threshold of |t|."""
    return float(stats.t.isf(alpha / 2.0, dof))


def spread(reference: ArrayLike, floor: float = 0.0) -> tuple[float, float, float]:
    """Mean of (m,) reference block means, standard deviation of one, corrected for correlation, and its freedom.

    `floor` is a standard deviation that a block mean has at least (that of independent frames, say): a reference of few
    blocks may by chance be too calm.
    """
    r = np.asarray(reference, np.float64)
    m = r.size
    if m < 3:
        raise FitError(f"a reference of {m} blocks shows no spread")
    y = r - r.mean()
    variance = float(y @ y) / (m - 1)
    rho = 0.0
    if variance > 0.0:
        # The estimate is biased down by about (1 + 4ρ)/m (Marriott, Pope 1954).
        rho = float(y[1:] @ y[:-1]) / float(y @ y)
        rho = min(max(rho + (1.0 + 4.0 * max(rho, 0.0)) / m, 0.0), MAX_RHO)
    widened = (1.0 + rho) / (1.0 - rho)
    return float(r.mean()), float(np.sqrt(max(variance, floor * floor) * widened)), (m - 1) / widened


def shift_t(
    reference: ArrayLike, newest: ArrayLike, *, floor: float = 0.0, extra_variance: float = 0.0, robust: bool = True
) -> tuple[float, float]:
    """Student's t of the newest blocks against the reference, and its degrees of freedom.

    `robust`: the median of the newest blocks, with the spread of a single one (too large: on the safe side); else their
    mean. `extra_variance` is added to that of the difference.
    """
    new = np.asarray(newest, np.float64)
    mean, sd, dof = spread(reference, floor)
    m = np.asarray(reference).size
    if robust:
        change, variance = float(np.median(new)) - mean, sd * sd * (1.0 + 1.0 / m)
    else:
        change, variance = float(new.mean()) - mean, sd * sd * (1.0 / new.size + 1.0 / m)
    variance += extra_variance
    if variance <= 0.0:
        return (0.0 if change == 0.0 else float(np.copysign(np.inf, change))), dof
    return change / float(np.sqrt(variance)), max(dof, 3.0)


def calibration_variance(level: float, calibration_frames: int) -> float:
    """Variance of P(p <= level) over calibration sets of so many frames."""
    return level * (1.0 - level) / (calibration_frames + 2.0)


def root_variance(share: float, calibration_frames: int) -> float:
    """Variance of the root of a realised share of failures over calibration sets of so many frames; 0: not known."""
    return (1.0 - share) / (4.0 * (calibration_frames + 2.0)) if calibration_frames else 0.0


def without_levels(values: ArrayLike, groups: ArrayLike) -> tuple[Array, float]:
    """(m,) values without what sets groups of them apart, and how much of one group's error is in the mean of all.

    Each group's own mean is taken out and the mean of all put back; what is left is scaled so that its variance is as
    expected of independent values (one freedom a group is gone). The second number is Σ(m_g/m)²: the variance of the
    mean that comes from the groups, in units of that of one group. Groups too many to leave a spread change nothing.

    Args:
        groups: (m,) numbers of the groups.
    """
    v, number = np.asarray(values, np.float64), np.unique(np.asarray(groups), return_inverse=True)[1]
    sizes = np.bincount(number).astype(np.float64)
    m, freedom = v.size, v.size - sizes.size
    if sizes.size == 1 or freedom < m // 2:
        return v, 1.0
    means = np.bincount(number, weights=v) / sizes
    left: Array = v.mean() + (v - means[number]) * np.sqrt((m - 1.0) / freedom)
    return left, float(np.sum((sizes / m) ** 2))


def mean_shifts(reference: Array, newest: Array) -> tuple[Array, Array]:
    """How far whitened block means lie from the reference's mean: log squared distance of (m,) and of (w,) blocks.

    Each reference block is compared with the mean of the others, so that both have the same law but for 1/m.

    Args:
        reference, newest: (m, k) and (w, k) whitened means of blocks.
    """
    m = len(reference)
    centre = reference.mean(axis=0)
    others = (m * centre - reference) / (m - 1)
    tiny = float(np.finfo(np.float64).tiny)
    old: Array = np.log(np.sum((reference - others) ** 2, axis=1) + tiny)
    new: Array = np.log(np.sum((newest - centre) ** 2, axis=1) + tiny)
    return old, new


def top_directions(gaussian: Gaussian, before: Array, after: Array, count: int = 3) -> list[tuple[int, float]]:
    """The channels that a change of the mean shows in most: (channel, change in standard deviations of its own).

    A channel's standard deviation comes from the covariance Σ = (WᵀW)⁻¹; of a projected Gaussian, from the whitened
    change alone.
    """
    change = after - before
    moved = gaussian.whitening @ change
    shares = (gaussian.whitening.T @ moved) * change  # they add up to the squared whitened change
    order = np.argsort(-np.abs(shares), kind="stable")[:count]
    return [(int(channel), float(np.copysign(np.sqrt(abs(shares[channel])), change[channel]))) for channel in order]


def relative_change(before: float, after: float) -> float:
    """(after - before)/before; 0 where both are nothing."""
    if before == 0.0:
        return 0.0 if after == 0.0 else float(np.copysign(np.inf, after))
    return (after - before) / abs(before)


def block_means(rows: ArrayLike, size: int) -> Array:
    """(n, …) rows to means of whole blocks of `size`; the rest is left out."""
    x = np.asarray(rows, np.float64)
    blocks = len(x) // size
    means: Array = x[: blocks * size].reshape(blocks, size, *x.shape[1:]).mean(axis=1)
    return means


def indicator_floor(share: float, size: int) -> float:
    """Standard deviation of a share over a block of independent frames; of one seen never, that of one in the block."""
    p = min(max(share, 1.0 / size), 1.0 - 1.0 / size)
    return float(np.sqrt(p * (1.0 - p) / size))
