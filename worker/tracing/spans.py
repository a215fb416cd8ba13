"""Spans of one process. Nothing global is set: an application that traces by itself keeps its own provider."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from opentelemetry import context as contexts
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, Span, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gaussline.worker.errors import SourceError

__all__ = ["Attributes", "Otlp", "Span", "Spans"]

EXPORT_S = 5
"""Longest wait for a collector; what it does not take is dropped."""
Attributes = Mapping[str, str | int | float | bool]
_PROPAGATOR = TraceContextTextMapPropagator()


class Otlp(SpanExporter):
    """Spans over OTLP (HTTP, protobuf). Headers and certificates come from OpenTelemetry's own variables.

    Args:
        on_trouble: told of spans that the collector did not take; they are gone.
    """

    def __init__(self, endpoint: str, on_trouble: Callable[[Exception], None] = lambda error: None) -> None:
        self._inner = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_S)
        self._place = endpoint.split("?", 1)[0]
        self._on_trouble = on_trouble

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send some; called by the library's thread."""
        result = self._inner.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._on_trouble(SourceError(f"{self._place} did not take {len(spans)} spans"))
        return result

    def shutdown(self) -> None:
        """End."""
        self._inner.shutdown()  # type: ignore[no-untyped-call]


class Spans:
    """Begins spans, or records those that are over. For any thread.

    Spans wait in a queue of the library's, which is bounded: where the collector is away they are dropped, and nothing
    waits for them.

    Args:
        share: share of the traces begun here that are recorded; one that was begun elsewhere is recorded as there.
    """

    def __init__(self, exporter: SpanExporter, service: str, line: str, instance: str, share: float = 1.0) -> None:
        about = {"service.name": service, "service.instance.id": instance, "gaussline.line": line}
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(share)), resource=Resource.create(about), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        # What the library has to say of a collector that is away is no line of our log; nobody's own handlers are lost.
        logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
        self._tracer = self._provider.get_tracer("gaussline")

    def begin(self, name: str, attributes: Attributes) -> tuple[Span, str | None]:
        """A span within the caller's own, if it has one; and its `traceparent`, None where it is not recorded.

        The caller ends it.
        """
        span = self._tracer.start_span(name, contexts.get_current(), attributes=attributes)
        return span, _traceparent(span) if span.is_recording() else None

    def record(
        self,
        name: str,
        parent: str | None,
        seconds: float,
        attributes: Attributes,
        *,
        ended_ns: int | None = None,
        links: Sequence[str] = (),
    ) -> str:
        """A span that took `seconds` up to `ended_ns` (now); its `traceparent`."""
        end = time.time_ns() if ended_ns is None else ended_ns
        context = Context() if parent is None else _context(parent)
        linked = [Link(get_current_span(_context(each)).get_span_context()) for each in links]
        span = self._tracer.start_span(
            name, context, attributes=attributes, links=linked, start_time=end - int(seconds * 1e9)
        )
        span.end(end)
        return _traceparent(span)

    def flush(self) -> None:
        """Send what waits."""
        self._provider.force_flush(1000 * EXPORT_S)

    def close(self) -> None:
        """Send what waits, as far as the collector takes it, and end."""
        self._provider.shutdown()


def _context(traceparent: str) -> Context:
    return _PROPAGATOR.extract({"traceparent": traceparent}, Context())


def _traceparent(span: Span) -> str:
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, set_span_in_context(span, Context()))
    return carrier["traceparent"]
