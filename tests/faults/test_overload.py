"""Overload: producers push three times what the worker can do."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from gaussline.worker.broker.cameras import set_camera
from gaussline.worker.broker.client import connect
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.ledger import read_ledger
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.contract.clock import from_text
from gaussline.worker.contract.keys import Keys
from tests.faults.zygote import Process, Zygote
from tests.support.waiting import eventually

LINE: Final = "busy"
BATCH: Final = (8, 0.04)
"""Frames of a batch and its seconds: the worker's capacity is 200 frames a second."""
CAPACITY: Final = BATCH[0] / BATCH[1]
OVERLOAD_S: Final = 4.0
FRAME_BYTES: Final = 2000
BUDGET: Final = 60 * FRAME_BYTES
CAMERAS: Final[dict[str, dict[str, Any]]] = {
    "heavy": {"full": "block"},
    "plain": {"full": "block"},
    "hasty": {"full": "block", "deadline_s": 0.25},
    "dropper": {"full": "drop"},
}
MESSAGE: Final = 4
"""Most frames of one message; half of that on average."""
EACH: Final = int(3 * CAPACITY * OVERLOAD_S / len(CAMERAS))


class Line:
    """What the test sees of the overloaded line."""

    def __init__(self, url: str, folder: Path, zygote: Zygote) -> None:
        self.url, self.folder, self.zygote = url, folder, zygote
        self.client = connect(url)
        self.most_bytes: Counter[str] = Counter()
        self.at_end: dict[str, int] = {}
        self.verdicts: list[dict[str, Any]] = []
        self.recovered_s = 0.0

    def spawn(self, role: str, name: str, **arguments: Any) -> Process:
        journal = str(self.folder / f"{name}.{role}")
        return self.zygote.spawn(
            role, name, self.folder / f"{name}.log", url=self.url, line=LINE, journal=journal, **arguments
        )

    def journal(self, name: str, role: str) -> list[dict[str, Any]]:
        path = self.folder / f"{name}.{role}"
        return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []

    def look(self) -> None:
        for row in read_ledger(self.client, LINE).rows:
            assert row.balances
            self.most_bytes[row.camera] = max(self.most_bytes[row.camera], row.in_flight_bytes)

    def run(self) -> None:
        worker = self.spawn("judge", "w1", batch_frames=BATCH[0], batch_s=BATCH[1])
        eventually(lambda: self.journal("w1", "judge"), what="a worker")
        producers = [
            self.spawn(
                "produce",
                name,
                camera=name,
                seed=place,
                first_token=1 + place * EACH,
                frames=EACH,
                message_frames=MESSAGE,
                frame_bytes=FRAME_BYTES,
                gap_s=OVERLOAD_S / EACH * (1 + MESSAGE) / 2,
                kinds={"GOOD": 1.0},
                camera_budget_bytes=BUDGET,
                **options,
            )
            for place, (name, options) in enumerate(CAMERAS.items())
        ]
        eventually(lambda: len(read_ledger(self.client, LINE).rows) == len(CAMERAS), what="the cameras")
        set_camera(self.client, LINE, "heavy", weight=3)
        pause, begin = threading.Event(), time.monotonic()
        while time.monotonic() < begin + OVERLOAD_S:
            self.look()
            pause.wait(0.05)
        self.at_end = {row.camera: row.judged for row in read_ledger(self.client, LINE).rows}
        for producer in producers:  # the overload is over: what is still to come is not sent
            producer.close()
        ended = time.monotonic()
        eventually(lambda: read_ledger(self.client, LINE).in_flight == 0, what="an empty line")
        self.recovered_s = time.monotonic() - ended
        worker.signal(signal.SIGTERM)
        assert worker.wait(20.0)
        worker.close()
        self.verdicts = [verdict for _, verdict in Verdicts(self.client, LINE).read("0-0", count=100_000)]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """The line after its overload."""
    with EmbeddedRedis(appendfsync="always") as server, Zygote() as zygote:
        busy = Line(server.url, tmp_path_factory.mktemp("overload"), zygote)
        busy.run()
        yield busy
        busy.client.close()


def test_bytes_in_redis_stay_under_the_budget(line: Line) -> None:
    assert max(line.most_bytes.values()) > BUDGET / 2, "it was an overload"
    assert all(size <= BUDGET for size in line.most_bytes.values()), line.most_bytes


def test_producers_block_or_drop_by_their_policy_and_it_is_counted(line: Line) -> None:
    rows = {row.camera: row for row in read_ledger(line.client, LINE).rows}
    assert rows["plain"].busy > 0
    for name in ("heavy", "plain", "hasty"):
        assert {entry["status"] for entry in line.journal(name, "produce") if "told" in entry} == {"admitted"}
    notes = line.journal("dropper", "produce")
    frames = {entry["offer"]: len(entry["kinds"]) for entry in notes if "offer" in entry}
    dropped = sum(frames[entry["told"]] for entry in notes if entry.get("status") == "dropped")
    assert 0 < rows["dropper"].dropped <= dropped  # written down about once a second


def test_latency_of_what_is_accepted_is_bounded(line: Line) -> None:
    """By what the budgets let wait: a full budget of every camera, at the capacity."""
    waits = [(from_text(one["judged_at"]) - from_text(one["admitted_at"])) / 1e6 for one in line.verdicts]
    share = {"heavy": 3 / 6, "plain": 1 / 6}
    for camera in ("heavy", "plain"):
        own = [wait for wait, one in zip(waits, line.verdicts, strict=True) if one["camera"] == camera]
        bound_s = (BUDGET / FRAME_BYTES * 2) / (share[camera] * CAPACITY) + 1.0
        assert np.quantile(own, 0.99) < bound_s, camera


def test_the_heavier_camera_gets_more_and_nobody_starves(line: Line) -> None:
    assert line.at_end["heavy"] > 1.4 * line.at_end["plain"]
    assert min(line.at_end.values()) > 0


def test_a_frame_past_its_deadline_is_expired_without_backbone_time(line: Line) -> None:
    outcomes = Counter((one["camera"], one["decision"], one["reason"]) for one in line.verdicts)
    assert outcomes["hasty", "not_judged", "expired"] > 0
    assert outcomes["hasty", "pass", None] > 0
    judged = sum(count for (_, decision, _), count in outcomes.items() if decision == "pass")
    assert line.journal("w1", "judge")[-1]["judged"] == judged
    assert all(one["reason"] == "expired" for one in line.verdicts if one["decision"] == "not_judged")
    letters = line.client.xrange(Keys(LINE).dead("expired"))
    assert len(letters) == outcomes["hasty", "not_judged", "expired"]
    assert all(fields[b"data"] == b"" for _, fields in letters), "metadata only"


def test_it_is_back_to_normal_within_twice_the_overloads_length(line: Line) -> None:
    assert line.recovered_s < 2 * OVERLOAD_S


def test_every_admitted_frame_has_one_verdict(line: Line) -> None:
    told = {
        name
        for camera in CAMERAS
        for entry in line.journal(camera, "produce")
        if entry.get("status") == "admitted"
        for name in entry["ids"]
    }
    ids = [one["id"] for one in line.verdicts]
    assert len(ids) == len(set(ids))
    assert told <= set(ids)
