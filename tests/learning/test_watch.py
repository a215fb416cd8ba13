"""False alarms of the watch: no more than stated, on a line that stands still but is correlated and has defects."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import signal, stats

from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.contract.verdict import Decision
from gaussline.worker.gaussian.density import Gaussian, fit_gaussian
from gaussline.worker.gaussian.drift import MONTH_S
from gaussline.worker.gaussian.moments import Moments
from gaussline.worker.learning.alarm import Alarm
from gaussline.worker.learning.learner import ALARMS_PER_MONTH, Learner
from gaussline.worker.learning.policy import Policy
from gaussline.worker.learning.watch import STATISTICS
from tests.learning.synthetic import CHANNELS, SPEC

CAMERAS, FRAMES, CHUNK = 20, 50_000, 250
RATE, DEFECTS, CORRELATION = 0.02, 0.02, 0.8
SECOND_US = 1_000_000
_WIDTH = sum(CHANNELS)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the watch reads of a feature event."""

    digest: str
    decision: Decision
    p_value: float
    statistics: dict[str, float]


def line(seed: int, frames: int, shift: float = 0.0) -> tuple[list[Seen], NDArray[np.float32]]:
    """Frames of one camera: p-values and pictures follow an AR(1) of their own; defects come in runs of about three."""
    draw = np.random.default_rng([seed, frames])

    def correlated(width: int) -> NDArray[np.float64]:
        noise = draw.standard_normal((frames, width)) * np.sqrt(1.0 - CORRELATION**2)
        noise[0] /= np.sqrt(1.0 - CORRELATION**2)
        found: NDArray[np.float64] = signal.lfilter([1.0], [1.0, -CORRELATION], noise, axis=0)
        return found

    p_values = stats.norm.cdf(correlated(1)[:, 0] - shift)
    starts = draw.random(frames) < DEFECTS / 3.0
    bad = starts | np.roll(starts, 1) | np.roll(starts, 2)
    p_values[bad] = draw.random(int(bad.sum())) * RATE / 2.0
    pictures = 1.0 + 0.05 * correlated(len(STATISTICS))
    features = correlated(_WIDTH).astype(np.float32)
    names = list(STATISTICS)
    seen = [
        Seen("d" * 64, Decision.FAIL if p <= RATE else Decision.PASS, p, dict(zip(names, row, strict=True)))
        for p, row in zip(p_values.tolist(), pictures.tolist(), strict=True)
    ]
    return seen, features


def gaussians() -> tuple[tuple[str, ...], tuple[Gaussian, ...], int]:
    draw = np.random.default_rng(1)
    fits = tuple(fit_gaussian(Moments(w).update(draw.standard_normal((4_000, w)))) for w in CHANNELS)
    return SPEC.levels, fits, 1_000


def watched(seed: int, frames: int, then: int = 0, shift: float = 0.0) -> list[Alarm]:
    """What a camera's watch says of so many frames, and of some more that are shifted."""
    watch = Learner.start(SPEC, Policy()).new_watch("cam1")
    model = gaussians()
    found: list[Alarm] = []
    at = 0
    for count, by in ((frames, 0.0), (then, shift)):
        if not count:
            continue
        seen, features = line(seed, count, by)
        for start in range(0, count, CHUNK):
            events: list[FeatureEvent] = seen[start : start + CHUNK]  # type: ignore[assignment]
            times = [(at + row) * SECOND_US for row in range(len(events))]
            found += watch.observe(events, times, features[start : start + CHUNK], lambda digest: model)
            at += len(events)
    return [alarm for alarm in found if alarm.began]


def test_a_million_stationary_frames_raise_no_more_alarms_than_stated() -> None:
    """Autocorrelated (0.8 from frame to frame), 2 % defects in runs: over all tests, one alarm a camera and month."""
    alarms = [alarm.test for seed in range(CAMERAS) for alarm in watched(seed, FRAMES)]
    months = CAMERAS * FRAMES / MONTH_S
    most = int(stats.poisson.ppf(0.99, ALARMS_PER_MONTH * months))
    assert len(alarms) <= most, alarms


def test_the_same_watch_sees_a_change_within_minutes() -> None:
    assert not watched(3, 6_000)
    found = watched(3, 6_000, 1_000, shift=2.0)
    at_us = {alarm.kind: alarm.at_us for alarm in reversed(found)}
    assert at_us["scores"] <= 6_400 * SECOND_US
    assert at_us["failures"] <= 6_400 * SECOND_US, "so far out, they fail as well"


def test_a_lamp_that_fades_in_a_fast_cameras_first_minutes_is_seen_whenever_it_does() -> None:
    """At 20 frames a second two dozen blocks are filled between two evaluations: none of them is usual unseen."""
    model = gaussians()
    for before in range(1_400, 2_600, 75):
        watch = Learner.start(SPEC, Policy()).new_watch("cam1")
        seen, features = line(5, before + 2_600)
        for frame in seen[before:]:
            frame.statistics["exposure"] *= 2.0 / 3.0
        found: list[Alarm] = []
        for start in range(0, len(seen), CHUNK):
            events: list[FeatureEvent] = seen[start : start + CHUNK]  # type: ignore[assignment]
            times = [(start + row) * SECOND_US // 20 for row in range(len(events))]
            found += watch.observe(events, times, features[start : start + CHUNK], lambda digest: model)
        assert [alarm.test for alarm in found if alarm.began] == ["image:exposure"], before


def failing(shares: list[tuple[int, float]], drifting: float = 0.0) -> list[Alarm]:
    """What a camera's watch says where frames fail at these shares, stretch by stretch; one frame a second."""
    watch, model, found = Learner.start(SPEC, Policy()).new_watch("cam1"), gaussians(), list[Alarm]()
    draw, at = np.random.default_rng(11), 0
    for count, share in shares:
        seen, features = line(9, count)
        for start in range(0, count, CHUNK):
            moved = drifting * (at + start) / 10_000
            bad = draw.random(CHUNK) < share
            changed = [
                replace(
                    one,
                    p_value=float(stats.norm.cdf(stats.norm.ppf(one.p_value) - moved)),
                    decision=Decision.FAIL if failed else Decision.PASS,
                )
                for one, failed in zip(seen[start : start + CHUNK], bad, strict=True)
            ]
            events: list[FeatureEvent] = changed  # type: ignore[assignment]
            times = [(at + start + row) * SECOND_US for row in range(len(events))]
            found += watch.observe(events, times, features[start : start + CHUNK], lambda digest: model)
        at += count
    return found


def test_bad_parts_in_a_row_are_told_at_once_however_restless_the_reference_was() -> None:
    """A drift within the reference makes its spread so large that no comparison with it tells anything."""
    found = failing([(3_000, 0.03), (250, 1.0), (500, 0.03)], drifting=3.0)
    (burst,) = [alarm for alarm in found if alarm.test == "failures:burst" and alarm.began]
    assert burst.at_us <= 3_150 * SECOND_US
    assert burst.since_us <= 3_000 * SECOND_US
    assert any(alarm.test == "failures:burst" and not alarm.began for alarm in found), "and it ends"
    usual = failing([(3_000, 0.3), (250, 1.0)])
    assert not [alarm for alarm in usual if alarm.test == "failures:burst"], "where a third is bad, that is no burst"
