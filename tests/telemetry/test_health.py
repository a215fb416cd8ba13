from __future__ import annotations

import json
import logging
import socket
import threading

import pytest
from prometheus_client import CollectorRegistry

from gaussline.worker.errors import SettingsError
from gaussline.worker.telemetry.health import Health, InTime, Promptly
from gaussline.worker.telemetry.logs import STORM_S, LogObserver, configure
from gaussline.worker.telemetry.server import HealthServer


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_stage_that_does_not_turn_is_stuck() -> None:
    clock = Clock()
    health = Health(clock, stale_s=30.0)
    health.turned("waiting")
    health.turned("intake")
    health.turned("compute")
    clock.now_s += 29.0
    health.turned("compute")
    assert health.stuck() == {}
    clock.now_s += 2.0
    assert health.stuck() == {"intake": 31.0}
    health.turned("intake")
    assert health.stuck() == {}


def test_a_stage_that_says_why_it_cannot_and_one_that_drains_are_not_stuck() -> None:
    clock = Clock()
    health = Health(clock, stale_s=30.0)
    health.turned("intake")
    clock.now_s += 31.0
    assert health.stuck() == {"intake": 31.0}
    health.trouble("intake", OSError("Redis is away"))
    assert health.stuck() == {}, "a restart would not bring Redis back"
    clock.now_s += 31.5
    assert health.stuck() == {"intake": 31.5}
    health.drain()
    assert health.stuck() == {}, "a stage that has ended turns no more"


def test_a_question_that_hangs_is_asked_once_and_not_waited_for() -> None:
    answers, asked = threading.Event(), []

    def question() -> int:
        asked.append(1)
        answers.wait(20)
        return 7

    in_time = InTime(question, timeout_s=0.01)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            in_time()
    assert len(asked) == 1
    answers.set()
    assert InTime(question, timeout_s=20.0)() == 7
    assert len(asked) == 2, "an answered question is asked anew"


def test_readiness_always_has_a_reason_to_give() -> None:
    def fails() -> tuple[str, ...]:
        raise ValueError("no")

    assert Promptly(fails, "late", 20.0)() == ("the check failed: ValueError: no",)
    assert Promptly(lambda: ["not yet"], "late", 20.0)() == ("not yet",)
    hanging = threading.Event()
    assert Promptly(lambda: [str(hanging.wait(20))], "late", 0.01)() == ("late",)
    hanging.set()


def test_a_port_that_is_taken_is_said_plainly() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(SettingsError, match=f"http_port {port}"):
            HealthServer("127.0.0.1", port, CollectorRegistry(), Health(), tuple)


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_storm_of_one_event_is_limited_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    observer = LogObserver(configure("info", "json"), "w", clock)
    for _ in range(1000):
        observer.trouble("intake", ConnectionError("gone"))
    observer.trouble("settle", ConnectionError("gone"))
    assert [line["stage"] for line in logged(capsys)] == ["intake", "settle"]
    clock.now_s += STORM_S
    observer.trouble("intake", ConnectionError("gone"))
    (line,) = logged(capsys)
    assert line["left_out"] == 999


def test_a_surprise_carries_its_traceback_and_secrets_do_not_appear(capsys: pytest.CaptureFixture[str]) -> None:
    observer = LogObserver(configure("info", "json"), "w")
    try:
        raise ValueError("redis://user:hunter2@host/0 went away")
    except ValueError as error:
        observer.surprise("compute", error)
    captured = capsys.readouterr().err
    assert "hunter2" not in captured
    line = json.loads(captured)
    assert "ValueError" in line["traceback"]
    assert line["said"] == "redis://***@host/0 went away"


def test_counts_stay_counts_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    logger = configure("info", "json")
    logger.info("stopped", extra={"counts": {"seen.reservoir": 128, "why": "redis://a:secret@b"}})
    counts = json.loads(capsys.readouterr().err)["counts"]
    assert counts["seen.reservoir"] == 128
    assert "secret" not in str(counts)


def test_text_form_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    LogObserver(configure("info", "text"), "w").model_loaded("default", 3, "ab" * 32, 0.25)
    text = capsys.readouterr().err
    assert "model loaded" in text
    assert "version=3" in text
    logging.getLogger("gaussline").handlers.clear()
