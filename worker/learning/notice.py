"""What a learner says: alarms, their ends, orders it has obeyed, versions it has proposed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gaussline.worker.learning.alarm import Alarm


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a person should hear of.

    Attributes:
        kind: alarm, calm, order, too_late, gap, proposal.
        camera: empty where it is about no single one.
        at_us: Redis's time at the admission of the frame that showed it.
    """

    kind: str
    camera: str
    at_us: int
    facts: dict[str, Any] = field(default_factory=dict)
    alarm: Alarm | None = None
