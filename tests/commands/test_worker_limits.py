"""What a worker may use: threads, file descriptors, log lines, and the time of whoever asks how it is."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from gaussline.worker.broker.admission import Admission, Request, Status
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.contract.frame import Frame, encode_batch
from gaussline.worker.telemetry.server import MAX_CLIENTS
from tests.broker.way import BUDGET, Way
from tests.commands.workers import WorkerProcess, start_worker
from tests.support.cli import Cli
from tests.support.waiting import eventually
from tests.vision.images import encoded, scene

STORM = 400
OWN = 12
"""More threads than a worker has of its own: its stages begin one after the other."""
CAPTURED_US = 1_700_000_000_000_000


@pytest.fixture
def fitted(cli: Cli, model_file: Path) -> Cli:
    cli("models", "import", str(model_file))
    cli("models", "promote", "default", "1")
    return cli


@pytest.fixture
def worker(fitted: Cli) -> WorkerProcess:
    return start_worker(fitted, GAUSSLINE_CLAIM_AFTER_S="1")


def admit(way: Way, camera: str, files: list[bytes]) -> None:
    """One message a file."""
    door = Admission(way.client, way.line, camera, camera_budget_bytes=BUDGET, line_budget_bytes=BUDGET)
    epoch = door.open()
    for first, data in enumerate(files):
        payload = encode_batch(camera, epoch, first, [Frame(data, "png", CAPTURED_US)])
        assert door.admit(Request(epoch, first, 1, payload)).status is Status.ADMITTED


def used(worker: WorkerProcess) -> tuple[int, int]:
    """Open file descriptors and threads."""
    folder = Path(f"/proc/{worker.process.pid}")
    return len(os.listdir(folder / "fd")), len(os.listdir(folder / "task"))


def settled(way: Way, within_s: float = 60.0) -> None:
    eventually(lambda: way.ledger().in_flight == 0, within_s=within_s, what="every verdict")


def test_a_storm_of_errors_and_cut_connections_costs_no_resources(worker: WorkerProcess, way: Way) -> None:
    good, bad = encoded(scene(64, 64), "png"), b"\x89PNG\r\n\x1a\n"
    admit(way, "warm", [good] * 8)
    settled(way)
    before, lines = used(worker), len(worker.log)
    slowest = 0.0
    for camera in range(4):
        admit(way, f"cam{camera}", [bad] * (STORM // 8) + [good] * (STORM // 8))
        way.client.client_kill_filter(_type="normal", skipme=True)
        begin = time.monotonic()
        status, _ = worker.get("/metrics", timeout_s=5.0)
        slowest = max(slowest, time.monotonic() - begin)
        assert status == 200
    settled(way)
    assert slowest < 1.0, "a scrape answers within a second, whatever the worker does"
    assert way.ledger().balances
    eventually(lambda: used(worker)[0] <= before[0] + 4, what="no more files than before")
    assert used(worker)[1] <= before[1] + 4
    storm = worker.log[lines:]
    assert len(storm) < 40, "one line of a kind in ten seconds, not one a frame"
    assert sum("frame not judged" in line["event"] for line in storm) >= 1
    assert worker.end(signal.SIGTERM) == 0
    assert any(line.get("left_out", 0) > STORM // 8 for line in worker.log), "and what was left out is counted"


def test_clients_that_say_nothing_take_no_more_threads_than_a_bound(worker: WorkerProcess) -> None:
    address = ("127.0.0.1", worker.says("started")["http_port"])
    before = used(worker)[1]
    with ExitStack() as stack:
        for _ in range(MAX_CLIENTS // 2):
            stack.enter_context(socket.create_connection(address))
        begin = time.monotonic()
        assert worker.get("/healthz", timeout_s=2.0)[0] == 200
        assert time.monotonic() - begin < 1.0
        for _ in range(3 * MAX_CLIENTS):
            stack.enter_context(socket.create_connection(address))
        eventually(lambda: used(worker)[1] >= before + MAX_CLIENTS, what="the threads of silent clients")
        assert used(worker)[1] <= before + MAX_CLIENTS + OWN
    eventually(lambda: used(worker)[1] <= before + OWN, what="their end")
    assert worker.get("/healthz")[0] == 200


@pytest.mark.timeout(400)
def test_a_killed_workers_message_is_judged_alone_in_an_isolated_process(fitted: Cli, way: Way) -> None:
    """With a backbone of its own, and the same scores as in a worker; and though its heir has its name, as whoever is
    started again by systemd, by a supervisor or in a container has."""
    files = [encoded(scene(64, 64, seed), "png") for seed in range(2)]
    first = start_worker(fitted, GAUSSLINE_BATCH_WAIT_MS="10000", GAUSSLINE_WORKER_NAME="w1")
    payload = encode_batch("cam1", 1, 0, [Frame(data, "png", CAPTURED_US, f"p{i}") for i, data in enumerate(files)])
    door = Admission(way.client, way.line, "cam1", camera_budget_bytes=BUDGET, line_budget_bytes=BUDGET)
    assert door.admit(Request(door.open(), 0, 2, payload)).status is Status.ADMITTED
    eventually(
        lambda: way.client.xpending(way.keys.frames("cam1"), "workers")["pending"] == 1, what="a message in hand"
    )
    first.end(signal.SIGKILL)
    way.client.xadd(way.keys.dead("poison"), {"id": "cam1:1:9", "data": b"old"}, id="1-0")
    second = start_worker(fitted, GAUSSLINE_CLAIM_AFTER_S="1", GAUSSLINE_WORKER_NAME="w1")
    try:
        settled(way, within_s=200.0)  # an interpreter with torch starts, perhaps beside other tests
    except AssertionError as error:
        raise AssertionError(f"{second.log} {second.other}") from error
    admit(way, "cam2", files)
    settled(way)
    verdicts = [verdict for _, verdict in Verdicts(way.client, way.line).read("0-0")]
    assert {verdict["worker"] for verdict in verdicts} == {"w1"}
    alone, plain = ([one for one in verdicts if one["camera"] == camera] for camera in ("cam1", "cam2"))
    assert [one["part"] for one in alone] == ["p0", "p1"]
    for one, other in zip(alone, plain, strict=True):
        assert one["decision"] == other["decision"]
        assert one["score"] == pytest.approx(other["score"], rel=1e-4)
        assert one["model"] == other["model"]
    assert second.metric("gaussline_isolated_frames_total") == 2
    # No newer letter pushes it out: its age does, where a worker looks after it.
    eventually(lambda: way.client.xlen(way.keys.dead("poison")) == 0, what="the end of a letter over its age")
    assert second.metric("gaussline_poison_frames_total") == 0
    assert json.dumps(second.log).count("traceback") == 0
    assert second.end(signal.SIGTERM) == 0
