"""The death spiral: what calibrates must not have been chosen by what judges. Twenty proposals in a row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.learning.policy import Policy
from gaussline.worker.learning.proposal import rate_interval
from tests.learning.simulated import BLOCK, Line, Rows, Scene, failed

POLICY = Policy(block=BLOCK, quarantine_s=0.0, half_life_frames=4_000, propose_frames=1_000, watch=False)
PROPOSALS, FRESH = 20, 10_000


class GatedReservoir(Line):
    """What everybody writes first: the frames that calibrate are drawn from those that the gate let through."""

    def judge(self, rows: Rows, camera: str) -> list[FeatureEvent]:
        """The same frames; of the reservoir only those stay that may teach."""
        return [
            replace(event, reservoir=event.reservoir and event.p_value > self.policy.gate_p)
            for event in super().judge(rows, camera)
        ]


def through_proposals(line: Line) -> list[float]:
    """The realised rate on fresh normal frames after each promotion, until there were so many proposals."""
    rates: list[float] = []
    while len(line.candidates) < PROPOSALS:
        promoted = line.promoted
        line.run(BLOCK)
        if line.promoted > promoted:
            rates.append(float(failed(line.stable, line.scene.frames(FRESH)).mean()))
    return rates


def test_twenty_proposals_in_a_row_keep_the_stated_rate() -> None:
    """Stationary, heavy-tailed frames: each version's rate lies within its own interval, and nothing runs away."""
    line = Line(Scene(8), POLICY)
    rates = through_proposals(line)
    assert len(rates) >= 18, "the guard refused good candidates"
    low, high = rate_interval(len(line.stable.working_point.scores), FRESH, line.rate, 1.0 - 0.001 / PROPOSALS)
    assert low / FRESH <= min(rates)
    assert max(rates) <= high / FRESH
    assert 0.6 * line.rate <= float(np.mean(rates[-5:])) <= 1.4 * line.rate


def test_calibrating_on_gated_frames_runs_away_and_its_guard_sees_nothing() -> None:
    line = GatedReservoir(Scene(8), POLICY)
    rates = through_proposals(line)
    assert len(rates) >= 18, "a guard on the same frames would have been expected to see nothing"
    assert rates[-1] > 3 * line.rate
    assert float(np.mean(rates[-5:])) > float(np.mean(rates[:5]))
