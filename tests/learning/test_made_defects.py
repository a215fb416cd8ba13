"""Made defects: as large as a version mostly notices, and no larger than one step of size more."""

from __future__ import annotations

import numpy as np
import pytest

from gaussline.worker.learning.made_defects import DETECTED, GROWTH, made_defects
from gaussline.worker.learning.policy import Policy
from tests.learning.simulated import Line, Scene, failed, levels


@pytest.fixture(scope="module")
def line() -> Line:
    return Line(Scene(8), Policy())


@pytest.mark.parametrize("ahead", [0.0, 0.4])
def test_made_defects_are_just_as_large_as_the_version_mostly_notices(line: Line, ahead: float) -> None:
    """By its own judgement of the frames that are made, also of frames that lie a part of the way there already."""
    rows = line.scene.frames(200)
    rows = (rows + ahead * (made_defects(line.stable, rows) - rows)).astype(np.float32)
    made = made_defects(line.stable, rows)
    assert failed(line.stable, made).mean() >= DETECTED - 0.005  # features are rounded to float32
    smaller = rows + (made - rows) / GROWTH
    assert failed(line.stable, smaller.astype(np.float32)).mean() < DETECTED


def test_every_level_is_moved_as_far_in_its_own_standard_deviations(line: Line) -> None:
    rows = line.scene.frames(8)
    moves = levels(made_defects(line.stable, rows) - rows)
    sizes = [
        np.linalg.norm(move @ gaussian.whitening.T, axis=1) / np.sqrt(gaussian.rank)
        for move, gaussian in zip(moves, line.stable.gaussians, strict=True)
    ]
    assert np.array(sizes) == pytest.approx(np.full((len(sizes), 8), sizes[0][0]), rel=1e-2)


def test_stretched_defects_lie_in_the_same_directions(line: Line) -> None:
    rows = line.scene.frames(40)
    plain, far = (made_defects(line.stable, rows, stretch) - rows for stretch in (1.0, 1.5))
    assert far == pytest.approx(1.5 * plain, rel=1e-2, abs=1e-4)
