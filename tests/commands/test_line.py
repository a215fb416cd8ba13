"""The commands about a line itself: ledger, cameras, subscribers, kept frames, dead letters."""

from __future__ import annotations

import json
from pathlib import Path

from gaussline.worker.contract.dead_letter import DeadLetter
from gaussline.worker.contract.frame import Frame, encode_batch
from gaussline.worker.contract.verdict import Decision, Reason
from tests.broker.way import Way
from tests.commands.published import publish
from tests.support.cli import Cli

PASS, FAIL, NOT_JUDGED = Decision.PASS, Decision.FAIL, Decision.NOT_JUDGED


def test_the_ledger_of_a_whole_line_balances(cli: Cli, way: Way) -> None:
    assert "no camera" in cli("ledger").stdout
    publish(way, PASS, PASS, FAIL, NOT_JUDGED)
    way.admit("cam2", frames=3)
    book = json.loads(cli("ledger", "--json").stdout)
    assert book["balances"]
    columns = ("camera", "admitted", "passed", "failed", "not_judged", "in_flight", "imbalance", "bytes_off")
    assert [[row[name] for name in columns] for row in book["cameras"]] == [
        ["cam1", 4, 2, 1, 1, 0, 0, 0],
        ["cam2", 3, 0, 0, 0, 3, 0, 0],
    ]
    text = cli("ledger").stdout
    assert "ledger of line" in text
    assert "balances" in text


def test_a_broken_ledger_exits_with_five_and_says_what_is_off(cli: Cli, way: Way) -> None:
    publish(way, PASS, PASS)
    way.client.hincrby(way.keys.camera("cam1"), "admitted", 3)
    book = json.loads(cli("ledger", "--json", code=5).stdout)
    assert not book["balances"]
    assert book["cameras"][0]["imbalance"] == 3
    told = cli("ledger", code=5)
    assert "DOES NOT BALANCE" in told.stdout
    assert "camera cam1 does not balance: 3 of 5 admitted frames have no verdict" in told.stderr


def test_bytes_that_are_off_are_shown_too(cli: Cli, way: Way) -> None:
    way.admit()
    way.client.hincrby(way.keys.camera("cam1"), "bytes", 100)
    told = cli("ledger", code=5)
    assert "bytes off" in told.stdout
    assert "bytes are counted as in flight" in told.stderr


def test_every_column_of_the_ledger_is_explained() -> None:
    """The help is held to the table."""
    from gaussline.worker.broker.ledger import Ledger, LedgerRow
    from gaussline.worker.commands.ledger import EPILOG, ledger_table

    row = LedgerRow("cam1", 1, 2, 3, 4, 5, 6, 7, 8.0, 9, 10, 11, 12, 13, 14, 15, 16, 17)
    table = ledger_table(Ledger((row,), 0), "line1")
    headers = [str(column.header) for column in table.columns]
    assert {"bytes off", "dropped", "unadmitted"} <= set(headers)
    explained = [line.strip() for line in EPILOG.splitlines()]
    for header in headers[1:]:
        assert any(line.startswith(header) or f", {header} " in line for line in explained), header


def test_cameras_are_listed_and_set(cli: Cli, way: Way) -> None:
    assert "no camera" in cli("cameras", "list").stdout
    way.admit("cam1")
    told = cli("cameras", "set", "cam1", "--model", "lids", "--weight", "3")
    assert "model lids, weight 3" in told.stdout
    assert "no_model" in told.stderr, "nothing is promoted under that name"
    assert json.loads(cli("cameras", "list", "--json").stdout) == [{"name": "cam1", "model": "lids", "weight": 3}]
    assert "none promoted" in cli("cameras", "list").stdout
    assert "between 1 and 100" in cli("cameras", "set", "cam1", "--weight", "101", code=2).stderr
    assert "--model" in cli("cameras", "set", "cam1", code=2).stderr
    assert "no camera" in cli("cameras", "set", "ghost", "--weight", "2", code=1).stderr


def test_subscribers_come_and_go(cli: Cli, way: Way) -> None:
    assert "no subscriber" in cli("subscribers", "list").stdout
    cli("subscribers", "register", "mes")
    publish(way, PASS)
    assert json.loads(cli("subscribers", "list", "--json").stdout) == {"mes": "0-0"}
    assert " all " in cli("subscribers", "list").stdout
    cli("verdicts", "--group", "mes")
    assert " no " in cli("subscribers", "list").stdout
    cli("subscribers", "unregister", "mes")
    assert "no subscriber 'mes'" in cli("subscribers", "unregister", "mes", code=1).stderr
    assert "is not allowed" in cli("subscribers", "register", "a b", code=1).stderr


