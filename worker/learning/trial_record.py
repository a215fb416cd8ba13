"""One trial as it is stored: where it stands, and what was counted of it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from gaussline.worker.broker.client import Redis, translated
from gaussline.worker.contract.keys import Keys
from gaussline.worker.contract.trial import Trial
from gaussline.worker.errors import ContractError
from gaussline.worker.learning.trial_counts import TrialCounts


class State(StrEnum):
    """Where a trial stands."""

    RUNNING = "running"
    PROMOTED = "promoted"
    ABORTED = "aborted"
    HELD = "held"
    REPLACED = "replaced"


ENDED: Final = (State.PROMOTED, State.ABORTED, State.REPLACED)


@dataclass(slots=True)
class TrialRecord:
    """One trial as it is stored.

    Attributes:
        position: last verdict entry that was counted.
        against: stable version and digest that it is compared with.
        looks: how often the rules were looked at.
        why: what ended it, or keeps it going, for a person.
        asked: how often it was asked whether it may be promoted.
        ask_at: frames at which that is asked next.
    """

    model: str
    channel: str
    version: int
    digest: str
    revision: int
    started_us: int
    against_version: int
    against_digest: str
    position: str
    trial: Trial
    counts: TrialCounts = field(default_factory=TrialCounts)
    looks: int = 0
    state: State = State.RUNNING
    why: str = ""
    ended_us: int = 0
    restarts: int = 0
    asked: int = 0
    ask_at: int = 0

    @property
    def ended(self) -> bool:
        """It is over: nothing is counted any more, and its pointer goes."""
        return self.state in ENDED

    @property
    def key(self) -> str:
        """Field of the trials hash."""
        return f"{self.channel}:{self.revision}"

    def to_json(self) -> str:
        """As stored."""
        fields = {name: getattr(self, name) for name in (*_PLAIN, *_LATER)}
        fields |= {
            "trial": {
                "for_s": self.trial.for_s,
                "abort_if": self.trial.abort_if,
                "min_frames": self.trial.min_frames,
                "promote": self.trial.promote,
            },
            "state": self.state.value,
            "counts": self.counts.to_json(),
        }
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str | bytes) -> TrialRecord:
        """From `to_json`. Raises ContractError."""
        try:
            fields = json.loads(text)
            plain = {name: fields[name] for name in _PLAIN} | {name: fields.get(name, 0) for name in _LATER}
            return cls(
                **plain,
                trial=Trial(**fields["trial"]),
                counts=TrialCounts.from_json(fields["counts"]),
                state=State(fields["state"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ContractError(f"a stored trial is none: {type(error).__name__}: {error}") from None


_PLAIN = (
    "model",
    "channel",
    "version",
    "digest",
    "revision",
    "started_us",
    "against_version",
    "against_digest",
    "position",
    "looks",
    "why",
    "ended_us",
    "restarts",
)
_LATER = ("asked", "ask_at")
"""Fields that trials of an earlier release have not."""


def read_trials(client: Redis, line: str, model: str) -> list[TrialRecord]:
    """Every trial of a model that is still recorded, oldest first; what is none is left out."""
    with translated("reading trials"):
        raw = client.hgetall(Keys(line).trials(model))
    found = []
    for text in raw.values():
        with suppress(ContractError):
            found.append(TrialRecord.from_json(text))
    return sorted(found, key=lambda record: record.started_us)
