"""The producer: it gives frames of one camera their identity and gets each of them admitted exactly once.

At its start a producer takes an epoch for its camera; a frame's identity is camera, epoch and sequence. A sequence
number is never used for two frames, not even after a drop: a message that is still under way in some buffer could
otherwise take the place of another.
"""

from __future__ import annotations

import logging
import os
import random as random_module
import threading
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Literal

from gaussline.producer.clock import Clock, SystemClock
from gaussline.producer.delivery import Delivery, Door
from gaussline.producer.image import to_wire
from gaussline.producer.message import Message
from gaussline.producer.receipt import Receipt, Stats, Status
from gaussline.producer.shot import Shot, deadline_us, to_us
from gaussline.producer.traces import FrameTraces
from gaussline.worker.broker.admission import Admission
from gaussline.worker.broker.client import open_redis
from gaussline.worker.broker.soundness import unsound
from gaussline.worker.contract.frame import Frame
from gaussline.worker.contract.keys import check_name
from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.errors import BrokerError, ContractError, Fenced, LimitExceeded, SettingsError
from gaussline.worker.settings import Settings
from gaussline.worker.tracing import open_spans

FRAME_OVERHEAD_BYTES: Final = 256
"""More than msgpack and the contract's own fields add to the bytes of a frame and its texts, or to a message's."""
MAX_PART_BYTES: Final = 256
TELL_DROPS_S: Final = 1.0
"""How often the drops are written into the line's ledger."""

_log = logging.getLogger(__name__)


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
        clock, random, door, traces: replaced by tests.
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
        traces: FrameTraces | None = None,
    ) -> None:
        options = {"line": line, "redis_url": redis_url, "full_policy": full, "block_timeout_s": block_timeout_s}
        self.settings = _settings(settings, options)
        self.camera = check_name("camera", camera)
        self.stats = Stats()
        self._limits = ImageLimits(
            self.settings.image_max_bytes, self.settings.image_max_pixels, self.settings.image_max_side
        )
        most = self.settings.message_max_frames
        self._batch_frames = most if batch_frames is None else batch_frames
        if not 1 <= self._batch_frames <= most:
            raise SettingsError(f"batch_frames {batch_frames} is not between 1 and message_max_frames ({most})")
        self._encode = encode
        self._deadline = deadline
        self._connect_for_s = connect_for_s
        self._clock: Clock = clock or SystemClock()
        self._client = None if door is not None else open_redis(self.settings)
        self._door: Door = door or Admission(
            self._client,
            self.settings.line,
            camera,
            camera_budget_bytes=self.settings.camera_budget_bytes,
            line_budget_bytes=self.settings.line_budget_bytes,
        )
        self._traces = traces or _traces(self.settings, camera)
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._delivery = Delivery(
            self._door,
            new_camera={} if model is None else {"model": check_name("model", model)},
            full=self.settings.full_policy,
            block_timeout_s=self.settings.block_timeout_s,
            retry_for_s=retry_for_s,
            stats=self.stats,
            clock=self._clock,
            random=random or random_module.Random(),
            closing=self._closing,
        )
        self._next = 0
        self._over: Fenced | None = None
        self._untold_drops = 0
        self._told_at_s = self._clock.monotonic_s()
        self._pid = 0

    # --- life --------------------------------------------------------------------------------------------------------
    @property
    def epoch(self) -> int:
        """The camera's epoch that this producer holds; 0 before `start`."""
        return self._delivery.epoch

    @property
    def unsent(self) -> bool:
        """A message waits for an answer that an outage kept back; it goes first with the next call."""
        return self._delivery.pending is not None

    def unsound(self) -> list[str]:
        """What will cost frames with this Redis, a line each with what to do. Raises BrokerUnavailable."""
        return [] if self._client is None else unsound(self._client)

    def start(self) -> Producer:
        """Take the camera: begin a new epoch, which fences off every older producer of this camera.

        Raises BrokerUnavailable where Redis cannot be reached within `connect_for_s`.
        """
        with self._lock:
            if not self.epoch:
                self._delivery.open(self._connect_for_s)
                self._pid = os.getpid()
        return self

    def close(self) -> None:
        """Send what is still pending once more, tell the ledger of drops, and let go of the connection.

        Waits of calls in other threads end. Never raises for an outage: `stats.unanswered` counts what is not known.
        """
        self._closing.set()
        with self._lock:
            if self._pid == os.getpid():
                self._finish()
                if self._traces is not None:
                    self._traces.close()
            if self._client is not None:
                self._client.close()

    def _finish(self) -> None:
        pending = self._delivery.pending
        if pending is not None:
            try:
                self._deliver(pending)
            except BrokerError as error:
                _log.info("camera %s: closed with a message unsent: %s", self.camera, error)
        if self._delivery.pending is not None:
            self.stats.unanswered += len(self._delivery.pending.frames)
            self._delivery.pending = None
        self._tell_drops(at_once=True)

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

        A message is admitted, judged and settled as a whole. Every image is looked at before the first is sent. Where
        the frames take several messages and one fails, those before it are in.
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
            pending = self._delivery.pending
            return None if pending is None else self._deliver(pending)

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
        if self._traces is not None:
            frames = self._traces.begin(frames)
        message = Message(self.camera, self.epoch, self._next, frames)
        self._next += len(frames)
        self.stats.offered += len(frames)
        return self._deliver(message)

    def _deliver(self, message: Message) -> Receipt:
        try:
            receipt = self._delivery.deliver(message)
        except Fenced as error:
            self._over = error
            raise
        if self._traces is not None:
            self._traces.told(message.frames, receipt)
        if receipt.status is Status.DROPPED:
            self._untold_drops += len(receipt.ids)
        self._tell_drops()
        return receipt

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


def _traces(settings: Settings, camera: str) -> FrameTraces | None:
    """Traces of this camera's frames; None where tracing is off. Raises SettingsError."""
    spans = open_spans(settings, "gaussline-producer", camera, begins=True)
    return None if spans is None else FrameTraces(spans, camera)


def _settings(settings: Settings | None, options: dict[str, Any]) -> Settings:
    """The settings with what was named beside them; of the environment where there are none."""
    if settings is None:
        return Settings.load(**options)
    given = {name: value for name, value in options.items() if value is not None}
    return Settings.load({}, **settings.model_dump() | given) if given else settings