def test_kept_frames_are_listed_and_given_back(cli: Cli, way: Way, tmp_path: Path) -> None:
    publish(way, PASS, FAIL)
    assert cli("kept", "list").stdout.split()[1] == "cam1:1:1"
    assert [frame["id"] for frame in json.loads(cli("kept", "list", "--json").stdout)] == ["cam1:1:1"]
    copy = tmp_path / "part.png"
    cli("kept", "get", "cam1:1:1", "--output", str(copy))
    assert copy.read_bytes() == b"picture"
    assert "is not kept" in cli("kept", "get", "cam1:1:0", "--output", str(copy), code=1).stderr
    nowhere = tmp_path / "no" / "folder"
    assert "cannot be written" in cli("kept", "get", "cam1:1:1", "--output", str(nowhere), code=2).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["part.png"]


def test_dead_letters_are_counted_listed_and_given_back(cli: Cli, way: Way, tmp_path: Path) -> None:
    assert "no dead letter" in cli("dead", "list").stdout
    publish(way, NOT_JUDGED, NOT_JUDGED)
    (row,) = json.loads(cli("dead", "list", "--json").stdout)
    assert (row["reason"], row["total"], row["letters"]) == ("undecodable", 2, 2)
    assert "undecodable" in cli("dead", "list").stdout
    listed = [json.loads(line) for line in cli("dead", "list", "--reason", "undecodable", "--json").stdout.splitlines()]
    assert [letter["id"] for letter in listed] == ["cam1:1:1", "cam1:1:0"]
    copy = tmp_path / "letter"
    cli("dead", "get", "undecodable", "cam1:1:0", "--output", str(copy))
    assert copy.read_bytes() == b"broken"
    assert "no dead letter" in cli("dead", "get", "poison", "cam1:1:0", "--output", str(copy), code=1).stderr


def test_a_dead_letter_is_shown_and_dropped(cli: Cli, way: Way) -> None:
    publish(way, NOT_JUDGED, NOT_JUDGED, NOT_JUDGED)
    told = json.loads(cli("dead", "show", "undecodable", "cam1:1:1", "--json").stdout)
    assert (told["id"], told["deliveries"], told["size_bytes"]) == ("cam1:1:1", 1, 6)
    assert "no frame batch" in told["holds"]
    assert "deliveries   1" in cli("dead", "show", "undecodable", told["entry"]).stdout
    assert "1 dead letters" in cli("dead", "drop", "undecodable", "cam1:1:0").stdout
    assert json.loads(cli("dead", "drop", "undecodable", "--older-than", "1h", "--json").stdout)["removed"] == 0
    assert json.loads(cli("dead", "drop", "undecodable", "--all", "--json").stdout)["removed"] == 2
    (row,) = json.loads(cli("dead", "list", "--json").stdout)
    assert (row["total"], row["letters"], row["removed"], row["size_bytes"]) == (3, 0, 3, 0)
    assert "name letters" in cli("dead", "drop", "undecodable", code=2).stderr
    assert "no stretch" in cli("dead", "drop", "undecodable", "--older-than", "long", code=2).stderr


def test_dead_letters_are_retried_and_what_cannot_be_is_said(cli: Cli, way: Way) -> None:
    publish(way, NOT_JUDGED)
    batch = encode_batch("cam1", 1, 5, [Frame(b"picture", "png", 1, part="A-5")])
    letter = DeadLetter("cam1:1:5", "cam1", Reason.UNDECODABLE, "a bad lamp", data=batch)
    way.client.xadd(way.keys.dead("undecodable"), letter.to_fields())
    assert "part A-5" in cli("dead", "show", "undecodable", "cam1:1:5").stdout
    told = cli("dead", "retry", "undecodable", "--all", "--json")
    answer = json.loads(told.stdout)
    assert [one["frames"] for one in answer["retried"]] == [["cam1.retry:1:0"]]
    assert [one["id"] for one in answer["left"]] == ["cam1:1:0"]
    assert "no frame batch" in cli("dead", "retry", "undecodable", "cam1:1:0", code=1).stderr
    assert "no dead letter" in cli("dead", "retry", "undecodable", "cam1:1:5", code=1).stderr
    assert way.ledger().in_flight == 1
