"""One worker for each device: started again when it ends, ended together, and nothing lost on the way."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gaussline.worker.commands.supervisor import (
    BACKOFF_S,
    GRACE_S,
    STEADY_S,
    Slot,
    Supervisor,
    devices_of,
    environment_of,
    slots_of,
    supervise,
)
from gaussline.worker.commands.units import BRIDGE_PORT, CAMERA_PORT, EXPORTER_PORT, JUDGE_PORT, LEARNER_PORT
from gaussline.worker.errors import SettingsError
from gaussline.worker.settings import Settings
from tests.commands.workers import QUICK, WorkerProcess, start_worker
from tests.support.cli import Cli
from tests.support.waiting import eventually


@dataclass
class FakeProcess:
    """A process that ends when it is told to."""

    pid: int
    code: int | None = None
    signals: list[int] = field(default_factory=list)

    def signal(self, number: int) -> None:
        self.signals.append(number)

    def on_end(self, call: Callable[[], None]) -> None:
        self.call = call


class Site:
    """A supervisor over fake processes, at a time that is set."""

    def __init__(self, *devices: str) -> None:
        self.now_s = 1000.0
        self.started: list[FakeProcess] = []
        slots = [Slot(device, f"w{number}", 0) for number, device in enumerate(devices)]
        self.supervisor = Supervisor(
            slots, self.start, drain_s=20.0, logger=logging.getLogger("test"), monotonic=lambda: self.now_s
        )

    def start(self, slot: Slot) -> FakeProcess:
        process = FakeProcess(len(self.started))
        self.started.append(process)
        return process

    def after(self, seconds: float) -> float | None:
        self.now_s += seconds
        return self.supervisor.step()


def test_a_worker_that_ends_is_started_again_after_a_growing_pause() -> None:
    site = Site("cpu", "cpu")
    site.after(0)
    assert len(site.started) == 2
    pauses = []
    for _ in range(7):
        site.started[-1].code = -9
        pause_s = site.after(0)
        assert pause_s is not None
        pauses.append(pause_s)
        before = len(site.started)
        site.after(pause_s - 0.01)
        assert len(site.started) == before
        site.after(0.02)
        assert len(site.started) == before + 1
    assert pauses == [pytest.approx(min(BACKOFF_S[1], 2.0**n)) for n in range(7)]
    assert site.started[0].code is None, "the other one was left alone"
    site.now_s += STEADY_S
    site.started[-1].code = 1
    assert site.after(0) == BACKOFF_S[0], "it had recovered"


def test_signals_are_handed_on_and_the_codes_decide() -> None:
    site = Site("cpu", "cpu")
    site.after(0)
    one, two = site.started
    site.supervisor.stop(signal.SIGTERM)
    assert site.after(0) == pytest.approx(20.0 + GRACE_S)
    assert one.signals == two.signals == [signal.SIGTERM]
    site.supervisor.stop(signal.SIGINT)
    site.after(0)
    assert one.signals == [signal.SIGTERM, signal.SIGINT]
    one.code, two.code = 0, -15
    assert site.after(0) is None
    assert site.supervisor.run() == 128 + 15
    assert len(site.started) == 2, "nothing is started again"


def test_what_does_not_end_in_time_is_killed() -> None:
    site = Site("cpu")
    site.after(0)
    site.supervisor.stop(signal.SIGTERM)
    site.after(0)
    site.after(20.0 + GRACE_S + 0.1)
    assert site.started[0].signals == [signal.SIGTERM, signal.SIGKILL]


def test_settings_that_are_refused_end_all() -> None:
    site = Site("cpu", "cuda:7")
    site.after(0)
    site.started[1].code = 2
    site.after(0)
    assert site.started[0].signals == [signal.SIGTERM]
    site.started[0].code = 0
    assert site.supervisor.run() == 2


def test_devices_names_ports_and_shares_of_the_cores() -> None:
    assert devices_of("all", lambda: 3) == ["cuda:0", "cuda:1", "cuda:2"]
    assert devices_of("cpu, cuda:1", lambda: 0) == ["cpu", "cuda:1"]
    with pytest.raises(SettingsError, match="no CUDA device"):
        devices_of("all", lambda: 0)
    with pytest.raises(SettingsError, match="commas"):
        devices_of("cpu,,cpu", lambda: 0)
    settings = Settings.load({}, worker_name="hall2", http_port=9108)
    slots = slots_of(["cuda:0", "cpu", "cpu"], settings)
    assert [(slot.name, slot.port) for slot in slots] == [
        ("hall2-0-cuda0", 9108),
        ("hall2-1-cpu", 9130),
        ("hall2-2-cpu", 9131),
    ]
    assert not {slot.port for slot in slots} & {EXPORTER_PORT, LEARNER_PORT, JUDGE_PORT, BRIDGE_PORT, CAMERA_PORT}
    assert [slot.port for slot in slots_of(["cpu", "cpu"], Settings.load({}, http_port=0))] == [0, 0]
    own = environment_of(slots[1], 2, settings, {"A": "b"})
    assert own["A"] == "b"
    assert int(own["GAUSSLINE_TORCH_THREADS"]) == max(1, (os.cpu_count() or 1) // 2)
    for name in ("hall2-1-cpu", "9130", "cpu"):
        assert name in own.values()
    assert "GAUSSLINE_TORCH_THREADS" not in environment_of(slots[0], 2, settings, {})
    said = {"GAUSSLINE_TORCH_THREADS": "7"}
    assert environment_of(slots[1], 2, Settings.load(said), said)["GAUSSLINE_TORCH_THREADS"] == "7"


def test_what_was_said_on_the_command_line_reaches_each_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []

    class Refusing(FakeProcess):
        def on_end(self, call: Callable[[], None]) -> None:
            call()

    def child(name: str, arguments: list[str], environment: dict[str, str]) -> FakeProcess:
        started.append((arguments, environment))
        return Refusing(len(started), code=2)

    monkeypatch.setattr("gaussline.worker.commands.supervisor.Child", child)
    monkeypatch.setenv("GAUSSLINE_LINE", "of the environment")
    said = {"redis_url": "redis://10.0.0.5:6379/0", "line": "press4", "weights": Path("net.pth"), "log_level": None}
    assert supervise("cpu,cpu", Settings.load({}), said, 60.0, logging.getLogger("test")) == 2
    assert len(started) == 2
    for arguments, environment in started:
        assert arguments == ["worker", "--connect-for", "60"]
        assert environment["GAUSSLINE_REDIS_URL"] == "redis://10.0.0.5:6379/0"
        assert environment["GAUSSLINE_LINE"] == "press4"
        assert environment["GAUSSLINE_WEIGHTS"] == "net.pth"
        assert "GAUSSLINE_LOG_LEVEL" not in environment


def test_two_workers_one_killed_nothing_lost(cli: Cli, model_file: Path, parts: Path) -> None:
    cli("models", "import", str(model_file))
    cli("models", "promote", "default", "1")
    site = start_worker(cli, "--devices", "cpu,cpu", ready=False, fresh=True, GAUSSLINE_CLAIM_AFTER_S="3")

    def lines(event: str) -> list[dict[str, object]]:
        return [line for line in site.log if line["event"] == event]

    eventually(lambda: len(lines("ready")) == 2, within_s=90.0, what="two workers")
    one, two = lines("worker started")
    assert one["worker"] != two["worker"]
    os.kill(int(str(one["worker_pid"])), signal.SIGKILL)
    cli("produce", str(parts / "good"), "--camera", "cam1", "--quiet")
    eventually(lambda: len(lines("ready")) == 3, within_s=90.0, what="the killed one again")
    assert lines("worker ended: starting it again")[0]["code"] == -signal.SIGKILL
    eventually(lambda: json.loads(cli("ledger", "--json").stdout)["cameras"][0]["in_flight"] == 0, within_s=30.0)
    book = json.loads(cli("ledger", "--json").stdout)
    assert book["balances"]
    assert book["cameras"][0]["admitted"] == 40
    alive = {
        worker["name"] for worker in json.loads(cli("status", "--once", "--json").stdout)["workers"] if worker["alive"]
    }
    assert {str(one["worker"]), str(two["worker"])} <= alive
    assert WorkerProcess.end(site, signal.SIGTERM) == 0
    assert len(lines("stopped")) == 2
    assert "no CUDA device" in cli("worker", "--devices", "all", code=2, env=QUICK, CUDA_VISIBLE_DEVICES="-1").stderr
