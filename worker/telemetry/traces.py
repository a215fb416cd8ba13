"""From the hooks of a worker and of a bridge to spans. A frame that carries no trace costs one look at it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from gaussline.worker.bridge.observer import BridgeObserver
from gaussline.worker.bridge.parcel import Parcel
from gaussline.worker.contract.trace import checked, is_sampled
from gaussline.worker.contract.verdict import Verdict
from gaussline.worker.engine.observer import Observer
from gaussline.worker.engine.prepare import PreparedFrame
from gaussline.worker.tracing.spans import Attributes, Spans

MAX_LINKS = 128
"""Links of one batch span, the library's own bound."""


class TraceObserver(Observer):
    """Spans of a worker.

    In each frame's trace: `decode`, `judge` (linked with the batch that the frame rode in) and `settle`. A batch is a
    trace of its own, linked with those of its frames: `batch`, and in it `backbone` and `score`.
    """

    def __init__(self, spans: Spans) -> None:
        self._spans = spans

    def prepared_frames(self, frames: Sequence[PreparedFrame[Any]], seconds: float) -> None:
        ended = time.time_ns()
        for frame in frames:
            trace = _traced(frame.source.trace)
            if trace is not None:
                self._spans.record("decode", trace, seconds, _about(frame), ended_ns=ended)

    def computed_frames(
        self, frames: Sequence[PreparedFrame[Any]], backbone_seconds: float, score_seconds: float
    ) -> None:
        traced = [(frame, trace) for frame in frames if (trace := _traced(frame.source.trace)) is not None]
        if not traced:
            return
        ended = time.time_ns()
        seconds = backbone_seconds + score_seconds
        size: Attributes = {"gaussline.frames": len(frames)}
        links = [trace for _, trace in traced[:MAX_LINKS]]
        batch = self._spans.record("batch", None, seconds, size, ended_ns=ended, links=links)
        middle = ended - int(score_seconds * 1e9)
        self._spans.record("backbone", batch, backbone_seconds, size, ended_ns=middle)
        self._spans.record("score", batch, score_seconds, size, ended_ns=ended)
        for frame, trace in traced:
            self._spans.record("judge", trace, seconds, _about(frame), ended_ns=ended, links=[batch])

    def settled(self, verdicts: Sequence[Verdict], seconds: float, now_us: int) -> None:
        ended = time.time_ns()
        for verdict in verdicts:
            trace = _traced(verdict.traceparent)
            if trace is not None:
                about: dict[str, str | int | float | bool] = {
                    "gaussline.id": verdict.id,
                    "gaussline.decision": verdict.decision.value,
                }
                if verdict.reason is not None:
                    about["gaussline.reason"] = verdict.reason.value
                if verdict.score is not None:
                    about["gaussline.score"] = verdict.score
                self._spans.record("settle", trace, seconds, about, ended_ns=ended)


class BridgeTraces(BridgeObserver):
    """Spans of a bridge: `deliver`, in the trace of the verdict's frame."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans

    def delivered(self, parcel: Parcel, seconds: float) -> None:
        trace = _traced(parcel.trace)
        if trace is not None:
            self._spans.record("deliver", trace, seconds, {"gaussline.id": parcel.id})


def _traced(text: str | None) -> str | None:
    trace = checked(text)
    return trace if trace is not None and is_sampled(trace) else None


def _about(frame: PreparedFrame[Any]) -> Attributes:
    return {"gaussline.id": frame.identity}
