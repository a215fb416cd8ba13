"""What the exporter and `status` see of learners: from the lease, the log and the drift stream alone."""

from __future__ import annotations

import json

from gaussline.worker.broker.learners import LearnersReader
from gaussline.worker.broker.lease import Lease
from tests.broker.way import Way


def say(way: Way, number: int, kind: str, camera: str, **facts: object) -> None:
    way.client.xadd(
        way.keys.drift("m"),
        {"kind": kind, "camera": camera, "json": json.dumps({"at_us": number, **facts})},
        f"{number}-1",
    )


def server_us(way: Way) -> int:
    """Redis's clock."""
    seconds, us = way.client.time()
    return int(seconds) * 1_000_000 + int(us)


def test_a_learner_runs_while_its_lease_does_and_is_behind_by_its_oldest_unread_event(way: Way) -> None:
    reader, now_us = LearnersReader(way.client, way.line), 1_000_000_000
    assert reader.read(["m", "never"], now_us) == ()
    key = way.keys.learner("m")
    way.client.hset(key, mapping={"owner": "w", "token": 3, "until_us": now_us + 1})
    (state,) = reader.read(["m", "never"], now_us)
    assert (state.model, state.running, state.owner, state.behind_s, state.event_age_s) == ("m", True, "w", 0.0, None)
    for ms in (400_000, 900_000, 990_000):
        way.client.xadd(way.keys.features("m"), {"e": b"x"}, f"{ms}-0")
    (state,) = reader.read(["m"], now_us + 2)
    assert (state.running, round(state.behind_s), round(state.event_age_s or 0.0)) == (False, 600, 10)
    way.client.hset(key, "checkpoint", json.dumps({"v": 1, "about": {"last_id": "400000-0"}, "parts": {}}))
    assert round(reader.read(["m"], now_us)[0].behind_s) == 100
    way.client.hset(key, "checkpoint", json.dumps({"v": 1, "about": {"last_id": "990000-0"}, "parts": {}}))
    assert reader.read(["m"], now_us)[0].behind_s == 0.0


def test_events_that_wait_to_fill_a_block_are_not_late(way: Way) -> None:
    """A line of one part in two seconds fills a block of 256 in an hour: nobody must be called for that."""
    lease = Lease(way.client, way.line, "m", "w", 10.0)
    lease.take()
    reader, ms = LearnersReader(way.client, way.line), 1_000
    way.client.xadd(way.keys.features("m"), {"e": b"x"}, f"{ms}-0")  # ages ago
    now_us = server_us(way)
    assert reader.read(["m"], now_us)[0].behind_s > 1e6
    lease.renew()
    assert reader.read(["m"], server_us(way))[0].behind_s > 1e6, "a learner that is still at work says nothing"
    lease.renew(caught_up=True)
    now_us = server_us(way)
    assert reader.read(["m"], now_us)[0].behind_s < 5
    assert 899 < reader.read(["m"], now_us + 900_000_000)[0].behind_s < 905, "and one that died since is late again"


def test_alarms_stand_until_they_end_or_an_order_lifts_them(way: Way) -> None:
    reader = LearnersReader(way.client, way.line)
    way.client.hset(way.keys.learner("m"), "token", 1)

    def standing() -> list[tuple[str, str]]:
        return [(alarm.camera, alarm.test) for alarm in reader.read(["m"], 10)[0].alarms]

    say(way, 1, "alarm", "cam1", alarm="image", test="image:exposure", text="lighting changed")
    say(way, 2, "alarm", "cam1", alarm="scores", test="scores:0.5")
    say(way, 3, "alarm", "cam2", alarm="image", test="image:red")
    say(way, 4, "proposal", "", passed=True)
    assert standing() == [("cam1", "image:exposure"), ("cam1", "scores:0.5"), ("cam2", "image:red")]
    assert reader.read(["m"], 10)[0].alarms[0].text == "lighting changed"
    say(way, 5, "calm", "cam1", alarm="image", test="image:exposure")
    assert standing() == [("cam1", "scores:0.5"), ("cam2", "image:red")]
    say(way, 6, "order", "cam1", order="freeze")
    assert len(standing()) == 2
    say(way, 7, "order", "cam1", order="release")
    assert standing() == [("cam2", "image:red")]
    say(way, 8, "order", "", order="confirm")
    assert standing() == []
    say(way, 9, "alarm", "cam2", alarm="image", test="image:red")
    assert standing() == [("cam2", "image:red")]
    assert LearnersReader(way.client, way.line).read(["m"], 10)[0].alarms == reader.read(["m"], 10)[0].alarms
