"""`gaussline worker`: judge frames until told to stop."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from signal import Signals
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gaussline.worker.broker.cameras import DEFAULT_MODEL
from gaussline.worker.broker.client import redact
from gaussline.worker.broker.soundness import unsound
from gaussline.worker.commands.options import Line, RedisUrl, load_settings, secrets_of
from gaussline.worker.commands.side_learner import SideLearner, learning
from gaussline.worker.commands.signals import on_signals
from gaussline.worker.errors import BrokerUnavailable, ModelError, SettingsError
from gaussline.worker.settings import Settings

if TYPE_CHECKING:
    from gaussline.worker.engine.host import Host

EPILOG = """\b
Examples:
  gaussline worker --redis-url redis://10.0.0.5:6379/0 --line press4
  gaussline worker --weights mobilenet_v2.pth --http-port 0 --log-format text
  gaussline worker --devices all                    (one supervised process for each GPU, on ports 9108, 9130, 9131, …)
  gaussline worker --set b4 --weights efficientnet_b4.pth
  gaussline worker --learn                                (and follow the line's drift, on a small site)
  gaussline worker --check

Every setting is an environment variable too (GAUSSLINE_BATCH_WAIT_MS, GAUSSLINE_INTAKE_BYTES, …)."""
RETRY_S = (0.1, 1.0)


def worker(
    weights: Annotated[Path | None, typer.Option(help="Weights file; default GAUSSLINE_WEIGHTS.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of this worker; none makes one of host and process.")] = None,
    worker_set: Annotated[
        str | None, typer.Option("--set", help="Set of workers that it belongs to, see 'gaussline sets'; default main.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    devices: Annotated[
        str | None,
        typer.Option(help="One supervised process for each: 'all' GPUs, or a list such as cuda:0,cuda:1 or cpu,cpu."),
    ] = None,
    http_host: Annotated[str | None, typer.Option(help="Address of /metrics, /healthz, /readyz.")] = None,
    http_port: Annotated[int | None, typer.Option(help="Port of the same; 0 takes a free one and logs it.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="json or text.")] = None,
    connect_for: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a Redis that is not there yet at the start.")
    ] = 0.0,
    learn: Annotated[
        bool, typer.Option("--learn", help="Learn too, in a process beside it: one command for a small site.")
    ] = False,
    redis_url: RedisUrl = None,
    line: Line = None,
    check: Annotated[bool, typer.Option("--check", help="Check settings, port, Redis and model, and exit.")] = False,
) -> None:
    """Judge frames of all cameras of a line.

    Takes the backbone that the promoted model names, waits where there is none, and follows promotions within a second.
    SIGTERM or Ctrl-C drains (GAUSSLINE_DRAIN_S); a second one quits at once, and loses nothing either: what was in hand
    is claimed by the other workers.

    With --devices a worker that ends is started again, after a growing pause; signals are handed on to all of them. One
    that refuses its settings (exit code 2) ends all: starting it again would not help.
    """
    options = {
        "weights": weights,
        "worker_name": name,
        "worker_set": worker_set,
        "device": device,
        "http_host": http_host,
        "http_port": http_port,
        "log_level": log_level,
        "log_format": log_format,
        "redis_url": redis_url,
        "line": line,
    }
    settings = load_settings(**options)
    if learn:
        settings = settings.model_copy(update=learning(settings))
    if devices is not None:
        from gaussline.worker.commands.supervisor import supervise
        from gaussline.worker.telemetry.logs import configure

        if device is not None or check or learn:
            raise SettingsError("--devices goes with neither --device nor --check nor --learn")
        logger = configure(settings.log_level, settings.log_format, secrets=secrets_of(settings))
        code = supervise(devices, settings, options, connect_for, logger)
        if code:
            raise typer.Exit(code)
    elif check:
        _check(settings)
    else:
        _serve(settings, connect_for, learn=learn)


def _check(settings: Settings) -> None:
    """Try everything that a start needs, and say everything that is wrong at once."""
    from gaussline.worker.broker.client import time_us
    from gaussline.worker.broker.kept_store import open_kept_store
    from gaussline.worker.broker.registry import Registry
    from gaussline.worker.broker.seal import open_seal
    from gaussline.worker.commands.checks import port_is_free, redis_is_sound, report
    from gaussline.worker.engine.book import first_model_of
    from gaussline.worker.engine.host import Host

    host = Host(settings)
    answers: list[str] = []

    def redis() -> str:
        time_us(host.client)
        answers.append("yes")
        return redis_is_sound(host.client)()

    def kept() -> str:
        open_kept_store(settings)
        return f"kept frames go to {redact(settings.kept_store)}"

    def line() -> str:
        if not answers:
            return f"line {settings.line}: not looked at, for Redis does not answer"
        found = first_model_of(
            Registry(host.client, settings.line, seal=open_seal(settings)), host.client, settings.worker_set
        )
        if found is None:
            return f"line {settings.line}: no model is promoted yet, a worker would wait for one"
        host.open(found[1])
        reasons = host.readiness(checking=True).reasons
        if reasons:
            raise ModelError("\n".join(reasons))
        return f"line {settings.line}: {found[0].model} version {found[0].version} runs as {host.runtime}"

    report([port_is_free(settings.http_host, settings.http_port), redis, kept, line])


def _serve(settings: Settings, connect_for_s: float, *, learn: bool) -> None:
    import prometheus_client as prometheus

    from gaussline.worker.engine.host import Host, worker_name
    from gaussline.worker.engine.observer import Observer, Observers
    from gaussline.worker.telemetry.health import ANSWER_S, Health, Promptly
    from gaussline.worker.telemetry.logs import LogObserver, configure
    from gaussline.worker.telemetry.metrics import Metrics
    from gaussline.worker.telemetry.server import HealthServer
    from gaussline.worker.tracing import open_spans
    from gaussline.worker.vision.runtime import resolve_device

    resolve_device(settings.device)  # now, not when the first model is promoted
    name = worker_name(settings)
    logger = configure(settings.log_level, settings.log_format, secrets=secrets_of(settings))
    logging.captureWarnings(True)
    without_created: Callable[[], None] = prometheus.disable_created_metrics
    without_created()  # they double the series, and nobody asks for them
    registry = prometheus.CollectorRegistry()
    for collector in (prometheus.ProcessCollector, prometheus.PlatformCollector, prometheus.GCCollector):
        collector(registry=registry)
    metrics, health, log = Metrics(registry, settings.line, name), Health(), LogObserver(logger, name)
    observers: list[Observer] = [metrics, health, log]

    def trouble(error: Exception) -> None:
        for each in observers:
            each.trouble("trace", error)

    spans = open_spans(settings, "gaussline-worker", name, on_trouble=trouble)
    if spans is not None:
        from gaussline.worker.telemetry.traces import TraceObserver

        observers.append(TraceObserver(spans))
    host = Host(settings, Observers(*observers))
    metrics.watch_held(lambda: host.held_bytes)

    def say(event: str, **fields: Any) -> None:
        logger.info(event, extra={"worker": name, **fields})

    def drain(number: Signals) -> None:
        say("draining", signal=number.name, within_s=settings.drain_s)
        health.drain()
        host.stop()

    def quit_at_once(number: Signals) -> None:
        say("quitting at once", signal=number.name)
        os._exit(128 + number)

    readiness = Promptly(lambda: host.readiness().reasons, f"Redis does not answer within {ANSWER_S} s")
    server = HealthServer(settings.http_host, settings.http_port, registry, health, readiness)
    with server, on_signals(drain, quit_at_once):
        say("started", line=settings.line, http_host=settings.http_host, http_port=server.port, pid=os.getpid())
        _wait_for_redis(host, connect_for_s)
        for mistake in [] if host.stopping else unsound(host.client):
            logger.warning(mistake, extra={"worker": name})
        model = host.wait_for_model()
        if model is not None:
            host.open(model)
        if model is None or host.stopping:
            say("stopped", released_messages=0)
            return
        if model.spec.random_weights:
            logger.warning("RANDOM WEIGHTS: every verdict means nothing", extra={"worker": name})
        try:
            with SideLearner(_learnt(host, settings), settings, say) if learn else contextlib.nullcontext():
                released = host.run(lambda: say("ready", runtime=str(host.runtime)))
        finally:
            if spans is not None:
                spans.close()
        log.tell_ended(all_of_them=True)
        say("stopped", released_messages=released)


def _learnt(host: Host, settings: Settings) -> str:
    """The model that the worker took its backbone from."""
    from gaussline.worker.broker.registry import Registry
    from gaussline.worker.broker.seal import open_seal
    from gaussline.worker.engine.book import first_model_of

    registry = Registry(host.client, settings.line, seal=open_seal(settings))
    found = first_model_of(registry, host.client, settings.worker_set)
    return DEFAULT_MODEL if found is None else found[0].model


def _wait_for_redis(host: Host, connect_for_s: float) -> None:
    """A Redis that cannot be reached at the start is a mistake, unless the caller said how long to wait for it."""
    from gaussline.worker.broker.client import time_us

    end = time.monotonic() + connect_for_s
    pause_s = RETRY_S[0]
    while not host.stopping:
        try:
            time_us(host.client)
        except BrokerUnavailable:
            if time.monotonic() + pause_s > end:
                raise
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_S[1])
        else:
            return
