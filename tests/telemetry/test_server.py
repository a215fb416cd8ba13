"""The server of /metrics and /healthz, where the machine has no thread to spare for a while."""

from __future__ import annotations

import threading
import urllib.request
from http.client import RemoteDisconnected

import pytest
from prometheus_client import CollectorRegistry

from gaussline.worker.telemetry.health import Health
from gaussline.worker.telemetry.server import MAX_CLIENTS, HealthServer


def test_requests_that_found_no_thread_take_nobodys_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is such moments after which somebody looks at the metrics."""
    start = threading.Thread.start
    refused = 0

    def none_left(thread: threading.Thread) -> None:
        nonlocal refused
        if "process_request_thread" in thread.name and refused < MAX_CLIENTS:
            refused += 1
            raise RuntimeError("can't start new thread")
        start(thread)

    with HealthServer("127.0.0.1", 0, CollectorRegistry(), Health(stages=()), tuple) as server:
        monkeypatch.setattr(threading.Thread, "start", none_left)
        for _ in range(MAX_CLIENTS):
            with pytest.raises((RemoteDisconnected, ConnectionError)):
                urllib.request.urlopen(f"http://127.0.0.1:{server.port}/healthz", timeout=5.0)
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/healthz", timeout=5.0) as answer:
            assert answer.status == 200
    assert refused == MAX_CLIENTS
