"""Poison: a frame that kills whoever works on it costs its own verdict, and nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gaussline.worker.broker.dead_letters import DeadLetters
from gaussline.worker.contract.frame import BadFrame, Frame, decode_batch, encode_batch
from gaussline.worker.contract.verdict import Reason
from tests.faults.frames import Kind
from tests.faults.line import CAPTURED_US, HarnessLine
from tests.support.waiting import eventually
from tests.vision.images import encoded, saying, scene

FRAMES = 64


@pytest.fixture
def line(tmp_path: Path) -> Iterator[HarnessLine]:
    with HarnessLine(tmp_path) as running:
        yield running


@pytest.mark.parametrize("guilty", [0, 17, 63])
def test_one_poison_among_63(line: HarnessLine, guilty: int) -> None:
    """It kills a worker once; the next one judges the message in isolation, and lives."""
    line.send([Kind.POISON if place == guilty else Kind.GOOD for place in range(FRAMES)])
    first, second = line.worker("w1"), line.worker("w2")
    verdicts = line.verdicts(FRAMES)
    assert [one["decision"] for one in verdicts].count("pass") == FRAMES - 1
    (poison,) = [one for one in verdicts if one["decision"] != "pass"]
    assert (poison["sequence"], poison["reason"], poison["part"]) == (guilty, "poison", str(guilty + 1))
    assert "signal 11" in poison["detail"]
    assert sorted((first.lives, second.lives)) == [False, True]
    ((_, letter),) = DeadLetters(line.client, line.name).list(Reason.POISON)
    frame = decode_batch(letter.data).frames[0]
    assert not isinstance(frame, BadFrame)
    assert frame.part == str(guilty + 1)
    assert line.ledger().balances


def test_several_poisons_cost_one_verdict_each(line: HarnessLine) -> None:
    kinds = [Kind.POISON if place in (1, 2, 5) else Kind.GOOD for place in range(8)]
    line.send(kinds)
    workers = [line.worker("w1"), line.worker("w2")]
    verdicts = line.verdicts(8)
    assert [one["reason"] for one in verdicts] == [None, "poison", "poison", None, None, "poison", None, None]
    assert [worker.lives for worker in workers].count(False) == 1


def test_the_lines_other_frames_do_not_wait_for_the_isolated_ones(line: HarnessLine) -> None:
    line.send([Kind.POISON, *[Kind.GOOD] * 7])
    line.worker("w1")
    line.worker("w2")
    for _ in range(20):
        line.send([Kind.GOOD] * 4, camera="cam2")
    verdicts = line.verdicts(88)
    assert sum(one["decision"] == "pass" for one in verdicts) == 87


def test_a_message_of_a_killed_innocent_is_judged_whole(line: HarnessLine) -> None:
    """A worker that was killed from outside: its messages are judged in isolation, and nothing is found there."""
    line.send([Kind.GOOD] * FRAMES)
    first = line.worker("w1", batch_s=60.0)
    eventually(lambda: line.held("w1"), what="a message in its hands")
    first.kill()
    line.worker("w2")
    assert {one["decision"] for one in line.verdicts(FRAMES)} == {"pass"}


@pytest.mark.parametrize("word", [b"CRASH", b"HANG"])
def test_a_codec_that_dies_takes_no_worker_down(line: HarnessLine, word: bytes) -> None:
    """At the first delivery, and its batch-mates are judged in the same one."""
    good, bad = encoded(scene(8, 8), "png"), saying(word)

    def payload(epoch: int, first: int) -> bytes:
        files = [bad if place == 5 else good for place in range(FRAMES)]
        return encode_batch("cam1", epoch, first, [Frame(data, "png", CAPTURED_US) for data in files])

    worker = line.worker("w1", codecs=True)
    line.admit(payload, FRAMES)
    verdicts = line.verdicts(FRAMES)
    assert [one["sequence"] for one in verdicts if one["reason"]] == [5]
    assert verdicts[5]["reason"] == "poison"
    assert worker.lives
    ((_, letter),) = DeadLetters(line.client, line.name).list(Reason.POISON)
    assert letter.deliveries == 1
    assert word in letter.data
