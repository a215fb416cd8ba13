"""Delivery: the way of one camera's messages through the door, until each of them has an answer.

A message whose answer was lost is sent again, unchanged, until an answer comes: admission knows it by its epoch and
sequence. A full backlog is waited for, or the message is dropped, by policy. An outage of Redis is sat out with capped
exponential backoff and full jitter.
"""

from __future__ import annotations

import logging
import threading
from random import Random
from typing import Any, Final, Literal, Protocol

from gaussline.producer.backoff import Backoff
from gaussline.producer.clock import Clock
from gaussline.producer.message import Message
from gaussline.producer.receipt import Receipt, Stats, Status
from gaussline.worker.broker.admission import Answer, Request
from gaussline.worker.broker.admission import Status as Answered
from gaussline.worker.errors import Backlogged, BrokerError, BrokerUnavailable, Fenced, Unreplicated

BUSY_FIRST_S: Final = 0.01
BUSY_CAP_S: Final = 0.25
OUTAGE_FIRST_S: Final = 0.05
OUTAGE_CAP_S: Final = 5.0

_log = logging.getLogger(__name__)


class Door(Protocol):
    """What delivery needs of admission; `broker.admission.Admission` is the one."""

    @property
    def camera(self) -> str:
        """Name of the camera."""

    def open(self, settings: dict[str, Any] | None = None, *, beyond: int = 0) -> int:
        """Begin a new epoch, higher than `beyond`."""

    def admit(self, request: Request) -> Answer:
        """Admit one message; safe to repeat after BrokerUnavailable."""

    def count_dropped(self, frames: int) -> None:
        """Write down frames that were dropped."""


