"""How long to wait before the next attempt: exponential, capped, with full jitter.

A hundred producers that lost the same Redis must not come back in step; each draws its wait evenly between zero and the
current ceiling.
"""

from __future__ import annotations

from random import Random


class Backoff:
    """Waits of one series of attempts, in seconds.

    Args:
        first_s: ceiling of the first wait.
        cap_s: the ceiling doubles with each attempt up to here.
    """

    def __init__(self, first_s: float, cap_s: float, random: Random) -> None:
        if not 0 < first_s <= cap_s:
            raise ValueError(f"first_s {first_s} is not between 0 and cap_s {cap_s}")
        self._first_s = first_s
        self._cap_s = cap_s
        self._random = random
        self._attempts = 0

    @property
    def ceiling_s(self) -> float:
        """The longest that the next wait can be."""
        # The exponent is bounded: 2.0 ** 1100 is an OverflowError, and an outage may last a day.
        return float(min(self._cap_s, self._first_s * 2.0 ** min(self._attempts, 64)))

    def next_s(self) -> float:
        """Draw the next wait."""
        wait_s = self._random.uniform(0.0, self.ceiling_s)
        self._attempts += 1
        return wait_s

    def reset(self) -> None:
        """An attempt succeeded: begin again."""
        self._attempts = 0
