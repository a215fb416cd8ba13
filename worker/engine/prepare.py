"""Turns a message into frames for the backbone: parsed, checked against its deadline, decoded and resized.

Every frame of the message comes out in its place, either with its image or refused with a reason; nothing here raises
for what came from outside. Decoding may come later than the rest, and from another thread: see `Preparer.decode`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from gaussline.worker.broker.intake import Message
from gaussline.worker.contract.frame import BadFrame, Frame, FrameBatch, decode_batch, frame_id
from gaussline.worker.contract.limits import MessageLimits
from gaussline.worker.contract.verdict import Reason
from gaussline.worker.errors import ContractError, ImageError, LimitExceeded, UnknownVersion

Image = TypeVar("Image")


@dataclass(slots=True, eq=False)
class PreparedFrame(Generic[Image]):
    """One frame on its way to the backbone.

    Attributes:
        offset: its place in the message; its sequence is the message's first plus this.
        source: the frame as it was sent.
        image: what the backbone takes; None until it is decoded, and where it is refused.
        refusal: why there is no image, once that is known.
    """

    work: MessageWork[Image]
    offset: int
    source: Frame
    image: Image | None = None
    refusal: Refusal | None = None
    decoding: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def identity(self) -> str:
        """The frame's identity."""
        message = self.work.message
        return frame_id(message.camera, message.epoch, message.first_sequence + self.offset)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A frame that will not be judged."""

    reason: Reason
    detail: str
    source: Frame | BadFrame | None = None


@dataclass(slots=True, eq=False)
class MessageWork(Generic[Image]):
    """A message while its frames are being decided; it is settled when `open` reaches 0.

    Attributes:
        outcomes: one a frame, None while it is undecided.
    """

    message: Message
    outcomes: list[object | None]
    open: int
    batch: FrameBatch | None = None

    def decide(self, offset: int, outcome: object) -> bool:
        """Put down one frame's outcome; True where it was the last one."""
        assert self.outcomes[offset] is None, f"frame {offset} of {self.message.entry_id} was decided twice"
        self.outcomes[offset] = outcome
        self.open -= 1
        return self.open == 0


class Preparer(Generic[Image]):
    """Prepares messages; stateless, so any number of threads may share one.

    Args:
        to_image: makes a backbone input of one frame; raises ImageError.
        now_us: UTC now in microseconds, by Redis's clock.
        max_crashes: crashes of its workers after which a message counts as poison, all of it.
        on_surprise: told of what `to_image` raised though it should not.
    """

    def __init__(
        self,
        to_image: Callable[[Frame], Image],
        *,
        limits: MessageLimits,
        now_us: Callable[[], int],
        max_crashes: int = 3,
        on_surprise: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self._to_image = to_image
        self._limits = limits
        self._now_us = now_us
        self._max_crashes = max_crashes
        self._on_surprise = on_surprise

    def prepare(
        self, message: Message, *, decode: bool = True
    ) -> tuple[MessageWork[Image], list[PreparedFrame[Image]]]:
        """The message's work, with every refused frame decided already, and its other frames.

        Without `decode` they have no images yet: whoever needs one calls `decode`.
        """
        work = self.parse(message)
        prepared = []
        now_us = self._now_us()
        for offset in range(message.frame_count):
            if work.outcomes[offset] is not None:
                continue
            frame = self.begin_frame(work, offset, now_us)
            if isinstance(frame, PreparedFrame) and decode:
                self.decode(frame)
            refusal = frame if isinstance(frame, Refusal) else frame.refusal
            if refusal is not None:
                work.decide(offset, refusal)
            else:
                assert isinstance(frame, PreparedFrame)
                prepared.append(frame)
        return work, prepared

    def parse(self, message: Message) -> MessageWork[Image]:
        """The message's work; where the message as a whole is refused, every frame of it is decided already."""
        work: MessageWork[Image] = MessageWork(message, [None] * message.frame_count, message.frame_count)
        refusal = self.refuse_whole(message)
        if refusal is None:
            try:
                work.batch = self._parse(message)
            except UnknownVersion as error:
                refusal = Refusal(Reason.UNKNOWN_VERSION, str(error))
            except LimitExceeded as error:
                refusal = Refusal(Reason.TOO_LARGE, str(error))
            except ContractError as error:
                refusal = Refusal(Reason.UNDECODABLE_MESSAGE, str(error))
        if refusal is not None:
            for offset in range(message.frame_count):
                work.decide(offset, refusal)
        return work

    def adopt(self, message: Message, outcomes: Sequence[object], *, readable: bool) -> MessageWork[Image]:
        """The work of a message that was decided elsewhere, with its frames where it is `readable`."""
        work: MessageWork[Image] = MessageWork(message, [None] * message.frame_count, message.frame_count)
        if readable:
            with suppress(ContractError):
                work.batch = self._parse(message)
        for offset, outcome in enumerate(outcomes):
            source = None if work.batch is None else work.batch.frames[offset]
            work.decide(offset, replace(outcome, source=source) if isinstance(outcome, Refusal) else outcome)
        return work

    def refuse_whole(self, message: Message) -> Refusal | None:
        """Why nothing of a message is looked at; None where it is."""
        if not message.admitted:
            return Refusal(Reason.UNADMITTED, f"entry {message.entry_id} came without admission")
        if message.payload is None:
            return Refusal(Reason.LOST, f"entry {message.entry_id} was deleted before it was judged")
        if message.crashes >= self._max_crashes:
            return Refusal(Reason.POISON, f"{message.crashes} workers died over this message")
        return None

    def _parse(self, message: Message) -> FrameBatch:
        assert message.payload is not None
        batch = decode_batch(message.payload, self._limits)
        said = (batch.camera, batch.epoch, batch.first_sequence, len(batch.frames))
        admitted = (message.camera, message.epoch, message.first_sequence, message.frame_count)
        if said != admitted:
            raise ContractError(
                f"message says (camera, epoch, first sequence, frames) {said}, but {admitted} was admitted"
            )
        return batch

    def begin_frame(self, work: MessageWork[Image], offset: int, now_us: int) -> PreparedFrame[Image] | Refusal:
        """One frame of a parsed message, before its image is decoded, or refused for what stands beside the image."""
        assert work.batch is not None
        source = work.batch.frames[offset]
        if isinstance(source, BadFrame):
            return Refusal(source.reason, source.detail, source)
        if source.deadline_us is not None and source.deadline_us <= now_us:
            late_s = (now_us - source.deadline_us) / 1e6
            return Refusal(Reason.EXPIRED, f"its deadline had passed by {late_s:.3f} s when a worker took it", source)
        return PreparedFrame(work, offset, source)

    def decode(self, frame: PreparedFrame[Image]) -> bool:
        """See to it that a frame has its image or a refusal; False where it had.

        Two threads may ask for the same frame: one decodes, the other waits for it.
        """
        with frame.decoding:
            if frame.image is not None or frame.refusal is not None:
                return False
            try:
                frame.image = self._to_image(frame.source)
            except ImageError as error:
                frame.refusal = Refusal(Reason(error.reason), error.detail, frame.source)
            except Exception as error:  # a fault of ours, or no memory left: it must cost one frame, not the worker
                self._on_surprise(error)
                detail = f"{type(error).__name__}: {str(error)[:200]}"
                frame.refusal = Refusal(Reason.INTERNAL, detail, frame.source)
            return True
