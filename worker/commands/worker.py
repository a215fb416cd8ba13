"""`gaussline worker`: judge frames until told to stop."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from gaussline.worker.settings import Settings


def worker(
    weights: Annotated[Path | None, typer.Option(help="Weights file; default GAUSSLINE_WEIGHTS.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of this worker; none makes one.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    http_port: Annotated[
        int | None, typer.Option(help="Port of /metrics, /healthz, /readyz; 0 takes a free one.")
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="json or text.")] = None,
    redis_url: Annotated[str | None, typer.Option(help="Redis; default GAUSSLINE_REDIS_URL.")] = None,
    line: Annotated[str | None, typer.Option(help="Line; default GAUSSLINE_LINE.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Check settings, Redis and model, and exit.")] = False,
) -> None:
    """Judge frames of all cameras of a line.

    Takes the backbone that the promoted model names, waits where there is none, and follows promotions within a second.
    SIGTERM or Ctrl-C drains (GAUSSLINE_DRAIN_S); a second one quits at once, and loses nothing either.

    Example: gaussline worker --redis-url redis://10.0.0.5:6379/0 --line press4
    """
    from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

    from gaussline.worker.broker.client import time_us
    from gaussline.worker.broker.registry import Registry
    from gaussline.worker.engine.book import first_model
    from gaussline.worker.engine.host import Host
    from gaussline.worker.engine.observer import Observers
    from gaussline.worker.telemetry.health import Health, HealthServer
    from gaussline.worker.telemetry.logs import LogObserver, configure
    from gaussline.worker.telemetry.metrics import Metrics

    settings = Settings.load(
        weights=weights,
        worker_name=name,
        device=device,
        http_port=http_port,
        log_format=log_format,
        redis_url=redis_url,
        line=line,
    )
    logger = configure(settings.log_level, settings.log_format)
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    observers: list[object] = []
    health = Health()
    host = Host(settings, None)
    log = LogObserver(logger, host.name)
    observers += [Metrics(registry, settings.line, host.name), health, log]
    host.observe(Observers(*observers))  # type: ignore[arg-type]
    if check:
        time_us(host.client)
        found = first_model(Registry(host.client, settings.line))
        if found is None:
            typer.echo(f"line {settings.line}: Redis answers; no model is promoted yet")
            return
        host.open(found[1])
        typer.echo(
            f"line {settings.line}: Redis answers; {found[0].model} version {found[0].version} runs as {host.runtime}"
        )
        return
    server = HealthServer(settings.http_host, settings.http_port, registry, health, lambda: host.readiness().reasons)

    def stop(number: int, frame: object) -> None:
        if host.stopping:
            os._exit(128 + number)  # the frames in hand are claimed by the other workers
        logger.info("draining", extra={"worker": host.name, "signal": signal.Signals(number).name})
        host.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server.start()
    logger.info("started", extra={"worker": host.name, "line": settings.line, "http_port": server.port})
    try:
        time_us(host.client)  # a Redis that cannot be reached at the start is a mistake; later it is an outage
        model = host.wait_for_model()
        if model is None:
            return
        host.open(model)
        logger.info("ready", extra={"worker": host.name, "runtime": str(host.runtime)})
        released = host.run()
        logger.info("stopped", extra={"worker": host.name, "released_messages": released})
    finally:
        server.close()
