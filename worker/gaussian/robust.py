"""A working point from calibration frames among which there may be unnoticed defects.

A conformal threshold trusts every calibration frame: with 10 % defects among them a stated 5 % lets through whatever
lies below the defects' own scores, and half of the detection is gone. Here only the body of the scores is trusted, the
lower `BODY` of them: a Gumbel law, cut off at its end, is fitted to them by maximum likelihood, and the threshold is
read off the law. A frame's score is a sum over levels of the farthest of many regions, and maxima of many things follow
Gumbel's law roughly; whether this sample's body does is said by `misfit`, beside what samples of the law itself show.

What is assumed, and cannot be known from the frames themselves: at least `BODY` of them are good, defects score higher
than that body, and good frames go on over it as they began. It is an estimate of the rate, no guarantee of it; where
the frames are known to be good, conformal has one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.law import Law, LawKind

Array = NDArray[np.float64]
BODY: Final = 0.8
"""Share of the calibration scores, from below, that the law is fitted to."""
FEWEST_FRAMES: Final = 40
"""Below so many the law's slope is not worth reading off: its standard error is over a fifth of it."""
DRAWS: Final = 200


@dataclass(frozen=True, slots=True, eq=False)
class RobustPoint:
    """A threshold from the body of the scores.

    Attributes:
        law: Gumbel's.
        threshold: at the rate.
        interval: of the rate that is realised if the law is right, at 95 %: the law's own chance of the thresholds that
            samples of this size give.
        misfit: largest distance between the body's shares and the law's (Kolmogorov), 0 … 1.
        usual_misfit: the largest among `DRAWS` samples of the law itself, of this size and fitted alike; a misfit over
            it says that the body does not follow the law.
    """

    law: Law
    threshold: float
    interval: tuple[float, float]
    misfit: float
    usual_misfit: float


def fit_body(scores: ArrayLike, body: float = BODY) -> Law:
    """A Gumbel law of the lower share of (n,) scores. Raises FitError where they are too few, or all the same."""
    s = np.sort(np.asarray(scores, np.float64))
    if s.ndim != 1 or not np.isfinite(s).all():
        raise FitError("calibration scores are not finite numbers, one a frame")
    if s.size < FEWEST_FRAMES:
        raise FitError(
            f"{s.size} frames are too few to tell a body of scores from defects: at least {FEWEST_FRAMES} are needed"
        )
    lower = s[: math.ceil(body * s.size)]
    unit = float(lower[-1] - np.median(lower))
    if unit <= 0.0:
        raise FitError("half of the calibration scores are the same: no law can be fitted to them")
    # In units of the sample, so that the search does not depend on the scores' scale.
    x = (lower - lower[-1]) / unit

    def cost(at: Array) -> float:
        scale = math.exp(float(at[1]))
        z = (x - float(at[0])) / scale
        if z[0] < -500.0:
            return math.inf
        e = np.exp(-z)
        # Log-density less the logarithm of the law's share below the cut, which lies at 0.
        return float(x.size * float(at[1]) + z.sum() + e.sum() - x.size * math.exp(float(at[0]) / scale))

    start = np.array([-1.0, math.log(0.8)])
    simplex = start + np.array([[0.0, 0.0], [0.3, 0.0], [0.0, 0.3]])
    options = {"initial_simplex": simplex, "xatol": 1e-6, "fatol": 1e-8, "maxiter": 500}
    found = optimize.minimize(cost, start, method="Nelder-Mead", options=options)
    location = float(lower[-1]) + unit * float(found.x[0])
    return Law(LawKind.GUMBEL, {"location": location, "scale": unit * math.exp(float(found.x[1]))})


def quantile(law: Law, rate: float) -> float:
    """The score that a share `rate` of normal frames exceeds under a Gumbel law."""
    have = law.parameters
    return have["location"] - have["scale"] * math.log(-math.log1p(-rate))


def robust_point(scores: ArrayLike, rate: float, *, seed: int = 0, body: float = BODY) -> RobustPoint:
    """From (n,) scores of mostly normal frames that the fit has not seen. Raises FitError."""
    if not 0.0 < rate < 1.0 - body:
        raise FitError(
            f"a robust working point trusts the lower {body:.0%} of the scores: the rate must be over 0 and below "
            f"{1.0 - body:.2g}, not {rate:g}"
        )
    s = np.sort(np.asarray(scores, np.float64))
    law = fit_body(s, body)
    draw = np.random.default_rng(seed)
    realised, misfits = [], []
    for _ in range(DRAWS):
        drawn = np.sort(-np.log(-np.log(draw.uniform(size=s.size))))
        fitted = fit_body(drawn, body)
        realised.append(float(Law(LawKind.GUMBEL, _UNIT).p_value(quantile(fitted, rate))))
        misfits.append(_misfit(drawn, fitted, body))
    low, high = np.quantile(realised, [0.025, 0.975])
    return RobustPoint(law, quantile(law, rate), (float(low), float(high)), _misfit(s, law, body), max(misfits))


def _misfit(ordered: Array, law: Law, body: float) -> float:
    """Largest distance between the shares of the body of (n,) ascending scores and of the law, cut off at its end."""
    cut = math.ceil(body * ordered.size)
    below = 1.0 - law.p_value(ordered[:cut])
    expected = below / max(float(below[-1]), 1e-12)
    steps = np.arange(cut + 1) / cut
    return float(np.maximum(np.abs(expected - steps[1:]), np.abs(expected - steps[:-1])).max())


_UNIT: Final = {"location": 0.0, "scale": 1.0}
