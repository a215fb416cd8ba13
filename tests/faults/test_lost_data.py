"""A Redis that loses data, or cannot write it: seen, said, and gone on from."""

from __future__ import annotations

from pathlib import Path

import pytest

from gaussline.worker.broker.admission import Admission, Request, Status
from gaussline.worker.broker.ledger import read_ledger
from gaussline.worker.errors import BrokerUnavailable
from tests.broker.way import BUDGET
from tests.faults.frames import Kind
from tests.faults.line import HarnessLine
from tests.faults.server import Server
from tests.support.waiting import eventually


def test_a_flush_is_seen_said_loudly_and_gone_on_from(tmp_path: Path) -> None:
    """No promise for what was in it: every frame that is admitted afterwards has its one verdict."""
    with HarnessLine(tmp_path, "flushed") as line:
        line.worker("w1")
        line.send([Kind.GOOD] * 8)
        line.verdicts(8)
        line.worker("w2", batch_s=60.0)
        line.client.flushall()

        def surprises() -> list[tuple[str, str]]:
            said = [(name, note.get("surprise", "")) for name in ("w1", "w2") for note in line.notes(name)]
            return [one for one in said if one[1]]

        eventually(lambda: {name for name, _ in surprises()} == {"w1", "w2"}, what="what both say of it")
        assert "lost all data of line flushed" in surprises()[0][1]
        line.reopen("cam1")
        for _ in range(10):
            line.send([Kind.GOOD, Kind.DEFECT])
        verdicts = line.verdicts(20, within_s=60.0)
        assert {one["decision"] for one in verdicts} == {"pass", "fail"}
        assert line.ledger().balances
        assert len(surprises()) == 2, "each once, not with every beat"


def test_a_full_disk_is_an_outage_that_ends_when_there_is_room(tmp_path: Path) -> None:
    """With appendfsync everysec Redis lives, and refuses to write."""
    server = Server(tmp_path, "everysec")
    try:
        server.start()
        client = server.redis.client()
        door = Admission(client, "full", "cam1", camera_budget_bytes=BUDGET, line_budget_bytes=BUDGET)
        epoch = door.open()
        server.fill_disk(room=5_000)
        answers: list[Status] = []

        def admit_until_it_is_full() -> None:
            for sequence in range(1000):
                answers.append(door.admit(Request(epoch, sequence, 1, bytes(1000))).status)

        with pytest.raises(BrokerUnavailable, match="not ready"):
            admit_until_it_is_full()
        admitted = len(answers)
        server.free_disk()

        def admits() -> bool:
            try:
                return door.admit(Request(epoch, admitted, 1, bytes(1000))).status is Status.ADMITTED
            except BrokerUnavailable:
                return False

        eventually(admits, what="an admission once there is room")
        assert read_ledger(client, "full").rows[0].admitted == admitted + 1
        assert read_ledger(client, "full").balances
        client.close()
    finally:
        server.close()
