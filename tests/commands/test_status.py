"""One screen of a line, and what doctor finds when something is wrong with it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from gaussline.worker.broker.dead_letters import DeadCount
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.ledger import Ledger
from gaussline.worker.broker.line_state import LineReader, LineState
from gaussline.worker.commands.status import WIDEST, _Look, screen
from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.model import Model
from gaussline.worker.contract.verdict import Decision, Reason
from gaussline.worker.errors import BrokerUnavailable
from tests.broker.way import Way
from tests.commands.published import publish
from tests.support.cli import Cli
from tests.telemetry.test_line_metrics import row, state

POINTER = json.dumps({"version": 1, "digest": "0" * 64, "revision": 1, "moved_at": "2026", "by": "ada"})


@pytest.fixture
def other_weights(artefact: Artefact, tmp_path: Path) -> Path:
    """A version that was fitted with other weights."""
    model = Model.from_artefact(artefact)
    spec = dataclasses.replace(model.spec, weights_digest="1" * 64)
    made = Model(spec, model.gaussians, model.combination, model.working_point, model.moments, model.info)
    path = tmp_path / "other.safetensors"
    path.write_bytes(made.to_artefact().data)
    return path


def test_a_line_on_one_screen(cli: Cli, way: Way, tmp_path: Path) -> None:
    publish(way, Decision.PASS, Decision.FAIL, Decision.NOT_JUDGED, Decision.PASS)
    way.admit("cam2")
    way.client.hset(
        way.keys.workers, "w9", json.dumps({"host": "h", "models": {"default": 3}, "refused": {"x": "version 1: no"}})
    )
    shown = json.loads(cli("status", "--once", "--json").stdout)
    assert shown["balances"]
    one, two = shown["cameras"]
    assert (one["camera"], one["admitted"], one["pass"], one["fail"], one["not_judged"]) == ("cam1", 4, 2, 1, 1)
    assert (two["camera"], two["in_flight"]) == ("cam2", 1)
    assert two["backlog_age_s"] > 0
    (worker,) = shown["workers"]
    assert (worker["name"], worker["alive"], worker["models"]) == ("w9", False, {"default": 3})
    assert [verdict["id"] for verdict in shown["last_failed"]] == ["cam1:1:1"]
    say = {"at_us": 1, "alarm": "image", "test": "image:exposure", "text": "lighting changed on camera cam1"}
    way.client.hset(way.keys.learner("m"), "token", 1)
    way.client.hset(way.keys.pointers, "m/stable", POINTER)
    way.client.xadd(way.keys.drift("m"), {"kind": "alarm", "camera": "cam1", "json": json.dumps(say)})
    (learner,) = json.loads(cli("status", "--once", "--json").stdout)["learners"]
    assert (learner["model"], learner["running"], learner["alarms"][0]["test"]) == ("m", False, "image:exposure")
    text = cli("status", "--once").stdout
    for word in ("no learner", "lighting changed on camera cam1"):
        assert word in text
    for word in ("cam1", "cam2", "0 workers", "ledger balances", "dead", "refuses x", "cam1:1:1", "P-1"):
        assert word in text
    way.client.hset(way.keys.workers, "w9", json.dumps({"warm": False}))
    way.client.set(way.keys.worker("w9"), 1)
    assert "warms up" in cli("status", "--once").stdout, "it lives, and frames wait for it"
    cli("status", "--svg", str(tmp_path / "status.svg"), "--every", "0.2")
    picture = (tmp_path / "status.svg").read_text("utf-8")
    assert picture.startswith("<svg")
    assert "cam2" in picture
    assert "url(http" not in picture, "it loads nothing from anywhere"
    assert "font-face" not in picture
    way.client.hincrby(way.keys.camera("cam1"), "admitted", 2)
    assert "DOES NOT BALANCE" in cli("status", "--once", code=5).stdout


def test_a_small_terminal_cuts_nothing(cli: Cli, way: Way) -> None:
    publish(way, Decision.PASS, Decision.FAIL)
    runtime = "cuda:0 NVIDIA L4, channels_last, batch 32, 1 lane, 1,204 images/s"
    about = {"host": "press4-gpu0", "runtime": runtime, "models": {"default": 12}, "refused": {"b4": "[/a] torn"}}
    way.client.hset(way.keys.workers, "press4-gpu0-1234", json.dumps(about))
    for name in ("admitted", "pass"):
        way.client.hincrby(way.keys.camera("cam1"), name, 12_345_000)
    text = cli("status", "--once", COLUMNS="80").stdout
    assert "…" not in text
    for word in ("12345001", "press4-gpu0-1234", "dead", "default 12", "refuses", "[/a]", "torn", "cam1:1:1"):
        assert word in " ".join(text.split()), word


def test_a_wide_terminal_pulls_no_row_apart(way: Way) -> None:
    way.admit("cam1", 1)
    console = Console(width=300, file=(written := io.StringIO()))
    console.print(screen(LineReader(way.client, way.line).read(), {}, []))
    assert 100 < max(map(len, written.getvalue().splitlines())) <= WIDEST


def shown(told: LineState, cameras: int | None = None, *, colours: bool = False) -> str:
    console = Console(width=120, file=io.StringIO(), color_system="standard" if colours else None)
    console.print(screen(told, {}, [], cameras))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_head_says_who_is_behind_and_what_was_put_aside() -> None:
    dead = (DeadCount(Reason.POISON, 9, 2, 100, 0, 0, 0, 0), DeadCount(Reason.TOO_LARGE, 1, 1, 100, 0, 0, 0, 0))
    told = shown(state(row("c1"), dead=dead, subscribers={"mes": 11.0, "quick": 9.0}))
    assert "behind: mes 11 s" in told
    assert "quick" not in told
    assert "3 dead letters" in told
    calm = shown(state(row("c1")))
    assert "behind" not in calm
    assert "dead letters" not in calm


def test_of_cameras_in_trouble_those_whose_frames_wait_come_first() -> None:
    calm = {"backlog_age_s": 0.0, "dropped": 0, "failed": 0}
    rows = [
        row("calm", **calm),
        row("fails", **calm | {"failed": 2}),
        row("drops", **calm | {"dropped": 100}),
        row("waits", **calm | {"backlog_age_s": 10.5}),
        row("waits-less", **calm | {"backlog_age_s": 9.5}),
    ]
    rows = [dataclasses.replace(each, admitted=each.passed + each.failed + 3) for each in rows]
    told = shown(state(*rows), 4)
    assert re.findall(r"^ *(calm|fails|drops|waits-less|waits) ", told, re.MULTILINE) == [
        "waits",
        "waits-less",
        "drops",
        "fails",
    ]
    coloured = shown(state(*rows), colours=True)
    assert re.search(r"\x1b\[31m *10\.5", coloured), "over ten seconds, in red"
    assert not re.search(r"\x1b\[31m *9\.5", coloured)


def test_of_many_cameras_those_in_trouble_are_on_the_screen(way: Way) -> None:
    for number in range(12):
        way.admit(f"cam{number}", 1)
    way.client.hincrby(way.keys.camera("cam7"), "admitted", 1)
    told = shown(LineReader(way.client, way.line).read(), 3)
    assert re.search(r"cam7 .*\n *off by 1", told)
    assert "and 9 cameras more" in told
    assert len(re.findall(r"cam\d", told)) == 3


def test_a_rate_counts_every_verdict_between_two_looks() -> None:
    first = state(row("cam1"))
    later = dataclasses.replace(
        first, ledger=Ledger((row("cam1", passed=6, failed=4, not_judged=4),), first.ledger.now_us + 2_000_000)
    )
    states = iter((first, later))
    reader: Any = SimpleNamespace(read=lambda: next(states))
    verdicts: Any = SimpleNamespace(newest=lambda _: [{"decision": "not_judged"}, {"decision": "fail"}])
    look = _Look(reader, verdicts)
    assert look.now()[1] == [{"decision": "fail"}]
    assert look.rates == {}
    look.now()
    assert look.rates == {"cam1": 3.0}


def test_doctor_compares_the_weights_with_those_of_the_promoted_versions(
    cli: Cli, model_file: Path, other_weights: Path
) -> None:
    for number, file in enumerate((model_file, other_weights), 1):
        cli("models", "import", str(file))
        cli("models", "promote", "default", str(number))
        found = json.loads(cli("doctor", "--json", code=number - 1, GAUSSLINE_ALLOW_RANDOM_WEIGHTS="true").stdout)
        (weights,) = [each for each in found if each["what"] == "weights of default"]
        assert weights["level"] == ("warning", "fault")[number - 1]
        assert ("RANDOM" in weights["found"], "GAUSSLINE_WEIGHTS" in weights["advice"]) == (number == 1, number == 2)
    (access,) = [each for each in found if each["what"] == "access"]
    assert "default" in access["found"]


def findings(cli: Cli, *words: str, code: int = 0) -> dict[str, tuple[str, str]]:
    found = json.loads(cli("doctor", "--json", *words, code=code).stdout)
    return {each["what"]: (each["level"], each["advice"]) for each in found}


def test_doctor_finds_a_sound_installation_sound(cli: Cli, way: Way, tmp_path: Path) -> None:
    found = findings(cli)
    assert {what for what, (level, _) in found.items() if level == "fault"} == set()
    assert {"disk", "device", "clocks", "version", "persistence", "eviction", "memory", "ledger"} <= set(found)
    assert found["workers"][0] == "warning"
    assert "gaussline fit" in found["models"][1]
    assert "good" in cli("doctor").stdout


@pytest.fixture
def own() -> EmbeddedRedis:
    """A server that may be spoilt."""
    return EmbeddedRedis()


def test_doctor_says_what_to_do_for_each_fault(own: EmbeddedRedis) -> None:
    with own:
        way = Way(own.url, "line1")
        cli = Cli(own.url, "line1")
        way.admit("cam1")
        for name, value in (("appendonly", "no"), ("maxmemory-policy", "allkeys-lru")):
            way.client.config_set(name, value)
        way.client.config_set("maxmemory", int(way.client.info("memory")["used_memory"] / 0.9))
        way.client.hincrby(way.keys.camera("cam1"), "admitted", 2)
        found = findings(cli, "--metrics", "http://127.0.0.1:1/metrics", code=1)
        for what, word in (
            ("persistence", "appendonly yes"),
            ("eviction", "noeviction"),
            ("memory", "redis-memory"),
            ("ledger", "ledger-imbalance"),
            ("metrics http://127.0.0.1:1/metrics", "port"),
        ):
            assert found[what][0] == "fault", what
            assert word in found[what][1]
        way.close()
    assert findings(cli, code=1)["Redis"][0] == "fault"


def test_doctor_goes_on_where_something_else_answers_in_the_place_of_redis() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            for _ in range(2):  # redis-py tries once more
                with contextlib.suppress(OSError), other.accept()[0] as client:
                    client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        found = findings(Cli(f"redis://127.0.0.1:{other.getsockname()[1]}/0", "line1"), code=1)
    assert found["Redis"] == ("fault", BrokerUnavailable.advice)
    assert "disk" in found
