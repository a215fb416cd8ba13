"""Lanes: batches side by side, verdicts in order, and nothing lost when one of them fails or all of them die."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest

from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.engine.observer import Observer
from gaussline.worker.errors import ImageError
from gaussline.worker.telemetry.health import Health
from tests.broker.way import Way
from tests.engine.judges import ScriptedJudge, make_worker
from tests.support.waiting import eventually


class Surprises(Observer):
    def __init__(self) -> None:
        self.stages: list[str] = []

    def surprise(self, stage: str, error: BaseException) -> None:
        self.stages.append(stage)


def admit(way: Way, count: int, cameras: int = 3) -> None:
    """Frames of several cameras, some messages with two."""
    for index in range(count):
        way.admit(f"cam{index % cameras}", frames=1 + index % 2)


def in_order(ids: Sequence[str]) -> bool:
    """Whether the frames of every camera stand in the order of their sequences."""
    sequences = defaultdict(list)
    for text in ids:
        camera, _, sequence = text.split(":")
        sequences[camera].append(int(sequence))
    return all(own == sorted(own) for own in sequences.values())


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_verdicts_of_a_camera_keep_their_order_whichever_lane_is_faster(
    server: EmbeddedRedis, way: Way, lanes: int
) -> None:
    dice = random.Random(5)
    never = threading.Event()

    def before(batch: Sequence[int]) -> None:
        never.wait(dice.choice([0.0, 0.0, 0.01]))

    judge = ScriptedJudge(before)
    admit(way, 300)
    worker = make_worker(server.url, way.line, judge, lanes=lanes)
    worker.start()
    eventually(lambda: way.ledger().in_flight == 0, what="every verdict")
    worker.stop()
    assert worker.join() == 0
    ids = way.verdict_ids()
    assert len(ids) == len(set(ids)) == 450
    assert in_order(ids)
    assert judge.threads[True] == {f"compute-{lane}" for lane in range(lanes)}
    assert way.ledger().balances


def test_lanes_work_side_by_side_and_an_early_batch_waits_for_the_older_one(server: EmbeddedRedis, way: Way) -> None:
    both, go = threading.Barrier(2, timeout=20.0), threading.Event()
    done: list[int] = []

    def before(batch: Sequence[int]) -> None:
        both.wait()
        if 0 in batch:
            assert go.wait(20.0)
        done.append(min(batch))

    for _ in range(8):
        way.admit("cam1")
    worker = make_worker(server.url, way.line, ScriptedJudge(before), lanes=2)
    worker.start()
    eventually(lambda: done == [4], what="the second batch before the first")
    assert way.verdict_ids() == []
    go.set()
    eventually(lambda: len(way.verdict_ids()) == 8, what="the verdicts")
    assert way.verdict_ids() == [f"cam1:1:{number}" for number in range(8)]
    worker.stop()
    worker.join()


def test_a_stop_drains_what_every_lane_holds(server: EmbeddedRedis, way: Way) -> None:
    held, go = threading.Semaphore(0), threading.Event()

    def before(batch: Sequence[int]) -> None:
        held.release()
        if 0 in batch:
            assert go.wait(20.0)

    def lanes() -> int:
        return sum(thread.name.startswith("compute-") for thread in threading.enumerate())

    for _ in range(40):
        way.admit("cam1")
    worker = make_worker(server.url, way.line, ScriptedJudge(before), lanes=3)
    worker.start()
    for _ in range(3):
        assert held.acquire(timeout=20.0)
    worker.stop()
    eventually(lambda: lanes() == 1, what="one lane that works on while the others have ended")
    go.set()
    assert worker.join() == 0
    judged = len(way.verdict_ids())
    assert judged >= 12
    assert way.verdict_ids() == [f"cam1:1:{number}" for number in range(judged)]
    assert worker.held_bytes == 0
    assert way.ledger().balances


def test_what_a_stuck_lane_holds_is_released_and_no_crash_is_counted(server: EmbeddedRedis, way: Way) -> None:
    go = threading.Event()

    def before(batch: Sequence[int]) -> None:
        if 0 in batch:
            go.wait(60.0)

    for _ in range(12):
        way.admit("cam1")
    worker = make_worker(server.url, way.line, ScriptedJudge(before), lanes=2, drain_s=0.5)
    worker.start()
    eventually(lambda: worker.held_bytes > 0, what="frames in hand")
    worker.stop()
    released = worker.join()
    assert released == 12 - len(way.verdict_ids()) > 0
    go.set()
    other = make_worker(server.url, way.line, ScriptedJudge(), lanes=2, name="w2")
    other.start()
    eventually(lambda: way.ledger().in_flight == 0, what="the rest, by another worker")
    other.stop()
    other.join()
    assert Counter(way.verdict_ids()) == Counter(f"cam1:1:{number}" for number in range(12))
    assert all(json.loads(text)["decision"] == "pass" for text in _texts(way))


def test_a_frame_that_fails_its_batch_costs_itself_alone(server: EmbeddedRedis, way: Way) -> None:
    def before(batch: Sequence[int]) -> None:
        if 5 in batch:
            raise RuntimeError("this frame is too much")

    for _ in range(16):
        way.admit("cam1")
    worker = make_worker(server.url, way.line, ScriptedJudge(before), lanes=2)
    worker.start()
    eventually(lambda: len(way.verdict_ids()) == 16, what="the verdicts")
    worker.stop()
    worker.join()
    verdicts = [json.loads(text) for text in _texts(way)]
    assert [verdict["sequence"] for verdict in verdicts] == list(range(16))
    assert [verdict["sequence"] for verdict in verdicts if verdict["reason"] == "internal"] == [5]


class Fatal(BaseException):
    """Nothing catches it on its way out of a lane."""


def test_the_end_of_one_lane_stops_the_worker_and_holds_up_nobody(server: EmbeddedRedis, way: Way) -> None:
    """Its batch is left to others; the batches behind it, in other lanes, are published."""
    behind = threading.Event()

    def before(batch: Sequence[int]) -> None:
        if 0 in batch:
            assert behind.wait(20.0)
            raise Fatal
        behind.set()

    for _ in range(8):
        way.admit("cam1")
    worker = make_worker(server.url, way.line, ScriptedJudge(before), lanes=2)
    worker.start()
    with pytest.raises(Fatal):
        worker.join()
    assert way.verdict_ids() == [f"cam1:1:{number}" for number in range(4, 8)]
    other = make_worker(server.url, way.line, ScriptedJudge(), lanes=1, name="w2")
    other.start()
    eventually(lambda: way.ledger().in_flight == 0, what="the rest, by another worker")
    other.stop()
    other.join()
    assert Counter(way.verdict_ids()) == Counter(f"cam1:1:{number}" for number in range(8))


def test_one_stuck_lane_is_seen_though_the_others_turn(server: EmbeddedRedis, way: Way) -> None:
    now = 0.0
    health = Health(monotonic=lambda: now)
    go = threading.Event()
    turns = Counter[str]()

    class Watch(Observer):
        def turned(self, stage: str) -> None:
            turns[stage] += 1
            health.turned(stage)

        def waited(self, seconds: float) -> None:
            turns["waited"] += 1

    def before(batch: Sequence[int]) -> None:
        go.wait(60.0)

    worker = make_worker(server.url, way.line, ScriptedJudge(before), lanes=2, observer=Watch())
    worker.start()
    eventually(lambda: turns["compute"] > 1, what="both lanes turning")
    way.admit("cam1")
    eventually(lambda: worker.held_bytes > 0, what="a lane that is stuck")
    seen = turns["waited"]
    eventually(lambda: turns["waited"] > seen + 3, what="turns of the other lane")
    now = 31.0
    before_settle = turns["settle"]
    eventually(lambda: turns["settle"] > before_settle, what="a turn of settle")
    assert "compute" in health.stuck()
    assert "settle" not in health.stuck()
    go.set()
    eventually(lambda: "compute" not in health.stuck(), what="compute alive again")
    worker.stop()
    worker.join()


def test_killed_at_any_moment_lanes_lose_and_double_nothing(server: EmbeddedRedis, way: Way) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.lane_worker", server.url, way.line, name], stdout=subprocess.PIPE
        )
        started.append(process)
        return process

    def killed_after(process: subprocess.Popen[bytes], verdicts: int) -> None:
        eventually(lambda: len(way.verdict_ids()) >= verdicts, within_s=60.0, what=f"{verdicts} verdicts")
        os.kill(process.pid, signal.SIGKILL)
        process.wait(20.0)

    try:
        admit(way, 1200)
        killed_after(start("k1"), 100)
        killed_after(start("k2"), 500)
        last = start("k3")
        eventually(lambda: way.ledger().in_flight == 0, within_s=60.0, what="every verdict")
        assert last.stdout is not None
        assert last.stdout.readline() == b"ready\n"  # the one before may have settled everything by itself
        last.send_signal(signal.SIGTERM)
        assert last.wait(30.0) == 0
    finally:
        for process in started:
            process.kill()
            process.communicate()
    counts = Counter(way.verdict_ids())
    assert len(counts) == 1800
    assert set(counts.values()) == {1}
    assert way.ledger().balances


def _texts(way: Way) -> list[bytes]:
    return [fields[b"json"] for _, fields in way.client.xrange(way.keys.verdicts)]


@pytest.mark.parametrize("lanes", [1, 2])
def test_lanes_that_decode_refuse_a_bad_image_alone_and_keep_the_order(
    server: EmbeddedRedis, way: Way, lanes: int
) -> None:
    threads = set()

    def decoding(number: int) -> None:
        threads.add(threading.current_thread().name)
        if number % 7 == 3:
            raise ImageError("undecodable", "half of it is missing")
        if number % 7 == 5:
            raise ZeroDivisionError("a fault of ours")

    admit(way, 140)
    surprises = Surprises()
    judge = ScriptedJudge(decoding=decoding)
    worker = make_worker(server.url, way.line, judge, lanes=lanes, decode_threads=0, observer=surprises)
    worker.start()
    eventually(lambda: way.ledger().in_flight == 0, what="every verdict")
    worker.stop()
    assert worker.join() == 0
    verdicts = [json.loads(entry[1][b"json"]) for entry in way.client.xrange(way.keys.verdicts)]
    assert in_order([verdict["id"] for verdict in verdicts])
    assert Counter(verdict.get("reason") for verdict in verdicts) == {
        None: 150,
        "undecodable": 30,
        "internal": 30,
    }
    assert surprises.stages == ["prepare"] * 30
    assert threads <= {f"compute-{lane}" for lane in range(lanes)}, "nobody else decoded"
    assert worker.held_bytes == 0
    assert way.ledger().balances


def test_a_lane_that_waits_for_company_decodes_what_has_arrived(server: EmbeddedRedis, way: Way) -> None:
    decoded: list[int] = []
    judged: list[int] = []
    worker = make_worker(
        server.url,
        way.line,
        ScriptedJudge(judged.extend, decoded.append),
        lanes=1,
        batch=3,
        batch_wait_s=60.0,
        decode_threads=0,
    )
    worker.start()
    way.admit("cam1", frames=2)
    eventually(lambda: decoded == [0, 1], what="both images while their batch waits for a third")
    assert judged == []
    way.admit("cam1")
    eventually(lambda: len(way.verdict_ids()) == 3, what="the verdicts")
    assert decoded == [0, 1, 2]
    worker.stop()
    worker.join()


def test_nothing_is_taken_before_every_lane_is_ready(server: EmbeddedRedis, way: Way) -> None:
    go = threading.Event()
    turns: Counter[str] = Counter()

    class Watch(Observer):
        def turned(self, stage: str) -> None:
            turns[stage] += 1

    class Slow(ScriptedJudge):
        def begin_thread(self, *, computes: bool) -> None:
            super().begin_thread(computes=computes)
            if threading.current_thread().name == "compute-1":
                assert go.wait(20.0)

    judge = Slow()
    way.admit("cam1")
    worker = make_worker(server.url, way.line, judge, lanes=2, observer=Watch())
    worker.start()
    eventually(lambda: judge.threads == {True: {"compute-0", "compute-1"}, False: {"intake"}}, what="all threads")
    eventually(lambda: turns["intake"] >= 2, what="an intake that had time to take something")
    assert not worker.warm
    assert worker.held_bytes == 0
    assert way.verdict_ids() == []
    go.set()
    eventually(lambda: len(way.verdict_ids()) == 1, what="the verdict")
    assert worker.warm
    worker.stop()
    worker.join()
