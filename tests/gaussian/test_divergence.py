"""How far Gaussians are apart, against the formula with inverses and determinants."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.covariance import Covariance, Estimator
from gaussline.worker.gaussian.density import Gaussian, Projection, fit_gaussian, from_covariance
from gaussline.worker.gaussian.divergence import divergence, low_variance_directions, mean_shift
from gaussline.worker.gaussian.moments import Moments

Array = NDArray[np.float64]


def pair(d: int, seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((d, 2 * d))
    return rng.standard_normal(d), mixed @ mixed.T / d


def made(mean: Array, matrix: Array) -> Gaussian:
    return from_covariance(mean, Covariance(matrix, 0.0, 100.0, Estimator.EMPIRICAL))


@pytest.mark.parametrize("d", [1, 2, 9])
def test_the_divergence_is_that_of_the_textbook(d: int) -> None:
    (m_old, s_old), (m_new, s_new) = pair(d, 1), pair(d, 2)
    inverse, delta = np.linalg.inv(s_old), m_new - m_old
    logs = [float(np.linalg.slogdet(matrix)[1]) for matrix in (s_old, s_new)]
    want = 0.5 * (np.trace(inverse @ s_new) + delta @ inverse @ delta - d + logs[0] - logs[1]) / d
    old, new = made(m_old, s_old), made(m_new, s_new)
    assert divergence(old, new) == pytest.approx(want, rel=1e-9)
    assert divergence(old, old) == pytest.approx(0.0, abs=1e-12)
    assert divergence(new, old) != pytest.approx(want, rel=1e-3)
    assert mean_shift(old, new) == pytest.approx(np.sqrt(delta @ inverse @ delta / d), rel=1e-9)


def test_it_does_not_depend_on_the_units_of_the_channels() -> None:
    (m_old, s_old), (m_new, s_new) = pair(4, 3), pair(4, 4)
    units = np.array([1.0, 100.0, 0.01, 7.0])
    scaled = [made(units * mean, units * matrix * units[:, None]) for mean, matrix in ((m_old, s_old), (m_new, s_new))]
    assert divergence(*scaled) == pytest.approx(divergence(made(m_old, s_old), made(m_new, s_new)), rel=1e-8)


def test_projected_gaussians_have_no_common_space() -> None:
    moments = Moments(3).update(np.random.default_rng(0).standard_normal((50, 3)))
    whole, cut = fit_gaussian(moments), fit_gaussian(moments, projection=Projection.PCA, variance=0.5)
    for one, two in ((whole, cut), (cut, whole)):
        with pytest.raises(FitError, match="whole space"):
            divergence(one, two)


def test_directions_of_low_variance_are_those() -> None:
    gaussian = made(np.zeros(20), np.diag(np.geomspace(1.0, 1e-6, 20)))
    found = low_variance_directions(gaussian, 8, np.random.default_rng(0))
    assert found.shape == (8, 20)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-12)
    assert (np.square(found[:, 15:]).sum(axis=1) > 0.9999).all()
