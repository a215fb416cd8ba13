"""What is kept of a line is bounded in bytes and in age, and what a pointer names is never deleted."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from gaussline.worker.broker.dead_letters import DeadLetters
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.feature_log import FeatureLog, age_features
from gaussline.worker.broker.intake import Message
from gaussline.worker.broker.kept import KeptFrames
from gaussline.worker.broker.retention import Collector, Keep
from gaussline.worker.broker.settle import SettleBounds, Settlement, Settler
from gaussline.worker.broker.verdicts import trim_verdicts
from gaussline.worker.contract.dead_letter import DeadLetter
from gaussline.worker.contract.trial import STABLE
from gaussline.worker.contract.verdict import Reason
from tests.broker.way import Way, settlement
from tests.rollout.conftest import Line

_lines = itertools.count()
SMALL = SettleBounds(kept_max_bytes=3000, dead_max_bytes=3000, features_max_bytes=3000)
FRAMES = 40


@pytest.fixture
def way(server: EmbeddedRedis) -> Iterator[Way]:
    opened = Way(server.url, f"kept{next(_lines)}")
    yield opened
    opened.close()


def full(message: Message) -> Settlement:
    """A settlement that writes everything there is to write."""
    plain = settlement(message, "fail")
    name = plain.verdicts[0][0]
    letter = DeadLetter(name, message.camera, Reason.INTERNAL, "why", 1, 1, bytes(200))
    return replace(plain, kept=[(name, bytes(200))], dead=[letter], events=[("default", bytes(200))])


def settled(way: Way, bounds: SettleBounds) -> None:
    for _ in range(FRAMES):
        way.admit()
    messages = way.take()
    for start in range(0, FRAMES, 10):
        Settler(way.client, way.line, bounds).settle([full(each) for each in messages[start : start + 10]])


def held(way: Way, field: str) -> int:
    return int(way.client.hget(way.keys.totals, field) or 0)


def test_everything_that_settling_writes_is_bounded_in_bytes(way: Way) -> None:
    settled(way, SMALL)
    assert 0 < held(way, "kept_bytes") <= 3000
    assert len(KeptFrames(way.client, way.line).list()) == way.client.zcard(way.keys.kept) < FRAMES
    assert len(list(way.client.scan_iter(way.keys.prefix.replace("{", "\\{") + "kept:*"))) < FRAMES
    assert 0 < held(way, "features_bytes:default") <= 3000
    log = FeatureLog(way.client, way.line, "default")
    assert log.length() + log.gap().dropped == FRAMES
    (count,) = [each for each in DeadLetters(way.client, way.line).counts() if each.reason == Reason.INTERNAL.value]
    assert count.size_bytes <= 3000
    before = way.client.xlen(way.keys.verdicts)
    _, unread, left = trim_verdicts(way.client, way.line, min_age_s=3600.0, max_bytes=2000, policy="trim")
    assert before == FRAMES
    assert (unread, left <= 2000) == (0, True)


def test_everything_that_settling_writes_is_bounded_in_age_though_nothing_new_comes(way: Way) -> None:
    settled(way, SettleBounds())
    kept = KeptFrames(way.client, way.line)
    letters = DeadLetters(way.client, way.line)
    log = FeatureLog(way.client, way.line, "default")
    assert (kept.age(3600.0), age_features(way.client, way.line, "default", 3600.0), letters.age(3600.0)) == (0, 0, 0)
    assert (len(kept.list()), log.length()) == (FRAMES, FRAMES)
    assert kept.age(-1.0) == FRAMES
    assert age_features(way.client, way.line, "default", -1.0) == FRAMES
    assert letters.age(-1.0) == FRAMES
    assert trim_verdicts(way.client, way.line, min_age_s=-1.0, max_bytes=10**9, policy="trim")[0] == FRAMES
    assert (held(way, "kept_bytes"), held(way, "features_bytes:default"), held(way, "verdict_bytes")) == (0, 0, 0)
    assert log.gap().dropped == FRAMES, "a learner is told of what it missed"
    assert list(way.client.scan_iter(way.keys.prefix.replace("{", "\\{") + "kept*")) == []


def test_versions_that_kept_frames_name_stay_until_their_bytes_are_too_many(line: Line) -> None:
    """So the verdict of every kept frame can be verified."""
    verdict = {"v": 1, "model": {"name": "default", "version": 2, "digest": line.ref(2, STABLE).digest}}
    line.client.set(line.keys.kept_verdict("cam1:1:1"), json.dumps(verdict, separators=(",", ":")))
    line.client.zadd(line.keys.kept, {"cam1:1:1": 1.0})
    old = Keep(newest=0, max_age_s=0.0)
    assert [found.version.number for found in Collector(line.client, line.name, old).plan()] == [3]
    freed = Collector(line.client, line.name, old).step()
    assert [(found.version.number, size > 0) for found, size in freed] == [(3, True)]
    assert line.registry.fetch(line.ref(2, STABLE).digest)
    tight = Keep(newest=0, max_age_s=0.0, max_bytes=1)
    assert [found.version.number for found in Collector(line.client, line.name, tight).plan()] == [2]
    line.client.delete(line.keys.kept)
    assert [found.version.number for found in Collector(line.client, line.name, old).plan()] == [2]
