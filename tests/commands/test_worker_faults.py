"""A worker whose Redis stalls, goes away or asks for a password."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gaussline.worker.broker.client import connect
from gaussline.worker.broker.embedded import EmbeddedRedis
from tests.broker.way import Way
from tests.commands.workers import start_worker
from tests.support.cli import Cli
from tests.support.waiting import eventually


@pytest.fixture
def own(model_file: Path) -> Iterator[tuple[EmbeddedRedis, Cli, Way]]:
    """A server that a test may stall and kill, with a promoted model on it."""
    with EmbeddedRedis() as server:
        cli, way = Cli(server.url, "line1"), Way(server.url, "line1")
        cli("models", "import", str(model_file))
        cli("models", "promote", "default", "1")
        yield server, cli, way
        os.kill(server.pid, signal.SIGCONT)
        cli.close()
        way.close()


def test_while_redis_stalls_it_lives_is_not_ready_and_a_second_signal_ends_it(
    own: tuple[EmbeddedRedis, Cli, Way],
) -> None:
    server, cli, _ = own
    worker = start_worker(cli, GAUSSLINE_REDIS_TIMEOUT_S="30")
    os.kill(server.pid, signal.SIGSTOP)
    begin = time.monotonic()
    status, body = worker.get("/readyz", timeout_s=2.0)
    assert time.monotonic() - begin < 1.0, "within a second, though Redis's own time-out is 30"
    assert status == 503
    assert "Redis does not answer" in json.loads(body)["reasons"][0]
    assert worker.get("/healthz", timeout_s=1.0)[0] == 200
    assert worker.get("/metrics", timeout_s=1.0)[0] == 200
    os.kill(server.pid, signal.SIGCONT)
    eventually(lambda: worker.get("/readyz")[0] == 200, what="readiness after the stall")

    os.kill(server.pid, signal.SIGSTOP)
    worker.process.send_signal(signal.SIGTERM)
    worker.says("draining")
    assert worker.process.poll() is None
    assert worker.end(signal.SIGTERM, within_s=5.0) == 128 + signal.SIGTERM
    worker.says("quitting at once")


def test_an_outage_is_waited_out_and_every_frame_gets_its_verdict(own: tuple[EmbeddedRedis, Cli, Way]) -> None:
    server, cli, way = own
    worker = start_worker(cli, GAUSSLINE_CLAIM_AFTER_S="1")
    server.kill()
    trouble = worker.says("trouble, trying again")
    assert trouble["level"] == "warning"
    assert "cannot be reached" in trouble["said"]
    server.start()
    for _ in range(3):
        way.admit()
    eventually(lambda: len(way.verdict_ids()) == 3, what="the verdicts")
    assert way.ledger().balances
    assert worker.get("/healthz")[0] == 200
    assert worker.metric("gaussline_troubles_total") > 0
    assert worker.metric("gaussline_surprises_total") == 0
    assert worker.end(signal.SIGTERM) == 0


def test_a_redis_that_is_not_there_yet_is_waited_for_where_that_is_asked(tmp_path: Path) -> None:
    server = EmbeddedRedis()
    cli = Cli(server.url, "line1")
    try:
        worker = start_worker(cli, "--connect-for", "60", ready=False)
        worker.says("started")
        server.start()
        client = connect(server.url)
        eventually(lambda: client.info("clients")["blocked_clients"] > 0, what="a worker that waits for a model")
        client.close()
        assert worker.end(signal.SIGTERM, within_s=10.0) == 0
        worker.says("stopped")
    finally:
        cli.close()
        server.stop()


def test_a_password_comes_from_its_file_and_is_never_written(tmp_path: Path) -> None:
    secret = "hunter2 @/:%"
    file = tmp_path / "password"
    file.write_text(f"{secret}\n", "utf-8")
    with EmbeddedRedis() as server:
        client = server.client()
        client.config_set("requirepass", secret)
        cli = Cli(server.url, "line1")
        assert "refused the login" in cli("ledger", code=3).stderr
        settings = {"GAUSSLINE_REDIS_PASSWORD_FILE": str(file)}
        assert "no camera" in cli("ledger", env=settings).stdout
        worker = start_worker(cli, ready=False, env=settings)
        eventually(lambda: client.info("clients")["blocked_clients"] > 0, what="a worker that waits for a model")
        assert "no model" in worker.get("/readyz")[1]
        server.kill()
        client.close()
        worker.says("trouble, trying again")
        assert worker.end(signal.SIGTERM) == 0
        written = json.dumps(worker.log) + "".join(worker.other)
        assert "hunter2" not in written
        cli.close()
    gone = cli("ledger", code=2, GAUSSLINE_REDIS_PASSWORD_FILE=str(tmp_path / "none"))
    assert "redis_password_file" in gone.stderr
