"""Turns a message into prepared frames: parsed, checked against its deadline, decoded and resized.

Every frame of the message comes out in its place, either prepared or refused with a reason; nothing here raises for
what came from outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
        image: what the backbone takes.
    """

    work: MessageWork[Image]
    offset: int
    source: Frame
    image: Image

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
        max_deliveries: crashes of its workers after which a message counts as poison.
    """

    def __init__(
        self,
        to_image: Callable[[Frame], Image],
        *,
        limits: MessageLimits,
        now_us: Callable[[], int],
        max_crashes: int = 3,
    ) -> None:
        self._to_image = to_image
        self._limits = limits
        self._now_us = now_us
        self._max_crashes = max_crashes

    def prepare(self, message: Message) -> tuple[MessageWork[Image], list[PreparedFrame[Image]]]:
        """The message's work, with every refused frame decided already, and its prepared frames."""
        work: MessageWork[Image] = MessageWork(message, [None] * message.frame_count, message.frame_count)
        refusal = self._refuse_whole(message)
        if refusal is None:
            try:
                work.batch = self._parse(message)
            except UnknownVersion as error:
                refusal = Refusal(Reason.UNKNOWN_VERSION, str(error))
            except LimitExceeded as error:
                refusal = Refusal(Reason.TOO_LARGE, str(error))
            except ContractError as error:
                refusal = Refusal(Reason.UNDECODABLE_MESSAGE, str(error))
        if refusal is not None or work.batch is None:
            for offset in range(message.frame_count):
                work.decide(offset, refusal)
            return work, []
        prepared = []
        now_us = self._now_us()
        for offset, source in enumerate(work.batch.frames):
            outcome = self._frame(work, offset, source, now_us)
            if isinstance(outcome, Refusal):
                work.decide(offset, outcome)
            else:
                prepared.append(outcome)
        return work, prepared

    def _refuse_whole(self, message: Message) -> Refusal | None:
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

    def _frame(
        self, work: MessageWork[Image], offset: int, source: Frame | BadFrame, now_us: int
    ) -> PreparedFrame[Image] | Refusal:
        if isinstance(source, BadFrame):
            return Refusal(source.reason, source.detail, source)
        if source.deadline_us is not None and source.deadline_us <= now_us:
            late_s = (now_us - source.deadline_us) / 1e6
            return Refusal(Reason.EXPIRED, f"its deadline had passed by {late_s:.3f} s when a worker took it", source)
        try:
            return PreparedFrame(work, offset, source, self._to_image(source))
        except ImageError as error:
            return Refusal(Reason(error.reason), error.detail, source)
