"""/metrics, /healthz and /readyz of a producer, in the text format of Prometheus, with the standard library alone.

A camera computer has the light install, without prometheus_client; a producer has a dozen numbers and no histogram.
"""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final

from gaussline.producer.producer import Producer
from gaussline.worker.errors import SettingsError

CLIENT_S: Final = 5.0
TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PREFIX: Final = "gaussline_producer_"

PRODUCER_METRICS: Final[dict[str, tuple[str, str, Callable[[Producer], float]]]] = {
    PREFIX + name: (kind, text, read)
    for name, kind, text, read in (
        ("offered_frames_total", "counter", "Frames given to the producer.", lambda p: p.stats.offered),
        ("admitted_frames_total", "counter", "Frames admitted.", lambda p: p.stats.admitted),
        ("dropped_frames_total", "counter", "Frames dropped by policy on a full backlog.", lambda p: p.stats.dropped),
        (
            "refused_frames_total",
            "counter",
            "Frames refused: fenced off, or busy for too long.",
            lambda p: p.stats.refused,
        ),
        (
            "unanswered_frames_total",
            "counter",
            "Frames without an answer when it gave up.",
            lambda p: p.stats.unanswered,
        ),
        ("admitted_messages_total", "counter", "Messages admitted.", lambda p: p.stats.messages),
        ("admitted_bytes_total", "counter", "Bytes of the messages admitted.", lambda p: p.stats.bytes),
        ("busy_answers_total", "counter", "Admissions answered busy.", lambda p: p.stats.busy),
        ("retries_total", "counter", "Messages sent again.", lambda p: p.stats.retries),
        (
            "duplicate_messages_total",
            "counter",
            "Messages sent again that were in already.",
            lambda p: p.stats.duplicates,
        ),
        ("outages_total", "counter", "Outages of Redis that were outlasted.", lambda p: p.stats.reconnects),
        ("reopened_total", "counter", "Epochs taken because Redis had forgotten.", lambda p: p.stats.reopened),
        ("epoch", "gauge", "The camera's epoch that this producer holds.", lambda p: p.epoch),
    )
}
"""Name -> type, meaning, and where it is read."""


def exposition(producer: Producer) -> str:
    """All metrics, one sample each."""
    return "".join(_lines(producer))


def _lines(producer: Producer) -> Iterator[str]:
    labels = f'{{line="{producer.settings.line}",camera="{producer.camera}"}}'  # names need no escapes: check_name
    for name, (kind, text, read) in PRODUCER_METRICS.items():
        yield f"# HELP {name} {text}\n# TYPE {name} {kind}\n{name}{labels} {read(producer)}\n"


class MetricsServer:
    """Serves from `with` to its end. Port 0 takes a free one.

    Args:
        readiness: why no frame can be sent now; empty where one can.

    Raises SettingsError where the address or the port cannot be had; from here on the port is taken.
    """

    def __init__(
        self, host: str, port: int, producer: Producer, readiness: Callable[[], tuple[str, ...]] = tuple
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = CLIENT_S
            server_version = "gaussline"
            sys_version = ""

            def do_GET(self) -> None:
                path = self.path.split("?", 1)[0]
                if path == "/metrics":
                    self._answer(200, TYPE, exposition(producer))
                elif path == "/healthz":
                    self._answer(200, "application/json", json.dumps({"alive": True}) + "\n")
                elif path == "/readyz":
                    reasons = readiness()
                    body = {"ready": not reasons, "reasons": list(reasons)}
                    self._answer(503 if reasons else 200, "application/json", json.dumps(body) + "\n")
                else:
                    self._answer(404, "text/plain", "there are /metrics, /healthz and /readyz\n")

            def _answer(self, status: int, kind: str, body: str) -> None:
                data = body.encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """A scrape every few seconds is no event."""

        try:
            self._server = _Server((host, port), Handler)
        except (OSError, OverflowError) as error:
            said = getattr(error, "strerror", None) or str(error)
            raise SettingsError(
                f"http_host {host}, --http-port {port}: {said}; choose another port (0 takes a free one), or another "
                "address with GAUSSLINE_HTTP_HOST"
            ) from None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="http", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop serving, and give the port back."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(CLIENT_S)
        self._server.server_close()

    def __enter__(self) -> MetricsServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind, and look no name up: the standard library asks the resolver, which may take its time."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up while it is answered is no event."""
