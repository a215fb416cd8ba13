from __future__ import annotations

import json
import threading
from collections import Counter
from typing import Any

import pytest
import redis

from gaussline.worker.broker.admission import Admission, Request, Status
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.intake import QUANTUM_FRAMES
from gaussline.worker.broker.kept import KeptFrames
from gaussline.worker.broker.settle import Settler
from gaussline.worker.contract.clock import from_text
from gaussline.worker.contract.dead_letter import DeadLetter
from gaussline.worker.contract.verdict import Reason
from gaussline.worker.errors import BrokerError, BrokerUnavailable
from tests.broker.way import BUDGET, Way, settlement


def test_a_frame_goes_its_whole_way_once(way: Way) -> None:
    first = way.admit(frames=3)
    assert first.status is Status.ADMITTED
    (message,) = way.take()
    assert (message.frame_count, message.epoch, message.first_sequence) == (3, 1, 0)
    assert way.ledger().in_flight == 3
    before = way.client.time()
    assert way.settle([message]) == [True]
    after = way.client.time()
    assert way.verdict_ids() == ["cam1:1:0", "cam1:1:1", "cam1:1:2"]
    assert way.settle([message]) == [False]
    assert len(way.verdict_ids()) == 3
    (row,) = way.ledger().rows
    assert (row.admitted, row.passed, row.in_flight, row.counted_bytes) == (3, 3, 0, 0)
    assert way.ledger().balances
    text = way.client.xrange(way.keys.verdicts)[0][1][b"json"]
    judged_us = from_text(json.loads(text)["judged_at"])
    assert before[0] * 10**6 + before[1] <= judged_us <= after[0] * 10**6 + after[1]


def test_duplicate_is_said_before_busy_and_names_the_first_entry(way: Way) -> None:
    door = Admission(way.client, way.line, "cam1", camera_budget_bytes=150, line_budget_bytes=BUDGET)
    epoch = door.open()
    first = door.admit(Request(epoch, 0, 1, bytes(140)))
    full = door.admit(Request(epoch, 1, 1, bytes(140)))
    again = door.admit(Request(epoch, 0, 1, bytes(140)))
    assert (full.status, full.why) == (Status.BUSY, "camera")
    assert (again.status, again.entry_id) == (Status.DUPLICATE, first.entry_id)
    assert way.client.xlen(way.keys.frames("cam1")) == 1


def test_an_older_epoch_is_fenced_off(way: Way) -> None:
    door = Admission(way.client, way.line, "cam1", camera_budget_bytes=BUDGET, line_budget_bytes=BUDGET)
    old, new = door.open(), door.open()
    fenced = door.admit(Request(old, 0, 1, b"x"))
    assert (fenced.status, fenced.epoch) == (Status.FENCED, new)
    assert door.admit(Request(new + 1, 0, 1, b"x")).status is Status.UNKNOWN_EPOCH
    assert door.admit(Request(new, 0, 1, b"x")).status is Status.ADMITTED


@pytest.mark.parametrize("key", ["frames", "index", "recent", "totals", "ready", "due", "bell"])
def test_a_key_of_the_wrong_type_admits_nothing(way: Way, key: str) -> None:
    way.admit()
    name = getattr(way.keys, key)
    name = name("cam1") if callable(name) else name
    way.client.delete(name)
    way.client.sadd(name, "in the way")
    before = way.dump()
    with pytest.raises(BrokerError, match="WRONGTYPE"):
        way.admit()
    assert way.dump() == before


@pytest.mark.parametrize("key", ["verdicts", "totals", "dead_stats", "kept", "index", "frames", "crashes", "camera"])
def test_a_key_of_the_wrong_type_settles_nothing(way: Way, key: str) -> None:
    way.admit()
    (message,) = way.take()
    name = getattr(way.keys, key)
    name = name("cam1") if callable(name) else name
    way.client.delete(name)
    way.client.sadd(name, "in the way")
    before = way.dump()
    with pytest.raises(BrokerError, match="is a set"):
        way.settle([message])
    assert way.dump() == before


def test_a_settlement_that_counts_wrong_writes_nothing(way: Way) -> None:
    way.admit(frames=2)
    (message,) = way.take()
    before = way.dump()
    with pytest.raises(BrokerError, match="holds 2 frames, not 1"):
        Settler(way.client, way.line).settle([settlement(message, frames=1)])
    assert way.dump() == before


