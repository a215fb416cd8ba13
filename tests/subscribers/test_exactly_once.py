"""Effect and cursor in one transaction of the subscriber's database: each verdict counts once, whatever is killed."""

from __future__ import annotations

import json
import random
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gaussline.worker.broker.exactly_once import ExactlyOnce
from gaussline.worker.broker.verdicts import PartVerdicts, Verdicts, trim_verdicts
from gaussline.worker.contract.part_verdict import PartFrame, PartVerdict
from gaussline.worker.contract.verdict import Decision
from gaussline.worker.errors import Conflict, NotFound, SettingsError
from tests.broker.way import Way, settlement
from tests.subscribers.mes import book, tables
from tests.support.repository import ROOT
from tests.support.waiting import eventually


def publish(way: Way, count: int, camera: str = "cam1") -> None:
    """Judge frames, with verdicts that name their frame."""
    for _ in range(count):
        way.admit(camera)
    for message in way.take():
        base = settlement(message)
        texts = [(name, kind, f'{{"v":1,"id":"{name}","decision":"{kind}"') for name, kind, _ in base.verdicts]
        assert way.settler().settle([type(base)(base.camera, base.entry_id, texts)]) == [True]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The subscriber's database."""
    connection = tables(str(tmp_path / "mes.db"))
    yield connection
    connection.close()


