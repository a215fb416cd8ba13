"""The intake stage claims a dead worker's messages at the moment in which it may, and tells of them before."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from gaussline.worker.broker.client import connect
from gaussline.worker.broker.intake import Intake, Message
from gaussline.worker.contract.frame import Frame, encode_batch
from gaussline.worker.contract.limits import MessageLimits
from gaussline.worker.engine.credit import Credit
from gaussline.worker.engine.intake_stage import CLAIM_LEAST_S, IntakeStage
from gaussline.worker.engine.observer import Observer
from gaussline.worker.engine.open_messages import OpenMessages
from gaussline.worker.engine.outlet import Outlet
from gaussline.worker.engine.prepare import MessageWork, PreparedFrame, Preparer
from gaussline.worker.errors import BrokerUnavailable
from tests.broker.way import Way
from tests.support.proxy import Proxy

EVERY_S = 1.0


class Door:
    """An intake with nothing in it; every wait moves the clock by a tick."""

    def __init__(self, *due_s: float | None) -> None:
        self.now_s = 0.0
        self.claims: list[float] = []
        self.dead_due_s: float | None = None
        self._due_s = list(due_s)

    def reconcile(self) -> tuple[int, int]:
        """Nothing."""
        return 0, 0

    def recall(self, in_hand: list[Message]) -> int:
        """Nothing."""
        return 0

    def claim(self, **bounds: int) -> list[Any]:
        """Nothing to be claimed; what is due next."""
        self.claims.append(round(self.now_s, 2))
        self.dead_due_s = self._due_s.pop(0) if self._due_s else None
        return []

    def take(self, **bounds: int) -> list[Any]:
        """Nothing."""
        return []

    def wait(self, timeout_s: float) -> None:
        """A tick."""
        self.now_s += 0.01


def claims_of(*due_s: float | None, turns: int = 250) -> tuple[list[float], int]:
    """When it claimed, and how often it told that messages will come."""
    door, told = Door(*due_s), list[None]()
    nobody: Any = None
    source: Any = door
    stage: IntakeStage[Any] = IntakeStage(
        source,
        nobody,
        nobody,
        Outlet(lambda: door.now_s),
        Credit(8, 2**20, 1),
        OpenMessages(),
        decode_threads=0,
        begin_thread=lambda: None,
        claim_every_s=EVERY_S,
        observer=Observer(),
        stopping=threading.Event(),
        expect=lambda: told.append(None),
        monotonic=lambda: door.now_s,
    )
    for _ in range(turns):
        stage.step()
    return door.claims, len(told)


def test_without_a_dead_worker_it_claims_in_its_rhythm() -> None:
    claims, told = claims_of()
    assert [round(claim - EVERY_S * place, 1) for place, claim in enumerate(claims)] == [0.0, 0.0, 0.0]
    assert told == 0


def test_a_dead_workers_messages_are_claimed_when_they_may_be() -> None:
    claims, told = claims_of(0.3, None)
    assert 0.3 <= claims[1] <= 0.32
    assert told == 1
    assert 1.3 <= claims[2] <= 1.34, "and in its rhythm again"


def test_what_may_be_claimed_at_once_and_is_not_makes_no_storm() -> None:
    claims, _ = claims_of(*[0.0] * 1000, turns=100)
    assert len(claims) <= 1.0 / CLAIM_LEAST_S + 1


class Hand:
    """Takes what intake hands on."""

    def __init__(self) -> None:
        self.frames: list[PreparedFrame[int]] = []

    def put(self, frames: list[PreparedFrame[int]]) -> None:
        """Take them."""
        self.frames += frames


def test_a_message_that_is_in_hand_and_comes_again_is_worked_on_once() -> None:
    """While no isolated process starts, say, it would come again every minute, and be paid for each time."""
    payload = encode_batch("cam1", 1, 0, [Frame(b"x", "png", 1)] * 2)
    message = Message("cam1", "1-0", 1, 0, 2, len(payload), 1, 0, payload)
    hand, apart = Hand(), list[Message]()
    nobody: Any = None
    lanes: Any = hand
    credit, held, outlet = Credit(100, 2**20), OpenMessages(), Outlet[Any](lambda: 0.0)
    stage: IntakeStage[int] = IntakeStage(
        nobody,
        Preparer(lambda frame: 0, limits=MessageLimits(), now_us=lambda: 1),
        lanes,
        outlet,
        credit,
        held,
        decode_threads=0,
        begin_thread=lambda: None,
        claim_every_s=EVERY_S,
        observer=Observer(),
        stopping=threading.Event(),
        isolate=apart.append,
    )
    deadly = replace(message, entry_id="2-0", crashes=1)
    for _ in range(3):
        stage.accept([message, deadly])
    assert [frame.work.message for frame in hand.frames] == [message, message], "its two frames, once"
    assert apart == [deadly]
    assert credit.held_bytes == 2 * len(payload)
    # Another message may have the id of one that is in hand, and so may a copy.
    others = [replace(message, epoch=2), replace(message, first_sequence=2), replace(message, copy=True)]
    assert [held.holds(other) for other in (message, *others)] == [True, False, False, False]
    held.remove([MessageWork(message, [], 0)])
    stage.accept([message])
    assert len(hand.frames) == 4, "what is settled and comes again is another server's word, and is judged"


def test_what_a_lost_answer_took_is_in_hand_with_the_next_claim_and_what_was_there_stays(way: Way) -> None:
    """Else it would lie with a worker that lives and knows nothing of it, until that counts as slow."""
    now_s, hand, held = 0.0, Hand(), OpenMessages()
    lanes: Any = hand
    way.client.set(way.keys.worker("w1"), "1")
    with Proxy(str(way.client.connection_pool.connection_kwargs["path"])) as proxy:
        client = connect(proxy.url)
        stage: IntakeStage[int] = IntakeStage(
            Intake(client, way.line, "w1"),
            Preparer(lambda frame: 0, limits=MessageLimits(), now_us=lambda: 1),
            lanes,
            Outlet[Any](lambda: 0.0),
            Credit(100, 2**20),
            held,
            decode_threads=0,
            begin_thread=lambda: None,
            claim_every_s=EVERY_S,
            observer=Observer(),
            stopping=threading.Event(),
            monotonic=lambda: now_s,
        )
        way.admit("cam1")
        assert stage.step() == 1
        for camera in ("cam1", "cam1", "cam2"):
            way.admit(camera)
        losing = iter([True])
        proxy.lose_reply = lambda: next(losing, False)
        with pytest.raises(BrokerUnavailable):
            stage.step()
        assert proxy.lost == 1
        other = way.intake("other", claim_after_s=0.0)
        assert other.claim(max_frames=9, max_bytes=10**9) == [], "its worker lives"
        now_s += EVERY_S
        assert stage.step() == 3
        assert other.claim(max_frames=9, max_bytes=10**9) == []
        client.close()
    messages = [frame.work.message for frame in hand.frames]
    assert sorted((message.camera, message.crashes) for message in messages) == [("cam1", 0)] * 3 + [("cam2", 0)]
    assert way.ledger().balances
    assert way.settle(messages) == [True] * 4
    assert len(set(way.verdict_ids())) == 4
    assert way.ledger().balances
