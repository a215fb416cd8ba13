"""Ten thousand hostile messages through what a worker does with them before the backbone."""

from __future__ import annotations

import gc
import resource
import time
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.broker.intake import Message
from gaussline.worker.contract.frame import Frame, encode_batch
from gaussline.worker.contract.limits import ImageLimits, MessageLimits
from gaussline.worker.contract.verdict import Reason
from gaussline.worker.engine.conclude import Concluder
from gaussline.worker.engine.prepare import Preparer, Refusal
from gaussline.worker.vision.decode import decode
from tests.hostile.messages import Hostile, hostile
from tests.hostile.pictures import PICTURES, png_loop

COUNT = 10_000
LIMITS = ImageLimits()


def to_image(frame: Frame) -> NDArray[np.uint8]:
    return decode(frame.data, frame.encoding, LIMITS, shape=frame.shape, dtype=frame.dtype)[:1].copy()


def message(one: Hostile, seq: int) -> Message:
    return Message("cam1", "1-0", 1, seq, one.frames, len(one.payload), 1_700_000_000_000_000, 0, one.payload)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_ten_thousand_messages_end_with_the_right_reason_and_spare_their_company() -> None:
    random = Random(11)
    preparer = Preparer(to_image, limits=MessageLimits(), now_us=lambda: 1_700_000_001_000_000)
    concluder = Concluder("line1", "w1", 0.0)
    kinds: Counter[str] = Counter()
    slowest, settled_at = (0.0, ""), 0
    for number in range(COUNT):
        one = hostile(random, "cam1", 1, number)
        begin = time.perf_counter()
        work, prepared = preparer.prepare(message(one, number))
        slowest = max(slowest, (time.perf_counter() - begin, one.name))
        ready = {frame.offset for frame in prepared}
        for place, reasons in enumerate(one.reasons):
            outcome = work.outcomes[place]
            kinds[one.name.split(":")[0]] += 1
            if place in ready:
                assert not reasons or place in one.judged, f"{one.name}: frame {place} of {one.frames} came through"
            else:
                assert isinstance(outcome, Refusal)
                assert outcome.reason in reasons, f"{one.name}: frame {place} of {one.frames}: {outcome}"
        for frame in prepared:
            work.decide(frame.offset, Refusal(Reason.INTERNAL, "stands for a judgement", frame.source))
        for conclusion in concluder.conclude(work):
            conclusion.verdict.to_open_json().encode("utf-8")
            assert conclusion.dead is not None
            conclusion.dead.to_fields()
        if number == COUNT // 4:
            gc.collect()
            settled_at = resident_bytes()
    gc.collect()
    assert len(kinds) > 15, kinds
    assert slowest[0] < 2.0, slowest
    assert resident_bytes() < settled_at + 64 * 2**20, "what is refused must not stay in memory"


def test_every_kind_of_picture_is_drawn_from_its_seed() -> None:
    for make in PICTURES:
        assert make(Random(5)) == make(Random(5))


def test_very_many_chunks_are_refused() -> None:
    drawn = png_loop(Random(1))
    begin = time.perf_counter()
    preparer = Preparer(to_image, limits=MessageLimits(), now_us=lambda: 1)
    payload = encode_batch("cam1", 1, 0, [Frame(drawn.data, "png", 1)])
    work, _ = preparer.prepare(Message("cam1", "1-0", 1, 0, 1, len(payload), 1, 0, payload))
    assert isinstance(work.outcomes[0], Refusal)
    assert work.outcomes[0].reason in drawn.reasons
    assert time.perf_counter() - begin < 2.0
