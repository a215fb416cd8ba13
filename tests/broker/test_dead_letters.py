"""Dead letters: found, retried as new frames in one atomic step, dropped, aged; and every letter accounted for."""

from __future__ import annotations

import json
import threading

import pytest

from gaussline.worker.broker.admission import Status
from gaussline.worker.broker.cameras import read_cameras
from gaussline.worker.broker.client import time_us
from gaussline.worker.broker.dead_letters import DeadLetters
from gaussline.worker.broker.retry import Retrier
from gaussline.worker.broker.settle import Settlement
from gaussline.worker.contract.dead_letter import DeadLetter
from gaussline.worker.contract.frame import Frame, decode_batch, encode_batch
from gaussline.worker.contract.verdict import Reason
from gaussline.worker.errors import Backlogged, ContractError, Fenced, NotFound
from tests.broker.way import BUDGET, Way
from tests.support.waiting import eventually

REASON = Reason.NO_MODEL


def bury(
    way: Way, count: int, camera: str = "cam1", data: bytes | None = None, frames: int = 1, **bounds: float
) -> None:
    """Admit messages, and settle each as `not_judged` with a dead letter."""
    for _ in range(count):
        assert way.admit(camera, frames=frames, deadline_us=1_900_000_000_000_000).status is Status.ADMITTED
        (message,) = way.take()
        assert message.payload is not None
        name = f"{camera}:{message.epoch}:{message.first_sequence}"
        letter = DeadLetter(name, camera, REASON, "no model", data=message.payload if data is None else data)
        verdicts = [
            (f"{camera}:{message.epoch}:{message.first_sequence + n}", "not_judged", '{"v":1') for n in range(frames)
        ]
        assert way.settler(**bounds).settle([Settlement(camera, message.entry_id, verdicts, dead=[letter])]) == [True]


def retrier(way: Way, budget: int = BUDGET) -> Retrier:
    return Retrier(way.client, way.line, camera_budget_bytes=budget, line_budget_bytes=budget)


def letters(way: Way) -> list[tuple[str, DeadLetter]]:
    return list(DeadLetters(way.client, way.line).each(REASON))


def test_a_retry_is_a_new_frame_that_names_the_old_one(way: Way) -> None:
    bury(way, 2, frames=2)
    way.client.hset(way.keys.cameras, "cam1", json.dumps({"model": "plates"}))
    (entry, letter), _ = letters(way)
    assert retrier(way).retry(entry, letter) == ["cam1.retry:1:0", "cam1.retry:1:1"]
    (message,) = way.take()
    assert message.payload is not None
    batch = decode_batch(message.payload)
    first, second = batch.frames
    assert isinstance(first, Frame)
    assert isinstance(second, Frame)
    assert (first.retry_of, second.retry_of) == ("cam1:1:0", "cam1:1:1")
    assert (first.deadline_us, message.deadline_us) == (None, 0)
    assert read_cameras(way.client, way.line)["cam1.retry"].model == "plates"
    assert way.settle([message]) == [True]
    (count,) = DeadLetters(way.client, way.line).counts()
    assert (count.total, count.letters, count.retried, count.size_bytes) == (2, 1, 1, 200 + len(letter.data))
    ids = way.verdict_ids()
    assert len(ids) == len(set(ids)) == 6, "the old frames' verdicts stay the only ones of their ids"
    assert way.ledger().balances
    assert way.admit().status is Status.ADMITTED, "the camera's own producer was not fenced off"


def test_a_retry_of_a_retry_names_the_first_frame(way: Way) -> None:
    bury(way, 1)
    ((entry, letter),) = letters(way)
    retrier(way).retry(entry, letter)
    (message,) = way.take()
    assert message.payload is not None
    again = DeadLetter("cam1.retry:1:0", "cam1.retry", REASON, "still none", data=message.payload)
    verdict = ("cam1.retry:1:0", "not_judged", '{"v":1')
    way.settler().settle([Settlement("cam1.retry", message.entry_id, [verdict], dead=[again])])
    ((entry, letter),) = letters(way)
    assert retrier(way).retry(entry, letter) == ["cam1.retry:2:0"]
    (message,) = way.take()
    (frame,) = decode_batch(message.payload or b"").frames
    assert isinstance(frame, Frame)
    assert frame.retry_of == "cam1:1:0"


