"""A draw is random over frames, the same everywhere, and independent of other draws."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from gaussline.worker.broker.intake import Message
from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.contract.frame import Frame, FrameBatch
from gaussline.worker.contract.verdict import ModelRef
from gaussline.worker.engine.conclude import Concluder
from gaussline.worker.engine.draw import Draw
from gaussline.worker.engine.judgement import Judgement
from gaussline.worker.engine.prepare import MessageWork

FRAMES = [f"cam{camera}:1:{sequence}" for camera in range(10) for sequence in range(2000)]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 1.0])
def test_the_share_is_held(share: float) -> None:
    drawn = sum(frame in Draw("reservoir", share) for frame in FRAMES)
    assert abs(drawn - share * len(FRAMES)) <= 4 * np.sqrt(share * (1 - share) * len(FRAMES))


def test_neighbours_are_drawn_independently() -> None:
    drawn = np.array([frame in Draw("reservoir", 0.1) for frame in FRAMES])
    pairs = int((drawn[1:] & drawn[:-1]).sum())
    assert abs(pairs - 0.01 * len(FRAMES)) <= 4 * np.sqrt(0.01 * len(FRAMES))


def test_draws_of_two_purposes_have_nothing_to_do_with_each_other() -> None:
    kept, reservoir = Draw("kept", 0.1), Draw("reservoir", 0.1)
    both = sum(frame in kept and frame in reservoir for frame in FRAMES)
    assert abs(both - 0.01 * len(FRAMES)) <= 4 * np.sqrt(0.01 * len(FRAMES))


def test_a_draw_is_the_same_everywhere_and_for_ever() -> None:
    """Workers of two builds must draw the same frames."""
    drawn = [frame for frame in FRAMES[:60] if frame in Draw("reservoir", 0.1)]
    assert drawn == ["cam0:1:14", "cam0:1:17", "cam0:1:40", "cam0:1:41"]


def _work(sequence: int, failed: bool) -> MessageWork[Any]:
    message = Message("cam1", "1-0", 1, sequence, 1, 100, admitted_us=1, deadline_us=0, payload=b"batch")
    model = ModelRef("default", 1, "ab" * 32)
    judgement = Judgement(model, failed, 2.0, 1.0, 0.5, {}, "net", "s" * 64, features=(np.ones(3, np.float32),))
    batch = FrameBatch("cam1", 1, sequence, (Frame(b"picture", "png", 1),))
    return MessageWork(message, [judgement], 0, batch)


def _event(concluder: Concluder, sequence: int, failed: bool) -> FeatureEvent | None:
    (frame,) = concluder.conclude(_work(sequence, failed))
    return None if frame.event is None else FeatureEvent.decode(frame.event[1])


def test_the_reservoir_is_marked_whatever_the_frame_was_judged() -> None:
    concluder = Concluder("line1", "w1", 0.0, reservoir_share=0.2)
    marked = {failed: [_event(concluder, n, failed) for n in range(200)] for failed in (False, True)}
    marks = {failed: [event is not None and event.reservoir for event in marked[failed]] for failed in marked}
    assert marks[False] == marks[True] == [f"cam1:1:{n}" in Draw("reservoir", 0.2) for n in range(200)]
    assert 20 < sum(marks[True]) < 60


def test_a_sample_holds_the_whole_reservoir_and_weighs_the_others() -> None:
    concluder = Concluder("line1", "w1", 0.0, reservoir_share=0.2, features_share=0.25)
    for sequence, failed in product(range(200), (False, True)):
        event = _event(concluder, sequence, failed)
        name = f"cam1:1:{sequence}"
        if name in Draw("reservoir", 0.2):
            assert event is not None
            assert (event.reservoir, event.weight) == (True, 1.0)
        elif name in Draw("features", 0.25):
            assert event is not None
            assert (event.reservoir, event.weight) == (False, 4.0)
        else:
            assert event is None
