"""Fitting where some frames may be defective: the most suspicious ones are left out, and the rest fitted again.

Each frame is scored by a fit on the other folds' trusted frames, so that no frame vouches for itself. A Gumbel law of
the scores' body (see `gaussian.robust`) says how unlikely each is among good frames; those below `LEAST` are left out,
and the scores are taken again, `ROUNDS` times. How many frames go is thus decided by the scores: of clean frames about
one in a hundred.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.robust import fit_body

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
LEAST: Final = 0.01
ROUNDS: Final = 2
FOLDS: Final = 5
Score = Callable[[Rows, Rows], Array]
"""Fit on some rows, score others: (rows to fit on, rows to score) to (n,) scores."""


@dataclass(frozen=True, slots=True, eq=False)
class Suspicion:
    """What cross-fitting says of each frame.

    Attributes:
        rows: (n,) the frames.
        scores: (n,) by a fit that has not seen the frame.
        p_values: (n,) of the scores' own body.
        trusted: (n,) which of them a robust fit uses.
    """

    rows: Rows
    scores: Array
    p_values: Array
    trusted: NDArray[np.bool_]

    @property
    def kept(self) -> Rows:
        """The trusted frames."""
        return self.rows[self.trusted]

    def worst(self, count: int) -> NDArray[np.intp]:
        """Places (not rows) of the most suspicious frames, the most suspicious first."""
        return np.argsort(-self.scores, kind="stable")[:count]


def suspicion(rows: Rows, score: Score, *, seed: int, rounds: int = ROUNDS, folds: int = FOLDS) -> Suspicion:
    """Cross-fitted scores of frames, and which of them to trust. Raises FitError where they are too few."""
    rows = np.asarray(rows, np.intp)
    if rows.size < 2 * folds:
        raise FitError(f"{rows.size} frames are too few to be held against each other: give at least {2 * folds}")
    parts = np.array_split(np.random.default_rng([seed, 1]).permutation(rows.size), folds)
    trusted = np.ones(rows.size, np.bool_)
    scores = np.empty(rows.size)
    p_values = np.empty(rows.size)
    for _ in range(rounds):
        for part in parts:
            others = trusted.copy()
            others[part] = False
            scores[part] = score(rows[others], rows[part])
        p_values = fit_body(scores).p_value(scores)
        trusted = p_values > LEAST
    return Suspicion(rows, scores, p_values, trusted)
