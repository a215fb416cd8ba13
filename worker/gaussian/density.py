"""The Gaussian of one level, and the Mahalanobis distance under it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg
from scipy.linalg.lapack import dtrtri

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.covariance import SINGULAR_CONDITION, Covariance, Estimator, estimate
from gaussline.worker.gaussian.moments import Moments

Array = NDArray[np.float64]


class Projection(StrEnum):
    """Which directions count. PCA keeps those of high variance, NPCA those of low variance."""

    NONE = "none"
    PCA = "pca"
    NPCA = "npca"
    L2 = "l2"
    STANDARDISED = "standardised"


@dataclass(frozen=True, slots=True, eq=False)
class Gaussian:
    """A multivariate Gaussian in the form that scoring needs: mean and whitening matrix.

    Attributes:
        mean: (d,).
        whitening: (k, d), W with WᵀW = Σ⁻¹ (on the kept directions): distance = ‖W(x - mean)‖.
        count: effective number of frames behind it.
        shrinkage: of the covariance.
        condition: condition number of the covariance that was factored.
    """

    mean: Array
    whitening: Array
    count: float
    shrinkage: float
    condition: float
    estimator: str
    projection: str = Projection.NONE.value

    @property
    def dimension(self) -> int:
        """d, the features that go in."""
        return int(self.mean.size)

    @property
    def rank(self) -> int:
        """k, the directions that count."""
        return int(self.whitening.shape[0])

    def whiten(self, samples: ArrayLike) -> Array:
        """(n, d) features as (n, k) whitened residuals, float64."""
        x = np.asarray(samples, np.float64)
        if x.ndim not in (1, 2) or x.shape[-1] != self.dimension:
            raise FitError(f"features have shape {x.shape}, the Gaussian has {self.dimension} dimensions")
        white: Array = (x - self.mean) @ self.whitening.T
        return white

    def mahalanobis_sq(self, samples: ArrayLike) -> Array:
        """(n, d) features to (n,) squared distances."""
        white = self.whiten(samples)
        squares: Array = np.einsum("...i,...i->...", white, white)
        return squares

    def mahalanobis(self, samples: ArrayLike) -> Array:
        """(n, d) features to (n,) distances."""
        distances: Array = np.sqrt(self.mahalanobis_sq(samples))
        return distances

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays of it, for an artefact."""
        return {"mean": self.mean, "whitening": self.whitening}

    def describe(self) -> dict[str, Any]:
        """The rest of it, JSON-able."""
        return {
            "count": self.count,
            "shrinkage": self.shrinkage,
            "condition": self.condition,
            "estimator": self.estimator,
            "projection": self.projection,
        }

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]], described: Mapping[str, Any]) -> Gaussian:
        """From `to_arrays` and `describe`. Raises FitError where they are missing, do not fit or make no sense."""
        try:
            mean, whitening = np.asarray(arrays["mean"], np.float64), np.asarray(arrays["whitening"], np.float64)
            gaussian = cls(
                mean,
                whitening,
                float(described["count"]),
                float(described["shrinkage"]),
                float(described["condition"]),
                Estimator(described["estimator"]).value,
                Projection(described["projection"]).value,
            )
        except (KeyError, ValueError, TypeError) as error:
            raise FitError(f"stored arrays are no Gaussian: {type(error).__name__}: {error}") from None
        if mean.ndim != 1 or whitening.ndim != 2 or not 1 <= len(whitening) <= mean.size == whitening.shape[1]:
            raise FitError(f"mean {mean.shape} and whitening {whitening.shape} do not fit each other")
        if not (np.isfinite(mean).all() and np.isfinite(whitening).all()):
            raise FitError("a Gaussian holds NaN or infinite values")
        if not (0.0 < gaussian.count < math.inf and 0.0 <= gaussian.shrinkage <= 1.0 <= gaussian.condition < math.inf):
            raise FitError(
                f"a Gaussian of {gaussian.count} frames has a shrinkage of {gaussian.shrinkage} and a condition number "
                f"of {gaussian.condition}"
            )
        return gaussian


def fit_gaussian(
    moments: Moments,
    estimator: Estimator = Estimator.LEDOIT_WOLF,
    projection: Projection = Projection.NONE,
    variance: float = 0.99,
) -> Gaussian:
    """Fit one level. `variance` is the fraction of variance at which PCA or NPCA cuts. Raises FitError."""
    if projection is Projection.NONE:
        return from_covariance(moments.mean.copy(), estimate(moments, estimator))
    if moments.count == 0:
        raise FitError("no frames to fit on")
    if projection is Projection.L2:
        return _diagonal(moments, np.ones(moments.dimension), projection)
    if projection is Projection.STANDARDISED:
        return _standardised(moments)
    return _components(moments, projection, variance)


