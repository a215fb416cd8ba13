"""The producer: it gives frames of one camera their identity and gets each of them admitted exactly once.

At its start a producer takes an epoch for its camera; a frame's identity is camera, epoch and sequence. A message whose
answer was lost is sent again under the same identity until an answer comes, and the broker recognises it. A sequence
number is never used for two frames, not even after a drop: a message that is still under way in some buffer could
otherwise take the place of another.
"""

from __future__ import annotations

import logging
import os
import random as random_module
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Literal, Protocol

from gaussline.producer.backoff import Backoff
from gaussline.producer.clock import Clock, SystemClock
from gaussline.producer.image import to_wire
from gaussline.producer.receipt import Receipt, Stats, Status
from gaussline.producer.shot import Shot, deadline_us, to_us
from gaussline.worker.broker.admission import Admission, Answer, Request
from gaussline.worker.broker.admission import Status as Answered
from gaussline.worker.broker.client import connect
from gaussline.worker.contract.frame import Frame, encode_batch, frame_id
from gaussline.worker.contract.keys import check_name
from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.errors import (
    Backlogged,
    BrokerError,
    BrokerUnavailable,
    ContractError,
    Fenced,
    LimitExceeded,
    SettingsError,
)
from gaussline.worker.settings import Settings

BUSY_FIRST_S: Final = 0.01
BUSY_CAP_S: Final = 0.25
OUTAGE_FIRST_S: Final = 0.05
OUTAGE_CAP_S: Final = 5.0
FRAME_OVERHEAD_BYTES: Final = 256
"""More than msgpack and the contract's own fields add to the bytes of a frame and its texts, or to a message's."""
MAX_PART_BYTES: Final = 256
TELL_DROPS_S: Final = 1.0
"""How often the drops are written into the line's ledger."""

_log = logging.getLogger(__name__)


class Door(Protocol):
    """What a producer needs of admission; `broker.admission.Admission` is the one."""

    def open(self, settings: dict[str, Any] | None = None) -> int:
        """Begin a new epoch."""

    def admit(self, request: Request) -> Answer:
        """Admit one message; safe to repeat after BrokerUnavailable."""

    def count_dropped(self, frames: int) -> None:
        """Write down frames that were dropped."""


