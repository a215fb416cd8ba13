"""Hostile messages through a real worker: it neither dies nor stalls nor grows, and good frames are judged."""

from __future__ import annotations

from pathlib import Path
from random import Random

from gaussline.worker.broker.admission import Status
from gaussline.worker.broker.dead_letters import DeadLetters
from gaussline.worker.contract.frame import Frame, encode_batch, frame_id
from gaussline.worker.contract.verdict import Reason
from tests.faults.line import CAPTURED_US, HarnessLine
from tests.hostile.messages import Hostile, hostile
from tests.support.waiting import eventually
from tests.vision.images import encoded, scene

COUNT = 1500
GROWTH = 48 * 2**20


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def test_a_worker_lives_through_hostile_messages_and_each_frame_gets_its_own_verdict(tmp_path: Path) -> None:
    random = Random(7)
    with HarnessLine(tmp_path, "hostile") as line:
        worker = line.worker("w1", codecs=True)
        expected: dict[str, tuple[Hostile, int]] = {}
        resident = 0
        for number in range(COUNT):
            first = line.next_sequence("cam1")
            one = hostile(random, "cam1", 1, first)
            assert line.admit(lambda *_, one=one: one.payload, one.frames).status is Status.ADMITTED
            expected |= {frame_id("cam1", 1, first + place): (one, place) for place in range(one.frames)}
            if number == COUNT // 3:
                eventually(lambda: line.ledger().in_flight == 0, within_s=60.0, what="the first third")
                resident = resident_bytes(worker.pid)
        line.admit(
            lambda epoch, first: encode_batch(
                "cam2", epoch, first, [Frame(encoded(scene(8, 8), "png"), "png", CAPTURED_US, "last")]
            ),
            1,
            "cam2",
        )
        verdicts = {one["id"]: one for one in line.verdicts(len(expected) + 1, within_s=100.0)}
        assert worker.lives
        assert resident_bytes(worker.pid) < resident + GROWTH
        assert verdicts["cam2:1:0"]["decision"] in {"pass", "fail"}
        for name, (one, place) in expected.items():
            verdict = verdicts[name]
            if verdict["decision"] == "not_judged":
                assert verdict["reason"] in one.reasons[place], (one.name, place, verdict)
            else:
                assert not one.reasons[place] or place in one.judged, (one.name, place, verdict)
        ledger = line.ledger()
        assert ledger.balances
        refused = {name for name, verdict in verdicts.items() if verdict["decision"] == "not_judged"}
        letters = {
            letter.id for reason in Reason for _, letter in DeadLetters(line.client, line.name).list(reason, 10**5)
        }
        assert letters == refused


def test_replayed_and_reordered_messages_are_admitted_once(tmp_path: Path) -> None:
    """The same messages again, out of order and torn apart: what is in is in, and nothing comes in behind it."""
    random = Random(3)
    with HarnessLine(tmp_path, "replay") as line:
        payloads: list[tuple[int, int, bytes]] = []
        for _ in range(40):
            count = random.randint(1, 4)

            def payload(epoch: int, first: int, count: int = count) -> bytes:
                frames = [Frame(b"\0" * 8, "raw", CAPTURED_US, None, None, (1, 8), "uint8")] * count
                data = encode_batch("cam1", epoch, first, frames)
                payloads.append((first, count, data))
                return data

            line.admit(payload, count)
        admitted = sum(count for _, count, _ in payloads)
        for _ in range(300):
            first, count, data = random.choice(payloads)
            answer = line.admit_again("cam1", first + random.choice((0, 0, 1)), count, data)
            assert answer.status in {Status.DUPLICATE, Status.ADMITTED}
            admitted += count if answer.status is Status.ADMITTED else 0
        line.worker("w1")
        verdicts = line.verdicts(admitted)
        assert len({one["id"] for one in verdicts}) == admitted == line.ledger().rows[0].admitted
        assert line.ledger().balances
