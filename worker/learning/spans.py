"""Spans of working time in which a camera's frames do not teach: alarms, objections, freezes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MAX_SPANS = 1_000


@dataclass(slots=True)
class Span:
    """One span.

    Attributes:
        camera: empty: all cameras.
        end_us: None while it is open.
        cause: `freeze`, `objection`, or the kind of an alarm.
        told_us: when it became known; it may reach back from there.
    """

    camera: str
    start_us: int
    end_us: int | None
    cause: str
    told_us: int = 0

    def covers(self, camera: str, at_us: int) -> bool:
        """Whether a frame lies in it."""
        return self.camera in ("", camera) and self.start_us <= at_us and (self.end_us is None or at_us <= self.end_us)


class Spans:
    """All spans that may still matter, a bounded number of them."""

    def __init__(self, spans: list[Span] | None = None) -> None:
        self._spans = spans or []

    def __len__(self) -> int:
        return len(self._spans)

    def covered(self, camera: str, at_us: int) -> bool:
        """Whether a frame lies in any."""
        return any(span.covers(camera, at_us) for span in self._spans)

    def open(self, camera: str, start_us: int, cause: str, told_us: int) -> None:
        """From `start_us` on, until it is closed; one that is open already takes the earlier start."""
        for span in self._spans:
            if span.end_us is None and (span.camera, span.cause) == (camera, cause):
                span.start_us = min(span.start_us, start_us)
                return
        self.add(Span(camera, start_us, None, cause, told_us))

    def close(self, camera: str, end_us: int, cause: str) -> None:
        """End the open one."""
        for span in self._spans:
            if span.end_us is None and (span.camera, span.cause) == (camera, cause):
                span.end_us = max(end_us, span.start_us)

    def add(self, span: Span) -> None:
        """Append one; over the bound the oldest closed ones go."""
        self._spans.append(span)
        closed = [each for each in self._spans if each.end_us is not None]
        if len(self._spans) > MAX_SPANS and closed:
            self._spans.remove(closed[0])

    def told_of(self, camera: str) -> int | None:
        """When the latest open span of a camera (empty: of any) became known."""
        told = [s.told_us for s in self._spans if s.end_us is None and (not camera or s.camera in ("", camera))]
        return max(told, default=None)

    def lift(self, camera: str, causes: tuple[str, ...] | None = None) -> int:
        """Take away a camera's spans (empty: everybody's), or those of some causes; how many."""
        lifted = [
            span
            for span in self._spans
            if (not camera or span.camera == camera) and (causes is None or span.cause in causes)
        ]
        self._spans = [span for span in self._spans if span not in lifted]
        return len(lifted)

    def forget(self, before_us: int) -> None:
        """Drop what ended before a time that no frame waits from any more."""
        self._spans = [span for span in self._spans if span.end_us is None or span.end_us >= before_us]

    def to_json(self) -> list[list[Any]]:
        """JSON-able."""
        return [[span.camera, span.start_us, span.end_us, span.cause, span.told_us] for span in self._spans]

    @classmethod
    def from_json(cls, said: list[list[Any]]) -> Spans:
        """From `to_json`."""
        return cls([Span(*fields) for fields in said])
