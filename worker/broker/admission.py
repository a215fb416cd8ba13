"""Admission: the one door into a line."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import redis

from gaussline.worker.broker.client import Redis, translated
from gaussline.worker.broker.replication import NO_WAITING, Waiting, waiting_of
from gaussline.worker.broker.script import Script
from gaussline.worker.contract.frame import VERSION
from gaussline.worker.contract.keys import Keys, check_name
from gaussline.worker.errors import Unreplicated

INCOMING_S = 60
"""Life of a payload whose admission never came, in seconds."""
TELLING_S = 86_400
"""So long a telling of drops is remembered, in seconds: it may be told again when an outage is over."""


class Status(StrEnum):
    """What admission answered."""

    ADMITTED = "admitted"
    DUPLICATE = "duplicate"
    BUSY = "busy"
    FENCED = "fenced"
    UNKNOWN_EPOCH = "unknown_epoch"
    GONE = "gone"
    """Of a retry alone: the dead letter is not there any more."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Admission's answer to one message.

    Attributes:
        entry_id: stream entry of an admitted message, or of the first one of a duplicate ('' where it is forgotten).
        epoch: the camera's epoch, where the message was fenced off or its epoch is unknown.
        why: which budget is full, where it is busy: camera, line, memory, verdicts or order.
        replicated: as many replicas have it as were asked for.
    """

    status: Status
    entry_id: str = ""
    epoch: int = 0
    why: str = ""
    replicated: bool = True


@dataclass(frozen=True, slots=True)
class Request:
    """One message at the door.

    Attributes:
        deadline_us: the earliest deadline of its frames, 0 where they have none.
    """

    epoch: int
    first_sequence: int
    frames: int
    payload: bytes
    deadline_us: int = 0


class Admission:
    """The door of one camera.

    Args:
        camera_budget_bytes: unsettled bytes the camera may have; one message is always taken when it has none.
        line_budget_bytes: the same for all cameras of the line together.
    """

    def __init__(
        self, client: Redis, line: str, camera: str, *, camera_budget_bytes: int, line_budget_bytes: int
    ) -> None:
        self._client = client
        self._keys = Keys(line)
        self.camera = check_name("camera", camera)
        self._budgets = (camera_budget_bytes, line_budget_bytes)
        self._admit = Script("admit")
        self._open = Script("open_camera")
        self._count = Script("count_dropped")
        self._untold: tuple[str, int] | None = None
        self._retry = Script("retry")
        self._token = secrets.token_hex(8)
        self._knocks = 0
        keys = self._keys
        self._payloads = keys.payload(camera, "")
        self._admit_keys = [
            keys.camera(camera),
            keys.frames(camera),
            keys.index(camera),
            keys.recent(camera),
            keys.totals,
            keys.ready,
            keys.due,
            keys.bell,
        ]

    def open(self, settings: dict[str, Any] | None = None, *, beyond: int = 0) -> int:
        """Begin a new epoch and register the camera; producers of older epochs are fenced off. The epoch, from 1.

        It is higher than `beyond`: an epoch that this Redis may have forgotten.
        """
        keys = [
            self._keys.camera(self.camera),
            self._keys.cameras,
            self._keys.events,
            self._keys.recent(self.camera),
        ]
        return int(self._open(self._client, keys, [self.camera, json.dumps(settings or {}), beyond]))

    def admit(self, request: Request) -> Answer:
        """Admit one message. After a BrokerUnavailable the same request may be sent again without doubling it.

        Raises Unreplicated (a BrokerUnavailable) where too few replicas have it in time, and that is to hold it.
        """
        return self.admit_many([request])[0]

    def admit_many(self, requests: Sequence[Request]) -> list[Answer]:
        """Admit messages in one round trip, in order; one answer each. Raises like `admit`, for all of them.

        After one that is busy the rest are busy too (`why` is `order`): all of them can be sent again as they are.
        """
        return self._knock(self._admit, [], requests, [], waiting_of(self._client))

    def admit_letter(self, request: Request, letter_id: str, reason: str) -> Answer:
        """Admit what a dead letter holds, and remove the letter, in one step; `gone` where it is not there."""
        keys = [self._keys.dead(reason), self._keys.dead_stats]
        return self._knock(self._retry, keys, [request], [letter_id, reason])[0]

    def _knock(
        self,
        script: Script,
        keys: list[str],
        requests: Sequence[Request],
        args: list[str],
        waiting: Waiting = NO_WAITING,
    ) -> list[Answer]:
        """Every payload goes ahead of its call, as a plain value: see admit.lua."""
        for attempt in range(2):
            pipeline = self._client.pipeline(transaction=False)
            before = -1
            for request in requests:
                self._knocks += 1
                incoming = self._keys.incoming(self.camera, f"{self._token}-{self._knocks}")
                pipeline.set(incoming, request.payload, ex=INCOMING_S)
                its_keys, its_args = [*self._admit_keys, incoming, *keys], [*self._args(request, before), *args]
                # Loading it first would not do: it may be forgotten again before the pipeline comes.
                script.queue(pipeline, self._client, its_keys, its_args, whole=attempt > 0)
                before = request.first_sequence + request.frames - 1
            if waiting:  # in the same pipeline: WAIT is about the writes of its own connection
                pipeline.execute_command(*waiting.command)
            with translated(script.name):
                raw = pipeline.execute(raise_on_error=False)
                replicas = raw.pop() if waiting else 0
                if any(isinstance(answer, redis.exceptions.NoScriptError) for answer in raw[1::2]) and not attempt:
                    continue
                answers = [_answer(put, answer) for put, answer in zip(raw[::2], raw[1::2], strict=True)]
                if isinstance(replicas, Exception):
                    raise replicas
            return answers if replicas >= waiting.replicas else _unreplicated(answers, waiting)
        raise AssertionError("unreachable")

    def count_dropped(self, frames: int) -> None:
        """Write down that the producer dropped frames by its policy.

        After a BrokerUnavailable it is told again, of as many or more: what was counted then is not counted twice.
        """
        if self._untold is None:
            self._knocks += 1
            self._untold = (self._keys.incoming(self.camera, f"{self._token}-{self._knocks}"), frames)
        telling, told = self._untold
        self._count(self._client, [self._keys.camera(self.camera), telling], [told, TELLING_S])
        self._untold = None
        if frames > told:
            self.count_dropped(frames - told)

    def _args(self, request: Request, before: int = -1) -> list[Any]:
        return [
            self.camera,
            request.epoch,
            request.first_sequence,
            request.frames,
            self._payloads,
            request.deadline_us,
            *self._budgets,
            VERSION,
            before,
        ]


def _unreplicated(answers: list[Answer], waiting: Waiting) -> list[Answer]:
    """The answers where too few replicas have what is in."""
    into = [answer.status in (Status.ADMITTED, Status.DUPLICATE) for answer in answers]
    if waiting.hold and any(into):
        raise Unreplicated(f"admit: fewer than {waiting.replicas} replica(s) had it within {waiting.timeout_s:g} s")
    return [replace(answer, replicated=not is_in) for answer, is_in in zip(answers, into, strict=True)]


def _answer(put: Any, raw: Any) -> Answer:
    """An answer of admission. What kept the payload out is the better reason; a lack of memory is `busy`."""
    if isinstance(put, Exception) and not isinstance(put, redis.exceptions.OutOfMemoryError):
        raise put
    if isinstance(raw, Exception):
        raise raw
    status = Status(raw[0].decode())
    if status in (Status.FENCED, Status.UNKNOWN_EPOCH):
        return Answer(status, epoch=int(raw[1]))
    text = raw[1].decode()
    return Answer(status, why=text) if status is Status.BUSY else Answer(status, entry_id=text)