def test_two_settlers_at_once_publish_once(way: Way) -> None:
    for _ in range(200):
        way.admit()
    messages = way.take()
    won: list[bool] = []
    lock = threading.Lock()

    def race() -> None:
        for message in messages:
            (mine,) = way.settle([message])
            with lock:
                won.append(mine)

    racers = [threading.Thread(target=race) for _ in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert sum(won) == 200
    assert Counter(way.verdict_ids()).most_common(1)[0][1] == 1
    assert way.ledger().balances


def test_a_flood_of_one_camera_does_not_starve_another(way: Way) -> None:
    for _ in range(300):
        way.admit("flood", frames=2)
    for _ in range(30):
        way.admit("slow")
    served: list[str] = []
    while len(served) < 120:
        for message in way.take(frames=4):
            served += [message.camera] * message.frame_count
    flood, slow = served[:60].count("flood"), served[:60].count("slow")
    assert abs(flood - slow) <= 2 + 1 + 2 * QUANTUM_FRAMES
    assert slow >= 20


def test_a_weight_is_a_share(way: Way) -> None:
    for _ in range(200):
        way.admit("heavy")
        way.admit("light")
    way.client.hset(way.keys.camera("heavy"), "weight", 3)
    served = [message.camera for _ in range(40) for message in way.take(frames=2)]
    assert served.count("heavy") == pytest.approx(3 * served.count("light"), abs=8)


def test_the_earliest_deadline_goes_first_within_a_quantum(way: Way) -> None:
    for camera in ("a", "b", "c"):
        way.admit(camera)
    way.admit("late", deadline_us=2_000_000_000_000_000)
    way.admit("soon", deadline_us=1_900_000_000_000_000)
    order = [message.camera for message in way.take()]
    assert order[:2] == ["soon", "late"]
    assert sorted(order[2:]) == ["a", "b", "c"]


def test_bounds_of_a_take(way: Way) -> None:
    for _ in range(20):
        way.admit(size=1000)
    assert len(way.intake().take(max_frames=5, max_bytes=10**9)) == 5
    assert len(way.intake().take(max_frames=100, max_bytes=2500)) == 3
    assert len(way.intake().take(max_frames=100, max_bytes=1)) == 1


def test_the_doorbell_wakes_a_worker_and_stays_short(way: Way) -> None:
    for _ in range(50):
        way.admit()
    assert way.client.llen(way.keys.bell) == 16
    way.client.delete(way.keys.bell)
    woken: list[bool] = []
    sleeper = threading.Thread(target=lambda: woken.append(way.intake("w2").wait(20.0)))
    sleeper.start()
    way.admit()
    sleeper.join(15.0)
    assert woken == [True]


def test_a_destroyed_group_loses_and_doubles_nothing(way: Way) -> None:
    for _ in range(10):
        way.admit()
    held = way.take(frames=4)
    way.client.xgroup_destroy(way.keys.frames("cam1"), "workers")
    assert way.settle(held) == [False] * 4
    way.intake().reconcile()
    messages = way.take("w2")
    assert len(messages) == 10
    assert way.settle(messages) == [True] * 10
    assert sorted(way.verdict_ids()) == sorted(f"cam1:1:{n}" for n in range(10))
    assert way.ledger().balances


def test_an_entry_without_admission_is_counted_apart_and_gets_no_verdict(way: Way) -> None:
    way.admit()
    way.settle(way.take())
    way.take()
    way.client.xadd(way.keys.frames("cam1"), {"d": b"who am I"})
    assert way.intake().reconcile()[0] == 1
    (message,) = way.take()
    assert not message.admitted
    assert message.payload == b"who am I"
    letter = DeadLetter(message.entry_id, "cam1", Reason.UNADMITTED, "raw", data=message.payload)
    raw = type(settlement(message))("cam1", message.entry_id, (), dead=[letter], unadmitted=True)
    assert Settler(way.client, way.line).settle([raw]) == [True]
    (row,) = way.ledger().rows
    assert (row.unadmitted, row.admitted, row.stream_entries) == (1, 1, 0)
    assert way.ledger().balances
    assert len(way.verdict_ids()) == 1


def test_a_dead_workers_messages_are_claimed_and_a_living_ones_are_not(way: Way) -> None:
    way.admit()
    way.admit()
    way.client.set(way.keys.worker("alive"), "1")
    (mine,) = way.take("dead", frames=1)
    way.take("alive", frames=1)
    (claimed,) = way.intake("heir", claim_after_s=0.0).claim(max_frames=10, max_bytes=10**9)
    assert claimed.entry_id == mine.entry_id
    assert (claimed.crashes, claimed.deliveries) == (1, 2)
    assert claimed.payload == mine.payload
    assert way.settle([claimed]) == [True]
    assert way.settle([mine]) == [False]
    slow = way.intake("heir", claim_after_s=0.0, slow_claim_after_s=0.0).claim(max_frames=10, max_bytes=10**9)
    assert [message.crashes for message in slow] == [0]


def test_released_messages_are_claimable_at_once_and_no_crash(way: Way) -> None:
    way.admit()
    messages = way.take("leaver")
    assert way.intake("leaver").release(messages) == 1
    (claimed,) = way.intake("heir", claim_after_s=5.0).claim(max_frames=10, max_bytes=10**9)
    assert claimed.crashes == 0


def test_a_claim_goes_round_many_cameras(way: Way) -> None:
    for number in range(150):
        way.admit(f"c{number:03d}")
    way.take("dead")
    heir = way.intake("heir", claim_after_s=0.0)
    seen: set[str] = set()
    for _ in range(8):
        seen |= {message.camera for message in heir.claim(max_frames=1000, max_bytes=10**9)}
        way.client.set(way.keys.worker("heir"), "1")
    assert len(seen) == 150


def test_bytes_deleted_behind_our_back_end_as_lost_once(way: Way) -> None:
    answer = way.admit()
    way.take("dead")
    way.client.xdel(way.keys.frames("cam1"), answer.entry_id)
    (message,) = way.intake("heir", claim_after_s=0.0).claim(max_frames=10, max_bytes=10**9)
    assert message.payload is None
    lost = settlement(message, "not_judged")
    lost = type(lost)(lost.camera, lost.entry_id, lost.verdicts, lost=True)
    settler = Settler(way.client, way.line)
    assert settler.settle([lost]) == [True]
    assert settler.settle([lost]) == [False]
    assert way.ledger().balances


def test_a_payload_that_is_gone_ends_as_lost(way: Way) -> None:
    answer = way.admit()
    way.client.delete(way.keys.payload("cam1", answer.entry_id))
    (message,) = way.take()
    assert message.payload is None
    lost = settlement(message, "not_judged")
    assert way.settler().settle([type(lost)(lost.camera, lost.entry_id, lost.verdicts, lost=True)]) == [True]
    assert way.ledger().balances


def test_a_batch_inside_its_entry_is_taken_as_older_producers_wrote_it(way: Way) -> None:
    answer = way.admit(size=300)
    key = way.keys.payload("cam1", answer.entry_id)
    payload, fields = way.client.get(key), way.client.xrange(way.keys.frames("cam1"))[0][1]
    way.client.delete(key, way.keys.frames("cam1"))
    way.client.xgroup_create(way.keys.frames("cam1"), "workers", id="0", mkstream=True)
    way.client.xadd(way.keys.frames("cam1"), {**fields, b"d": payload}, id=answer.entry_id)
    (message,) = way.take()
    assert (message.admitted, message.payload) == (True, payload)
    assert way.settle([message]) == [True]


@pytest.mark.parametrize("answer", ["duplicate", "fenced", "unknown_epoch", "busy"])
def test_what_is_not_admitted_leaves_no_payload(way: Way, answer: str) -> None:
    door = Admission(way.client, way.line, "cam1", camera_budget_bytes=150, line_budget_bytes=BUDGET)
    epoch = door.open()
    assert door.admit(Request(epoch, 0, 1, bytes(100))).status is Status.ADMITTED
    epoch += {"fenced": -1, "unknown_epoch": 1}.get(answer, 0)
    assert door.admit(Request(epoch, int(answer == "busy"), 1, bytes(100))).status == answer
    assert len(way.keys_of("incoming")) == 0
    assert len(way.keys_of("payload")) == 1
    assert way.client.ttl(way.keys_of("payload")[0]) == -1


def test_an_admission_that_never_came_leaves_nothing_for_long(way: Way) -> None:
    door = Admission(way.client, way.line, "cam1", camera_budget_bytes=BUDGET, line_budget_bytes=BUDGET)
    epoch = door.open()
    with pytest.raises(BrokerError, match="wrong arguments"):
        door.admit(Request(epoch, -1, 1, bytes(100)))
    (left,) = way.keys_of("incoming")
    assert 0 < way.client.ttl(left) <= 60


def test_settling_takes_the_payload_away(way: Way) -> None:
    way.admit(frames=3)
    assert way.settle(way.take()) == [True]
    assert len(way.keys_of("payload")) == 0


def test_what_was_taken_and_could_not_be_fetched_comes_with_the_next_call(way: Way) -> None:
    for _ in range(3):
        way.admit()
    intake = way.intake()
    real = intake._client

    class Cut:
        """Loses the connection at its first fetch."""

        def __getattr__(self, name: str) -> Any:
            if name == "mget":
                intake._client = real
                raise redis.exceptions.ConnectionError("cut")
            return getattr(real, name)

    intake._client = Cut()
    with pytest.raises(BrokerUnavailable):
        intake.take(max_frames=2, max_bytes=10**9)
    assert len(intake.take(max_frames=2, max_bytes=10**9)) == 2
    assert len(intake.take(max_frames=2, max_bytes=10**9)) == 1


def test_kept_frames_and_dead_letters_stay_within_their_bounds(way: Way) -> None:
    for _ in range(30):
        way.admit()
    settler_bounds = {"kept_max_bytes": 780, "dead_max_bytes": 1500}
    for message in way.take():
        base = settlement(message, "not_judged")
        name = base.verdicts[0][0]
        letter = DeadLetter(name, "cam1", Reason.UNDECODABLE, "x", data=bytes(100))
        full = type(base)(base.camera, base.entry_id, base.verdicts, kept=[(name, bytes(100))], dead=[letter])
        from gaussline.worker.broker.settle import SettleBounds

        Settler(way.client, way.line, SettleBounds(**settler_bounds)).settle([full])
    assert way.client.zcard(way.keys.kept) == 5
    assert int(way.client.hget(way.keys.totals, "kept_dropped")) == 25
    held = [way.client.get(way.keys.kept_blob(frame.id)) for frame in KeptFrames(way.client, way.line).list()]
    said = [way.client.get(way.keys.kept_verdict(frame.id)) for frame in KeptFrames(way.client, way.line).list()]
    assert int(way.client.hget(way.keys.totals, "kept_bytes")) == sum(map(len, held + said)) <= 780
    assert len(list(way.client.scan_iter(f"gl:\\{{{way.line}\\}}:kept*:*"))) == 10, "what is dropped is dropped whole"
    assert way.client.xlen(way.keys.dead("undecodable")) == 5
    assert int(way.client.hget(way.keys.dead_stats, "undecodable:dropped")) == 25
    assert int(way.client.hget(way.keys.dead_stats, "undecodable:total")) == 30


def test_settling_works_where_memory_is_full_and_admission_stops_before(server: EmbeddedRedis) -> None:
    with EmbeddedRedis(server=server._server, options={"maxmemory": "12mb"}) as small:
        way = Way(small.url, "small")
        admitted = 0
        while way.admit(size=100_000).status is Status.ADMITTED:
            admitted += 1
            assert admitted < 1000
        assert admitted > 20
        messages = way.take()
        used = int(way.client.info("memory")["used_memory"])
        way.client.config_set("maxmemory", used - 100_000)  # really full now
        with pytest.raises(Exception, match="maxmemory"):
            way.client.set("anything", bytes(1000))
        assert all(way.settle(messages))
        assert way.ledger().balances
        assert int(way.client.info("memory")["used_memory"]) < used
        way.close()


def test_a_pipeline_cannot_overtake_itself(way: Way) -> None:
    door = Admission(way.client, way.line, "cam1", camera_budget_bytes=1000, line_budget_bytes=BUDGET)
    epoch = door.open()
    assert door.admit(Request(epoch, 0, 1, bytes(500))).status is Status.ADMITTED
    requests = [Request(epoch, 1, 1, bytes(900)), Request(epoch, 2, 1, bytes(10)), Request(epoch, 3, 1, bytes(10))]
    answers = door.admit_many(requests)
    assert [(answer.status, answer.why) for answer in answers] == [
        (Status.BUSY, "camera"),
        (Status.BUSY, "order"),
        (Status.BUSY, "order"),
    ]
    way.settle(way.take())
    assert [answer.status for answer in door.admit_many(requests)] == [Status.ADMITTED] * 3
    assert way.ledger().rows[0].admitted == 4


def test_a_new_epoch_forgets_the_old_ones_entries(way: Way) -> None:
    door = Admission(way.client, way.line, "cam1", camera_budget_bytes=BUDGET, line_budget_bytes=BUDGET)
    door.admit(Request(door.open(), 0, 1, b"x"))
    epoch = door.open()
    first = door.admit(Request(epoch, 0, 1, b"x"))
    again = door.admit(Request(epoch, 0, 1, b"x"))
    assert (again.status, again.entry_id) == (Status.DUPLICATE, first.entry_id)
