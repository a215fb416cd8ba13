"""Feedback on real servers: of frames the line knows, and of no others."""

from __future__ import annotations

import pytest

from gaussline.worker.broker.feedback import FeedbackLog
from gaussline.worker.broker.settle import Settler
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.contract.feedback import Feedback, Label
from gaussline.worker.errors import BrokerError, NotFound
from tests.broker.way import Way, settlement


def good(frame_id: str) -> Feedback:
    return Feedback(frame_id, Label.GOOD, "ada")


def judged(way: Way, frames: int = 2) -> None:
    way.admit(frames=frames)
    assert way.settle(way.take()) == [True]


def test_feedback_is_read_in_the_order_it_was_given(way: Way) -> None:
    judged(way)
    log = FeedbackLog(way.client, way.line)
    said = [good("cam1:1:0"), Feedback("cam1:1:1", Label.BAD, "mes", "crack"), Feedback("cam1:1:0", Label.BAD, "bo")]
    entries = [log.write(one) for one in said]
    read = log.read()
    assert [(entry.id, entry.feedback) for entry in read] == list(zip(entries, said, strict=True))
    assert [entry.feedback for entry in log.read(entries[0])] == said[1:]
    assert log.read(entries[-1]) == []
    assert [entry.feedback for entry in log.newest(2)] == said[:0:-1]
    assert 0 <= read[-1].at_us - read[0].at_us < 60_000_000


@pytest.mark.parametrize(
    ("frame", "word"),
    [
        ("cam2:1:0", "has no camera cam2"),
        ("cam1:2:0", "only in epoch 1"),
        ("cam1:1:2", "the last sequence of epoch 1 is 1"),
    ],
)
def test_an_unknown_frame_is_refused_and_nothing_is_written(way: Way, frame: str, word: str) -> None:
    judged(way)
    before = way.dump()
    with pytest.raises(NotFound, match=word):
        FeedbackLog(way.client, way.line).write(good(frame))
    assert way.dump() == before


def test_a_frame_of_an_earlier_epoch_is_known_by_its_verdict_or_its_kept_bytes(way: Way) -> None:
    judged(way)
    way.admit(frames=1)
    (message,) = way.take()
    kept = settlement(message, "fail")
    kept = type(kept)(kept.camera, kept.entry_id, kept.verdicts, kept=[("cam1:1:2", b"bytes")])
    assert Settler(way.client, way.line).settle([kept]) == [True]
    way.client.hincrby(way.keys.camera("cam1"), "epoch", 1)
    way.client.hdel(way.keys.camera("cam1"), "last_seq")
    log = FeedbackLog(way.client, way.line)
    log.write(good("cam1:1:1"))
    way.client.delete(way.keys.verdicts)
    before = way.dump()
    with pytest.raises(NotFound, match="neither this frame's bytes nor its verdict are left"):
        log.write(good("cam1:1:0"))
    with pytest.raises(NotFound, match="epoch 2 has no frame yet"):
        log.write(good("cam1:2:0"))
    assert way.dump() == before
    log.write(good("cam1:1:2"))
    assert [entry.feedback and entry.feedback.id for entry in log.read()] == ["cam1:1:1", "cam1:1:2"]


def test_the_stream_is_bounded(way: Way) -> None:
    judged(way, 9)
    log = FeedbackLog(way.client, way.line, max_entries=5)
    for sequence in range(9):
        log.write(good(f"cam1:1:{sequence}"))
    assert [entry.feedback and entry.feedback.id for entry in log.read()] == [f"cam1:1:{n}" for n in range(4, 9)]


def test_what_an_mes_wrote_wrongly_is_handed_over_with_its_problem(way: Way) -> None:
    judged(way)
    log = FeedbackLog(way.client, way.line)
    way.client.xadd(way.keys.feedback, {"v": 1, "id": "cam1:1:0", "label": "bad", "by": "mes"})
    way.client.xadd(way.keys.feedback, {"v": 1, "id": "cam1:1:0", "label": "scrap", "by": "mes"})
    log.write(good("cam1:1:1"))
    first, broken, last = log.read(count=10)
    assert first.feedback == Feedback("cam1:1:0", Label.BAD, "mes")
    assert broken.feedback is None
    assert "scrap" in broken.problem
    assert last.feedback == good("cam1:1:1")


def test_another_type_of_key_is_an_error_and_stays(way: Way) -> None:
    judged(way)
    way.client.set(way.keys.feedback, "x")
    with pytest.raises(BrokerError, match="not a stream"):
        FeedbackLog(way.client, way.line).write(good("cam1:1:0"))
    assert way.client.get(way.keys.feedback) == b"x"


def test_a_verdict_is_found_by_its_frame_however_far_back(way: Way) -> None:
    for _ in range(4):
        judged(way)
    verdicts = Verdicts(way.client, way.line)
    for entry_id, fields in way.client.xrange(way.keys.verdicts):
        way.client.xdel(way.keys.verdicts, entry_id)
        number = fields[b"id"].decode()
        way.client.xadd(way.keys.verdicts, {"id": number, "json": f'{{"id":"{number}"}}'})
    for sequence in range(8):
        found = verdicts.find(f"cam1:1:{sequence}", count=3)
        assert found == {"id": f"cam1:1:{sequence}"}
    assert verdicts.find("cam1:1:8", count=3) is None
    assert verdicts.find("cam1:1:8", count=8) is None
