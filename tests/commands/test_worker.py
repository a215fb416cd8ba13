from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import jsonschema
import pytest

from gaussline.worker.broker.client import connect
from gaussline.worker.contract.keys import Keys
from tests.broker.way import Way
from tests.commands.workers import QUICK, start_worker
from tests.support.cli import Cli
from tests.support.waiting import eventually

SCHEMA = Path(__file__).parents[2] / "worker" / "contract" / "verdict.schema.json"


@pytest.fixture
def fitted(cli: Cli, model_file: Path) -> Cli:
    """A line whose stable version is 1."""
    cli("models", "import", str(model_file), "--by", "ada")
    cli("models", "promote", "default", "1", "--by", "ada", "--note", "first")
    return cli


def test_a_frame_goes_its_whole_way(fitted: Cli, parts: Path) -> None:
    cli = fitted
    worker = start_worker(cli, fresh=True)
    cli("subscribers", "register", "mes")
    sent = json.loads(cli("produce", str(parts / "good"), "--camera", "cam1", "--part-id", "{stem}", "--json").stdout)
    assert sent["admitted"] == 40
    read = cli("verdicts", "--follow", "--json", "--group", "mes", "--limit", "40")
    verdicts = [json.loads(line) for line in read.stdout.splitlines()]
    schema = json.loads(SCHEMA.read_text("utf-8"))
    for verdict in verdicts:
        jsonschema.validate(verdict, schema)
    assert {verdict["id"] for verdict in verdicts} == {f"cam1:1:{n}" for n in range(40)}
    assert {verdict["part"] for verdict in verdicts} == {path.stem for path in (parts / "good").glob("*.png")}
    assert all(verdict["random_weights"] for verdict in verdicts)
    assert worker.says("RANDOM WEIGHTS: every verdict means nothing")["level"] == "warning"
    book = json.loads(cli("ledger", "--json").stdout)
    assert book["balances"]
    assert (book["cameras"][0]["admitted"], book["cameras"][0]["in_flight"]) == (40, 0)
    assert cli("verdicts", "--json", "--group", "mes").stdout == ""

    assert worker.metric("gaussline_frames_total", camera="cam1") == 40
    assert worker.metric("gaussline_admission_to_verdict_seconds_count") == 40
    assert worker.metric("gaussline_model_version_info", model="default", version="1") == 1
    assert worker.metric("gaussline_held_bytes") == 0
    assert worker.metric("gaussline_device_busy_seconds_total") > 0
    assert "_created" not in worker.get("/metrics")[1]
    assert worker.get("/healthz")[0] == 200
    assert worker.get("/readyz") == (200, '{"ready": true, "reasons": []}\n')
    assert worker.get("/nothing")[0] == 404
    assert worker.end(signal.SIGTERM) == 0
    assert worker.says("draining")["signal"] == "SIGTERM"
    assert worker.says("stopped")["released_messages"] == 0
    assert worker.other == [], "every line of the log is JSON"


def test_a_promotion_is_followed_within_a_second_or_two(fitted: Cli, model_file: Path) -> None:
    cli = fitted
    cli("models", "import", str(model_file), "--note", "the same again")
    worker = start_worker(cli, GAUSSLINE_WORKER_NAME="w1")
    client = connect(cli.url)

    def running() -> int:
        text = client.hget(Keys(cli.line).workers, "w1")
        return int(json.loads(text)["models"]["default"]) if text else 0

    eventually(lambda: running() == 1, what="version 1")
    cli("models", "promote", "default", "2")
    eventually(lambda: running() == 2, within_s=5.0, what="version 2")
    assert worker.metric("gaussline_model_version_info", version="2") == 1
    assert worker.metric("gaussline_model_version_info", version="1") == 0, "only what is in use has a sample"
    cli("models", "rollback", "default", "--note", "worse")
    eventually(lambda: running() == 1, within_s=5.0, what="version 1 again")
    client.close()


def test_before_the_first_model_it_waits_and_says_so(cli: Cli, model_file: Path) -> None:
    worker = start_worker(cli, ready=False)
    status, body = worker.get("/readyz")
    assert status == 503
    assert "no model is promoted" in body
    assert worker.get("/healthz")[0] == 200
    cli("models", "import", str(model_file))
    cli("models", "promote", "default", "1")
    worker.says("ready")
    assert worker.end(signal.SIGINT) == 0


def test_what_cannot_be_judged_is_logged_and_counted_not_lost(fitted: Cli, way: Way) -> None:
    worker = start_worker(fitted)
    for _ in range(5):
        way.admit("cam1", size=50)  # zeros are no PNG
    eventually(lambda: len(way.verdict_ids()) == 5, what="five verdicts")
    line = worker.says("frame not judged")
    assert (line["camera"], line["reason"], line["level"]) == ("cam1", "undecodable", "warning")
    assert worker.metric("gaussline_frames_total", decision="not_judged", reason="undecodable") == 5
    assert len([each for each in worker.log if each["event"] == "frame not judged"]) == 1, "never a line a frame"


def test_random_weights_are_refused_unless_somebody_allowed_them(fitted: Cli) -> None:
    refused = fitted("worker", code=4, GAUSSLINE_HTTP_PORT="0")
    assert "random" in refused.stderr


def test_a_device_that_is_none_is_told_before_any_model_is_there(cli: Cli) -> None:
    assert "none of auto, cpu, cuda" in cli("worker", "--device", "tpu", code=2, GAUSSLINE_HTTP_PORT="0").stderr


def test_check_says_everything_that_is_wrong_and_starts_nothing(fitted: Cli, way: Way) -> None:
    told = fitted("worker", "--check", env=QUICK).stdout
    assert "is free" in told
    assert "default version 1 runs as cpu, channels_last" in told
    assert way.client.hlen(way.keys.workers) == 0
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        wrong = {"GAUSSLINE_HTTP_PORT": port, "GAUSSLINE_REDIS_URL": "redis://127.0.0.1:1"}
        first, second = fitted("worker", "--check", code=2, env=QUICK | wrong).stderr.splitlines()
        assert f"http_port {port}" in first
        assert "cannot be reached" in second
        taken = fitted("worker", code=2, env=QUICK | {"GAUSSLINE_HTTP_PORT": port}).stderr
        assert "GAUSSLINE_HTTP_PORT" in taken
        assert len(taken.splitlines()) == 1


def test_check_before_the_first_model_is_no_mistake(cli: Cli) -> None:
    assert "no model is promoted yet" in cli("worker", "--check", env=QUICK).stdout
