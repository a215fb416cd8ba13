"""Covariance estimators, each computed from streaming moments alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.moments import Moments

Array = NDArray[np.float64]
SINGULAR_CONDITION = 1e12
"""Condition number from which a plain covariance is refused: half of float64's digits would be noise."""


class Estimator(StrEnum):
    """How a covariance is estimated."""

    LEDOIT_WOLF = "ledoit_wolf"
    OAS = "oas"
    EMPIRICAL = "empirical"


@dataclass(frozen=True, slots=True, eq=False)
class Covariance:
    """An estimate.

    Attributes:
        matrix: (d, d), symmetric and positive definite.
        shrinkage: weight of the scaled identity in it, 0 … 1.
        effective_size: of the samples behind it.
    """

    matrix: Array
    shrinkage: float
    effective_size: float
    estimator: Estimator


def estimate(moments: Moments, estimator: Estimator = Estimator.LEDOIT_WOLF) -> Covariance:
    """Estimate the covariance. Raises FitError where the samples are too few, or a plain estimate would be singular."""
    if moments.count < 2:
        raise FitError(f"a covariance needs at least 2 frames, got {moments.count}")
    if float(np.trace(moments.scatter)) <= 0.0:
        raise FitError(
            f"all {moments.count} frames have the same features: there is no variation to learn from "
            "(one image repeated?)"
        )
    n = moments.weight
    sample = moments.scatter / n
    if estimator is Estimator.EMPIRICAL:
        return _empirical(moments, sample)
    shrinkage = ledoit_wolf_shrinkage(moments) if estimator is Estimator.LEDOIT_WOLF else oas_shrinkage(moments)
    d = moments.dimension
    matrix = (1.0 - shrinkage) * sample
    matrix.flat[:: d + 1] += shrinkage * np.trace(sample) / d
    return Covariance(_symmetric(matrix), shrinkage, moments.effective_size, estimator)


def ledoit_wolf_shrinkage(moments: Moments) -> float:
    """Exact shrinkage of Ledoit, Wolf, "A well-conditioned estimator for large-dimensional covariance matrices" (2004).

    μ = tr(S)/(nd), δ² = (‖S/n‖²_F - 2μ·tr(S)/n + dμ²)/d, β² = min(δ², (Q/n - ‖S/n‖²_F)·W₂/(n²d)), shrinkage β²/δ².
    With equal weights W₂ = n and the result is the batch one; with forgetting n²/W₂ (Kish) is the sample size.
    """
    d, n = moments.dimension, moments.weight
    if d == 1 or n <= 0:
        return 0.0
    sample_sq = float(np.einsum("ij,ij->", moments.scatter, moments.scatter)) / (n * n)
    mu = float(np.trace(moments.scatter)) / (n * d)
    delta_sq = (sample_sq - d * mu * mu) / d
    if delta_sq <= 0.0:
        return 0.0
    beta_sq = (moments.fourth / n - sample_sq) * moments.weight_sq / (n * n * d)
    return min(max(beta_sq, 0.0), delta_sq) / delta_sq


def oas_shrinkage(moments: Moments) -> float:
    """Oracle approximating shrinkage, Chen, Wiesel, Eldar, Hero, "Shrinkage Algorithms for MMSE Covariance Estimation"
    (2010), eq. 23, with the effective size as the number of samples.
    """
    d, n = moments.dimension, moments.effective_size
    if d == 1:
        return 0.0
    w = moments.weight
    alpha = float(np.einsum("ij,ij->", moments.scatter, moments.scatter)) / (w * w * d * d)
    mu = float(np.trace(moments.scatter)) / (w * d)
    denominator = (n + 1.0) * (alpha - mu * mu / d)
    return 1.0 if denominator <= 0.0 else min((alpha + mu * mu) / denominator, 1.0)


def _empirical(moments: Moments, sample: Array) -> Covariance:
    """The unbiased plain covariance S/(n - 1), refused where it cannot be inverted honestly."""
    d, n = moments.dimension, moments.effective_size
    if n <= d:
        raise FitError(
            f"a plain covariance of {d} features needs more than {d} frames, got {n:.0f}: "
            "use ledoit_wolf, or give more frames"
        )
    matrix = _symmetric(sample * (n / (n - 1.0)))
    eigenvalues = np.linalg.eigvalsh(matrix)
    if eigenvalues[0] <= 0.0 or eigenvalues[-1] / eigenvalues[0] > SINGULAR_CONDITION:
        dead = int(np.sum(np.diag(matrix) <= 0.0))
        cause = f"{dead} of its {d} channels are constant" if dead else "its directions are dependent"
        raise FitError(f"the plain covariance of {n:.0f} frames is singular ({cause}): use ledoit_wolf")
    return Covariance(matrix, 0.0, n, Estimator.EMPIRICAL)


def _symmetric(matrix: Array) -> Array:
    return 0.5 * (matrix + matrix.T)
