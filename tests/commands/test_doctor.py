"""What doctor makes of what it is told; how it asks stands in test_status.py."""

from __future__ import annotations

import shutil
import time
from types import SimpleNamespace
from typing import Any

import pytest

from gaussline.worker.commands import doctor
from gaussline.worker.commands.finding import Finding, Level
from gaussline.worker.settings import Settings
from tests.telemetry.test_line_metrics import row, state, worker

SOUND = {
    "redis_version": "7.0.15",
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "maxmemory_policy": "noeviction",
    "maxmemory": 100,
    "used_memory": 84,
}


def of_redis(**changed: object) -> dict[str, Level]:
    client: Any = SimpleNamespace(info=lambda: SOUND | changed, config_get=lambda _: {"appendfsync": "always"})
    return {each.what: each.level for each in doctor._redis(client)}


def test_a_sound_redis_is_found_sound() -> None:
    assert set(of_redis().values()) == {Level.GOOD}
    assert set(of_redis(redis_version="6.2.0").values()) == {Level.GOOD}
    assert set(of_redis(redis_version="10.0.1").values()) == {Level.GOOD}, "versions are numbers, not texts"


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"redis_version": "6.0.16"}, "version"),
        ({"aof_enabled": 0}, "persistence"),
        ({"aof_last_write_status": "err"}, "append-only file"),
        ({"maxmemory_policy": "volatile-ttl"}, "eviction"),
        ({"used_memory": 86}, "memory"),
    ],
)
def test_each_fault_of_redis_is_its_own_finding(changed: dict[str, object], what: str) -> None:
    found = of_redis(**changed)
    assert {name for name, level in found.items() if level is Level.FAULT} == {what}


def test_memory_without_a_limit_is_a_warning() -> None:
    assert of_redis(maxmemory=0)["memory"] is Level.WARNING


def of_line(monkeypatch: pytest.MonkeyPatch, **changed: object) -> dict[str, Finding]:
    told = state(row("c1"), **changed)
    monkeypatch.setattr(doctor, "LineReader", lambda *_: SimpleNamespace(read=lambda: told))
    client: Any = None
    return {each.what: each for each in doctor._line(client, Settings.load({}))}


def test_a_subscriber_that_lags_and_a_living_worker_that_refuses_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = (worker("w1", refused={"m": "torn"}), worker("gone", alive=False, refused={"m": "older"}))
    found = of_line(monkeypatch, workers=workers, subscribers={"mes": 301.0, "quick": 299.0})
    assert found["workers"].level is Level.GOOD
    assert found["loading"].level is Level.FAULT
    assert "w1: m torn" in found["loading"].found
    assert "gone" not in found["loading"].found
    assert found["subscribers"].level is Level.WARNING
    assert "behind: mes" in found["subscribers"].found
    assert "quick" not in found["subscribers"].found
    assert found["models"].found == "m version 2"


def test_a_dead_worker_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = of_line(monkeypatch, workers=(worker("gone", alive=False, refused={"m": "older"}),))
    assert "loading" not in found
    assert found["workers"].level is Level.WARNING


@pytest.mark.parametrize(("free", "level"), [(doctor.SPARE_BYTES, Level.FAULT), (doctor.SPARE_BYTES + 1, Level.GOOD)])
def test_a_disk_that_is_nearly_full(monkeypatch: pytest.MonkeyPatch, free: int, level: Level) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert next(iter(doctor._machine(Settings.load({})))).level is level


@pytest.mark.parametrize(("off_s", "level"), [(0.0, Level.GOOD), (60.0, Level.FAULT), (-60.0, Level.FAULT)])
def test_a_clock_that_is_off_either_way(monkeypatch: pytest.MonkeyPatch, off_s: float, level: Level) -> None:
    for name in ("_machine", "secret_files", "access", "_redis", "replication", "_line", "_backbones"):
        monkeypatch.setattr(doctor, name, lambda *_: iter(()))
    monkeypatch.setattr(doctor, "open_redis", lambda _: None)
    monkeypatch.setattr(doctor, "time_us", lambda _: int((time.time() + off_s) * 1e6))
    (found,) = doctor.examine(Settings.load({}), [])
    assert (found.what, found.level) == ("clocks", level)
