"""How long to wait before the next try, and when to stop trying everything at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that double up to a bound, each between a half and the whole of itself: retries must not march in step.

    Attributes:
        chance: a number from 0 up to 1, drawn anew at each call.
    """

    chance: Callable[[], float]
    first_s: float = 0.2
    most_s: float = 30.0

    def pause_s(self, tries: int, least_s: float = 0.0) -> float:
        """The pause after so many failures; at least what the receiver asked for."""
        whole = min(self.most_s, self.first_s * 2.0 ** min(tries - 1, 60))
        return max(least_s, whole * (0.5 + 0.5 * self.chance()))


@dataclass(slots=True)
class Gate:
    """Shut while the receiver takes nothing at all: then one parcel at a time knocks, after growing pauses."""

    backoff: Backoff
    failures: int = 0
    until_s: float = 0.0
    why: str = ""
    """The last failure, in words; empty where the gate is open."""

    def may_pass(self, now_s: float, under_way: int) -> bool:
        """Whether a parcel may be sent now, with so many under way."""
        return not self.failures or (now_s >= self.until_s and under_way == 0)

    def shut(self, now_s: float, why: str, least_s: float = 0.0) -> None:
        """Nothing was taken. Failures of parcels that went together count once."""
        if now_s >= self.until_s:
            self.failures += 1
            self.until_s = now_s + self.backoff.pause_s(self.failures, least_s)
        self.why = why

    def open(self) -> None:
        """Something was taken."""
        self.failures, self.until_s, self.why = 0, 0.0, ""
