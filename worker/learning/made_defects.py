"""Defects that nobody has seen yet: recent normal frames, moved along the directions that a version knows best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.contract.model import Model
from gaussline.worker.gaussian.divergence import low_variance_directions
from gaussline.worker.learning.block import level_slices

DIRECTIONS = 8
DETECTED = 0.9
"""Share of made defects that the version must find: it sets how far they are moved."""
MOST_MADE = 200
SMALLEST, GROWTH, LARGEST = 0.25, 1.25, 64.0
"""Sizes that are tried, in the root of a level's number of directions: each so many times the one before."""


def made_defects(model: Model, rows: NDArray[np.float32], stretch: float = 1.0) -> NDArray[np.float32]:
    """(n, D) frames to as many defects, so large that the version mostly notices; `stretch`: so many times as large.

    Every level is moved by √k of its standard deviations times one size, in one of `DIRECTIONS` mixtures of directions
    of low variance.
    """
    rng = np.random.default_rng(0)
    turns = np.arange(len(rows)) % DIRECTIONS
    moves, squares = [], []
    for gaussian, place in zip(model.gaussians, level_slices(model.spec.channels), strict=True):
        directions = low_variance_directions(gaussian, DIRECTIONS, rng)
        white = directions @ gaussian.whitening.T
        lengths = np.linalg.norm(white, axis=1, keepdims=True) / np.sqrt(gaussian.rank)
        moves.append(directions / lengths)
        still, moved = gaussian.whiten(rows[:, place]), (white / lengths)[turns]
        # ‖W(x + s·m - mean)‖² for every size s from one look: a product for each would be most of a proposal's time.
        squares.append([np.einsum("ij,ij->i", a, b) for a, b in ((still, still), (still, moved), (moved, moved))])
    at_rest, along, across = np.moveaxis(np.array(squares), 0, -1)
    size = SMALLEST
    while size < LARGEST:
        distances = np.sqrt(np.maximum(at_rest + 2.0 * size * along + size * size * across, 0.0))
        if model.working_point.fails(model.combination.combine(distances)).mean() >= DETECTED:
            break
        size *= GROWTH
    defects: NDArray[np.float32] = (rows + stretch * size * np.concatenate(moves, axis=1)[turns]).astype(np.float32)
    return defects
