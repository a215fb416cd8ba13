"""The death spiral: what calibrates must not have been chosen by what judges. Twenty proposals in a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.contract.order import Order, OrderKind
from gaussline.worker.learning.policy import Policy
from gaussline.worker.learning.proposal import make_candidate, rate_interval
from tests.learning.simulated import BLOCK, Line, Rows, Scene, failed, levels

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


def test_a_version_of_another_backbone_is_compared_with_nothing_and_said() -> None:
    """Somebody promoted one while the learner worked."""
    line = Line(Scene(8), POLICY)
    line.run(20 * BLOCK)
    assert make_candidate(line.learner, line.stable).model is not None
    other = replace(line.stable, spec=replace(line.stable.spec, weights_digest="1" * 64))
    candidate = make_candidate(line.learner, other)
    assert (candidate.model, candidate.report()["failed"]) == (None, ["backbone"])


def test_only_what_came_through_the_gate_is_taken_for_truncated() -> None:
    line = Line(Scene(8), replace(POLICY, watch=True))
    line.run(40 * BLOCK)
    assert line.learner.gated_share > 0.3
    line.order(Order(OrderKind.CONFIRM, "ada", "new lamp", camera="cam1"))
    line.run(6 * BLOCK)
    assert line.learner.counts["vouched"] > 600
    assert line.learner.gated_share == 0.0, "frames that a person vouched for passed no gate"


def test_the_guard_looks_at_frames_that_calibrated_nothing() -> None:
    """Every other reservoir frame comes from elsewhere: those alone do not show it, the others do."""
    line = Line(Scene(8), POLICY)
    line.run(40 * BLOCK)
    assert make_candidate(line.learner, line.stable).passed
    move_reservoir(line, lambda rows: 1.2 * (rows % 2 == 1)[:, None] * line.scene.drift)
    assert "rate" in make_candidate(line.learner, line.stable).report()["failed"]


def test_made_defects_are_not_measured_by_what_a_stale_version_fails_for_the_drift_alone() -> None:
    """It would find whatever it is shown, nudged by next to nothing, and the version that the line waits for none."""
    line = Line(Scene(8), POLICY)
    line.run(40 * BLOCK)
    moved = [0.9 * part[0] for part in levels(line.scene.drift[None].astype(np.float32))]
    gaussians = tuple(replace(g, mean=g.mean - by) for g, by in zip(line.stable.gaussians, moved, strict=True))
    stale = replace(line.stable, gaussians=gaussians)
    assert failed(stale, line.scene.frames(1_000)).mean() > 0.2
    assert "made defects" not in make_candidate(line.learner, stale).report()["failed"]
    for level in line.learner.moments:  # and one that has learnt to look away is still seen
        level.scatter = level.scatter + level.weight * np.eye(level.dimension)
    assert "made defects" in make_candidate(line.learner, stale).report()["failed"]


def test_defects_among_the_frames_that_calibrate_are_seen_by_the_tail_and_a_drift_of_all_is_not() -> None:
    """Defects that no fence keeps out: calibrated on, they would be let through, with the stated rate kept to."""
    draw = np.random.default_rng(3)
    for share, moved, refused in ((1.0, 0.3 * Scene(8).drift, False), (0.08, 1.4 * Scene(8).defect, True)):
        line = Line(Scene(8), POLICY)
        line.run(100 * BLOCK)
        before = make_candidate(line.learner, line.stable)
        assert before.passed
        move_reservoir(line, lambda rows, share=share, moved=moved: (draw.random(len(rows)) < share)[:, None] * moved)  # type: ignore[misc]
        after = make_candidate(line.learner, line.stable)
        assert ("tail" in after.report()["failed"]) is refused
        assert after.model is not None
        assert before.model is not None
        same = line.scene.frames(2_000, 0.0, 1.4)
        if refused:
            assert failed(after.model, same).mean() < failed(before.model, same).mean() - 0.1, "the trap does not close"
            assert "rate" not in after.report()["failed"], "the share of failures tells nothing"


def move_reservoir(line: Line, by: Callable[[NDArray[np.intp]], NDArray[np.float64]]) -> None:
    """Move each frame of the reservoir, by its number."""
    row = 0
    for number, page in enumerate(line.learner.reservoir.pages):
        features = page.features + by(row + np.arange(len(page))).astype(np.float32)
        line.learner.reservoir.pages[number] = replace(page, features=features)
        row += len(page)
