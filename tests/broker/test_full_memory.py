"""At a full maxmemory everything that empties it goes on: heartbeats, taking, claiming, settling, trimming."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gaussline.worker.broker.admission import Admission, Status
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.heartbeat import Heartbeat
from gaussline.worker.broker.part_store import PartStore, PartWrite
from gaussline.worker.broker.verdicts import Verdicts, trim_verdicts
from tests.broker.way import BUDGET, Way


@pytest.fixture
def full(server: EmbeddedRedis) -> Iterator[Way]:
    """A line with 30 messages, of which a dead worker has 10, on a server that takes no more."""
    with EmbeddedRedis(server=server._server) as small:
        way = Way(small.url, "small")
        for _ in range(30):
            assert way.admit(size=20_000).status is Status.ADMITTED
        Verdicts(way.client, way.line).register("mes")
        for message in way.take("dead", frames=10):
            if message.first_sequence < 5:
                assert way.settle([message]) == [True]
        way.client.config_set("maxmemory", int(way.client.info("memory")["used_memory"]) // 2)
        with pytest.raises(Exception, match="maxmemory"):
            way.client.set("anything", bytes(1000))
        yield way
        way.close()


def test_a_worker_lives_and_takes_what_is_unread(full: Way) -> None:
    Heartbeat(full.client, full.line, "w1").beat()
    assert full.client.exists(full.keys.worker("w1"))
    full.client.delete(full.keys.ready)  # as after a lost write: reconciling puts the camera in line again
    assert full.intake("w1").reconcile()[0] == 1
    messages = full.take("w1")
    assert len(messages) == 20
    assert all(full.settle(messages))
    assert full.ledger().balances


def test_a_dead_workers_messages_are_claimed(full: Way) -> None:
    messages = full.intake("w1", claim_after_s=0.0, slow_claim_after_s=0.0).claim(max_frames=100, max_bytes=10**9)
    assert len(messages) == 5
    assert {message.crashes for message in messages} == {1}
    assert all(full.settle(messages))
    assert full.ledger().balances


def test_a_destroyed_group_is_made_again(full: Way) -> None:
    limit = full.client.config_get("maxmemory")["maxmemory"]
    full.client.config_set("maxmemory", 0)  # Redis 6.2 refuses even this at full memory
    full.client.xgroup_destroy(full.keys.frames("cam1"), "workers")
    full.client.config_set("maxmemory", limit)
    assert full.intake("w1").reconcile()[1] == 1
    assert len(full.take("w1")) == 25


def test_verdicts_are_acknowledged_and_trimmed(full: Way) -> None:
    verdicts = Verdicts(full.client, full.line)
    assert trim_verdicts(full.client, full.line, min_age_s=0.0, max_bytes=BUDGET, policy="trim")[0] == 0
    assert verdicts.ack("mes", verdicts.last_id())
    assert trim_verdicts(full.client, full.line, min_age_s=0.0, max_bytes=BUDGET, policy="trim")[0] == 5


def test_a_subscriber_that_nobody_misses_is_unregistered(full: Way) -> None:
    verdicts = Verdicts(full.client, full.line)
    verdicts.unregister("mes")
    assert verdicts.subscribers() == {}
    assert trim_verdicts(full.client, full.line, min_age_s=0.0, max_bytes=BUDGET, policy="trim")[0] == 5


def test_a_turn_of_the_part_judge_is_written(full: Way) -> None:
    limit = full.client.config_get("maxmemory")["maxmemory"]
    full.client.config_set("maxmemory", 0)  # it was there before memory ran out
    Verdicts(full.client, full.line).register("parts")
    full.client.config_set("maxmemory", limit)
    store, last = PartStore(full.client, full.line, 60.0), Verdicts(full.client, full.line).last_id()
    stands = store.load()
    assert store.commit(stands.revision, stands.run, PartWrite(last), 1) == 1
    assert store.load().cursor == last


def test_a_producer_begins_and_is_told_busy(full: Way) -> None:
    door = Admission(full.client, full.line, "cam2", camera_budget_bytes=BUDGET, line_budget_bytes=BUDGET)
    assert door.open() == 1
