"""What `gaussline doctor` finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is."""

    GOOD = "good"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        advice: what to do; '' where all is well.
    """

    what: str
    level: Level
    found: str
    advice: str = ""


def judge(what: str, good: bool, found: str, advice: str, otherwise: Level = Level.FAULT) -> Finding:
    """A good finding, or one with what to do."""
    return Finding(what, Level.GOOD, found) if good else Finding(what, otherwise, found, advice)
