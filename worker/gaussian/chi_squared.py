"""The published threshold: chi-squared, as if mean and covariance were known. For comparison; it says when it fails.

Rippel, Mertens, Merhof, "Modeling the Distribution of Normal Data in Pre-Trained Deep Features for Anomaly Detection"
(2020): a level of k features fails over sqrt(chi2.ppf(erf(σ/√2), k)). It takes the estimates for the truth: with few
frames a new frame lies further away than the training frames did, and far more good parts fail than were stated. Under
a shrunk covariance the rate may as well come out far below what was stated: no law is known for it. Augmented copies,
on a hundred of which the paper fits it, are no new frames: they help as far as they carry the true variance, which
nobody can promise of them, so they are not counted here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.density import Gaussian, Projection
from gaussline.worker.gaussian.hotelling import HotellingLaw

FRAMES_A_FEATURE = 10
"""Below so many training frames a feature the threshold is not worth having, even for exactly Gaussian frames."""
TOLERANCE = 0.1
"""Largest share by which the rate to be expected may be over the stated one without a warning."""


@dataclass(frozen=True, slots=True)
class Unreliable:
    """Why a chi-squared threshold cannot hold its rate.

    Attributes:
        frames, features: n (effective, without augmented copies) and k.
        shrinkage: of the covariance; over 0 the expected rate is not its own: the real one may be far off either way.
        expected_rate: of exactly Gaussian frames under a plain covariance, by the F law; None where n <= k.
        frames_needed: fewest frames from which this warning would not stand.
        text: the same for a person.
    """

    frames: float
    features: int
    shrinkage: float
    stated_rate: float
    expected_rate: float | None
    frames_needed: int
    text: str


@dataclass(frozen=True, slots=True)
class ChiSquared:
    """A threshold of one level.

    Attributes:
        threshold: a distance, not squared.
        warning: why it should not be used, or None.
    """

    rate: float
    threshold: float
    warning: Unreliable | None


def sigma_rate(sigmas: float) -> float:
    """The false-positive rate of the paper's n σ: 1 - erf(n/√2), exact also where it is tiny."""
    return float(special.erfc(sigmas / math.sqrt(2.0)))


def chi_squared(gaussian: Gaussian, rate: float, *, copies: int = 0) -> ChiSquared:
    """The published threshold of one level, at a rate. Raises FitError for a rate or a distance that has none.

    Args:
        copies: augmented copies of each frame that the Gaussian was fitted on too.
    """
    if not 0.0 < rate < 1.0:
        raise FitError(f"false-positive rate {rate} is not between 0 and 1")
    if gaussian.projection in (Projection.L2.value, Projection.STANDARDISED.value):
        raise FitError(f"chi-squared is a law of Mahalanobis distances, not of {gaussian.projection} ones")
    threshold = float(np.sqrt(stats.chi2.isf(rate, gaussian.rank)))
    return ChiSquared(rate, threshold, _warning(gaussian, rate, copies))


def expected_rate(frames: float, features: int, rate: float) -> float | None:
    """The rate that Gaussian frames realise on average over the chi-squared threshold; None where n <= k.

    The threshold's squared distance is looked up in the F law that it should have come from.
    """
    whole = math.floor(frames)
    if whole <= features:
        return None
    return float(HotellingLaw(whole, features).p_value(stats.chi2.isf(rate, features)))


def _warning(gaussian: Gaussian, rate: float, copies: int) -> Unreliable | None:
    frames, features = gaussian.count / (1 + copies), gaussian.rank
    if _holds(frames, features, rate):
        return None
    expected = expected_rate(frames, features, rate)
    needed = _frames_needed(features, rate)
    text = f"chi-squared at a stated {rate:.3g} cannot hold with {frames:.0f} frames of {features} features"
    text += f" (their {copies} copies each are no new frames): " if copies else ": "
    if expected is None:
        text += "there are not even as many frames as a plain covariance needs"
    else:
        text += f"{expected:.3g} of the good parts would fail, even if frames were exactly Gaussian"
    if gaussian.shrinkage > 0.0:
        text += " and the covariance plain; it is shrunk, and the real rate may be far off either way"
    text += f". From {needed} frames on it would be near. Use conformal"
    return Unreliable(frames, features, gaussian.shrinkage, rate, expected, needed, text)


def _holds(frames: float, features: int, rate: float) -> bool:
    expected = expected_rate(frames, features, rate)
    enough = frames >= FRAMES_A_FEATURE * features
    return enough and expected is not None and expected <= (1.0 + TOLERANCE) * rate


def _frames_needed(features: int, rate: float) -> int:
    """By doubling and halving: the expected rate falls with every frame."""
    high = FRAMES_A_FEATURE * features
    while not _holds(high, features, rate):
        high *= 2
    low = max(high // 2, 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _holds(middle, features, rate) else (middle, high)
    return high if not _holds(low, features, rate) else low
