"""Two versions on the same frames: the intervals hold what they promise, and say so where little is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.paired import (
    Estimate,
    PairedCounts,
    change_of_share,
    largest_gap,
    ratio_of_shares,
    share,
)

CELLS = {"rare": (0.95, 0.02, 0.02, 0.01), "often": (0.7, 0.1, 0.05, 0.15), "never": (0.98, 0.0, 0.02, 0.0)}


def drawn(cells: tuple[float, ...], frames: int, seed: int, times: int) -> list[PairedCounts]:
    rows = np.random.default_rng(seed).multinomial(frames, cells, size=times)
    return [PairedCounts(*(int(cell) for cell in row)) for row in rows]


@pytest.mark.parametrize("cells", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("frames", [100, 1000])
def test_the_change_of_the_failed_share_lies_in_its_interval(cells: tuple[float, ...], frames: int) -> None:
    truth = cells[2] - cells[3]
    found = [change_of_share(counts, 0.95) for counts in drawn(cells, frames, 1, 2000)]
    assert np.mean([each.low <= truth <= each.high for each in found]) > 0.93


@pytest.mark.parametrize("cells", [CELLS["rare"], CELLS["often"]], ids=["rare", "often"])
def test_the_ratio_of_the_failed_shares_lies_in_its_interval(cells: tuple[float, ...]) -> None:
    truth = (cells[1] + cells[2]) / (cells[1] + cells[3])
    found = [ratio_of_shares(counts, 0.95) for counts in drawn(cells, 1000, 2, 2000)]
    assert np.mean([each.low <= truth <= each.high for each in found]) > 0.93


def test_an_unpaired_interval_would_be_far_wider() -> None:
    """Why frames are judged by both: what the frames are like cancels out."""
    counts = PairedCounts(both_pass=8000, both_fail=1980, only_new=10, only_old=10)
    paired = change_of_share(counts, 0.95)
    unpaired = 2 * 1.96 * math.sqrt(2 * 0.199 * 0.801 / counts.frames)
    assert paired.high - paired.low < unpaired / 5


def test_distributions_apart_are_told_from_the_same_ones() -> None:
    rng = np.random.default_rng(3)
    bins = np.linspace(0.0, 1.0, 51)
    same, other = rng.uniform(size=5000), rng.uniform(size=5000) ** 1.5
    counts = [np.histogram(part, bins)[0] for part in (rng.uniform(size=5000), same, other)]
    assert largest_gap(counts[0], counts[1], 0.99).low == 0.0
    gap = largest_gap(counts[0], counts[2], 0.99)
    assert gap.low > 0.05
    truth = max(abs(x - x ** (1 / 1.5)) for x in bins)
    assert gap.low <= truth <= gap.high


def test_nothing_is_known_of_no_frames() -> None:
    none = PairedCounts()
    assert change_of_share(none, 0.95) == Estimate(0.0, -1.0, 1.0)
    assert ratio_of_shares(none, 0.95) == Estimate(1.0, 0.0, math.inf)
    assert share(0, 0, 0.95) == Estimate(0.0, 0.0, 1.0)
    assert largest_gap([0, 0], [1, 1], 0.95) == Estimate(0.0, 0.0, 1.0)
    for wrong in (0.0, 1.0, -1.0):
        with pytest.raises(FitError):
            change_of_share(none, wrong)
    with pytest.raises(FitError, match="shapes"):
        largest_gap([1, 2], [1, 2, 3], 0.95)


def test_counting_puts_every_frame_into_one_cell() -> None:
    counts = PairedCounts()
    for old, new in ((False, False), (True, True), (False, True), (True, False), (False, True)):
        counts = counts.plus(old, new)
    assert counts == PairedCounts(1, 1, 2, 1)
    assert counts.frames == 5