class Producer:
    """Sends the frames of one camera.

    May be used by several threads, one call at a time goes through; not across a fork. Frames are numbered in the order
    of their calls.

    Args:
        camera: name of the camera; a camera that is new registers itself.
        line, redis_url: in the place of what the settings say.
        settings: None builds them from the environment.
        full: what to do while the backlog is over its budget: `block` waits, `drop` drops the message and counts it.
        block_timeout_s: longest wait on a full backlog before `Backlogged` is raised; None waits for ever.
        retry_for_s: longest outage of Redis that a call sits out before it raises BrokerUnavailable; None: any.
        connect_for_s: the same at the start.
        model: model that is to judge a camera that is new; None takes `default`. A known camera keeps its own.
        encode: what arrays and Pillow images are sent as: raw, png or jpeg.
        deadline: default deadline of every frame, from its capture.
        batch_frames: most frames that `send_many` puts into one message.
        clock, random, door: replaced by tests.
    """

    def __init__(
        self,
        camera: str,
        *,
        line: str | None = None,
        redis_url: str | None = None,
        settings: Settings | None = None,
        full: Literal["block", "drop"] | None = None,
        block_timeout_s: float | None = None,
        retry_for_s: float | None = None,
        connect_for_s: float = 0.0,
        model: str | None = None,
        encode: Literal["raw", "png", "jpeg"] = "raw",
        deadline: timedelta | None = None,
        batch_frames: int | None = None,
        clock: Clock | None = None,
        random: random_module.Random | None = None,
        door: Door | None = None,
    ) -> None:
        options = {"line": line, "redis_url": redis_url, "full_policy": full, "block_timeout_s": block_timeout_s}
        self.settings = Settings.load(None if settings is None else {}, **_said(settings) | _given(options))
        self.camera = check_name("camera", camera)
        self.stats = Stats()
        self._new_camera = {} if model is None else {"model": check_name("model", model)}
        self._limits = ImageLimits(
            self.settings.image_max_bytes, self.settings.image_max_pixels, self.settings.image_max_side
        )
        most = self.settings.message_max_frames
        self._batch_frames = most if batch_frames is None else batch_frames
        if not 1 <= self._batch_frames <= most:
            raise SettingsError(f"batch_frames {batch_frames} is not between 1 and message_max_frames ({most})")
        self._encode = encode
        self._deadline = deadline
        self._retry_for_s = retry_for_s
        self._connect_for_s = connect_for_s
        self._clock: Clock = clock or SystemClock()
        draw = random or random_module.Random()
        self._busy_backoff = Backoff(BUSY_FIRST_S, BUSY_CAP_S, draw)
        self._outage_backoff = Backoff(OUTAGE_FIRST_S, OUTAGE_CAP_S, draw)
        self._client = None if door is not None else _client(self.settings)
        self._door: Door = door or Admission(
            self._client,
            self.settings.line,
            camera,
            camera_budget_bytes=self.settings.camera_budget_bytes,
            line_budget_bytes=self.settings.line_budget_bytes,
        )
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._epoch = 0
        self._next = 0
        self._pending: _Message | None = None
        self._over: BrokerError | None = None
        self._untold_drops = 0
        self._told_at_s = self._clock.monotonic_s()
        self._pid = 0

    # --- life --------------------------------------------------------------------------------------------------------
    @property
    def epoch(self) -> int:
        """The camera's epoch that this producer holds; 0 before `start`."""
        return self._epoch

    def start(self) -> Producer:
        """Take the camera: begin a new epoch, which fences off every older producer of this camera.

        Raises BrokerUnavailable where Redis cannot be reached within `connect_for_s`.
        """
        with self._lock:
            if self._epoch:
                return self
            began_s = self._clock.monotonic_s()
            while True:
                try:
                    self._epoch = self._door.open(self._new_camera)
                except BrokerUnavailable:
                    if self._clock.monotonic_s() - began_s >= self._connect_for_s or self._closing.is_set():
                        raise
                    self._clock.wait(self._outage_backoff.next_s(), self._closing)
                else:
                    self._outage_backoff.reset()
                    self._pid = os.getpid()
                    _log.info("camera %s: epoch %d begins", self.camera, self._epoch)
                    return self

    def close(self) -> None:
        """Send what is still pending once more, tell the ledger of drops, and let go of the connection.

        Waits of calls in other threads end. Never raises for an outage: `stats.unanswered` counts what is not known.
        """
        self._closing.set()
        with self._lock:
            if self._pid == os.getpid():
                pending = self._pending
                if pending is not None:
                    try:
                        self._deliver(pending)
                    except (BrokerError, ContractError) as error:
                        _log.info("camera %s: closed with a message unsent: %s", self.camera, error)
                if self._pending is not None:
                    self.stats.unanswered += len(self._pending.frames)
                    self._pending = None
                self._tell_drops(at_once=True)
            if self._client is not None:
                self._client.close()

    def __enter__(self) -> Producer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- sending -----------------------------------------------------------------------------------------------------
    def send(
        self,
        image: object,
        *,
        part_id: str | None = None,
        captured_at: datetime | int | None = None,
        deadline: datetime | timedelta | None = None,
        encoding: str | None = None,
    ) -> Receipt:
        """Send one frame as one message and return once it is admitted, or dropped by policy.

        Args:
            image: bytes of an image file, a path, a numpy array (uint8, uint16, or float32 in 0..1; red, green, blue)
                or a Pillow image.
            part_id: part or serial id; at most 256 bytes.
            captured_at: aware datetime or microseconds since the Unix epoch; None: now.
            deadline: aware datetime, or timedelta from the capture; a later verdict would be of no use.
            encoding: of bytes: what they are; of pixels: what to send them as. None finds out.

        Raises ContractError, LimitExceeded, SourceError: this image cannot be sent, nothing was. Fenced: another
        producer took the camera. Backlogged: busy for longer than `block_timeout_s`, not admitted. BrokerUnavailable:
        no answer within `retry_for_s`; the frame is kept and goes first with the next call, so do not send it again.
        """
        return self.send_many([Shot(image, part_id, captured_at, deadline, encoding)])[0]

    def send_many(self, shots: Iterable[Shot | object]) -> list[Receipt]:
        """Send frames, as many in one message as the limits allow; one receipt a message. Raises like `send`.

        A message is admitted, judged and settled as a whole. Every image is looked at before the first is sent.
        """
        with self._lock:
            self._check_alive()
            frames = [self._frame(shot if isinstance(shot, Shot) else Shot(shot)) for shot in shots]
            batches = self._cut(frames)
            self.start()
            self.retry()
            return [self._send(batch) for batch in batches]

    def retry(self) -> Receipt | None:
        """Send the message once more that an outage left without an answer; None where there is none.

        Raises like `send`.
        """
        with self._lock:
            self._check_alive()
            return None if self._pending is None else self._deliver(self._pending)

    def note_dropped(self, frames: int) -> None:
        """Count frames that the caller dropped before sending them, here and in the line's ledger."""
        with self._lock:
            self.stats.offered += frames
            self.stats.dropped += frames
            self._untold_drops += frames
            self._tell_drops()

    # --- inside ------------------------------------------------------------------------------------------------------
    def _check_alive(self) -> None:
        if self._over is not None:
            raise self._over
        if self._closing.is_set():
            raise BrokerError(f"the producer of camera {self.camera} is closed")
        if self._pid not in (0, os.getpid()):
            raise BrokerError(
                f"the producer of camera {self.camera} was opened before a fork: both processes would number their "
                "frames alike; open one in the process that sends"
            )

    def _frame(self, shot: Shot) -> Frame:
        now = shot.captured_at if shot.captured_at is not None else self._clock.now_us()
        captured_us = to_us("captured_at", now)
        part = shot.part_id
        if part is not None and not (isinstance(part, str) and 0 < len(part.encode("utf-8")) <= MAX_PART_BYTES):
            raise ContractError(f"part_id {part!r:.80} is no text of 1 to {MAX_PART_BYTES} bytes")
        deadline = deadline_us(shot.deadline if shot.deadline is not None else self._deadline, captured_us)
        wire = to_wire(shot.image, shot.encoding, pixels_as=self._encode, limits=self._limits)
        return Frame(wire.data, wire.encoding, captured_us, part, deadline, wire.shape, wire.dtype)

    def _cut(self, frames: Sequence[Frame]) -> list[list[Frame]]:
        most = self.settings.message_max_bytes - FRAME_OVERHEAD_BYTES
        batches: list[list[Frame]] = []
        room = -1
        for frame in frames:
            size = len(frame.data) + len((frame.part or "").encode()) + FRAME_OVERHEAD_BYTES
            if size > most:
                raise LimitExceeded(
                    f"a frame of {len(frame.data)} bytes does not fit into a message of "
                    f"{self.settings.message_max_bytes} bytes (message_max_bytes)"
                )
            if room < size or len(batches[-1]) >= self._batch_frames:
                batches.append([])
                room = most
            batches[-1].append(frame)
            room -= size
        return batches

    def _send(self, frames: list[Frame]) -> Receipt:
        message = _Message(self.camera, self._epoch, self._next, frames)
        self._next += len(frames)
        self.stats.offered += len(frames)
        self._pending = message
        return self._deliver(message)

    def _deliver(self, message: _Message) -> Receipt:
        """Send a message until it is answered. What raises anything but BrokerUnavailable has given it up."""
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
                self._over = Fenced(
                    f"camera {self.camera} of line {self.settings.line} was taken by another producer (it holds epoch "
                    f"{answer.epoch}, this one {message.epoch}): run one producer a camera, or give this camera "
                    "another name"
                )
                raise self._over
            if answer.status is Answered.UNKNOWN_EPOCH:
                self._reopen(message)
                continue
            self.stats.busy += 1
            if self.settings.full_policy == "drop":
                return self._dropped(message, answer.why)
            now_s = self._clock.monotonic_s()
            busy_since_s = now_s if busy_since_s is None else busy_since_s
            limit_s = self.settings.block_timeout_s
            if self._closing.is_set() or (limit_s is not None and now_s - busy_since_s >= limit_s):
                self._give_up(message)
                raise Backlogged(
                    f"camera {self.camera} was busy for {now_s - busy_since_s:.1f} s (the budget of the {answer.why} "
                    "is full): its frames come faster than the workers judge them"
                )
            wait_s = self._busy_backoff.next_s()
            if limit_s is not None:
                wait_s = min(wait_s, max(0.0, busy_since_s + limit_s - now_s))
            self._clock.wait(wait_s, self._closing)

    def _ask(self, message: _Message) -> Answer:
        """One answer, through however many outages. Raises BrokerUnavailable past `retry_for_s`."""
        down_since_s: float | None = None
        while True:
            self.stats.retries += message.attempts > 0
            message.attempts += 1
            try:
                answer = self._door.admit(message.request)
            except BrokerUnavailable as error:
                message.unanswered += 1
                now_s = self._clock.monotonic_s()
                if down_since_s is None:
                    down_since_s = now_s
                    _log.warning("camera %s: Redis is away, its frames wait: %s", self.camera, error)
                if self._closing.is_set() or (
                    self._retry_for_s is not None and now_s - down_since_s >= self._retry_for_s
                ):
                    raise BrokerUnavailable(
                        f"{error}; {len(message.frames)} frame(s) of camera {self.camera} wait for an answer and go "
                        "first when Redis is back: do not send them again"
                    ) from None
                self._clock.wait(self._outage_backoff.next_s(), self._closing)
                continue
            except BrokerError as error:
                if "OOM" not in str(error):
                    raise
                answer = Answer(Answered.BUSY, why="memory")
            if down_since_s is not None:
                self.stats.reconnects += 1
                _log.warning("camera %s: Redis is back after %.1f s", self.camera, self._since(down_since_s))
            self._outage_backoff.reset()
            return answer

    def _since(self, then_s: float) -> float:
        return self._clock.monotonic_s() - then_s

    def _admitted(self, message: _Message, answer: Answer) -> Receipt:
        if answer.status is Answered.DUPLICATE:
            if not message.unanswered:
                self._give_up(message)
                raise BrokerError(
                    f"frame {message.ids[0]} was admitted before this producer sent it: two programs share one epoch "
                    "of the camera"
                )
            self.stats.duplicates += 1
        self._pending = None
        self._busy_backoff.reset()
        self.stats.admitted += len(message.frames)
        self.stats.messages += 1
        self.stats.bytes += len(message.request.payload)
        self._tell_drops()
        return Receipt(message.ids, Status.ADMITTED, answer.entry_id, message.attempts)

    def _dropped(self, message: _Message, why: str) -> Receipt:
        self._pending = None
        self.stats.dropped += len(message.frames)
        self._untold_drops += len(message.frames)
        self._tell_drops()
        return Receipt(message.ids, Status.DROPPED, attempts=message.attempts, why=why)

    def _give_up(self, message: _Message) -> None:
        self._pending = None
        self.stats.refused += len(message.frames)

    def _reopen(self, message: _Message) -> None:
        """Redis has forgotten our epoch (it lost data), and with it every frame of it: go on in a new one.

        The new epoch must be beyond ours, or verdicts of other frames that were read long ago would have our ids.
        """
        epoch = 0
        while epoch <= message.epoch:
            epoch = self._door.open(self._new_camera)
        _log.warning(
            "camera %s: Redis had forgotten epoch %d, going on as epoch %d: frames that it had admitted may be lost",
            self.camera,
            message.epoch,
            epoch,
        )
        self._epoch = epoch
        self.stats.reopened += 1
        message.move_to(epoch)

    def _tell_drops(self, *, at_once: bool = False) -> None:
        now_s = self._clock.monotonic_s()
        if not self._untold_drops or not (at_once or now_s - self._told_at_s >= TELL_DROPS_S):
            return
        self._told_at_s = now_s
        try:
            self._door.count_dropped(self._untold_drops)
        except BrokerError as error:
            _log.info("camera %s: drops are not in the ledger yet: %s", self.camera, error)
        else:
            self._untold_drops = 0


