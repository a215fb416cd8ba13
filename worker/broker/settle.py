"""Settling: publishing what was decided of whole messages, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgpack

from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.script import Script
from gaussline.worker.contract.dead_letter import DeadLetter
from gaussline.worker.contract.keys import Keys
from gaussline.worker.errors import BrokerError


@dataclass(frozen=True, slots=True)
class SettleBounds:
    """Bounds of what settling writes, in bytes and seconds."""

    kept_max_bytes: int = 256 * 2**20
    kept_max_age_s: float = 7 * 86_400.0
    dead_max_bytes: int = 64 * 2**20
    dead_max_age_s: float = 30 * 86_400.0
    features_max_bytes: int = 512 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Settlement:
    """One message, decided.

    Attributes:
        verdicts: (frame id, decision, open-ended verdict JSON), one a frame.
        kept: (frame id, frame batch of that frame) of every frame whose bytes are kept; empty bytes where they lie in
            another store. Its verdict is kept with it.
        dead: dead letters.
        events: (model, encoded feature event).
        unadmitted: it came without admission: dead letters only.
        lost: its entry was gone when it was taken.
    """

    camera: str
    entry_id: str
    verdicts: Sequence[tuple[str, str, str]]
    kept: Sequence[tuple[str, bytes]] = ()
    dead: Sequence[DeadLetter] = ()
    events: Sequence[tuple[str, bytes]] = ()
    unadmitted: bool = False
    lost: bool = False


@dataclass(slots=True)
class Settler:
    """Settles messages of one line."""

    client: Redis
    line: str
    bounds: SettleBounds = field(default_factory=SettleBounds)
    unreplicated: int = 0
    """Messages settled so far that too few replicas had in time, where the client asks for any."""
    _script: Script = field(default_factory=lambda: Script("settle"), repr=False)

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """Publish messages in one call; True where this call settled it, False where somebody had before.

        Safe to repeat. Raises BrokerUnavailable; BrokerError where Redis found a message wrong, in which case nothing
        of that message was written (others of the same call may be).
        """
        if not settlements:
            return []
        keys = Keys(self.line)
        packed = [
            msgpack.packb(
                {
                    "camera": item.camera,
                    "id": item.entry_id,
                    "verdicts": item.verdicts,
                    "kept": item.kept,
                    "dead": [letter.to_fields() for letter in item.dead],
                    "events": item.events,
                    "unadmitted": item.unadmitted,
                    "lost": item.lost,
                },
                use_bin_type=False,  # Redis's own msgpack reads the older raw type only
            )
            for item in settlements
        ]
        bounds = {
            "kept_max_bytes": self.bounds.kept_max_bytes,
            "kept_max_age_us": int(self.bounds.kept_max_age_s * 1e6),
            "dead_max_bytes": self.bounds.dead_max_bytes,
            "dead_max_age_us": int(self.bounds.dead_max_age_s * 1e6),
            "features_max_bytes": self.bounds.features_max_bytes,
        }
        answers, replicated = self._script.replicated(
            self.client,
            [keys.verdicts, keys.totals, keys.dead_stats, keys.kept],
            [keys.prefix, msgpack.packb(bounds), *packed],
        )
        if not replicated:
            self.unreplicated += sum(answer == 1 for answer in answers)
        wrong = [answer.decode() for answer in answers if isinstance(answer, bytes)]
        if wrong:
            raise BrokerError(f"settle: {wrong[0]}")
        return [answer == 1 for answer in answers]
