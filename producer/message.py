"""One message with its identity, for as long as it has no answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gaussline.worker.broker.admission import Request
from gaussline.worker.contract.frame import Frame, encode_batch, frame_id


class Message:
    """Frames of one camera under one epoch and a first sequence.

    Attributes:
        request: what is asked of admission.
        attempts: how often it was asked.
        unanswered: how often no answer came; as long as this is 0, nobody but us can have admitted it.
    """

    def __init__(self, camera: str, epoch: int, first: int, frames: Sequence[Frame]) -> None:
        self.camera = camera
        self.frames = list(frames)
        self.attempts = 0
        self.unanswered = 0
        deadlines = [frame.deadline_us for frame in frames if frame.deadline_us is not None]
        payload = encode_batch(camera, epoch, first, self.frames)
        self.request = Request(epoch, first, len(frames), payload, min(deadlines, default=0))

    @property
    def epoch(self) -> int:
        """The epoch it goes under."""
        return self.request.epoch

    @property
    def ids(self) -> tuple[str, ...]:
        """Identities of its frames."""
        first = self.request.first_sequence
        return tuple(frame_id(self.camera, self.epoch, first + index) for index in range(len(self.frames)))

    def move_to(self, epoch: int) -> None:
        """Go under another epoch, with the same sequence numbers."""
        payload = encode_batch(self.camera, epoch, self.request.first_sequence, self.frames)
        self.request = replace(self.request, epoch=epoch, payload=payload)
        self.unanswered = 0
