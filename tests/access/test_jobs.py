"""Each process does its whole job under its own user, over TLS, and Redis denies none of its commands.

Redis writes down every command that it denies (`ACL LOG`), also those whose error a process would swallow; at the end
of each test that log must be empty.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gaussline import Producer, Verdicts
from gaussline.worker.broker.client import Redis, open_redis
from gaussline.worker.broker.copies import SetResults
from gaussline.worker.broker.registry import Registry
from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.settings import Settings
from tests.access.conftest import LINE, Secured
from tests.broker.way import Way
from tests.commands.workers import QUICK, start_worker
from tests.support.cli import Cli
from tests.support.waiting import eventually

PARTS = {"GAUSSLINE_PARTS_FRAMES": "2", "GAUSSLINE_PARTS_DEADLINE_S": "1"}
LEARN = {
    "GAUSSLINE_LEARN_BLOCK": "8",
    "GAUSSLINE_LEARN_QUARANTINE_S": "0",
    "GAUSSLINE_LEARN_CHECKPOINT_S": "0.01",
    "GAUSSLINE_LEARN_PROPOSE_FRAMES": "16",
    "GAUSSLINE_LEARN_GATE_P": "0.001",
}
WORKER = {
    "GAUSSLINE_KEEP_PASS_SHARE": "1",
    "GAUSSLINE_FEATURES": "all",
    "GAUSSLINE_VERDICT_MIN_AGE_S": "0",
    "GAUSSLINE_VERDICT_MAX_BYTES": "40000",
}


@pytest.fixture
def nothing_denied(secured: Secured, way: Way) -> Iterator[None]:
    """Nothing that runs in this test is denied a command."""
    way.client.execute_command("ACL", "LOG", "RESET")
    yield
    assert [dict(entry) for entry in way.client.acl_log()] == []


@pytest.fixture
def line(cli: Cli, secured: Secured, way: Way, model_file: Path, nothing_denied: None) -> Cli:
    """The line with a model that judges, and a subscriber, both made by the operator."""
    operator = secured.settings("operator")
    cli("models", "import", str(model_file), env=operator)
    cli("models", "promote", "default", "1", env=operator)
    cli("subscribers", "register", "mes", env=operator)
    return cli


def settings(secured: Secured, user: str, **more: Any) -> Settings:
    """A user's settings, for what is called as a library."""
    return Settings.load({**secured.settings(user), "GAUSSLINE_LINE": LINE}, **more)


def as_user(secured: Secured, user: str) -> Redis:
    return open_redis(settings(secured, user))


def listen(process: subprocess.Popen[str]) -> list[str]:
    """What a process says, read in a thread so that its pipe is never full."""
    said: list[str] = []
    threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True).start()
    threading.Thread(target=lambda: said.extend(process.stdout or ()), daemon=True).start()
    return said


def test_a_line_under_its_users(line: Cli, secured: Secured, way: Way, parts: Path, tmp_path: Path) -> None:
    operator = secured.settings("operator")
    worker = start_worker(line, env=secured.settings("worker") | WORKER)
    judge_parts = line.start("parts", **secured.settings("parts") | PARTS)
    said = listen(judge_parts)

    # producer: a process with a folder, and the library with a frame that is none
    folder = str(parts / "good")
    produced = ("produce", folder, "--camera", "cam1", "--limit", "40", "--batch", "4", "--part-id", "P-{n}")
    produce = line.start(*produced, "--json", "--quiet", **secured.settings("producer"))
    assert produce.wait(60.0) == 0
    with Producer("cam2", settings=settings(secured, "producer")) as camera:
        camera.send(b"no image at all", part_id="P-1", encoding="jpeg")

    # subscriber: follows with its cursor, and books exactly once
    reader = Verdicts(as_user(secured, "subscriber"), LINE)
    seen: dict[str, Any] = {}
    for entry_id, verdict in reader.follow(group="mes"):
        seen[verdict["id"]] = verdict
        reader.ack("mes", entry_id)
        if len(seen) == 41:
            break
    assert {verdict["decision"] for verdict in seen.values()} == {"pass", "fail", "not_judged"} - (
        set() if any(verdict["decision"] == "fail" for verdict in seen.values()) else {"fail"}
    )
    with closing(sqlite3.connect(tmp_path / "mes.db")) as database:
        mes = Verdicts(as_user(secured, "subscriber"), LINE)
        booked: list[str] = []
        mes.exactly_once(database, "mes", lambda cursor, verdict: booked.append(verdict["id"])).step()
    rest = line("verdicts", "--group", "mes", "--json", env=secured.settings("subscriber"))
    assert rest.stdout == "", "everything was acknowledged"

    # parts: one answer for each, which a subscriber reads
    line("subscribers", "list", env=operator)
    shown = ("verdicts", "--parts", "--json", "--since", "1h")
    eventually(
        lambda: '"P-1"' in line(*shown, env=secured.settings("subscriber")).stdout,
        within_s=20.0,
        what=f"a part verdict ({said})",
    )

    # worker: heat maps of failed frames, kept frames, trimmed verdicts
    failed = next((name for name, verdict in seen.items() if verdict["decision"] == "fail"), None)
    kept = json.loads(line("kept", "list", "--json", env=operator).stdout)
    assert len(kept) == 40
    if failed is not None:
        eventually(lambda: way.client.zcard(way.keys.heats), what="a heat map")
    frame = failed or next(name for name, verdict in seen.items() if verdict["decision"] == "pass")
    line("heatmap", frame, "-o", str(tmp_path / "map.png"), env=operator | QUICK)
    line("verify", frame, env=operator | QUICK)
    line("kept", "get", frame, "-o", str(tmp_path / "frame"), env=operator)
    line("review", "--export", str(tmp_path / "review.html"), "--no-maps", env=operator)

    # feedback: a user of its own, and the operator
    line("feedback", frame, "good", env=secured.settings("feedback"))
    line("feedback", "cam1:9:9", "bad", code=1, env=secured.settings("feedback"))
    line("feedback", frame, "bad", env=operator)

    # operator: dead letters, cameras, state
    (letters,) = json.loads(line("dead", "list", "--json", env=operator).stdout)
    assert letters["letters"] == 1
    line("dead", "retry", letters["reason"], "--all", env=operator)
    eventually(lambda: way.client.xlen(way.keys.dead(letters["reason"])) == 1, what="the retried letter's own letter")
    line("dead", "drop", letters["reason"], "--all", env=operator)
    line("cameras", "set", "cam1", "--weight", "2", env=operator)
    state = json.loads(line("status", "--once", "--json", env=operator).stdout)
    assert [row["alive"] for row in state["workers"]] == [True]
    line("ledger", env=operator)

    # a clean end of the worker gives back all it held
    assert worker.end(15) == 0
    judge_parts.terminate()
    judge_parts.wait(20.0)
    assert way.ledger().balances
    assert not [text for text in worker.other if "NOPERM" in text]


