"""/metrics, /healthz and /readyz of one process, on one small threaded server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from gaussline.worker.engine.observer import Observer
from gaussline.worker.errors import SettingsError

STALE_S = 30.0
"""A stage that has not gone round its loop for so long is stuck: an idle one turns four times a second."""


class Health(Observer):
    """Remembers when each stage last went round its loop."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, stale_s: float = STALE_S) -> None:
        self._monotonic = monotonic
        self._stale_s = stale_s
        self._turned: dict[str, float] = {}

    def turned(self, stage: str) -> None:
        self._turned[stage] = self._monotonic()

    def stuck(self) -> dict[str, float]:
        """Stages that have not turned lately, and for how many seconds."""
        now = self._monotonic()
        stages = {name: now - at for name, at in self._turned.items()}
        if "intake" in stages:
            stages.pop("waiting", None)
        return {name: age for name, age in stages.items() if age > self._stale_s}


class HealthServer:
    """Serves until it is closed. Port 0 takes a free one.

    Args:
        readiness: why the process cannot do its work now; empty where it can.
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
            timeout = 5.0

            def do_GET(self) -> None:
                path = self.path.split("?", 1)[0]
                if path == "/metrics":
                    encode, kind = choose_encoder(self.headers.get("Accept", ""))
                    self._answer(200, kind, encode(registry))
                elif path == "/healthz":
                    stuck = health.stuck()
                    self._tell(200 if not stuck else 503, {"alive": not stuck, "stuck_seconds": stuck})
                elif path == "/readyz":
                    reasons = readiness()
                    self._tell(200 if not reasons else 503, {"ready": not reasons, "reasons": list(reasons)})
                else:
                    self._tell(404, {"error": "there are /metrics, /healthz and /readyz"})

            def _tell(self, status: int, body: dict[str, object]) -> None:
                self._answer(status, "application/json", (json.dumps(body) + "\n").encode())

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """A scrape every few seconds is no event."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise SettingsError(
                f"http_host {host}, http_port {port}: {error.strerror or error}; choose another port with "
                "GAUSSLINE_HTTP_PORT (0 takes a free one)"
            ) from None
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Serve from a thread of its own."""
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)
