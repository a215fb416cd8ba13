"""A working point from the body of the scores: what lies over it moves nothing, and a body of another law is told."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.calibration import Method
from gaussline.worker.gaussian.combination import Combination
from gaussline.worker.gaussian.law import Law, LawKind
from gaussline.worker.gaussian.robust import BODY, FEWEST_FRAMES, fit_body, quantile, robust_point
from gaussline.worker.learning.working_point import working_point

LOCATION, SCALE = 90.0, 6.0
TRUTH = Law(LawKind.GUMBEL, {"location": LOCATION, "scale": SCALE})


def sample(frames: int, seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).gumbel(LOCATION, SCALE, frames)


def test_the_law_of_the_body_is_that_of_the_whole() -> None:
    """A sample that is cut off looks narrower than its law: a fit that does not know of the cut falls short."""
    scores = sample(20_000, 0)
    found = fit_body(scores).parameters
    assert found["location"] == pytest.approx(LOCATION, abs=0.15)
    assert found["scale"] == pytest.approx(SCALE, rel=0.02)
    body = np.sort(scores)[: int(BODY * scores.size)]
    assert body.std() * np.sqrt(6) / np.pi < 0.75 * SCALE


def test_what_lies_over_the_body_moves_nothing() -> None:
    scores = np.sort(sample(500, 1))
    spoilt = scores.copy()
    spoilt[400:] = 1e6
    for rate in (0.01, 0.05):
        assert robust_point(spoilt, rate).threshold == robust_point(scores, rate).threshold
    naive = np.quantile(np.concatenate([scores, np.full(56, 1e6)]), 0.95)  # a tenth of them are defects
    assert naive > 1e5


def test_the_unit_of_the_scores_does_not_matter() -> None:
    scores = sample(200, 2)
    moved = robust_point(1e4 * scores - 7.0, 0.05)
    plain = robust_point(scores, 0.05)
    assert moved.threshold == pytest.approx(1e4 * plain.threshold - 7.0, rel=1e-4)
    assert moved.misfit == pytest.approx(plain.misfit, abs=1e-4)


@pytest.mark.parametrize("rate", [0.001, 0.05, 0.15])
def test_the_threshold_is_the_quantile_of_the_law(rate: float) -> None:
    assert float(TRUTH.p_value(quantile(TRUTH, rate))) == pytest.approx(rate, rel=1e-9)
    point = robust_point(sample(4000, 3), rate)
    assert float(TRUTH.p_value(point.threshold)) == pytest.approx(rate, rel=0.2)


def test_the_interval_holds_the_realised_rate_as_often_as_it_says() -> None:
    low, high = robust_point(sample(100, 4), 0.05).interval
    rates = [float(TRUTH.p_value(quantile(fit_body(sample(100, seed)), 0.05))) for seed in range(100, 400)]
    assert low < 0.05 < high
    assert 0.91 < np.mean([low <= rate <= high for rate in rates]) < 0.985


def test_draws_follow_the_seed_and_the_threshold_does_not() -> None:
    scores = sample(80, 5)
    one, same, other = (robust_point(scores, 0.05, seed=seed) for seed in (1, 1, 2))
    assert (one.interval, one.usual_misfit) == (same.interval, same.usual_misfit)
    assert one.interval != other.interval
    assert one.threshold == other.threshold


def test_a_body_of_another_law_is_told() -> None:
    rng = np.random.default_rng(6)
    fits = [robust_point(sample(150, seed), 0.05) for seed in range(20, 23)]
    assert all(0.0 < point.misfit <= point.usual_misfit < 0.15 for point in fits)
    two_kinds = np.concatenate([rng.normal(60.0, 1.0, 75), rng.normal(90.0, 1.0, 75)])
    point = robust_point(two_kinds, 0.05)
    assert point.misfit > point.usual_misfit
    told = working_point(Method.ROBUST, 0.05, two_kinds, [], Combination())
    assert "does not follow the law" in told.warning
    assert not working_point(Method.ROBUST, 0.05, sample(150, 20), [], Combination()).warning


def test_what_has_no_body_is_refused_with_what_is_needed() -> None:
    with pytest.raises(FitError, match=f"at least {FEWEST_FRAMES}"):
        robust_point(sample(FEWEST_FRAMES - 1, 0), 0.05)
    with pytest.raises(FitError, match=r"below 0\.2"):
        robust_point(sample(100, 0), 0.2)
    with pytest.raises(FitError, match="are the same"):
        robust_point(np.repeat(1.0, 100), 0.05)
    with pytest.raises(FitError, match="not finite"):
        robust_point(np.append(sample(100, 0), np.nan), 0.05)
