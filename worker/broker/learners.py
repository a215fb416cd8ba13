"""What can be seen of a line's learners from outside: whether one runs, how far it is behind, which alarms stand."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from gaussline.worker.broker.client import Redis, translated
from gaussline.worker.contract.keys import Keys
from gaussline.worker.contract.order import OrderKind

ENDING = (OrderKind.RELEASE.value, OrderKind.CONFIRM.value)
"""Orders after which a camera's alarms are over, or begin anew."""
PAGE = 1_000
"""Entries of the drift stream that one call reads."""


@dataclass(frozen=True, slots=True, order=True)
class StandingAlarm:
    """An alarm that began and has not ended: which test of which kind, of which camera, and since when."""

    camera: str
    kind: str
    test: str
    since_us: int
    text: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class LearnerState:
    """One model's learner.

    Attributes:
        running: somebody holds its lease.
        behind_s: age of the oldest entry of the feature log that no checkpoint has read; 0 where there is none. It
            counts from the learner's last word that it had caught up: entries that wait to fill a block are not late.
        event_age_s: age of the newest entry; None where the log is empty.
    """

    model: str
    running: bool
    owner: str
    behind_s: float
    event_age_s: float | None
    alarms: tuple[StandingAlarm, ...]


@dataclass(slots=True)
class _Heard:
    """How far a drift stream was read, and what stands."""

    until: str = "0-0"
    standing: dict[tuple[str, str], StandingAlarm] = field(default_factory=dict)

    def hear(self, kind: bytes, camera: str, said: dict[str, Any]) -> None:
        """One entry of the stream."""
        if kind in (b"alarm", b"calm"):
            key = (camera, str(said["test"]))
            self.standing.pop(key, None)
            if kind == b"alarm":
                text = str(said.get("text", ""))
                self.standing[key] = StandingAlarm(camera, str(said["alarm"]), key[1], int(said["at_us"]), text)
        elif said.get("order") in ENDING:
            for key in [key for key in self.standing if camera in ("", key[0])]:
                del self.standing[key]


class LearnersReader:
    """Reads the learners of a line; each entry of a drift stream is read once."""

    def __init__(self, client: Redis, line: str) -> None:
        self._client = client
        self._keys = Keys(line)
        self._heard: dict[str, _Heard] = {}

    def read(self, models: Iterable[str], now_us: int) -> tuple[LearnerState, ...]:
        """The learners that ever held a lease, by model. Raises BrokerUnavailable, BrokerError."""
        found = []
        for model in sorted(set(models)):
            with translated("reading the learners"):
                owner, token, until_us, checkpoint, caught_up_us = self._client.hmget(
                    self._keys.learner(model), ["owner", "token", "until_us", "checkpoint", "caught_up_us"]
                )
            if token is not None:
                running = owner is not None and int(until_us or 0) > now_us
                last_id = "0-0" if checkpoint is None else str(json.loads(checkpoint)["about"]["last_id"])
                behind_s, age_s = self._log(model, last_id, now_us)
                if caught_up_us is not None:
                    behind_s = min(behind_s, max(0.0, (now_us - int(caught_up_us)) / 1e6))
                name = owner.decode() if running else ""
                found.append(LearnerState(model, running, name, behind_s, age_s, self._alarms(model)))
        return tuple(found)

    def _log(self, model: str, last_id: str, now_us: int) -> tuple[float, float | None]:
        key = self._keys.features(model)
        with translated("reading the feature log"):
            first = self._client.xrange(key, min=f"({last_id}", count=1)
            newest = self._client.xrevrange(key, count=1)
        if not newest:
            return 0.0, None
        return _age_s(first[0][0], now_us) if first else 0.0, _age_s(newest[0][0], now_us)

    def _alarms(self, model: str) -> tuple[StandingAlarm, ...]:
        heard = self._heard.setdefault(model, _Heard())
        while True:
            with translated("reading the drift stream"):
                entries = self._client.xrange(self._keys.drift(model), min=f"({heard.until}", count=PAGE)
            for entry_id, fields in entries:
                heard.until = entry_id.decode()
                heard.hear(fields[b"kind"], fields[b"camera"].decode(), json.loads(fields[b"json"]))
            if len(entries) < PAGE:
                return tuple(sorted(heard.standing.values()))


def _age_s(entry_id: bytes, now_us: int) -> float:
    return max(0.0, now_us / 1e6 - int(entry_id.split(b"-")[0]) / 1e3)
