"""A trace for each frame that a producer sends: it begins here, unless the application has begun one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from gaussline.producer.receipt import Receipt
from gaussline.worker.contract.frame import Frame

if TYPE_CHECKING:
    from gaussline.worker.tracing.spans import Span, Spans


class FrameTraces:
    """Spans `send`, from a frame's being handed over to its admission. Open ones are those of one message at most."""

    def __init__(self, spans: Spans, camera: str) -> None:
        self._spans = spans
        self._camera = camera
        self._open: dict[str, Span] = {}

    def begin(self, frames: Sequence[Frame]) -> list[Frame]:
        """The frames, those that are to be traced with their trace."""
        return [self._begin(frame) for frame in frames]

    def _begin(self, frame: Frame) -> Frame:
        about = {"gaussline.camera": self._camera} | ({} if frame.part is None else {"gaussline.part": frame.part})
        span, trace = self._spans.begin("send", about)
        if trace is None:
            span.end()
            return frame
        self._open[trace] = span
        return replace(frame, trace=trace)

    def told(self, frames: Sequence[Frame], receipt: Receipt) -> None:
        """What became of a message."""
        for frame, identity in zip(frames, receipt.ids, strict=True):
            span = None if frame.trace is None else self._open.pop(frame.trace, None)
            if span is not None:
                span.set_attributes({"gaussline.id": identity, "gaussline.answer": receipt.status.value})
                span.end()

    def close(self) -> None:
        """End what is open, and send what waits."""
        for span in self._open.values():
            span.end()
        self._open.clear()
        self._spans.close()