def from_covariance(mean: Array, covariance: Covariance) -> Gaussian:
    """Factor a covariance: Σ = LLᵀ, W = L⁻¹, a triangle of its own: a third of the work of solving for it.

    Never a pseudo-inverse: the low-variance directions that it would cut are the ones that carry the signal. Raises
    FitError where Σ is not positive definite, or so nearly singular that its smallest directions are rounding.
    """
    matrix = covariance.matrix
    try:
        # Rounding lets a factor of a singular matrix succeed now and then: the spectrum is what decides.
        eigenvalues = linalg.eigvalsh(matrix, check_finite=True)
        if eigenvalues[0] * SINGULAR_CONDITION < eigenvalues[-1] or eigenvalues[-1] <= 0.0:
            raise linalg.LinAlgError(f"eigenvalues from {eigenvalues[0]:.3g} to {eigenvalues[-1]:.3g}")
        lower = linalg.cholesky(matrix, lower=True)
    except (linalg.LinAlgError, ValueError) as error:
        raise FitError(
            f"the covariance of {matrix.shape[0]} features from {covariance.effective_size:.0f} frames is singular "
            f"({error}): give more frames that differ{_OTHERWISE[covariance.estimator]}"
        ) from None
    return Gaussian(
        mean,
        np.ascontiguousarray(dtrtri(lower, lower=1)[0]),
        covariance.effective_size,
        covariance.shrinkage,
        float(eigenvalues[-1] / eigenvalues[0]),
        covariance.estimator.value,
    )


_OTHERWISE = {Estimator.LEDOIT_WOLF: "", Estimator.OAS: "", Estimator.EMPIRICAL: ", or use ledoit_wolf"}


def _diagonal(moments: Moments, scale: Array, projection: Projection) -> Gaussian:
    return Gaussian(
        moments.mean.copy(),
        np.diag(scale),
        moments.effective_size,
        0.0,
        float((scale.max() / scale.min()) ** 2),
        Estimator.EMPIRICAL.value,
        projection.value,
    )


def _standardised(moments: Moments) -> Gaussian:
    """The standardised Euclidean distance, with unbiased standard deviations; a control of the paper."""
    n = moments.effective_size
    if n < 2:
        raise FitError(f"standard deviations need at least 2 frames, got {n:.0f}")
    variance = np.diag(moments.scatter) / moments.weight * (n / (n - 1.0))
    if (variance <= 0).any():
        raise FitError(
            f"{int((variance <= 0).sum())} of {variance.size} channels are constant: they cannot be standardised"
        )
    return _diagonal(moments, 1.0 / np.sqrt(variance), Projection.STANDARDISED)


def _components(moments: Moments, projection: Projection, variance: float) -> Gaussian:
    """PCA and NPCA by variance fraction, with the overlap rule of the paper's published code.

    PCA keeps components up to and including the one that crosses the fraction, NPCA keeps from just before it on. With
    n < d there are min(n, d) components, the last of which is null after centring: it has no variance to divide by, and
    is left out.
    """
    if not 0.0 < variance < 1.0:
        raise FitError(f"variance fraction {variance} is not between 0 and 1")
    n, d = moments.effective_size, moments.dimension
    if n < 2:
        raise FitError(f"principal components need at least 2 frames, got {n:.0f}")
    eigenvalues, vectors = np.linalg.eigh(moments.scatter / moments.weight * (n / (n - 1.0)))
    eigenvalues, vectors = eigenvalues[::-1], vectors[:, ::-1]
    there = min(int(moments.count), d)
    ratio = np.cumsum(np.maximum(eigenvalues[:there], 0.0)) / max(
        float(eigenvalues.clip(0.0).sum()), np.finfo(float).tiny
    )
    crossing = int(np.searchsorted(ratio, variance, side="right"))
    crossing = min(crossing, there - 1)
    kept = slice(0, crossing + 1) if projection is Projection.PCA else slice(max(crossing - 1, 0), there)
    values, directions = eigenvalues[kept], vectors[:, kept]
    # Rounding leaves the null direction with a variance of a few ulps of the largest, not with zero.
    real = values > eigenvalues[0] * d * np.finfo(float).eps
    values, directions = values[real], directions[:, real]
    if values.size == 0:
        raise FitError(f"{projection.value} at {variance} keeps no direction with variance: give more frames")
    return Gaussian(
        moments.mean.copy(),
        np.ascontiguousarray((directions / np.sqrt(values)).T),
        n,
        0.0,
        float(values[0] / values[-1]),
        Estimator.EMPIRICAL.value,
        projection.value,
    )
