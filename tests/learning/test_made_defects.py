"""Made defects: as large as a version mostly notices, and no larger than one step of size more."""

from __future__ import annotations

import numpy as np
import pytest

from gaussline.worker.learning.made_defects import DETECTED, GROWTH, made_defects
from gaussline.worker.learning.policy import Policy
from tests.learning.simulated import Line, Scene, failed


@pytest.fixture(scope="module")
def line() -> Line:
    return Line(Scene(8), Policy())


def test_made_defects_are_just_as_large_as_the_version_mostly_notices(line: Line) -> None:
    """By its own judgement of the frames that are made, which is not how their size is found."""
    rows = line.scene.frames(200)
    made = made_defects(line.stable, rows)
    assert failed(line.stable, made).mean() >= DETECTED - 0.005  # features are rounded to float32
    smaller = rows + (made - rows) / GROWTH
    assert failed(line.stable, smaller.astype(np.float32)).mean() < DETECTED


def test_stretched_defects_lie_in_the_same_directions(line: Line) -> None:
    rows = line.scene.frames(40)
    plain, far = (made_defects(line.stable, rows, stretch) - rows for stretch in (1.0, 1.5))
    assert far == pytest.approx(1.5 * plain, rel=1e-2, abs=1e-4)
