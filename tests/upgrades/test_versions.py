"""Old producers with new workers and the reverse, with messages as older and newer versions write them.

`admit.old.lua` is the admission script that producers carried before payloads lay in keys of their own, as it was
recorded; a producer brings its own script, so an old one goes on calling this one against a new line.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from gaussline.worker.broker.dead_letters import DeadLetters
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.intake import Intake
from gaussline.worker.broker.settle import Settler
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.contract.frame import decode_batch
from gaussline.worker.contract.limits import MessageLimits
from gaussline.worker.contract.verdict import Decision, Reason, Verdict
from gaussline.worker.engine.worker import Worker, WorkerConfig
from tests.broker.way import BUDGET, Way
from tests.contract.examples import GOLDEN
from tests.faults.frames import Kind, pixels
from tests.faults.judge import HarnessJudge
from tests.support.waiting import eventually

OLD_ADMIT = (Path(__file__).parent / "admit.old.lua").read_text("utf-8")
CAPTURED_US = 1_700_000_000_000_000


@pytest.fixture
def way() -> Iterator[Way]:
    """A line."""
    with EmbeddedRedis() as server:
        made = Way(server.url, "line1")
        yield made
        made.close()


@pytest.fixture
def worker(way: Way) -> Iterator[None]:
    """The worker of this build, at work."""
    config = WorkerConfig("line1", "new", 8, 0.002, 2**20, 1, 0.2, 5.0, 0.0, MessageLimits())
    made: Worker[Any] = Worker(
        Intake(way.client, "line1", "new"), Settler(way.client, "line1"), HarnessJudge([], 0.0, 0.0), config,
        now_us=lambda: CAPTURED_US,
    )  # fmt: skip
    thread = threading.Thread(target=made.run)
    thread.start()
    yield
    made.stop()
    thread.join(20.0)
    assert not thread.is_alive()


def frame(token: int, kind: Kind = Kind.GOOD, **later: object) -> dict[str, object]:
    """A frame with the fields of the first version, and those of a later one."""
    image = pixels(token, kind)
    fields = {
        "encoding": "raw",
        "captured_us": CAPTURED_US,
        "data": image.tobytes(),
        "shape": [1, 16],
        "dtype": "uint8",
    }
    return fields | later


def batch(camera: str, sequence: int, *frames: dict[str, object], v: int = 1, **later: object) -> bytes:
    """A frame batch, packed by hand: nothing of this build's own encoder."""
    packed: bytes = msgpack.packb(
        {"v": v, "camera": camera, "epoch": 1, "seq": sequence, "frames": list(frames), **later}
    )
    return packed


class OldProducer:
    """Admits as producers did before: the payload goes through the script, into the stream entry."""

    def __init__(self, way: Way, camera: str) -> None:
        keys = way.keys
        self._script = way.client.register_script(OLD_ADMIT)
        self._camera = camera
        self._keys = [
            keys.camera(camera), keys.frames(camera), keys.index(camera), keys.recent(camera), keys.totals,
            keys.ready, keys.due, keys.bell,
        ]  # fmt: skip
        way.client.hset(keys.camera(camera), "epoch", 1)
        way.client.hset(keys.cameras, camera, "{}")

    def admit(self, sequence: int, frames: int, payload: bytes, version: int = 1) -> bytes:
        args = [self._camera, 1, sequence, frames, payload, 0, BUDGET, BUDGET, version, -1]
        status: bytes = self._script(self._keys, args)[0]
        return status


def verdicts(way: Way) -> dict[str, dict[str, Any]]:
    return {verdict["id"]: verdict for _, verdict in Verdicts(way.client, "line1").read("0-0", count=1_000)}


def test_an_old_producer_with_this_worker(way: Way, worker: None) -> None:
    old = OldProducer(way, "cam1")
    for sequence in range(20):
        assert old.admit(sequence, 1, batch("cam1", sequence, frame(sequence + 1))) == b"admitted"
    assert old.admit(3, 1, batch("cam1", 3, frame(4))) == b"duplicate"
    way.admit("cam2")  # a producer of this build, on the same line (its zeros are no picture)
    eventually(lambda: len(verdicts(way)) == 21, what="every verdict")
    found = verdicts(way)
    for sequence in range(20):
        said = found[f"cam1:1:{sequence}"]
        assert (said["decision"], said["score"]) == ("pass", sequence + 1.0)
    assert found["cam2:1:0"]["reason"] == Reason.UNDECODABLE.value
    assert way.ledger().balances
    assert way.ledger().in_flight == 0


@pytest.mark.parametrize("name", ["batch_least", "batch_full"])
def test_recorded_messages_of_the_first_version_come_out_as_they_went_in(way: Way, name: str) -> None:
    recorded = (GOLDEN / f"{name}.v1.msgpack").read_bytes()
    read = decode_batch(recorded)
    old = OldProducer(way, read.camera)
    way.client.hset(way.keys.camera(read.camera), "epoch", read.epoch)
    args = [read.camera, read.epoch, read.first_sequence, len(read.frames), recorded, 0, BUDGET, BUDGET, 1, -1]
    assert old._script(old._keys, args)[0] == b"admitted"
    (message,) = way.take()
    assert message.payload == recorded
    assert decode_batch(message.payload) == read
    assert way.settle([message]) == [True]
    assert way.ledger().balances


def test_a_newer_producer_of_the_same_version_adds_fields_and_this_worker_ignores_them(way: Way, worker: None) -> None:
    old = OldProducer(way, "cam1")
    payload = batch(
        "cam1", 0, frame(1, mood="sunny", trace="00-" + "a" * 32 + "-" + "b" * 16 + "-01"), shift=[1, {"a": 2}]
    )
    assert old.admit(0, 1, payload) == b"admitted"
    eventually(lambda: verdicts(way), what="the verdict")
    assert verdicts(way)["cam1:1:0"]["decision"] == "pass"


def test_a_producer_of_the_next_version_loses_nothing_on_this_worker(way: Way, worker: None) -> None:
    old = OldProducer(way, "cam1")
    payload = batch("cam1", 0, frame(1), frame(2), v=2)
    assert old.admit(0, 2, payload, version=2) == b"admitted"
    assert old.admit(2, 1, batch("cam1", 2, frame(3))) == b"admitted"
    eventually(lambda: len(verdicts(way)) == 3, what="every verdict")
    found = verdicts(way)
    for sequence in (0, 1):
        said = found[f"cam1:1:{sequence}"]
        assert (said["decision"], said["reason"]) == (Decision.NOT_JUDGED.value, Reason.UNKNOWN_VERSION.value)
    assert found["cam1:1:2"]["decision"] == "pass", "its neighbours are judged"
    letters = [letter for _, letter in DeadLetters(way.client, "line1").each(Reason.UNKNOWN_VERSION)]
    assert len(letters) == 2
    assert letters[0].data == payload, "a newer worker can judge them yet: gaussline dead retry"
    assert way.ledger().balances


def test_a_subscriber_of_this_build_reads_verdicts_of_an_older_and_of_a_newer_worker() -> None:
    recorded = (GOLDEN / "verdict_fail.v1.json").read_text("utf-8")
    older = Verdict.from_json(recorded)
    newer = Verdict.from_json(recorded.rstrip().removesuffix("}") + ',"mood":"sunny","shift":{"a":1}}')
    assert older == newer
