from __future__ import annotations

import json
import signal

from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.contract.verdict import Decision
from tests.broker.way import Way
from tests.commands.published import publish
from tests.support.cli import Cli
from tests.support.waiting import eventually

PASS, FAIL, NOT_JUDGED = Decision.PASS, Decision.FAIL, Decision.NOT_JUDGED


def ids(text: str) -> list[str]:
    return [json.loads(line)["id"] for line in text.splitlines()]


def test_what_is_there_is_printed_and_filtered(cli: Cli, way: Way) -> None:
    publish(way, PASS, FAIL, NOT_JUDGED, PASS)
    publish(way, FAIL, camera="cam2")
    assert ids(cli("verdicts", "--json").stdout) == ["cam1:1:0", "cam1:1:1", "cam1:1:2", "cam1:1:3", "cam2:1:0"]
    assert ids(cli("verdicts", "--json", "--only", "fail").stdout) == ["cam1:1:1", "cam2:1:0"]
    assert ids(cli("verdicts", "--json", "--only", "fail", "--camera", "cam2").stdout) == ["cam2:1:0"]
    assert ids(cli("verdicts", "--json", "--limit", "2").stdout) == ["cam1:1:0", "cam1:1:1"]


def test_a_line_a_verdict_for_people_moves_no_cursor_of_the_terminal(cli: Cli, way: Way) -> None:
    publish(way, PASS, NOT_JUDGED)
    publish(way, FAIL, random_weights=True)
    first, second, third = cli("verdicts").stdout.splitlines()
    assert "pass" in first
    assert "P-0" in first
    assert "0.2500" in first
    assert "12.5 / 20" in first
    assert "default v1" in first
    assert len(first) <= 80, "a row that is broken in two is hard to follow"
    assert "RANDOM" not in first
    assert "undecodable: no" in second
    assert "\x1b" not in second
    assert third.endswith("RANDOM WEIGHTS")


def test_since_begins_at_the_very_millisecond(cli: Cli, way: Way) -> None:
    publish(way, PASS, PASS, PASS)
    reader = Verdicts(way.client, way.line)
    entries = reader.read("0-0")
    at = entries[1][1]["judged_at"]
    same = [verdict["id"] for entry, verdict in entries if entry.split("-")[0] >= entries[1][0].split("-")[0]]
    assert ids(cli("verdicts", "--json", "--since", at).stdout) == same
    assert len(ids(cli("verdicts", "--json", "--since", "1h").stdout)) == 3
    assert cli("verdicts", "--json", "--since", "2099-01-01T00:00:00Z").stdout == ""
    assert "neither a time ago" in cli("verdicts", "--since", "yesterday", code=2).stderr
    assert "cursor" in cli("verdicts", "--since", "1h", "--group", "mes", code=2).stderr


def test_a_subscriber_gets_every_verdict_until_it_has_it(cli: Cli, way: Way) -> None:
    publish(way, PASS, FAIL, PASS)
    assert ids(cli("verdicts", "--json", "--group", "mes", "--limit", "2").stdout) == ["cam1:1:0", "cam1:1:1"]
    assert ids(cli("verdicts", "--json", "--group", "mes").stdout) == ["cam1:1:2"]
    assert cli("verdicts", "--json", "--group", "mes").stdout == ""
    publish(way, PASS, FAIL)
    assert ids(cli("verdicts", "--json", "--group", "mes", "--only", "fail").stdout) == ["cam1:1:4"]
    assert cli("verdicts", "--json", "--group", "mes").stdout == "", "what was left out counts as read"
    assert len(ids(cli("verdicts", "--json", "--group", "other").stdout)) == 5


def test_what_a_broken_pipe_never_took_comes_again(cli: Cli, way: Way) -> None:
    publish(way, *[PASS] * 20)
    process = cli.start("verdicts", "--json", "--group", "mes")
    assert process.stdout is not None
    process.stdout.close()  # `| head` that has gone
    assert process.wait(30) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert len(ids(cli("verdicts", "--json", "--group", "mes").stdout)) == 20


def test_following_prints_what_comes_and_ends_cleanly_on_ctrl_c(cli: Cli, way: Way) -> None:
    publish(way, PASS)
    process = cli.start("verdicts", "--follow", "--json", "--group", "mes")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["id"] == "cam1:1:0"
    publish(way, FAIL)
    assert json.loads(process.stdout.readline())["id"] == "cam1:1:1"
    eventually(
        lambda: Verdicts(way.client, way.line).subscribers()["mes"] == Verdicts(way.client, way.line).last_id(),
        what="the acknowledgement",
    )
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.strip()) == (130, "", "")


def test_following_begins_now(cli: Cli, way: Way) -> None:
    publish(way, PASS)
    process = cli.start("verdicts", "--follow", "--json")
    assert process.stdout is not None
    eventually(lambda: way.client.info("clients")["blocked_clients"] > 0, what="a reader that waits")
    publish(way, FAIL)
    assert json.loads(process.stdout.readline())["id"] == "cam1:1:1"


def test_an_outage_is_waited_out_and_nothing_is_missed() -> None:
    own = EmbeddedRedis().start()
    cli, way = Cli(own.url, "line1"), Way(own.url, "line1")
    try:
        publish(way, PASS)
        process = cli.start("verdicts", "--follow", "--json", "--group", "mes")
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["id"] == "cam1:1:0"
        own.kill()
        assert "trying again" in process.stderr.readline()
        own.start()
        way.close()
        assert "Redis is back" in process.stderr.readline()
        publish(way, FAIL)
        seen = json.loads(process.stdout.readline())["id"]
        assert seen in ("cam1:1:0", "cam1:1:1"), "at least once"
        if seen == "cam1:1:0":
            assert json.loads(process.stdout.readline())["id"] == "cam1:1:1"
    finally:
        cli.close()
        way.close()
        own.stop()
