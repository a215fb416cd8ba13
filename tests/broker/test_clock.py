"""Redis's clock may be set back, by an hour or a year: nothing waits until it is there again."""

from __future__ import annotations

from gaussline.worker.broker.admission import Status
from gaussline.worker.broker.bridge_store import BridgeStore
from gaussline.worker.broker.client import time_us
from gaussline.worker.broker.heartbeat import Heartbeat
from gaussline.worker.broker.lease import Lease
from tests.broker.way import Way

HOUR_US = 3_600_000_000


def test_memory_that_was_full_before_the_clock_went_back_is_looked_at_again(way: Way) -> None:
    way.admit()
    ahead_us = time_us(way.client) + HOUR_US
    way.client.hset(way.keys.totals, mapping={"memory_us": ahead_us, "memory_full": 1})
    assert way.admit().status is Status.ADMITTED
    assert int(way.client.hget(way.keys.totals, "memory_us")) < ahead_us


def test_a_worker_that_died_before_the_clock_went_back_is_dead_soon_and_its_messages_are_claimed(way: Way) -> None:
    for _ in range(2):
        way.admit()
    for name in ("dead", "alive"):
        Heartbeat(way.client, way.line, name, period_s=0.2).beat()
    (held,) = way.take("dead", frames=1)
    (handed_back,) = way.take("leaver", frames=1)
    way.intake("leaver").release([handed_back])
    # As where the clock had been ahead; an idle time, which Redis never tells below 0, is ahead the other way.
    way.client.pexpire(way.keys.worker("dead"), 3_600_000)
    way.client.xclaim(way.keys.frames("cam1"), "workers", "dead", 0, [held.entry_id], idle=3_600_000, justid=True)
    way.client.hset(way.keys.totals, "beat_us", time_us(way.client) + HOUR_US)
    Heartbeat(way.client, way.line, "alive", period_s=0.2).beat()
    assert 0 < way.client.pttl(way.keys.worker("dead")) <= 600
    pending = way.client.xpending_range(way.keys.frames("cam1"), "workers", "-", "+", 10)
    assert [(item["consumer"], item["times_delivered"]) for item in pending] == [(b"dead", 1), (b"released", 1)]
    assert pending[0]["time_since_delivered"] < 60_000, "it is idle since now"
    assert pending[1]["time_since_delivered"] >= 86_400_000, "and may be claimed at once"


def test_leases_of_the_time_before_are_nobodys(way: Way) -> None:
    bridge, learner = f"gl:{{{way.line}}}:bridge:mqtt", way.keys.learner("default")
    ahead = {"owner": "dead", "until_us": time_us(way.client) + HOUR_US}
    way.client.hset(bridge, mapping=ahead)
    way.client.hset(learner, mapping=ahead | {"token": 7})
    BridgeStore(way.client, way.line, "mqtt", "heir", 10**6).hold(5.0)
    assert Lease(way.client, way.line, "default", "heir").take() == 8
    assert {way.client.hget(key, "owner") for key in (bridge, learner)} == {b"heir"}
