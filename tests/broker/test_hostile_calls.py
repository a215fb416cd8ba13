"""Calls of our scripts by somebody who means no good, or writes a client of his own."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from gaussline.worker.broker.admission import Admission, Status
from gaussline.worker.broker.cameras import read_cameras
from gaussline.worker.broker.script import Script
from gaussline.worker.errors import BrokerError
from tests.broker.way import BUDGET, Way

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