class _Message:
    """One message with its identity, for as long as it has no answer."""

    def __init__(self, camera: str, epoch: int, first: int, frames: list[Frame]) -> None:
        self.camera = camera
        self.frames = frames
        self.attempts = 0
        self.unanswered = 0
        deadlines = [frame.deadline_us for frame in frames if frame.deadline_us is not None]
        self.request = Request(
            epoch, first, len(frames), encode_batch(camera, epoch, first, frames), min(deadlines, default=0)
        )

    @property
    def epoch(self) -> int:
        return self.request.epoch

    @property
    def ids(self) -> tuple[str, ...]:
        first = self.request.first_sequence
        return tuple(frame_id(self.camera, self.epoch, first + index) for index in range(len(self.frames)))

    def move_to(self, epoch: int) -> None:
        """Into another epoch, with the same sequence numbers."""
        first = self.request.first_sequence
        payload = encode_batch(self.camera, epoch, first, self.frames)
        self.request = replace(self.request, epoch=epoch, payload=payload)
        self.unanswered = 0


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _said(settings: Settings | None) -> dict[str, Any]:
    return {} if settings is None else settings.model_dump()


def _client(settings: Settings) -> Any:
    password = None
    if settings.redis_password_file is not None:
        try:
            password = settings.redis_password_file.read_text("utf-8").strip()
        except OSError as error:
            raise SettingsError(
                f"redis_password_file {settings.redis_password_file} cannot be read: {error.strerror or error}"
            ) from None
    return connect(settings.redis_url.get_secret_value(), timeout_s=settings.redis_timeout_s, password=password)
