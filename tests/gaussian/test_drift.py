"""Tests on means of blocks: by hand where these are few, and false alarms where neighbours resemble each other."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian import drift
from gaussline.worker.gaussian.covariance import Covariance, Estimator
from gaussline.worker.gaussian.density import from_covariance

BLOCKS = np.array([1.0, 0.0, -1.0, 0.0])
"""No correlation seen, which of four blocks is 1/4 too little: spread² = 2/3 · (1 + 1/4)/(1 - 1/4)."""
VARIANCE = 2.0 / 3.0 * 5.0 / 3.0


def test_the_spread_by_hand() -> None:
    mean, sd, dof = drift.spread(BLOCKS + 7.0)
    assert (mean, sd**2, dof) == pytest.approx((7.0, VARIANCE, 3 * 3 / 5))
    # Seen: 1/4. Corrected for bias: 1/4 + (1 + 4/4)/4 = 3/4, which widens by 7.
    _, sd, dof = drift.spread([1.0, 1.0, -1.0, -1.0])
    assert (sd**2, dof) == pytest.approx((4.0 / 3.0 * 7.0, 3 / 7))
    # Never a narrower one, however the blocks alternate, and never a wider one than MAX_RHO has.
    _, sd, _ = drift.spread(np.tile([1.0, -1.0], 30))
    assert sd**2 == pytest.approx(60.0 / 59.0)
    _, sd, _ = drift.spread(np.arange(50.0))
    assert sd**2 == pytest.approx(np.var(np.arange(50.0), ddof=1) * 19.0)
    assert drift.spread(np.zeros(5), floor=0.5)[1] == pytest.approx(0.5)
    with pytest.raises(FitError, match="2 blocks"):
        drift.spread([1.0, 2.0])


@pytest.mark.parametrize("extra", [0.0, 0.3])
def test_the_statistic_by_hand(extra: float) -> None:
    newest = [3.0, 5.0, 100.0]
    t, dof = drift.shift_t(BLOCKS, newest, extra_variance=extra)
    assert t == pytest.approx(5.0 / np.sqrt(VARIANCE * (1 + 1 / 4) + extra))
    assert dof == 3.0
    t, _ = drift.shift_t(BLOCKS, newest, extra_variance=extra, robust=False)
    assert t == pytest.approx(36.0 / np.sqrt(VARIANCE * (1 / 3 + 1 / 4) + extra))


def test_a_reference_that_never_moves() -> None:
    assert drift.shift_t(np.ones(4), [1.0])[0] == 0.0
    assert drift.shift_t(np.ones(4), [0.5])[0] == -np.inf
    assert drift.shift_t(np.ones(4), [0.5], floor=1.0)[0] == pytest.approx(-0.5 / np.sqrt(1.25 * 5 / 3), rel=0.5)


def _alarms(rho: float, runs: int = 1500, blocks: int = 24) -> float:
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((runs, 200 + blocks + 4))
    for step in range(1, noise.shape[1]):
        noise[:, step] += rho * noise[:, step - 1]
    alarms = 0
    for row in noise[:, 200:]:
        t, dof = drift.shift_t(row[:blocks], row[blocks:], robust=True)
        alarms += abs(t) > drift.quantile_t(0.01, dof)
    return alarms / runs


@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_false_alarms_are_as_rare_as_stated(rho: float) -> None:
    # Binomial(1500, 0.01) is over 30 with a chance of 1e-4.
    assert _alarms(rho) <= 0.02


def test_the_levels_of_all_tests_add_up_to_the_month() -> None:
    alpha = drift.alpha_of(1.0, 60.0, 20)
    assert alpha * 20 * drift.MONTH_S / 60.0 == pytest.approx(1.0)
    with pytest.raises(FitError):
        drift.alpha_of(0.0, 60.0, 20)
    assert stats.t.sf(drift.quantile_t(0.01, 7.0), 7.0) == pytest.approx(0.005)


def test_what_a_calibration_set_is_off_by() -> None:
    """P(p <= j/(n + 1)) over calibration sets follows Beta(j, n + 1 - j)."""
    for j, n in ((5, 99), (50, 99), (1, 9)):
        assert drift.calibration_variance(j / (n + 1), n) == pytest.approx(stats.beta(j, n + 1 - j).var())
    share = 0.04
    # The variance of a root is the variance over four times the share.
    assert drift.root_variance(share, 200) == pytest.approx(drift.calibration_variance(share, 200) / (4 * share))
    assert drift.root_variance(share, 0) == 0.0


def test_a_block_is_compared_with_the_others() -> None:
    rng = np.random.default_rng(2)
    reference, newest = rng.standard_normal((6, 3)), rng.standard_normal((2, 3)) + 1.0
    old, new = drift.mean_shifts(reference, newest)
    for place in range(6):
        rest = np.delete(reference, place, axis=0).mean(axis=0)
        assert old[place] == pytest.approx(np.log(((reference[place] - rest) ** 2).sum()))
    assert new[1] == pytest.approx(np.log(((newest[1] - reference.mean(axis=0)) ** 2).sum()))


def test_the_channels_that_moved_are_named_in_their_own_units() -> None:
    deviations: NDArray[np.float64] = np.array([1.0, 0.1, 10.0, 1.0])
    gaussian = from_covariance(np.zeros(4), Covariance(np.diag(deviations**2), 0.0, 100.0, Estimator.EMPIRICAL))
    found = drift.top_directions(gaussian, np.zeros(4), np.array([0.5, -0.3, 1.0, 0.0]), 2)
    assert [channel for channel, _ in found] == [1, 0]
    assert [size for _, size in found] == pytest.approx([-3.0, 0.5])


def test_what_sets_groups_apart_is_no_spread_and_no_resemblance() -> None:
    """Ten versions, whose working points differ: the spread is that of one, and the freedom is not lost to them."""
    rng, groups = np.random.default_rng(4), np.repeat(np.arange(10), 6)
    found = []
    for _ in range(200):
        values = rng.standard_normal(60) + 2.0 * rng.standard_normal(10)[groups]
        level, share = drift.without_levels(values, groups)
        assert level.mean() == pytest.approx(values.mean())
        assert share == pytest.approx(0.1)
        found.append((*drift.spread(level)[1:], *drift.spread(values)[1:]))
    sd, dof, sd_plain, dof_plain = np.mean(found, axis=0)
    assert 0.9 < sd < 1.2
    assert dof > 40
    assert sd_plain > 3.0, "else the versions count as noise"
    assert dof_plain < 20
    one = rng.standard_normal(60)
    assert drift.without_levels(one, np.arange(60) // 2)[1] < 1.0
    for unchanged in (np.zeros(60), np.arange(60)):  # one version; and so many that nothing would be left
        level, share = drift.without_levels(one, unchanged)
        np.testing.assert_array_equal(level, one)
        assert share == 1.0


def test_small_numbers() -> None:
    np.testing.assert_array_equal(drift.block_means(np.arange(7.0), 2), [0.5, 2.5, 4.5])
    assert drift.relative_change(-4.0, -3.0) == 0.25
    assert (drift.relative_change(0.0, 0.0), drift.relative_change(0.0, -1.0)) == (0.0, -np.inf)
    assert drift.indicator_floor(0.5, 25) == pytest.approx(0.1)
    assert drift.indicator_floor(0.0, 25) == pytest.approx(np.sqrt(0.04 * 0.96 / 25))
    assert drift.indicator_floor(1.0, 25) == pytest.approx(drift.indicator_floor(0.0, 25))
