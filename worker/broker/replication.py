"""Waiting for replicas: WAIT after a write, on the connection that wrote.

Redis copies to its replicas after it has answered. What it had answered and not copied is lost where a replica takes
over. WAIT asks how many replicas have everything up to now; it makes that loss less likely by far and does not exclude
it: a replica that has the write need not be the one that is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is asked of the replicas before a write counts.

    Attributes:
        replicas: how many must have it; 0 asks nothing.
        timeout_s: how long that is waited for.
        hold: where fewer have it in time, it does not count yet: a producer sends again, a subscriber reads again. Else
            it counts, and is counted.
    """

    replicas: int = 0
    timeout_s: float = 1.0
    hold: bool = True

    def __bool__(self) -> bool:
        return self.replicas > 0

    @property
    def command(self) -> tuple[str, int, int]:
        """WAIT and its arguments."""
        return "WAIT", self.replicas, max(1, int(self.timeout_s * 1000))


NO_WAITING: Final = Waiting()


def waiting_of(client: Any) -> Waiting:
    """What was asked when the client was opened."""
    return getattr(client, "waiting", NO_WAITING)
