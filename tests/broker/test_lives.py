"""A worker that died is started again under its name: the new one is not taken for the old one."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis

from gaussline.worker.broker.heartbeat import NAME_LETTERS, Heartbeat, life_of
from gaussline.worker.broker.line_state import read_workers
from gaussline.worker.contract.keys import check_name
from gaussline.worker.errors import BrokerUnavailable
from tests.broker.way import Way
from tests.support.waiting import eventually

SOON = {"max_frames": 10, "max_bytes": 10**9}


def beat(way: Way, life: str) -> None:
    Heartbeat(way.client, way.line, "w1", life=life, period_s=60.0).beat()


def test_what_the_old_life_held_is_a_dead_workers(way: Way) -> None:
    for _ in range(2):
        way.admit()
    old, new = life_of("w1"), life_of("w1")
    beat(way, old)
    taken = way.intake(old).take(max_frames=1, max_bytes=10**9)
    way.client.delete(way.keys.worker(old))  # as after three missed beats
    beat(way, new)
    heir = way.intake(new, claim_after_s=0.0, slow_claim_after_s=60.0)
    claimed = heir.claim(**SOON)
    assert [(message.entry_id, message.crashes) for message in claimed] == [(taken[0].entry_id, 1)]
    assert way.settle(claimed) == [True]


def test_a_worker_is_told_of_by_its_name_and_lives_while_its_life_does(way: Way) -> None:
    old, new = life_of("w1"), life_of("w1")
    beat(way, old)
    assert [(worker.name, worker.alive) for worker in read_workers(way.client, way.line)] == [("w1", True)]
    way.client.delete(way.keys.worker(old))
    assert [(worker.name, worker.alive) for worker in read_workers(way.client, way.line)] == [("w1", False)]
    beat(way, new)
    assert [(worker.name, worker.alive) for worker in read_workers(way.client, way.line)] == [("w1", True)]


def test_the_longest_name_has_lives_too() -> None:
    lives = {check_name("worker", life_of("w" * 64)) for _ in range(100)}
    assert len(lives) == 100
    assert {life[:NAME_LETTERS] for life in lives} == {"w" * NAME_LETTERS}


def test_a_worker_that_died_long_ago_and_never_took_anything_is_forgotten(way: Way) -> None:
    beat(way, "w1.alive")
    said = json.loads(way.client.hget(way.keys.workers, "w1"))
    for name, life in (("long-dead", "gone"), ("slow", "w1.alive")):
        way.client.hset(way.keys.workers, name, json.dumps({"life": life, "beat_us": 1}, separators=(",", ":")))
    way.client.hset(way.keys.workers, "just-dead", json.dumps(said | {"life": "just"}, separators=(",", ":")))
    way.client.hset(way.keys.totals, "swept_s", 0)
    way.intake().reconcile()
    assert set(way.client.hkeys(way.keys.workers)) == {b"w1", b"slow", b"just-dead"}


def test_a_heart_outlives_what_nobody_expected(way: Way) -> None:
    told: list[str] = []
    faults = iter([ZeroDivisionError("at the first beat"), OSError("at the second")])

    def describe() -> dict[str, str]:
        fault = next(faults, None)
        if fault is not None:
            raise fault
        return {"host": "here"}

    heart = Heartbeat(
        way.client,
        way.line,
        "w1",
        period_s=0.05,
        describe=describe,
        on_error=lambda error: told.append(str(error)),
    )
    heart.start()
    try:
        eventually(lambda: way.client.exists(way.keys.worker("w1")), what="a beat after the faults")
    finally:
        heart.stop()
    assert told == ["heartbeat: ZeroDivisionError: at the first beat", "heartbeat: OSError: at the second"]


def test_what_a_worker_took_without_hearing_of_it_is_no_crash_after_a_clean_stop(way: Way) -> None:
    for camera in ("cam1", "cam1", "cam2"):
        way.admit(camera)
    way.client.hset(way.keys.cameras, "no camera", "{}")
    way.client.set(way.keys.frames("cam3"), "no stream")
    way.client.hset(way.keys.cameras, "cam3", "{}")
    leaver = way.intake("w1")
    (heard,) = leaver.take(max_frames=1, max_bytes=10**9)
    way.intake("w1").take(max_frames=10, max_bytes=10**9)  # an answer that came never
    assert way.settle([heard]) == [True]
    assert leaver.leave() == 2
    assert leaver.leave() == 0
    way.client.delete(way.keys.frames("cam3"))
    claimed = way.intake("heir", claim_after_s=60.0).claim(**SOON)
    assert sorted((message.camera, message.crashes) for message in claimed) in (
        [("cam1", 0), ("cam1", 0)],
        [("cam1", 0), ("cam2", 0)],
    )
    assert way.settle(claimed) == [True, True]


def test_after_a_lost_answer_only_what_is_not_in_hand_is_handed_back(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    way.client.set(way.keys.worker("w1"), "1")
    mine, other = way.intake("w1"), way.intake("other")
    for _ in range(5):
        way.admit()
    (heard,) = mine.take(max_frames=1, max_bytes=10**9)
    assert mine.recall([]) == 0, "nothing failed"
    monkeypatch.setattr(way.client, "mget", _broken)
    with pytest.raises(BrokerUnavailable):
        mine.take(max_frames=1, max_bytes=10**9)
    monkeypatch.undo()
    take = mine._take

    def lost(*call: Any) -> None:
        take(*call)
        raise BrokerUnavailable("its answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(mine, "_unfetched", [])  # a call would bring that first
        patch.setattr(mine, "_take", lost)
        with pytest.raises(BrokerUnavailable):
            mine.take(max_frames=2, max_bytes=10**9)
    assert other.claim(**SOON) == []
    assert mine.recall([heard]) == 2
    assert mine.recall([heard]) == 0
    handed = other.claim(**SOON)
    assert [message.crashes for message in handed] == [0, 0]
    (fetched,) = mine.take(max_frames=1, max_bytes=10**9)
    assert way.settle([heard, fetched, *handed, *other.take(**SOON)]) == [True] * 5
    assert len(set(way.verdict_ids())) == 5


def _broken(*anything: object) -> None:
    raise redis.exceptions.ConnectionError("the connection broke")


def test_what_was_claimed_is_in_hand_though_the_connection_breaks_right_after(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would lie with a living worker that knows nothing of it, until that counts as slow."""
    way.admit()
    way.take("dead")
    heir = way.intake("heir", claim_after_s=0.0)

    def broken(*anything: object) -> None:
        raise BrokerUnavailable("the connection broke")

    monkeypatch.setattr(heir, "_audit", broken)
    claimed = heir.claim(**SOON)
    assert way.settle(claimed) == [True]
    with pytest.raises(BrokerUnavailable):
        heir.claim(**SOON)
