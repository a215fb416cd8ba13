"""The ring of heat maps of one line: in Redis, under the references that verdicts carry, bounded by bytes and age.

A map is written in paced pieces beside the ring and renamed into it by one script, so that readers see it whole and no
write holds Redis up. The same map written twice is one map.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from gaussline.worker.broker.client import Redis, translated
from gaussline.worker.broker.script import Script
from gaussline.worker.contract.heat_map import Explanation, parse_reference
from gaussline.worker.contract.keys import Keys
from gaussline.worker.errors import BrokerError, NotFound

PIECE_BYTES = 256_000
PAUSE_S = 0.002
PART_S = 60
"""Life of a half-written map, in seconds: what a worker leaves that died over it."""


@dataclass(frozen=True, slots=True)
class HeatMapCount:
    """What the ring holds now, and what has left it: for space, and for age."""

    maps: int
    size_bytes: int
    dropped: int
    aged: int


class HeatMaps:
    """The ring of one line.

    Args:
        writer: name of whoever writes; half-written maps of different writers must not mix.
    """

    def __init__(
        self,
        client: Redis,
        line: str,
        *,
        max_bytes: int = 64 * 2**20,
        max_age_s: float = 7 * 86_400.0,
        writer: str = "-",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._keys = Keys(line)
        self._max_bytes = max_bytes
        self._max_age_us = int(max_age_s * 1e6)
        self._part = self._keys.heat_part(writer)
        self._sleep = sleep
        self._script = Script("heat_map")

    def put(self, reference: str, data: bytes) -> None:
        """Store a map; the oldest go where the ring is full. Raises BrokerError, and leaves the ring as it was."""
        parse_reference(reference)
        if len(data) > self._max_bytes:
            raise BrokerError(f"heat map of {len(data)} bytes is larger than the whole ring (heat_maps_max_bytes)")
        with translated("storing a heat map"):
            pipeline = self._client.pipeline(transaction=True)
            pipeline.delete(self._part)
            pipeline.hset(self._part, "size", len(data))
            pipeline.expire(self._part, PART_S)
            pipeline.execute()
            for index, start in enumerate(range(0, len(data), PIECE_BYTES)):
                if index:
                    self._sleep(PAUSE_S)
                self._client.hset(self._part, str(index), data[start : start + PIECE_BYTES])
        published, _, _ = self._hold(reference)
        if not published:
            raise BrokerError(f"heat map {reference} vanished while it was written")

    def get(self, reference: str) -> Explanation:
        """A stored map. Raises NotFound, ContractError where it was tampered with."""
        parse_reference(reference)
        with translated("reading a heat map"):
            fields = self._client.hgetall(self._keys.heat(reference))
        if not fields:
            raise NotFound(
                f"no heat map {reference} is stored: it was not made yet, it was shed because too many frames failed "
                "at once, or it has expired (bounds: GAUSSLINE_HEAT_MAPS_MAX_BYTES, GAUSSLINE_HEAT_MAPS_MAX_AGE_S)"
            )
        pieces = [fields[name] for name in sorted((name for name in fields if name.isdigit()), key=int)]
        return Explanation.from_bytes(b"".join(pieces))

    def has(self, references: list[str]) -> list[bool]:
        """Which of these maps are stored."""
        with translated("looking for heat maps"):
            pipeline = self._client.pipeline(transaction=False)
            for reference in references:
                pipeline.exists(self._keys.heat(reference))
            return [bool(found) for found in pipeline.execute()] if references else []

    def trim(self) -> tuple[int, int]:
        """Hold the ring to its bounds: maps dropped for space, and for age."""
        _, dropped, aged = self._hold("")
        return dropped, aged

    def count(self) -> HeatMapCount:
        """What the ring holds."""
        with translated("counting heat maps"):
            size, dropped, aged = self._client.hmget(self._keys.totals, "heat_bytes", "heat_dropped", "heat_aged")
            maps = int(self._client.zcard(self._keys.heats))
        return HeatMapCount(maps, int(size or 0), int(dropped or 0), int(aged or 0))

    def _hold(self, reference: str) -> tuple[int, int, int]:
        answer = self._script(
            self._client,
            [self._keys.heats, self._keys.totals, self._part],
            [self._keys.prefix, reference, self._max_bytes, self._max_age_us],
        )
        published, dropped, aged = (int(number) for number in answer)
        return published, dropped, aged
