"""How far one Gaussian is from another, and frames along the directions in which it looks most closely."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.density import Gaussian, Projection

Array = NDArray[np.float64]


def mean_shift(old: Gaussian, new: Gaussian) -> float:
    """‖W_old(m_new - m_old)‖ / √k: how far the mean moved, in standard deviations a direction."""
    return float(old.mahalanobis(new.mean)) / float(np.sqrt(old.rank))


def divergence(old: Gaussian, new: Gaussian) -> float:
    """Kullback–Leibler divergence of the new Gaussian from the old one, KL(new ‖ old), in nats a direction.

    ½(tr(Σ_old⁻¹Σ_new) + ‖W_old δ‖² - k + ln det Σ_old - ln det Σ_new) / k, by triangular factors: no matrix is inverted
    but W_new, which is triangular. Raises FitError for projected Gaussians, whose determinants are of other spaces.
    """
    if {old.projection, new.projection} != {Projection.NONE.value} or old.dimension != new.dimension:
        raise FitError("a divergence needs two Gaussians over the same whole space")
    # W_old L_new with L_new = W_new⁻¹: solve W_newᵀ Xᵀ = W_oldᵀ.
    product = linalg.solve_triangular(new.whitening, old.whitening.T, lower=True, trans="T", check_finite=False)
    trace = float(np.einsum("ij,ij->", product, product))
    log_old, log_new = (float(np.log(np.diag(g.whitening)).sum()) for g in (old, new))
    k = old.rank
    return 0.5 * (trace + float(old.mahalanobis_sq(new.mean)) - k - 2.0 * log_old + 2.0 * log_new) / k


def low_variance_directions(gaussian: Gaussian, count: int, rng: np.random.Generator) -> Array:
    """(count, d) unit directions of low variance: random vectors after two steps of inverse power iteration, (WᵀW)²r.

    Each step multiplies a direction by the inverse of its variance, so the low ones win, in a random mixture.
    """
    directions = rng.standard_normal((count, gaussian.dimension))
    for _ in range(2):
        directions = (directions @ gaussian.whitening.T) @ gaussian.whitening
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions
