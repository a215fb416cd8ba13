"""`--check` of every long-running command: what is wrong is said in one line each, and nothing starts."""

from __future__ import annotations

import json
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from gaussline.worker.broker.client import connect
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.soundness import unsound
from tests.commands.workers import QUICK
from tests.support.cli import Cli
from tests.support.waiting import eventually

COMMANDS = {
    "worker": ("worker", "--http-port", "0"),
    "exporter": ("exporter", "--http-port", "0"),
    "judge": ("judge", "--http-port", "0"),
    "learn": ("learn", "default", "--http-port", "0"),
    "produce": ("produce", "synthetic", "--camera", "cam1", "--http-port", "0"),
}


@pytest.fixture(scope="module")
def own() -> Iterator[Cli]:
    """A server that may be spoilt."""
    with EmbeddedRedis() as server:
        yield Cli(server.url, "line1")


def told(cli: Cli, name: str, code: int, **settings: str) -> list[str]:
    """What a command complains of on --check."""
    return cli(*COMMANDS[name], "--check", code=code, env=QUICK | settings).stderr.splitlines()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_sound_installation_passes_and_nothing_starts(own: Cli, name: str) -> None:
    assert told(own, name, 0) == []
    client = connect(own.url)
    assert client.keys("gl:*") == []
    client.close()


@pytest.mark.parametrize("name", COMMANDS)
def test_an_eviction_policy_that_drops_frames_is_said(own: Cli, name: str) -> None:
    client = connect(own.url)
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        (line,) = told(own, name, 1)
    finally:
        client.config_set("maxmemory-policy", "noeviction")
        client.close()
    assert "allkeys-lru" in line
    assert "config set maxmemory-policy noeviction" in line


@pytest.mark.parametrize("name", COMMANDS)
def test_a_clock_that_is_minutes_off_is_said(own: Cli, name: str) -> None:
    client = connect(own.url)
    ahead = client.time()[0] + 300
    client.close()
    with mock.patch("gaussline.worker.broker.soundness.time_us", return_value=ahead * 1_000_000):
        (line,) = told(own, name, 1)
    assert "behind Redis's" in line
    assert "chrony" in line


@pytest.mark.parametrize("name", COMMANDS)
def test_a_port_that_is_taken_and_a_redis_that_is_away_are_said_together(own: Cli, name: str) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        words = [port if word == "0" else word for word in COMMANDS[name]]
        lines = own(*words, "--check", code=2, env=QUICK).stderr.splitlines()
    assert [line for line in lines if port in line and "another port" in line]
    (line,) = told(own, name, 3, GAUSSLINE_REDIS_URL="redis://127.0.0.1:1")
    assert "cannot be reached" in line
    assert "GAUSSLINE_REDIS_URL" in line


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"GAUSSLINE_REDIS_ULR": "x"}, "did you mean GAUSSLINE_REDIS_URL"),
        ({"GAUSSLINE_CAMERA_BUDGET_BYTES": str(2**33)}, "is over line_budget_bytes"),
        ({"GAUSSLINE_CONFIG": "/nowhere/gaussline.toml"}, "cannot be read"),
        ({"GAUSSLINE_REDIS_PASSWORD_FILE": "/nowhere/password"}, "cannot be read"),
    ],
    ids=["misspelt", "contradictory", "missing file", "missing secret"],
)
def test_a_wrong_setting_is_said_in_one_line(own: Cli, name: str, settings: dict[str, str], word: str) -> None:
    lines = told(own, name, 2, **settings)
    assert len(lines) == 1, lines
    assert word in lines[0]


def test_a_folder_that_cannot_be_written_and_a_source_that_is_not_there_are_said(own: Cli, tmp_path: Path) -> None:
    (line,) = told(own, "worker", 1, GAUSSLINE_KEPT_STORE="file:///proc/sys")
    assert "/proc/sys" in line
    assert "GAUSSLINE_KEPT_STORE" in line
    assert str(tmp_path / "no") in own("produce", str(tmp_path / "no"), "-c", "cam1", "--check", code=2).stderr


def test_what_is_unsound_is_said_at_the_start_too(own: Cli) -> None:
    client = connect(own.url)
    client.config_set("maxmemory-policy", "volatile-ttl")
    try:
        sent = own("produce", "synthetic", "--camera", "cam1", "--limit", "1", "--size", "32", "--json")
    finally:
        client.config_set("maxmemory-policy", "noeviction")
        client.flushall()
        client.close()
    assert json.loads(sent.stdout)["admitted"] == 1, "it is said, and does its work"
    assert "volatile-ttl" in sent.stderr


def test_clocks_within_a_minute_are_well() -> None:
    redis = mock.Mock()
    redis.time.return_value = (1_000_000, 0)
    redis.info.return_value = {"maxmemory_policy": "noeviction"}
    assert unsound(redis, lambda: 1_000_050.0) == []
    assert "ahead of" in unsound(redis, lambda: 1_000_070.0)[0]
    assert "behind" in unsound(redis, lambda: 999_900.0)[0]


@pytest.mark.parametrize("name", ["judge", "learn", "produce"])
def test_metrics_and_probes_of_what_is_no_worker(cli: Cli, name: str) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = str(holder.getsockname()[1])
    words = [port if word == "0" else word for word in COMMANDS[name]]
    limit = ("--rate", "50", "--size", "32") if name == "produce" else ()
    process = cli.fork(*words, *limit)
    threading.Thread(target=lambda: list(process.stderr or ()), daemon=True).start()
    url = f"http://127.0.0.1:{port}"

    def answer(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url + path, timeout=5.0) as got:
                return got.status, got.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    eventually(lambda: answer("/healthz")[0] == 200, within_s=60.0, what=f"{name}'s port")
    if name == "learn":
        eventually(lambda: "no stable version" in answer("/readyz")[1], what="why it waits")
        assert answer("/readyz")[0] == 503
    else:
        eventually(lambda: answer("/readyz")[0] == 200, what="ready")
    metrics = answer("/metrics")
    assert metrics[0] == 200
    if name == "produce":
        sample = f'gaussline_producer_admitted_frames_total{{line="{cli.line}",camera="cam1"}} '

        def admitted() -> int:
            text = answer("/metrics")[1]
            return int(next(line for line in text.splitlines() if line.startswith(sample)).split()[-1])

        eventually(lambda: admitted() >= 3, what="frames")
        assert answer("/nothing")[0] == 404
    process.send_signal(signal.SIGTERM)
    assert process.wait(30.0) == 0
