"""Verdicts for a bridge to deliver, and what must be true of those that a receiver got."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from gaussline.worker.broker.verdicts import Verdicts
from tests.broker.way import Way

Seen = Sequence[tuple[str, str]]
"""(part, id) of what a receiver got, in its order."""


def publish(way: Way, count: int, parts: int = 7, *, first: int = 0, decision: str = "pass") -> list[str]:
    """Write verdicts of `parts` parts in turn straight into the stream; their ids."""
    ids = []
    pipeline = way.client.pipeline(transaction=False)
    for number in range(first, first + count):
        camera, part = f"cam{number % 3}", f"P{number % parts}"
        verdict = {"v": 1, "id": f"{camera}:1:{number}", "camera": camera, "part": part, "decision": decision}
        ids.append(f"{camera}:1:{number}")
        fields = {"id": ids[-1], "camera": camera, "decision": decision, "json": json.dumps(verdict)}
        pipeline.xadd(way.keys.verdicts, fields)
    pipeline.execute()
    return ids


def check(seen: Seen, published: Iterable[str]) -> None:
    """Every verdict at least once, no other one, and for each part its first deliveries in the order of the stream."""
    firsts: dict[str, list[str]] = {}
    known: set[str] = set()
    for part, identity in seen:
        if identity not in known:
            known.add(identity)
            firsts.setdefault(part, []).append(identity)
    wanted = list(published)
    assert known == set(wanted), f"{len(set(wanted) - known)} missing, {len(known - set(wanted))} foreign"
    place = {identity: number for number, identity in enumerate(wanted)}
    for part, ids in firsts.items():
        assert all(place[one] < place[other] for one, other in pairwise(ids)), f"{part} out of order"


def stands(way: Way, bridge: str) -> bool:
    """Whether a bridge's cursor is at the end of the stream."""
    source = Verdicts(way.client, way.line)
    return source.subscribers().get(bridge) == source.last_id()


def seen_in(texts: Iterable[str | bytes]) -> list[tuple[str, str]]:
    """(part, id) of verdicts as JSON."""
    read: list[dict[str, Any]] = [json.loads(text) for text in texts]
    return [(verdict["part"], verdict["id"]) for verdict in read]