def booked(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT id FROM booked ORDER BY rowid")]


def mes(way: Way, connection: Any, **options: Any) -> ExactlyOnce:
    return Verdicts(way.client, way.line).exactly_once(connection, "mes", book, **options)


def test_every_verdict_is_booked_once_under_kill_9(way: Way, tmp_path: Path) -> None:
    path = str(tmp_path / "mes.db")
    chance = random.Random(20250917)
    url = str(way.client.connection_pool.connection_kwargs["path"])
    command = [sys.executable, "-m", "tests.subscribers.mes", f"unix://{url}", way.line, path]
    connection = tables(path)
    stop = threading.Event()
    frames = 0

    def done() -> int:
        return int(connection.execute("SELECT count(*) FROM booked").fetchone()[0])

    def more_than(seen: int) -> bool:
        return done() > seen

    for kill in range(8):
        process = subprocess.Popen(command, cwd=ROOT)
        try:
            before = done()
            for _ in range(6):
                publish(way, 25)
                frames += 25
            eventually(partial(more_than, before), what=f"a booking after kill {kill}")
            stop.wait(chance.uniform(0, 0.02))
        finally:
            process.kill()
            process.wait()
    mes(way, connection).run(idle_s=0.0, block_s=0.05)
    ids = booked(connection)
    assert ids == way.verdict_ids(), "each once, in order"
    assert len(ids) == frames
    assert connection.execute("SELECT parts FROM total").fetchone()[0] == frames
    assert Verdicts(way.client, way.line).subscribers()["mes"] == Verdicts(way.client, way.line).last_id()
    connection.close()


def test_what_an_effect_raises_rolls_everything_back(way: Way, database: sqlite3.Connection) -> None:
    publish(way, 5)
    broken = {"cam1:1:3"}

    def effect(cursor: Any, verdict: dict[str, Any]) -> None:
        book(cursor, verdict)
        if verdict["id"] in broken:
            raise ValueError("no such part")

    once = Verdicts(way.client, way.line).exactly_once(database, "mes", effect)
    with pytest.raises(ValueError, match="no such part"):
        once.step()
    assert booked(database) == []
    assert once.position == "0-0"
    broken.clear()
    assert once.step() == 5
    assert booked(database) == way.verdict_ids()


def test_a_verdict_that_was_judged_again_after_redis_lost_data_is_booked_once(
    way: Way, database: sqlite3.Connection
) -> None:
    publish(way, 3)
    once = mes(way, database)
    once.run(idle_s=0.0, block_s=0.05)
    entry, fields = way.client.xrange(way.keys.verdicts)[1]
    way.client.xadd(way.keys.verdicts, fields)
    assert once.step() == 1
    assert once.repeated == 1
    assert len(booked(database)) == 3
    assert entry


def test_two_processes_with_one_name_book_nothing_twice(way: Way, tmp_path: Path) -> None:
    publish(way, 4)
    one, two = tables(str(tmp_path / "mes.db")), tables(str(tmp_path / "mes.db"))
    first, second = mes(way, one, batch=2), mes(way, two, batch=2)
    assert first.position == second.position == "0-0"
    assert first.step() == 2
    with pytest.raises(Conflict, match="another process"):
        second.step()
    assert second.step() == 2
    assert booked(one) == way.verdict_ids()
    one.close()
    two.close()


def test_a_gap_is_an_error_until_it_is_accepted(way: Way, database: sqlite3.Connection, tmp_path: Path) -> None:
    publish(way, 2)
    mes(way, database).run(idle_s=0.0, block_s=0.05)
    older = tables(str(tmp_path / "older.db"))
    database.backup(older)
    publish(way, 3)
    mes(way, database).run(idle_s=0.0, block_s=0.05)
    trim_verdicts(way.client, way.line, min_age_s=0.0, max_bytes=10**9, policy="trim")
    publish(way, 1)
    assert mes(way, database).step() == 1, "what was trimmed was in this database"
    with pytest.raises(NotFound, match="accept_gap"):
        mes(way, older).step()
    assert mes(way, older, accept_gap=True).step() == 1
    older.close()


def test_a_new_database_takes_over_where_the_subscriber_stands(way: Way, database: sqlite3.Connection) -> None:
    publish(way, 4)
    reader = Verdicts(way.client, way.line)
    reader.register("mes")
    reader.ack("mes", reader.read("0-0")[1][0])
    assert mes(way, database).step() == 2


def test_ids_are_forgotten_in_the_end(way: Way, database: sqlite3.Connection) -> None:
    publish(way, 1000)
    publish(way, 10)
    mes(way, database, batch=1000, remember=50).run(idle_s=0.0, block_s=0.05)
    kept = database.execute("SELECT count(*) FROM gaussline_seen").fetchone()[0]
    assert kept == 60, "50 of the first thousand, and the ten after them"


def test_a_connection_that_commits_by_itself_is_refused(way: Way, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "mes.db", isolation_level=None)
    with pytest.raises(SettingsError, match="commits by itself"):
        mes(way, connection)
    with pytest.raises(SettingsError, match="paramstyle"):
        mes(way, connection, paramstyle="named")
    connection.close()


def test_a_gap_that_opens_while_it_runs_is_an_error_too(way: Way, database: sqlite3.Connection) -> None:
    publish(way, 2)
    once = mes(way, database)
    once.run(idle_s=0.0, block_s=0.05)
    before = booked(database)
    publish(way, 3)
    trim_verdicts(way.client, way.line, min_age_s=0.0, max_bytes=0, policy="trim")
    assert way.verdict_ids() == [], "the stream reached its bound while the database was busy"
    publish(way, 1)
    if way.client.info("server")["redis_version"] < "7":
        assert once.step() == 1, "it does not tell what it deleted"
        return
    with pytest.raises(NotFound, match="accept_gap"):
        once.step()
    assert booked(database) == before
    assert mes(way, database, accept_gap=True).step() == 1
    assert booked(database) == before + way.verdict_ids()


def test_verdicts_and_part_verdicts_in_one_database_have_each_their_own_cursor(
    way: Way, database: sqlite3.Connection
) -> None:
    part = "p" * 256
    identity = PartVerdict(
        way.line, part, Decision.PASS, None, (PartFrame(f"{'c' * 64}:1:1", "c" * 64, Decision.PASS),), (), 1, 2, 3
    ).id
    way.client.xadd(way.keys.parts, {"id": identity, "json": json.dumps({"id": identity, "decision": "pass"})})
    publish(way, 2)
    assert mes(way, database).step() == 2
    of_parts = PartVerdicts(way.client, way.line).exactly_once(database, "mes", book)
    assert of_parts.step() == 1, "it is older than the verdicts"
    assert mes(way, database).step() == of_parts.step() == 0
    assert booked(database) == [*way.verdict_ids(), identity]
    width = {row[1]: row[2] for row in database.execute("PRAGMA table_info(gaussline_seen)")}["id"]
    assert int(re.sub(r"\D", "", width)) >= len(identity), "not every database is as patient as SQLite"
