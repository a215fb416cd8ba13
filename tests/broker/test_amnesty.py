"""After an outage of Redis every worker looks dead; none is taken for it before it had time to say that it lives."""

from __future__ import annotations

import threading

from gaussline.worker.broker.heartbeat import Heartbeat
from gaussline.worker.broker.intake import Message
from tests.broker.way import Way
from tests.support.waiting import eventually

PERIOD_S = 0.1


def claim(way: Way) -> list[Message]:
    return way.intake("w2", claim_after_s=0.0, slow_claim_after_s=60.0).claim(max_frames=100, max_bytes=10**9)


def beat(way: Way, worker: str) -> None:
    Heartbeat(way.client, way.line, worker, period_s=PERIOD_S).beat()


def test_after_an_outage_a_living_workers_messages_stay_its_own(way: Way) -> None:
    way.admit()
    beat(way, "w1")
    assert len(way.take("w1")) == 1
    threading.Event().wait(4 * PERIOD_S)  # nobody is heard of: the heartbeats are gone
    assert not way.client.exists(way.keys.worker("w1"))
    beat(way, "w2")
    assert claim(way) == [], "w1 has not had its turn to say that it lives"
    beat(way, "w1")
    assert claim(way) == []


def test_who_does_not_come_back_is_dead_soon_after(way: Way) -> None:
    way.admit()
    beat(way, "w1")
    way.take("w1")
    threading.Event().wait(4 * PERIOD_S)

    def claimed() -> list[Message]:
        beat(way, "w2")
        return claim(way)

    messages = eventually(claimed, within_s=2.0, what="the claim after the amnesty")
    assert messages[0].crashes == 1


def test_a_death_among_living_workers_is_no_outage(way: Way) -> None:
    way.admit()
    beat(way, "w1")
    way.take("w1")
    way.client.delete(way.keys.worker("w1"))
    way.client.hset(way.keys.totals, "amnesty_us", 0)
    beat(way, "w2")
    assert [message.crashes for message in claim(way)] == [1]


def test_what_was_released_is_claimed_at_once_all_the_same(way: Way) -> None:
    way.admit()
    beat(way, "w1")
    way.intake("w1").release(way.take("w1"))
    way.client.hset(way.keys.totals, "beat_us", 1)
    beat(way, "w2")
    assert int(way.client.hget(way.keys.totals, "amnesty_us")) > 0
    assert [message.crashes for message in claim(way)] == [0]


def test_a_new_worker_that_beats_first_after_a_flush_keeps_no_other_from_telling_of_it(way: Way) -> None:
    told: list[str] = []
    old = Heartbeat(way.client, way.line, "w1", period_s=PERIOD_S, on_loss=lambda error: told.append(str(error)))
    for _ in range(2):
        old.beat()
    beat(way, "w2")
    old.beat()
    assert told == []
    way.client.flushall()
    beat(way, "w3")
    for _ in range(2):
        old.beat()
    assert len(told) == 1
    assert "lost all data" in told[0]
