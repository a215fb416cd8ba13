"""Dead letters: what could not be judged, by reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gaussline.worker.broker.client import Redis, time_us, translated
from gaussline.worker.broker.script import Script
from gaussline.worker.contract.dead_letter import DeadLetter
from gaussline.worker.contract.keys import Keys
from gaussline.worker.contract.verdict import Reason
from gaussline.worker.errors import NotFound

PAGE = 32
"""Letters read at once: each may hold a whole message."""
REMOVE_MOST = 256
"""Letters that one call removes for their age; a bound on how long it holds Redis."""
_ENTRY = re.compile(r"\d{1,20}-\d{1,20}\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class DeadCount:
    """What one reason's stream holds: frames ever, letters and bytes now, and what became of the other letters.

    Attributes:
        dropped, aged: letters that went for want of space, and for their age.
        retried, removed: letters that somebody had admitted again, and that somebody dropped.
    """

    reason: Reason
    total: int
    letters: int
    size_bytes: int
    dropped: int
    aged: int
    retried: int = 0
    removed: int = 0


class DeadLetters:
    """The dead letters of one line."""

    def __init__(self, client: Redis, line: str) -> None:
        self._client = client
        self._keys = Keys(line)
        self._drop = Script("drop_dead")

    def counts(self) -> list[DeadCount]:
        """One row a reason that ever occurred."""
        with translated("counting dead letters"):
            raw = self._client.hgetall(self._keys.dead_stats)
            stats = {field.decode(): int(value) for field, value in raw.items()}
            rows = []
            for reason in Reason:
                if f"{reason}:total" in stats:
                    letters = int(self._client.xlen(self._keys.dead(reason)))
                    named = ("bytes", "dropped", "aged", "retried", "removed")
                    counted = (stats.get(f"{reason}:{name}", 0) for name in named)
                    rows.append(DeadCount(reason, stats[f"{reason}:total"], letters, *counted))
        return rows

    def list(self, reason: Reason, count: int = 100) -> list[tuple[str, DeadLetter]]:
        """The newest letters of a reason, newest first: (entry id, letter)."""
        with translated("listing dead letters"):
            entries = self._client.xrevrange(self._keys.dead(reason), count=count)
        return [(entry_id.decode(), DeadLetter.from_fields(fields)) for entry_id, fields in entries]

    def each(self, reason: Reason) -> Iterator[tuple[str, DeadLetter]]:
        """Every letter of a reason, oldest first, a page at a time."""
        after = "-"
        while True:
            with translated("reading dead letters"):
                entries = self._client.xrange(self._keys.dead(reason), min=after, count=PAGE)
            for entry_id, fields in entries:
                yield entry_id.decode(), DeadLetter.from_fields(fields)
            if len(entries) < PAGE:
                return
            after = f"({entries[-1][0].decode()}"

    def find(self, reason: Reason, identity: str) -> tuple[str, DeadLetter]:
        """The letter of a frame, or of an entry id. Raises NotFound."""
        if _ENTRY.match(identity):
            with translated("reading a dead letter"):
                entries = self._client.xrange(self._keys.dead(reason), min=identity, max=identity)
            if entries:
                return identity, DeadLetter.from_fields(entries[0][1])
        for entry_id, letter in self.each(reason):
            if identity == letter.id:
                return entry_id, letter
        raise NotFound(f"no dead letter {identity!r} of reason {reason.value} on line {self._keys.line}")

    def remove(self, reason: Reason, entry_ids: Sequence[str]) -> int:
        """Remove letters by entry id; how many were still there."""
        return sum(
            self._call(reason, "removed", 0, entry_ids[start : start + REMOVE_MOST])
            for start in range(0, len(entry_ids), REMOVE_MOST)
        )

    def remove_older(self, reason: Reason, age_s: float, *, counted_as: str = "removed") -> int:
        """Remove every letter older than `age_s` by Redis's clock; how many there were."""
        before_ms = max(1, (time_us(self._client) - int(age_s * 1e6)) // 1000)
        removed = 0
        while True:
            now = self._call(reason, counted_as, before_ms, ())
            removed += now
            if now < REMOVE_MOST:
                return removed

    def age(self, max_age_s: float) -> int:
        """Remove what is over the bound in age, of every reason, where no newer letter does so; how many there were."""
        return sum(self.remove_older(reason, max_age_s, counted_as="aged") for reason in Reason)

    def _call(self, reason: Reason, counted_as: str, before_ms: int, entry_ids: Sequence[str]) -> int:
        keys = [self._keys.dead(reason), self._keys.dead_stats]
        return int(self._drop(self._client, keys, [reason.value, counted_as, before_ms, REMOVE_MOST, *entry_ids]))
