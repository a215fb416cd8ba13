"""A line on a real Redis, and where spans go: into memory, or over OTLP to a small receiver."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.lines import server, way

__all__ = ["Collector", "Memory", "collector", "memory", "server", "way"]


class Memory(InMemorySpanExporter):
    """Keeps the spans of several processes in memory: one that ends must not shut it for the others."""

    def shutdown(self) -> None:
        """Stay open."""


@pytest.fixture
def memory() -> InMemorySpanExporter:
    """Keeps spans in memory."""
    return Memory()


@dataclass
class Collector:
    """What came over OTLP."""

    url: str
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)

    def spans(self) -> list[tuple[str, str, str, str]]:
        """(service, name, trace id, parent span id), hexadecimal."""
        return [
            (service.value.string_value, span.name, span.trace_id.hex(), span.parent_span_id.hex())
            for request in self.requests
            for group in request.resource_spans
            for service in group.resource.attributes
            if service.key == "service.name"
            for scope in group.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A small OTLP receiver: HTTP, protobuf."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Content-Type"] == "application/x-protobuf"
            told.requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        told = Collector(f"http://127.0.0.1:{running.server_address[1]}/v1/traces")
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield told
        running.shutdown()
        thread.join()
