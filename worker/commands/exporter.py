"""`gaussline exporter`: metrics of the line itself, one small process beside its workers."""

from __future__ import annotations

import threading
from typing import Annotated

import typer

from gaussline.worker.commands.console import err
from gaussline.worker.commands.options import Line, RedisUrl, load_settings
from gaussline.worker.commands.signals import on_signals
from gaussline.worker.commands.units import EXPORTER_PORT

EPILOG = """\b
Examples:
  gaussline exporter
  gaussline exporter --http-host 0.0.0.0 --http-port 9110 --line press4

One exporter a line. It reads what any operator may read, and writes nothing."""
PORT = EXPORTER_PORT
ANSWER_S = 2.0
"""Longest look at Redis of one scrape."""


def exporter(
    http_host: Annotated[str | None, typer.Option(help="Address of /metrics, /healthz, /readyz.")] = None,
    http_port: Annotated[int, typer.Option(help="Port of the same; 0 takes a free one and says which.")] = PORT,
    redis_url: RedisUrl = None,
    line: Line = None,
    check: Annotated[bool, typer.Option("--check", help="Check settings, port and Redis, and exit.")] = False,
) -> None:
    """Serve metrics of the line: backlog, ledger, cameras, workers, versions, dead letters, Redis's memory."""
    from prometheus_client import CollectorRegistry

    from gaussline.worker.broker.certificates import CertificateWatch
    from gaussline.worker.broker.client import open_redis
    from gaussline.worker.broker.line_state import LineReader, LineState
    from gaussline.worker.commands.checks import port_is_free, redis_is_sound, report
    from gaussline.worker.errors import BrokerUnavailable
    from gaussline.worker.telemetry.health import Health, InTime, Promptly
    from gaussline.worker.telemetry.line_metrics import LineMetrics
    from gaussline.worker.telemetry.server import HealthServer

    settings = load_settings(http_host=http_host, redis_url=redis_url, line=line)
    client = open_redis(settings)
    if check:
        report([port_is_free(settings.http_host, http_port), redis_is_sound(client)])
        return
    reader = LineReader(client, settings.line)
    stopping = threading.Event()
    # Whoever scrapes gives up after a few seconds, and would be told nothing at all where Redis hangs.
    state = InTime(reader.read, ANSWER_S)

    def read() -> LineState:
        try:
            return state()
        except TimeoutError:
            raise BrokerUnavailable(f"Redis does not answer within {ANSWER_S:g} s") from None

    def ready() -> tuple[str, ...]:
        read()
        return ()

    registry = CollectorRegistry()
    registry.register(LineMetrics(read, settings.line, settings.line_budget_bytes, CertificateWatch(settings)))
    answers = Promptly(ready, "Redis does not answer")
    with (
        HealthServer(settings.http_host, http_port, registry, Health(), answers) as server,
        on_signals(lambda _: stopping.set(), lambda _: stopping.set()),
    ):
        said = f"metrics of line {settings.line} on http://{settings.http_host}:{server.port}/metrics; Ctrl-C ends"
        err().print(said, highlight=False)
        stopping.wait()
