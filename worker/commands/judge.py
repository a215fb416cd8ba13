"""`gaussline judge`: the roll-out judge of a line."""

from __future__ import annotations

import json
import threading
import time
from contextlib import nullcontext
from typing import Annotated, Any

import typer

from gaussline.worker.broker.control import Control
from gaussline.worker.broker.retention import Collector, Keep
from gaussline.worker.commands.console import err, out
from gaussline.worker.commands.options import Json, Line, RedisUrl, open_line
from gaussline.worker.commands.signals import on_signals
from gaussline.worker.errors import BrokerError

EPILOG = """\b
Examples:
  gaussline judge
  gaussline judge --once --json

Trials are begun with 'gaussline models promote NAME VERSION --canary 10% --for 30m', and shown by 'gaussline models
trials NAME'. One judge a line is enough; a second one changes nothing, and takes over when the first ends."""
PERIOD_S = 1.0
COLLECT_S = 60.0


def judge(
    once: Annotated[bool, typer.Option("--once", help="Count and rule once, and end.")] = False,
    http_port: Annotated[
        int | None, typer.Option(help="Port of /metrics, /healthz, /readyz; 0: a free one; none: none.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check settings, port and Redis, and exit.")] = False,
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """Judge the line's trials: count canary and shadow against stable; promote, hold or roll back by their rules.

    Once a minute it deletes artefacts of versions that nothing needs any more (GAUSSLINE_MODELS_…), as 'gaussline
    models gc' does.
    """
    from prometheus_client import CollectorRegistry

    from gaussline.worker.commands.checks import port_is_free, redis_is_sound, report
    from gaussline.worker.learning.trial_judge import Ruling, TrialJudge
    from gaussline.worker.telemetry.health import Health
    from gaussline.worker.telemetry.rollout import JudgeMetrics
    from gaussline.worker.telemetry.server import HealthServer

    opened = open_line(redis_url, line)
    host = opened.settings.http_host
    if check:
        ports = [] if http_port is None else [port_is_free(host, http_port)]
        report([*ports, redis_is_sound(opened.client)])
        return
    registry = CollectorRegistry()
    metrics, health = JudgeMetrics(registry, opened.line), Health(stages=("judge",))
    away: list[str] = []
    judging = TrialJudge(opened.client, opened.line, seal=opened.seal())
    control = Control(opened.client, opened.line)
    settings = opened.settings
    keep = Keep(settings.models_newest, settings.models_max_age_s, settings.models_max_bytes)
    collector, collected_s = Collector(opened.client, opened.line, keep), time.monotonic()
    stopping = threading.Event()

    def tell(ruling: Ruling) -> None:
        said: dict[str, Any] = ruling.report
        metrics.ruled(said["model"], said["channel"], said["state"])
        if as_json:
            out().print(json.dumps(said), soft_wrap=True, highlight=False, markup=False)
        else:
            what = f"{said['model']} version {said['version']} ({said['channel']})"
            out().print(f"{what}: {said['state']}; {said['why']}", highlight=False, markup=False, soft_wrap=True)

    if once:
        for ruling in judging.step():
            tell(ruling)
        return
    server = (
        nullcontext() if http_port is None else HealthServer(host, http_port, registry, health, lambda: tuple(away))
    )
    with server as served, on_signals(lambda _: stopping.set(), lambda _: stopping.set()):
        where = "" if served is None else f", metrics on http://{host}:{served.port}/metrics"
        err().print(f"judging the trials of line {opened.line}{where}; Ctrl-C ends", highlight=False)
        while not stopping.is_set():
            health.turned("judge")
            try:
                for ruling in judging.step():
                    tell(ruling)
                away.clear()
                if time.monotonic() - collected_s >= COLLECT_S:
                    for found, freed in collector.step():
                        what = f"{found.version.model} version {found.version.number}"
                        err().print(f"{what}: {freed} bytes freed; {found.why}", highlight=False, markup=False)
                    left = collector.orphans()
                    if left:
                        err().print(f"{left} bytes freed that uploads had left behind", highlight=False)
                    collected_s = time.monotonic()
                control.wait(PERIOD_S)
            except BrokerError as error:
                away[:] = [str(error)]
                err().print(f"{error}; trying again", highlight=False, markup=False)
                stopping.wait(PERIOD_S)
