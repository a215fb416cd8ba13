"""What a gate cuts off the covariance, and how it is given back.

A gate lets a frame teach if its distance is under an edge that a share α of normal frames exceed. The covariance of
what it lets through is too small. For frames of an elliptical law with k directions, whatever its tails, what is let
through has a covariance of the same shape, smaller by one factor, τ = E[D | D <= q] / E[D] with D the squared distance
and q its (1 - α) quantile. For Gaussian frames D is chi-squared and the factor is exact: since x·f_k(x) = k·f_{k+2}(x),

    τ(k, α) = F_{k+2}(q) / (1 - α),  q = F_k⁻¹(1 - α).

The covariance is divided by it. For heavier tails τ is smaller than that, so that part of the shrinkage stays; it is
bounded, not compounding: the edge is a quantile of frames that the gate never touched (the reservoir), so every
generation cuts the same share α off the same law, where an edge from gated frames would cut into what is left of it.
A factor that all levels share moves no decision at all, because the working point is a quantile too.
"""

from __future__ import annotations

from scipy import stats

from gaussline.worker.errors import FitError


def truncation_factor(dimension: int, alpha: float) -> float:
    """τ(k, α): by how much a gate that cuts a share α shrinks a Gaussian's covariance, in (0, 1]. Raises FitError."""
    if dimension < 1 or not 0.0 <= alpha < 1.0:
        raise FitError(f"a gate at {alpha} over {dimension} directions cuts nothing that is known")
    if alpha == 0.0:
        return 1.0
    edge = stats.chi2.isf(alpha, dimension)
    return float(stats.chi2.cdf(edge, dimension + 2) / (1.0 - alpha))


def correction(dimension: int, alpha: float, gated_share: float) -> float:
    """What a covariance is multiplied by, of which a share of the weight came through the gate."""
    if not 0.0 <= gated_share <= 1.0:
        raise FitError(f"{gated_share} is no share")
    return 1.0 / (1.0 - gated_share + gated_share * truncation_factor(dimension, alpha))
