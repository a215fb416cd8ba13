"""Calls of our scripts by somebody who means no good, or writes a client of his own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import redis

from gaussline.worker.broker.admission import Admission, Status
from gaussline.worker.broker.cameras import read_cameras
from gaussline.worker.broker.client import connect
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.script import Script
from gaussline.worker.errors import BrokerError, BrokerUnavailable
from tests.broker.way import BUDGET, Way
from tests.support.waiting import eventually

BAD_NAMES = ["", " ", "a b", "a\nb", "a:b", "a|b", "-a", "cam\x00", "\xff\xfe", "ü", "x" * 65, "x" * 2**20, "../etc"]


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: repr(name)[:12])
def test_a_camera_name_that_is_none_is_refused_by_the_scripts_too(way: Way, name: str) -> None:
    raw = name.encode("latin-1")
    keys = [way.keys.prefix + part for part in ("camera:x", "cameras", "events", "recent:x")]
    with pytest.raises(BrokerError, match="no camera name"):
        Script("open_camera")(way.client, keys, [raw, "{}"])
    door = Admission(way.client, way.line, "cam1", camera_budget_bytes=BUDGET, line_budget_bytes=BUDGET)
    with pytest.raises(BrokerError, match="no camera name"):
        Script("admit")(
            way.client,
            [*door._admit_keys, way.keys.incoming("cam1", "x")],
            [raw, 1, 0, 1, b"x", 0, BUDGET, BUDGET, 1, -1],
        )
    assert way.dump() == {}


@pytest.mark.parametrize("place", [1, 2, 3, 5])
@pytest.mark.parametrize("value", ["", "x", "nan", "inf", "1e3", "1.5", "-1", "0x10", " 1", "9" * 17, 2**53])
def test_numbers_that_are_none_are_refused(way: Way, place: int, value: Any) -> None:
    door = Admission(way.client, way.line, "cam1", camera_budget_bytes=BUDGET, line_budget_bytes=BUDGET)
    door.open()
    before = way.dump()
    words: list[Any] = ["cam1", 1, 0, 1, b"x", 0, BUDGET, BUDGET, 1, -1]
    words[place] = value
    with pytest.raises(BrokerError, match="wrong arguments"):
        Script("admit")(way.client, [*door._admit_keys, way.keys.incoming("cam1", "x")], words)
    assert way.dump() == before


def test_a_message_of_a_million_frames_is_refused(way: Way) -> None:
    door = Admission(way.client, way.line, "cam1", camera_budget_bytes=BUDGET, line_budget_bytes=BUDGET)
    door.open()
    with pytest.raises(BrokerError, match="1,024 frames"):
        Script("admit")(
            way.client,
            [*door._admit_keys, way.keys.incoming("cam1", "x")],
            ["cam1", 1, 0, 10**6, b"x", 0, BUDGET, BUDGET, 1, -1],
        )


def test_cameras_that_were_written_past_us_hide_no_other(way: Way) -> None:
    """Straight into the hash: no name, no JSON, JSON that is no map. Workers and people go on as if they were not."""
    way.admit("cam1")
    for name, text in (
        (b"\xff\xfe", b"{}"),
        (b"a b", b"{}"),
        (b"torn", b"{"),
        (b"list", b"[]"),
        (b"odd", b'{"weight":[]}'),
    ):
        way.client.hset(way.keys.cameras, name, text)
        way.client.xadd(way.keys.prefix.encode() + b"frames:" + name, {"d": b"x"})
    assert set(read_cameras(way.client, way.line)) == {"cam1"}
    intake = way.intake("w1")
    intake.reconcile()
    cameras = {message.camera for message in intake.take(max_frames=100, max_bytes=10**6)}
    assert "cam1" in cameras
    assert cameras <= {"cam1", "torn", "list", "odd"}
    intake.claim(max_frames=100, max_bytes=10**6)
    assert {row.camera for row in way.ledger().rows} >= {"cam1"}


def test_scripts_that_are_forgotten_again_and_again_end_no_producer(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between loading a script and calling it, too (fault episode 5000067)."""
    execute = redis.client.Pipeline.execute

    def after_a_flush(self: Any, *args: Any, **options: Any) -> Any:
        way.client.script_flush()
        return execute(self, *args, **options)

    monkeypatch.setattr(redis.client.Pipeline, "execute", after_a_flush)
    assert [way.admit().status for _ in range(3)] == [Status.ADMITTED] * 3


def test_an_epoch_beyond_one_that_was_forgotten_is_had_at_once(way: Way) -> None:
    door = Admission(way.client, way.line, "cam1", camera_budget_bytes=BUDGET, line_budget_bytes=BUDGET)
    assert door.open() == 1
    assert door.open(beyond=10**6) == 10**6 + 1
    assert door.open(beyond=10**6) == 10**6 + 2
    assert door.open(beyond=5) == 10**6 + 3
    way.client.hset(way.keys.camera("cam1"), "boot", "another")
    assert door.open(beyond=5) == 10**6 + 1003
    assert door.open(beyond=2**53 - 2) == 2**53 - 1
    for wrong in (-1, 2**53, "x", "1e3", "nan"):
        with pytest.raises(BrokerError, match="wrong epoch"):
            door.open(beyond=wrong)  # type: ignore[arg-type]


def test_a_counter_that_somebody_broke_keeps_no_other_from_its_count(way: Way) -> None:
    for camera in ("cam1", "cam2"):
        way.admit(camera, frames=2)
    way.client.hset(way.keys.camera("cam1"), "pass", "many")
    messages = way.take()
    with pytest.raises(BrokerError, match="not an integer"):
        way.settle(messages)
    assert len(way.verdict_ids()) == 4
    assert way.settle(messages) == [False, False], "and it is said once"
    way.client.hset(way.keys.camera("cam1"), "pass", 2)
    assert way.ledger().balances
    assert int(way.client.hget(way.keys.totals, "bytes")) == 0


def test_somebodys_long_script_is_an_outage(way: Way, server: EmbeddedRedis) -> None:
    """Redis says BUSY then to everybody, where it had answered nothing before: no frame is given up for it."""
    spin = "local begin = redis.call('TIME') repeat local now = redis.call('TIME') until now[1] - begin[1] >= 2"
    way.client.config_set("lua-time-limit", 1)
    way.admit()
    try:
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(connect(server.url).eval, spin, 0)
            refused = eventually(partial(refusal, way), what="a refusal")
            assert "BUSY" in str(refused)
            running.result(10.0)
        assert way.admit().status is Status.ADMITTED
    finally:
        way.client.config_set("lua-time-limit", 5000)


def refusal(way: Way) -> BrokerUnavailable | None:
    """What an admission is refused with; None where it is not."""
    try:
        way.admit()
    except BrokerUnavailable as error:
        return error
    return None
