"""A fit from recorded frames holds its rate, fit after fit; one that calibrates on frames that passed does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.contract.model import Model
from gaussline.worker.contract.verdict import Decision
from gaussline.worker.errors import FitError
from gaussline.worker.learning.fit import FitOptions, fit_model
from gaussline.worker.learning.recorded import Recorded, gather
from tests.learning.synthetic import CHANNELS, SPEC, normal

RATE = 0.05
OPTIONS = FitOptions(rate=RATE)
FRAMES = 600
FITS = 8
CHAINS = 3


def _record(model: Model, seed: int, reservoir_share: float = 1 / 3) -> list[FeatureEvent]:
    """What a line records of normal frames while it judges them by a model."""
    features = normal(FRAMES, seed)
    scores = model.scores(list(features))
    failed, p_values = model.working_point.fails(scores), model.working_point.p_value(scores)
    drawn = np.random.default_rng(seed).random(FRAMES) < reservoir_share
    return [
        FeatureEvent(
            id=f"cam1:1:{row}",
            camera="cam1",
            captured_us=1,
            admitted_us=1,
            decision=Decision.FAIL if failed[row] else Decision.PASS,
            model="default",
            version=1,
            digest="0" * 64,
            spec_digest=SPEC.digest,
            score=float(scores[row]),
            p_value=float(p_values[row]),
            features=tuple(level[row] for level in features),
            reservoir=bool(drawn[row]),
        )
        for row in range(FRAMES)
    ]


def _honest(events: Sequence[FeatureEvent]) -> Recorded:
    return gather(events, SPEC, 1)


def _gated(events: Sequence[FeatureEvent]) -> Recorded:
    """The mistake: the working point, too, comes from frames that passed."""
    return gather([event for event in events if event.decision is Decision.PASS], SPEC, 1)


def _realised(chain: int, gated: bool) -> list[float]:
    """The rate on fresh normal frames after each of a chain of fits, each from what the one before it recorded."""
    fresh = normal(4000, seed=10_000 + chain)
    model = fit_model(normal(FRAMES, seed=1000 * chain), SPEC, OPTIONS)
    rates = []
    for step in range(FITS):
        recorded = (_gated if gated else _honest)(_record(model, seed=1000 * chain + step + 1))
        model = fit_model(recorded.features, SPEC, OPTIONS, calibrating=recorded.reservoir)
        rates.append(float(model.working_point.fails(model.scores(list(fresh))).mean()))
    return rates


def test_a_chain_of_fits_holds_the_stated_rate() -> None:
    realised = np.mean([_realised(chain, gated=False) for chain in range(CHAINS)])
    # Each fit's own rate follows Beta(10, 191) or so, standard deviation 0.015; these are 24 independent ones.
    assert abs(realised - RATE) < 4 * 0.0155 / np.sqrt(FITS * CHAINS)


def test_calibrating_on_passed_frames_is_a_spiral() -> None:
    rates = np.mean([_realised(chain, gated=True) for chain in range(CHAINS)], axis=0)
    assert rates[-1] > 4 * RATE
    assert rates[-1] > rates[3] > rates[0] > RATE


# --- who teaches, who calibrates -------------------------------------------------------------------------------------
def _events(marks: Sequence[tuple[bool, Decision]]) -> list[FeatureEvent]:
    template = _record(fit_model(normal(FRAMES), SPEC, OPTIONS), 1)[0]
    return [
        replace(
            template,
            reservoir=reservoir,
            decision=decision,
            features=tuple(np.full(width, row, np.float32) for width in CHANNELS),
        )
        for row, (reservoir, decision) in enumerate(marks)
    ]


def test_passed_frames_teach_and_the_reservoir_calibrates_though_it_failed() -> None:
    recorded = gather(
        _events([(False, Decision.PASS), (False, Decision.FAIL), (True, Decision.FAIL), (True, Decision.PASS)]), SPEC, 4
    )
    assert [level[:, 0].tolist() for level in recorded.features] == [[0, 2, 3]] * 3
    assert recorded.reservoir.tolist() == [False, True, True]
    assert (recorded.teaching, recorded.calibrating, recorded.reservoir_failed, recorded.version) == (1, 2, 1, 4)


def test_a_reservoir_that_is_too_small_is_refused_with_the_number_needed() -> None:
    few = gather(_events([(True, Decision.PASS)] * 18 + [(False, Decision.PASS)] * 50), SPEC, 1)
    with pytest.raises(FitError, match=r"18 recorded frames are in the reservoir.*needs 19: .* about 190 frames"):
        few.require(0.05, 0.1)
    with pytest.raises(FitError, match=r"or state a rate of at least 0\.0527"):
        few.require(0.05, 0.1)
    few.require(0.0527, 0.1)
    none = gather(_events([(False, Decision.PASS)] * 50), SPEC, 1)
    with pytest.raises(FitError, match="GAUSSLINE_RESERVOIR_SHARE"):
        none.require(0.05, 0.0)
    untaught = gather(_events([(True, Decision.PASS)] * 19 + [(False, Decision.FAIL)] * 50), SPEC, 1)
    with pytest.raises(FitError, match="0 recorded frames passed outside the reservoir: 3 are needed"):
        untaught.require(0.05, 0.1)
