"""The learner's clock: working time of the line, told by the events themselves."""

from __future__ import annotations

from dataclasses import dataclass

MAX_STEP_US = 60_000_000
"""Longest pause that counts as it is: a line that stands still forgets nothing, and a clock that jumps ahead does not
wave a quarantine through. It is also how far back a clock may step before it counts as set back."""


@dataclass(slots=True)
class EventClock:
    """Adds up the time between events: no wall clock enters, so a replay gives the same times.

    Attributes:
        elapsed_us: working time so far, never falling.
        seen_us: latest time that an event told, by Redis's clock at its admission.
        jumps: how often that clock was set back by more than `MAX_STEP_US`.
    """

    elapsed_us: int = 0
    seen_us: int = 0
    jumps: int = 0

    def tick(self, event_us: int) -> int:
        """An event of this time came; the working time then. Events of several cameras may come out of order."""
        if self.seen_us == 0 or event_us < self.seen_us - MAX_STEP_US:
            self.jumps += self.seen_us != 0
            self.seen_us = event_us
        elif event_us > self.seen_us:
            self.elapsed_us += min(event_us - self.seen_us, MAX_STEP_US)
            self.seen_us = event_us
        return self.elapsed_us
