"""Artefacts that share chunks, uploads that never end, and both beside a collection."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256

import numpy as np
import pytest

from gaussline.worker.broker.artefacts import CHUNK_BYTES, Artefacts, chunk_name
from gaussline.worker.broker.registry import Registry
from gaussline.worker.broker.retention import ORPHAN_S, Collectable, Collector, Keep
from gaussline.worker.errors import ArtefactError, NotFound
from tests.rollout.conftest import Line

ALL = Keep(newest=0, max_age_s=0.0)
COMMON = np.random.default_rng(5).bytes(2 * CHUNK_BYTES)
"""Two whole chunks, that every artefact of these tests begins with."""


def chunks(line: Line, digest: str) -> list[str]:
    return list(json.loads(line.client.get(line.keys.artefact(digest)))["chunks"])


def there(line: Line) -> set[str]:
    """Digests of all chunks on the line."""
    prefix = line.keys.blob("")
    return {key.decode().removeprefix(prefix) for key in line.client.scan_iter(f"{prefix}*", count=1000)}


def aged(line: Line) -> None:
    """As if all that is stored had been stored for so long that no upload can still go on."""
    for name in line.client.zrange(line.keys.stored, 0, -1):
        line.client.zincrby(line.keys.stored, -(ORPHAN_S + 1.0) * 1e6, name)


class Crash(Exception):
    """The uploader dies."""


def dying(after: int) -> Callable[[float], None]:
    """A pause in which the uploader dies, when it has written so many chunks."""
    left = [after]

    def sleep(seconds: float) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Crash

    return sleep


def version(line: Line, tail: bytes) -> Collectable:
    return Collectable(line.registry.publish("shared", COMMON + tail, by="ada"), "the test says so")


def test_a_chunk_that_another_version_shares_stays(line: Line) -> None:
    first, second = version(line, b"first"), version(line, b"second")
    one, other = (chunks(line, each.version.digest) for each in (first, second))
    assert one[:2] == other[:2]
    assert one[2] != other[2]
    collector = Collector(line.client, line.name, ALL)
    assert collector.collect(first) == len(b"first")
    assert line.registry.fetch(second.version.digest) == COMMON + b"second"
    assert collector.collect(second) == len(COMMON) + len(b"second")
    assert not there(line) & {*one, *other}
    stored = line.client.zrange(line.keys.stored, 0, -1)
    assert not {chunk_name(name).encode() for name in (*one, *other)} & set(stored), "nor are they in the index"


def test_what_a_crash_left_of_an_upload_goes_when_it_is_old(line: Line) -> None:
    line.registry.promote("shared", version(line, b"stable").version.number, by="ada")
    before = there(line)
    with pytest.raises(Crash):
        Artefacts(line.client, line.name, sleep=dying(1)).store(COMMON + bytes(CHUNK_BYTES) + b"never")
    assert len(there(line)) == len(before) + 1, "the shared chunks were there, of the others one was written"
    collector = Collector(line.client, line.name)
    assert collector.orphans() == 0, "it may go on still"
    assert collector.orphans(dry_run=True) == 0
    assert len(there(line)) == len(before) + 1
    aged(line)
    assert collector.orphans(dry_run=True) == CHUNK_BYTES
    assert len(there(line)) == len(before) + 1, "saying so deletes nothing"
    assert collector.orphans() == CHUNK_BYTES
    assert there(line) == before
    pointer = line.registry.pointer("shared")
    assert pointer is not None
    assert line.registry.fetch(pointer.digest) == COMMON + b"stable"
    assert collector.orphans() == 0


def test_a_manifest_that_no_version_names_goes_too(line: Line) -> None:
    """The uploader died between storing an artefact and recording it as a version."""
    before = there(line)
    digest = line.registry.store(COMMON + b"unnamed")
    collector = Collector(line.client, line.name)
    assert collector.orphans() == 0
    aged(line)
    said = collector.orphans(dry_run=True)
    assert collector.orphans() == said > len(COMMON)
    assert there(line) == before
    with pytest.raises(NotFound):
        line.registry.fetch(digest)


@pytest.mark.parametrize("instant", [1, 2, 3])
def test_an_upload_under_way_ends_whole_whatever_is_collected_meanwhile(line: Line, instant: int) -> None:
    """Even one that slept for so long that its chunks count as left behind, and that shares chunks with what goes."""
    going = version(line, b"going")
    collector = Collector(line.client, line.name, ALL)
    turn = [0]

    def sleep(seconds: float) -> None:
        turn[0] += 1
        if turn[0] == instant:
            collector.collect(going)
            aged(line)
            collector.orphans()

    data = COMMON + np.random.default_rng(6).bytes(3 * CHUNK_BYTES)
    new = Registry(line.client, line.name, sleep=sleep).publish("shared", data, by="bob")
    assert turn[0] > 3
    assert Registry(line.client, line.name).fetch(new.digest) == data


def test_what_is_stored_after_the_collector_has_looked_stays(line: Line) -> None:
    """It saw the chunk, and read that no manifest names it; then an upload that shares it ended."""
    collector = Collector(line.client, line.name, ALL)
    artefacts = line.registry.artefacts
    with pytest.raises(Crash):
        Artefacts(line.client, line.name, sleep=dying(1)).store(COMMON)
    aged(line)
    index = artefacts.index()
    left = [name for name in index if name == chunk_name(chunks_of(COMMON)[0])]
    assert len(left) == 1
    ended = version(line, b"ended")
    assert artefacts.drop(left, index) == 0
    assert line.registry.fetch(ended.version.digest) == COMMON + b"ended"
    assert collector.collect(ended) > 0


def test_what_a_manifest_names_by_now_stays_though_the_collector_saw_its_chunks_before(line: Line) -> None:
    """It looked when all chunks were written and the manifest was not: only the manifest's writing can tell it."""
    artefacts, seen = line.registry.artefacts, list[dict[str, int]]()

    def look(seconds: float) -> None:
        seen.append(artefacts.index())

    digest = Artefacts(line.client, line.name, sleep=look).store(COMMON)
    names = [chunk_name(name) for name in chunks_of(COMMON)]
    assert set(names) <= set(seen[-1])
    assert artefacts.drop(names, seen[-1]) == 0
    assert artefacts.fetch(digest) == COMMON


def test_an_artefact_whose_chunks_vanish_again_and_again_is_not_stored(line: Line) -> None:
    def thief(seconds: float) -> None:
        for name in there(line):
            line.client.delete(line.keys.blob(name))

    with pytest.raises(ArtefactError, match="vanished while it was stored"):
        Artefacts(line.client, line.name, sleep=thief).store(COMMON + b"stolen")


def chunks_of(data: bytes) -> list[str]:
    return [sha256(data[start : start + CHUNK_BYTES]).hexdigest() for start in range(0, len(data), CHUNK_BYTES)]
