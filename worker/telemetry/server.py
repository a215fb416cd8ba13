"""/metrics, /healthz and /readyz of one process, on one small threaded server."""

from __future__ import annotations

import json
import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from gaussline.worker.errors import SettingsError
from gaussline.worker.telemetry.health import Health
from gaussline.worker.telemetry.logs import LOGGER

MAX_CLIENTS = 64
"""Requests served at once; more are hung up on."""
CLIENT_S = 5.0
"""Longest wait for a client that says nothing or does not read."""


class HealthServer:
    """Serves from `start` until `close`. Port 0 takes a free one.

    Args:
        readiness: why the process cannot do its work now; empty where it can. It must answer promptly.

    Raises SettingsError where the address or the port cannot be had; from here on the port is taken.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        health: Health,
        readiness: Callable[[], tuple[str, ...]],
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = CLIENT_S
            server_version = "gaussline"
            sys_version = ""

            def do_GET(self) -> None:
                path = self.path.split("?", 1)[0]
                if path == "/metrics":
                    encode, kind = choose_encoder(self.headers.get("Accept", ""))
                    self._answer(200, kind, encode(registry))
                elif path == "/healthz":
                    stuck = health.stuck()
                    self._tell(503 if stuck else 200, {"alive": not stuck, "stuck_seconds": stuck})
                elif path == "/readyz":
                    reasons = readiness()
                    self._tell(503 if reasons else 200, {"ready": not reasons, "reasons": list(reasons)})
                else:
                    self._tell(404, {"error": "there are /metrics, /healthz and /readyz"})

            def do_HEAD(self) -> None:
                self.do_GET()

            def _tell(self, status: int, body: dict[str, object]) -> None:
                self._answer(status, "application/json", (json.dumps(body) + "\n").encode())

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """A scrape every few seconds is no event."""

        try:
            self._server = _Server(host, port, Handler)
        except (OSError, OverflowError) as error:
            said = getattr(error, "strerror", None) or str(error)
            raise SettingsError(
                f"http_host {host}, http_port {port}: {said}; choose another address with GAUSSLINE_HTTP_HOST, another "
                "port with GAUSSLINE_HTTP_PORT (0 takes a free one)"
            ) from None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="http", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> HealthServer:
        """Serve, from a thread of its own."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop serving, and give the port back."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(CLIENT_S)
        self._server.server_close()

    def __enter__(self) -> HealthServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    """Each request in a thread of its own, and no more threads than a bound: clients that say nothing cost one each."""

    daemon_threads = True
    request_queue_size = 64
    _free = threading.BoundedSemaphore(MAX_CLIENTS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve it, or hang up where too many are served already."""
        if self._free.acquire(blocking=False):
            try:
                super().process_request(request, client_address)
            except RuntimeError:  # no thread is to be had just now
                self._free.release()
                raise
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Body of a request's thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        """Bind, and look no name up: the standard library asks the resolver, which may take its time to say nothing."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """Told of what a handler raised; a client that hangs up while it is answered is no event."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            logging.getLogger(LOGGER).exception("unexpected fault", extra={"stage": "http"})