def test_a_letter_is_retried_once_however_many_try(way: Way) -> None:
    bury(way, 30)
    todo = letters(way)
    told: list[str] = []

    def race(camera: str) -> None:
        mine = retrier(way)
        mine._door(camera, "cam1")
        for entry, letter in todo:
            try:
                told.extend(mine.retry(entry, letter))
            except (NotFound, Fenced):
                continue

    racers = [threading.Thread(target=race, args=("cam1.retry",)) for _ in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    # Who opened the camera last fences the others off; together they admit each letter once.
    assert len(told) == len(set(told)) == 30
    assert way.client.xlen(way.keys.frames("cam1.retry")) == 30
    assert letters(way) == []


def test_a_full_line_keeps_the_letter(way: Way) -> None:
    bury(way, 2)
    (one, first), (two, second) = letters(way)
    door = retrier(way, budget=len(first.data) + 10)
    door.retry(one, first)
    with pytest.raises(Backlogged, match="cam1:1:1 waits"):
        door.retry(two, second)
    assert len(letters(way)) == 1
    way.settle(way.take())
    assert door.retry(two, second) == ["cam1.retry:1:1"]
    with pytest.raises(NotFound, match="gone"):
        door.retry(two, second)


@pytest.mark.parametrize(("data", "why"), [(b"", "no bytes"), (b"picture", "no frame batch")])
def test_what_is_no_frame_batch_is_not_retried(way: Way, data: bytes, why: str) -> None:
    bury(way, 1, data=data)
    ((entry, letter),) = letters(way)
    with pytest.raises(ContractError, match=why):
        retrier(way).retry(entry, letter)
    assert len(letters(way)) == 1


def test_a_retry_of_what_came_without_admission_names_its_entry(way: Way) -> None:
    way.admit()
    way.settle(way.take())
    payload = encode_batch("cam1", 7, 0, [Frame(b"picture", "png", 1)])
    letter = DeadLetter("5-0", "cam1", REASON, "raw", data=payload)
    entry = way.client.xadd(way.keys.dead(REASON), letter.to_fields()).decode()
    assert retrier(way).retry(entry, letter) == ["cam1.retry:1:0"]
    (frame,) = decode_batch(way.take()[0].payload or b"").frames
    assert isinstance(frame, Frame)
    assert frame.retry_of == "5-0"


def test_letters_are_dropped_by_name_and_by_age_and_counted(way: Way) -> None:
    bury(way, 70)
    store = DeadLetters(way.client, way.line)
    entry, letter = store.find(REASON, "cam1:1:69")
    assert store.find(REASON, entry) == (entry, letter)
    with pytest.raises(NotFound, match="cam1:9:9"):
        store.find(REASON, "cam1:9:9")
    assert store.remove(REASON, [entry, entry, "1-1"]) == 1
    assert store.age(3600.0) == 0
    assert store.age(0.0) == 69
    (count,) = store.counts()
    assert (count.total, count.letters, count.size_bytes, count.removed, count.aged) == (70, 0, 0, 1, 69)


def test_settling_itself_lets_old_letters_go_and_counts_them(way: Way) -> None:
    bury(way, 2)
    newest_ms = int(way.client.xrevrange(way.keys.dead(REASON), count=1)[0][0].split(b"-")[0])
    eventually(lambda: time_us(way.client) / 1000 > newest_ms + 30, what="old letters")
    bury(way, 1, dead_max_age_s=0.02)
    assert [letter.id for _, letter in letters(way)] == ["cam1:1:2"]
    (count,) = DeadLetters(way.client, way.line).counts()
    assert (count.total, count.letters, count.aged) == (3, 1, 2)
