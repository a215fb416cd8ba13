"""The exact law of a new frame's distance, where frames are Gaussian, enough, and nothing is shrunk.

For n Gaussian training frames of k features, with the sample mean and the unbiased covariance S/(n-1) of all of them, a
new frame of the same law has M²·n(n-k)/(k(n²-1)) ~ F(k, n-k) (Hotelling 1931; Anderson, "An Introduction to
Multivariate Statistical Analysis", chapter 5). Estimation error is accounted for exactly, which chi-squared forgets;
that frames are Gaussian is an assumption, which deep features only roughly meet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.covariance import Estimator
from gaussline.worker.gaussian.density import Gaussian, Projection

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HotellingLaw:
    """The law of one level's distance.

    Attributes:
        frames: n, all of weight 1.
        dimension: k < n.
    """

    frames: int
    dimension: int

    def __post_init__(self) -> None:
        if not 1 <= self.dimension < self.frames:
            raise FitError(
                f"the F law of {self.dimension} features needs more than {self.dimension} frames, got {self.frames}"
            )

    @classmethod
    def of(cls, gaussian: Gaussian) -> HotellingLaw:
        """The law of a Gaussian that was fitted plainly. Raises FitError where the law does not hold of it."""
        if gaussian.estimator != Estimator.EMPIRICAL.value or gaussian.projection != Projection.NONE.value:
            raise FitError(
                f"the F law holds for the plain covariance (empirical) in all directions, not for {gaussian.estimator} "
                f"with projection {gaussian.projection}: use conformal"
            )
        frames = round(gaussian.count)
        if abs(gaussian.count - frames) > 1e-6:
            raise FitError(
                f"the F law holds for frames of equal weight, not for {gaussian.count:.1f} effective frames of a "
                "forgetting fit: use conformal"
            )
        return cls(frames, gaussian.dimension)

    @property
    def scale(self) -> float:
        """What M² is multiplied by to follow F(k, n - k)."""
        n, k = float(self.frames), float(self.dimension)
        return n * (n - k) / (k * (n * n - 1.0))

    def p_value(self, mahalanobis_sq: ArrayLike) -> Array:
        """Squared distances of new frames to p-values."""
        ratio = np.asarray(mahalanobis_sq, np.float64) * self.scale
        return np.asarray(stats.f.sf(ratio, self.dimension, self.frames - self.dimension), np.float64)

    def threshold(self, rate: float) -> float:
        """The distance (not squared) that a share `rate` of new normal frames exceeds. Raises FitError."""
        if not 0.0 < rate < 1.0:
            raise FitError(f"false-positive rate {rate} is not between 0 and 1")
        return float(np.sqrt(stats.f.isf(rate, self.dimension, self.frames - self.dimension) / self.scale))