def test_the_learner_checkpoints_and_proposes_under_its_user(
    line: Cli, secured: Secured, way: Way, parts: Path, artefact: Artefact
) -> None:
    worker = start_worker(line, env=secured.settings("worker") | WORKER)
    line(
        "produce", str(parts / "good"), "--camera", "cam1", "--loop", "--limit", "120", "--quiet",
        env=secured.settings("producer"),
    )  # fmt: skip
    eventually(lambda: way.client.xlen(way.keys.features("default")) == 120, within_s=60.0, what="120 feature events")
    operator = secured.settings("operator")
    line("drift", "freeze", "default", env=operator)
    line("drift", "resume", "default", env=operator)
    learner = line.fork("learn", "--once", "--json", **secured.settings("learner") | LEARN)
    learnt = json.loads(learner.stdout.read())
    assert learner.wait(60.0) == 0
    assert learnt["frames"] > 0
    shown = json.loads(line("moments", "show", "default", "--json", env=operator).stdout)
    assert shown["size_bytes"] > 0
    Registry(as_user(secured, "learner"), LINE).publish("default", artefact.data, by="learner", note="as it proposes")
    assert json.loads(line("models", "list", "--json", env=operator).stdout)[-1]["by"] == "learner"
    assert worker.end(15) == 0


def test_the_judge_promotes_and_the_operator_rolls_back(
    line: Cli, secured: Secured, way: Way, parts: Path, model_file: Path
) -> None:
    operator = secured.settings("operator")
    line("models", "import", str(model_file), "--note", "again", env=operator)
    worker = start_worker(line, env=secured.settings("worker"))
    trial = ("--shadow", "--for", "2s", "--min-frames", "8", "--abort-if", "extra_fails > 90%")
    line("models", "promote", "default", "2", *trial, env=operator)
    eventually(lambda: b"shadow" in b"".join(way.client.hvals(way.keys.workers)), what="the worker with the shadow")
    folder = str(parts / "good")
    line("produce", folder, "--camera", "cam1", "--limit", "40", "--quiet", env=secured.settings("producer"))
    eventually(lambda: way.client.xlen(way.keys.verdicts) == 40, within_s=60.0, what="40 verdicts")
    judge = line.start("judge", **secured.settings("judge"))
    said = listen(judge)

    def stable() -> int:
        return int(json.loads(way.client.hget(way.keys.pointers, "default/stable") or b"{}").get("version", 0))

    eventually(lambda: stable() == 2, within_s=30.0, what=f"the judge's promotion ({said})")
    judge.terminate()
    judge.wait(20.0)
    line("models", "trials", "default", env=operator)
    line("models", "rollback", "default", env=operator)
    assert stable() == 1
    line("models", "pin", "default", env=operator)
    line("models", "promote", "default", "2", code=1, env=operator)
    line("models", "unpin", "default", env=operator)
    line("models", "history", "default", env=operator)
    line("models", "gc", "--newest", "0", "--max-age-days", "0", env=operator)
    assert worker.end(15) == 0


def test_a_set_says_what_it_saw_and_lets_it_go_under_the_workers_user(line: Cli, secured: Secured, way: Way) -> None:
    line("sets", "add", "b", "--model", "default", env=secured.settings("operator"))
    results = SetResults(as_user(secured, "worker"), LINE, "b", max_age_s=-1.0)
    results.publish([("cam1:1:0", "cam1", "pass", "{}")])
    assert way.client.xlen(way.keys.set_results("b")) == 1
    assert results.age() == 1


def test_the_exporter_reads_the_line_and_writes_nothing(line: Cli, secured: Secured, way: Way) -> None:
    way.admit()
    before = way.dump()
    process = line.start("exporter", "--http-port", "0", **secured.settings("exporter"))
    said: list[str] = []
    threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True).start()
    eventually(lambda: "/metrics" in "".join(said), within_s=60.0, what="the exporter")
    url = next(word.rstrip(";") for word in "".join(said).split() if word.startswith("http://"))
    with urllib.request.urlopen(url, timeout=10.0) as answer:
        text = answer.read().decode()
    assert 'gaussline_line_up{line="line1"} 1.0' in text
    assert 'gaussline_line_subscriber_lag_seconds{line="line1",subscriber="mes"}' in text
    for what in ("ca", "client", "server"):
        assert f'gaussline_line_certificate_not_after_seconds{{certificate="{what}",line="line1"}} 4.07' in text
    assert "S3CRET" not in text
    process.terminate()
    process.wait(20.0)
    assert way.dump() == before
