"""Dead letters: what could not be judged, by reason."""

from __future__ import annotations

from dataclasses import dataclass

from gaussline.worker.broker.client import Redis, translated
from gaussline.worker.contract.dead_letter import DeadLetter
from gaussline.worker.contract.keys import Keys
from gaussline.worker.contract.verdict import Reason


@dataclass(frozen=True, slots=True)
class DeadCount:
    """What one reason's stream holds: frames ever, letters and bytes now, letters dropped for space, and for age."""

    reason: Reason
    total: int
    letters: int
    size_bytes: int
    dropped: int
    aged: int


class DeadLetters:
    """The dead letters of one line."""

    def __init__(self, client: Redis, line: str) -> None:
        self._client = client
        self._keys = Keys(line)

    def counts(self) -> list[DeadCount]:
        """One row a reason that ever occurred."""
        with translated("counting dead letters"):
            raw = self._client.hgetall(self._keys.dead_stats)
            stats = {field.decode(): int(value) for field, value in raw.items()}
            rows = []
            for reason in Reason:
                if f"{reason}:total" in stats:
                    rows.append(
                        DeadCount(
                            reason,
                            stats[f"{reason}:total"],
                            int(self._client.xlen(self._keys.dead(reason))),
                            stats.get(f"{reason}:bytes", 0),
                            stats.get(f"{reason}:dropped", 0),
                            stats.get(f"{reason}:aged", 0),
                        )
                    )
        return rows

    def list(self, reason: Reason, count: int = 100) -> list[tuple[str, DeadLetter]]:
        """The newest letters of a reason, newest first: (entry id, letter)."""
        with translated("listing dead letters"):
            entries = self._client.xrevrange(self._keys.dead(reason), count=count)
        return [(entry_id.decode(), DeadLetter.from_fields(fields)) for entry_id, fields in entries]
