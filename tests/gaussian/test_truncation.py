"""What a gate cuts off the covariance is given back: by the law of the squared distance, and by frames."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.truncation import correction, truncation_factor

CASES = [(1, 0.05), (6, 0.1), (40, 0.02), (272, 0.3)]


@pytest.mark.parametrize(("dimension", "alpha"), CASES)
def test_the_factor_is_the_mean_of_what_is_let_through(dimension: int, alpha: float) -> None:
    edge = stats.chi2.isf(alpha, dimension)
    whole = stats.chi2.expect(lambda distance: distance, (dimension,), ub=edge, epsabs=1e-10)
    assert truncation_factor(dimension, alpha) == pytest.approx(whole / (1.0 - alpha) / dimension, rel=1e-6)


def test_gated_frames_get_their_covariance_back() -> None:
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((60_000, 5))
    gated = frames[(frames**2).sum(axis=1) <= stats.chi2.isf(0.1, 5)]
    cut = np.trace(gated.T @ gated) / len(gated) / 5
    assert cut < 0.88
    assert cut * correction(5, 0.1, 1.0) == pytest.approx(1.0, abs=0.01)
    # Half of the weight came before there was a gate.
    mixed = 0.5 * cut + 0.5
    assert mixed * correction(5, 0.1, 0.5) == pytest.approx(1.0, abs=0.01)


def test_an_open_gate_cuts_nothing_and_a_tighter_one_more() -> None:
    assert truncation_factor(7, 0.0) == 1.0
    assert correction(7, 0.2, 0.0) == 1.0
    factors = [truncation_factor(7, alpha) for alpha in (0.01, 0.05, 0.2, 0.5)]
    assert factors == sorted(factors, reverse=True)
    assert 0.0 < factors[-1] < factors[0] < 1.0


@pytest.mark.parametrize(("dimension", "alpha", "share"), [(0, 0.1, 0.5), (3, 1.0, 0.5), (3, -0.1, 0.5), (3, 0.1, 1.5)])
def test_what_makes_no_sense_is_refused(dimension: int, alpha: float, share: float) -> None:
    with pytest.raises(FitError):
        correction(dimension, alpha, share)
