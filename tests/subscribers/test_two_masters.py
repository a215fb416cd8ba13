"""Two masters beside each other for a while: who has read the old one gets the new one's verdicts too.

A master that only its clients still reach goes on writing until it misses its replicas, while its successor writes
already. Entries have their ids from the clock, so what the new one wrote lies between those that the old one had.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gaussline.worker.bridge.parcel import Parcel
from gaussline.worker.broker.client import Redis, connect
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.verdicts import PartVerdicts, Verdicts
from gaussline.worker.contract.keys import Keys
from gaussline.worker.engine import part_judge
from gaussline.worker.engine.part_book import PartRule
from gaussline.worker.engine.part_judge import PartJudge
from tests.bridge.test_delivery import Receiver, bridge, running
from tests.subscribers.mes import book, tables
from tests.support.waiting import eventually

LINE = "split"
SHARED, OLD, NEW = ("1-0", "2-0"), ("3-0", "6-0"), ("4-0", "5-0", "7-0")


class Moving:
    """A client that is led from one server to another, as `LineClient` is by Sentinels."""

    def __init__(self, *clients: Redis) -> None:
        self.clients = list(clients)
        self.moves = 0
        self.move_after = ""
        """The command after whose answer it moves."""

    def move(self) -> None:
        """To the next one."""
        self.clients = self.clients[1:]
        self.moves += 1

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.clients[0], name)
        return self._then_move(found) if name == self.move_after else found

    def _then_move(self, command: Any) -> Any:
        def run(*arguments: Any, **options: Any) -> Any:
            answer = command(*arguments, **options)
            self.move_after = ""
            self.move()
            return answer

        return run


@pytest.fixture
def moving() -> Iterator[Moving]:
    """An old master and a new one. Both know that `mes` is there, and has the shared entries."""
    with EmbeddedRedis() as old, EmbeddedRedis() as new:
        clients = [connect(old.url), connect(new.url)]
        for client, own in zip(clients, (OLD, NEW), strict=True):
            for entry in (*SHARED, *own):
                verdict = {"v": 1, "id": f"cam1:1:{entry}", "camera": "cam1", "part": entry, "decision": "pass"}
                fields = {"id": verdict["id"], "camera": "cam1", "decision": "pass", "json": json.dumps(verdict)}
                client.xadd(Keys(LINE).verdicts, fields, id=entry)
            reader = Verdicts(client, LINE)
            reader.register("mes")
            reader.ack("mes", SHARED[-1])
        yield Moving(*clients)
        for client in clients:
            client.close()


def ids(*entries: str) -> list[str]:
    return [f"cam1:1:{entry}" for entry in entries]


def test_a_durable_subscriber_goes_back_to_its_cursor(moving: Moving) -> None:
    read = []
    for entry, verdict in Verdicts(moving, LINE).follow(group="mes", stop_after_s=0.5):
        read.append(verdict["id"])
        if entry == OLD[-1]:
            moving.move()
    assert read == ids(*OLD, *NEW)


def test_exactly_once_books_the_new_ones_and_none_twice(moving: Moving, tmp_path: Path) -> None:
    database: sqlite3.Connection = tables(str(tmp_path / "mes.db"))
    once = Verdicts(moving, LINE).exactly_once(database, "mes", book)
    once.run(idle_s=0.0, block_s=0.05)
    moving.move()
    once.run(idle_s=0.2, block_s=0.05)
    booked = [row[0] for row in database.execute("SELECT id FROM booked ORDER BY rowid")]
    database.close()
    assert booked == ids(*OLD, *NEW)


def test_what_only_the_old_one_had_acknowledges_nothing_at_the_new_one(moving: Moving) -> None:
    reader = Verdicts(moving, LINE)
    moving.move()
    assert not reader.ack("mes", OLD[-1])
    assert reader.position("mes") == SHARED[-1]
    assert reader.ack("mes", NEW[0])
    assert reader.position("mes") == NEW[0]


def test_what_is_older_than_the_stream_is_acknowledged(moving: Moving) -> None:
    moving.xtrim(Keys(LINE).verdicts, minid=OLD[-1], approximate=False)
    assert Verdicts(moving, LINE).ack("mes", "2-5")


def test_a_registration_that_the_new_one_lacks_begins_at_its_beginning(moving: Moving, tmp_path: Path) -> None:
    reader = Verdicts(moving, LINE)
    database: sqlite3.Connection = tables(str(tmp_path / "mes.db"))

    def move(cursor: Any, verdict: dict[str, Any]) -> None:
        """Between what is read of the old one and its acknowledgement."""
        book(cursor, verdict)
        if verdict["part"] == OLD[-1]:
            moving.move()
            reader.unregister("mes")

    reader.exactly_once(database, "mes", move).run(idle_s=0.2, block_s=0.05)
    booked = [row[0] for row in database.execute("SELECT id FROM booked ORDER BY rowid")]
    database.close()
    assert booked == ids(*OLD, *SHARED, *NEW)


def test_the_part_judge_decides_what_the_new_one_has(moving: Moving, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads of the old one, and has its answer when it comes to write at the new one."""
    rule = PartRule({"cam1": 1}, 0, 60_000)
    with monkeypatch.context() as context:
        context.setattr(part_judge, "READ", len(SHARED))
        for client in moving.clients:  # what both have of it
            PartJudge(client, LINE, rule).step()
    judge = PartJudge(moving, LINE, rule)
    moving.move_after = "xread"
    while judge.step():
        pass
    assert moving.moves == 1
    decided = [verdict["part"] for _, verdict in PartVerdicts(moving, LINE).read("0-0")]
    assert decided == [*SHARED, *NEW]


def test_a_bridge_begins_at_its_cursor_again(moving: Moving) -> None:
    receiver = Receiver()
    way: Any = type("Place", (), {"client": moving, "line": LINE})
    with running(bridge(way, receiver)):
        eventually(lambda: len(receiver.got) == len(OLD))
        moving.move()
        eventually(lambda: {name for _, name in receiver.got} == set(ids(*OLD, *NEW)), what="the new master's verdicts")
    assert threading.active_count() < 20


def test_a_bridge_that_the_new_one_does_not_know_begins_at_its_beginning(moving: Moving) -> None:
    """It moves between the last delivery of the old one's and its acknowledgement."""

    def leave(parcel: Parcel) -> None:
        if parcel.id == ids(OLD[-1])[0] and moving.moves == 0:
            moving.move()
            Verdicts(moving, LINE).unregister("mes")

    receiver = Receiver(leave)
    way: Any = type("Place", (), {"client": moving, "line": LINE})
    with running(bridge(way, receiver)):
        eventually(lambda: set(ids(*NEW)) <= {name for _, name in receiver.got}, what="the new master's verdicts")