class Delivery:
    """Delivers one message at a time.

    Args:
        new_camera: settings of the camera, where it is new.
        full: `block` or `drop` while the backlog is over its budget.
        block_timeout_s: longest wait on a full backlog; None waits for ever.
        retry_for_s: longest outage that is sat out; None: any.
        stats: where it counts.
        closing: set to end every wait.
    """

    def __init__(
        self,
        door: Door,
        *,
        new_camera: dict[str, Any],
        full: Literal["block", "drop"],
        block_timeout_s: float | None,
        retry_for_s: float | None,
        stats: Stats,
        clock: Clock,
        random: Random,
        closing: threading.Event,
    ) -> None:
        self._door = door
        self._camera = door.camera
        self._new_camera = new_camera
        self._full = full
        self._block_timeout_s = block_timeout_s
        self._retry_for_s = retry_for_s
        self._stats = stats
        self._clock = clock
        self._closing = closing
        self._busy_backoff = Backoff(BUSY_FIRST_S, BUSY_CAP_S, random)
        self._outage_backoff = Backoff(OUTAGE_FIRST_S, OUTAGE_CAP_S, random)
        self.epoch = 0
        self.pending: Message | None = None
        """The message that was sent and has no answer."""

    def open(self, connect_for_s: float) -> None:
        """Take the camera. Raises BrokerUnavailable where Redis cannot be reached within `connect_for_s`."""
        began_s = self._clock.monotonic_s()
        while True:
            try:
                self.epoch = self._door.open(self._new_camera)
            except BrokerUnavailable:
                if self._since(began_s) >= connect_for_s or self._closing.is_set():
                    raise
                self._clock.wait(self._outage_backoff.next_s(), self._closing)
            else:
                self._outage_backoff.reset()
                _log.info("camera %s: epoch %d begins", self._camera, self.epoch)
                return

    def deliver(self, message: Message) -> Receipt:
        """Send a message until it is answered.

        After BrokerUnavailable, or an interrupt, the message stays `pending` and may be delivered again; whatever else
        is raised (Fenced, Backlogged, BrokerError) has given it up.
        """
        self.pending = message
        busy_since_s: float | None = None
        while True:
            try:
                answer = self._ask(message)
            except BrokerUnavailable:
                raise
            except BrokerError:
                self._give_up(message)
                raise
            if answer.status in (Answered.ADMITTED, Answered.DUPLICATE):
                return self._admitted(message, answer)
            if answer.status is Answered.FENCED:
                self._give_up(message)
                raise Fenced(
                    f"camera {self._camera} was taken by another producer (it holds epoch {answer.epoch}, this one "
                    f"{message.epoch}): run one producer a camera, or give this camera another name"
                )
            if answer.status is Answered.UNKNOWN_EPOCH:
                self._reopen(message)
                continue
            self._stats.busy += 1
            if self._full == "drop":
                return self._dropped(message, answer.why)
            busy_since_s = self._clock.monotonic_s() if busy_since_s is None else busy_since_s
            self._wait_for_room(message, answer.why, busy_since_s)

    def _ask(self, message: Message) -> Answer:
        """One answer, through however many outages. Raises BrokerUnavailable past `retry_for_s`."""
        down_since_s: float | None = None
        while True:
            self._stats.retries += message.attempts > 0
            message.attempts += 1
            try:
                answer = self._door.admit(message.request)
            except BrokerUnavailable as error:
                message.unanswered += 1
                if isinstance(error, Unreplicated):
                    self._stats.unreplicated += len(message.frames)
                down_since_s = self._sit_out(error, down_since_s, message)
                continue
            except BrokerError as error:
                # At a full maxmemory Redis may refuse the script itself, even where its answer would be "duplicate".
                if "maxmemory" not in str(error):
                    raise
                if not message.unanswered or self._closing.is_set():
                    return Answer(Answered.BUSY, why="memory")
                self._stats.busy += 1
                self._clock.wait(self._busy_backoff.next_s(), self._closing)
                continue
            if down_since_s is not None:
                self._stats.reconnects += 1
                _log.warning("camera %s: Redis is back after %.1f s", self._camera, self._since(down_since_s))
            self._outage_backoff.reset()
            return answer

    def _sit_out(self, error: BrokerUnavailable, since_s: float | None, message: Message) -> float:
        """One wait of an outage that began at `since_s`, now where None; when it began. Raises past `retry_for_s`."""
        if since_s is None:
            since_s = self._clock.monotonic_s()
            away = "too few replicas answer" if isinstance(error, Unreplicated) else "Redis is away"
            _log.warning("camera %s: %s, its frames wait: %s", self._camera, away, error)
        over = self._retry_for_s is not None and self._since(since_s) >= self._retry_for_s
        if over or self._closing.is_set():
            raise BrokerUnavailable(
                f"{error}; {len(message.frames)} frame(s) of camera {self._camera} wait for an answer and go first "
                "when Redis is back: do not send them again"
            ) from None
        self._clock.wait(self._outage_backoff.next_s(), self._closing)
        return since_s

    def _wait_for_room(self, message: Message, why: str, since_s: float) -> None:
        busy_s = self._since(since_s)
        limit_s = self._block_timeout_s
        if self._closing.is_set() or (limit_s is not None and busy_s >= limit_s):
            self._give_up(message)
            raise Backlogged(
                f"camera {self._camera} was busy for {busy_s:.1f} s (the budget of the {why} is full): its frames come "
                "faster than the workers judge them"
            )
        wait_s = self._busy_backoff.next_s()
        self._clock.wait(wait_s if limit_s is None else min(wait_s, limit_s - busy_s), self._closing)

    def _admitted(self, message: Message, answer: Answer) -> Receipt:
        if answer.status is Answered.DUPLICATE:
            if not message.unanswered:
                self._give_up(message)
                raise BrokerError(
                    f"frame {message.ids[0]} was admitted before this producer sent it: two programs share one epoch "
                    "of the camera"
                )
            self._stats.duplicates += 1
        self.pending = None
        self._busy_backoff.reset()
        self._stats.admitted += len(message.frames)
        self._stats.messages += 1
        self._stats.bytes += len(message.request.payload)
        if not answer.replicated:
            self._stats.unreplicated += len(message.frames)
        return Receipt(message.ids, Status.ADMITTED, answer.entry_id, message.attempts, replicated=answer.replicated)

    def _dropped(self, message: Message, why: str) -> Receipt:
        self.pending = None
        self._stats.dropped += len(message.frames)
        return Receipt(message.ids, Status.DROPPED, attempts=message.attempts, why=why)

    def _give_up(self, message: Message) -> None:
        self.pending = None
        self._stats.refused += len(message.frames)

    def _reopen(self, message: Message) -> None:
        """Redis has forgotten our epoch (it lost data), and with it every frame of it: go on in a new one.

        The new epoch must be beyond ours, or verdicts of other frames that were read long ago would have our ids.
        """
        epoch = 0
        down_since_s: float | None = None
        while epoch <= message.epoch:
            try:
                epoch = self._door.open(self._new_camera, beyond=message.epoch)
            except BrokerUnavailable as error:  # it has just been away, and may go again
                down_since_s = self._sit_out(error, down_since_s, message)
        _log.warning(
            "camera %s: Redis had forgotten epoch %d, going on as epoch %d: frames that it had admitted may be lost",
            self._camera,
            message.epoch,
            epoch,
        )
        self.epoch = epoch
        self._stats.reopened += 1
        message.move_to(epoch)

    def _since(self, then_s: float) -> float:
        return self._clock.monotonic_s() - then_s
