"""`gaussline learn`: keep one model's Gaussian true while the line drifts."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from signal import Signals
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gaussline.worker.commands.options import Line, RedisUrl, load_settings, secrets_of
from gaussline.worker.commands.priority import give_way
from gaussline.worker.commands.signals import on_signals
from gaussline.worker.errors import BrokerUnavailable, Fenced, NotFound

if TYPE_CHECKING:
    from gaussline.worker.learning.learner import Learner

EPILOG = """\b
Examples:
  GAUSSLINE_FEATURES=all gaussline worker                 (workers write what they see)
  gaussline learn default                                 (one for each model)
  GAUSSLINE_LEARN_HALF_LIFE_HOURS=8 gaussline learn press4 --line hall2
  gaussline learn default --once --json                   (what stands in the log, then a checkpoint, then the end)

A second learner of the same model ends with an error: the first one holds the lease. Killed at any instant, a learner
goes on from its checkpoint with the same moments, bit for bit."""
IDLE_S = 0.25
RETRY_S = (0.1, 5.0)
FIRST_VERSION_S = 1.0
"""How often a learner that waits looks for Redis, and for a first version to learn for."""


def learn(
    model: Annotated[str, typer.Argument(help="Name of the model to learn for.")] = "default",
    once: Annotated[bool, typer.Option("--once", help="Learn what is in the log now, checkpoint, and end.")] = False,
    empty: Annotated[
        bool, typer.Option("--empty", help="With no checkpoint yet: begin with nothing, not with the stable version.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Set the checkpoint aside and begin anew at the log's oldest entry.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of this process in the lease.")] = None,
    http_port: Annotated[
        int | None, typer.Option(help="Port of /metrics, /healthz, /readyz; 0: a free one; none: none.")
    ] = None,
    connect_for: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a Redis that is not there yet at the start.")
    ] = 0.0,
    check: Annotated[bool, typer.Option("--check", help="Check settings, port and Redis, and exit.")] = False,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="json or text.")] = None,
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True)] = False,
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was learnt as JSON at the end.")] = False,
) -> None:
    """Fold the feature events of one model into its moments, watch for drift, and propose versions.

    Only frames that pass the gate teach, each once, after the quarantine; frames of the calibration reservoir never do.
    A proposed version judges nothing until it is promoted. Before the first version is promoted a learner waits.
    SIGTERM or Ctrl-C checkpoints and ends.
    """
    import json

    import prometheus_client as prometheus

    from gaussline.worker.broker.client import open_redis
    from gaussline.worker.broker.seal import open_seal
    from gaussline.worker.broker.soundness import unsound
    from gaussline.worker.commands.checks import port_is_free, redis_is_sound, report
    from gaussline.worker.learning.policy import Policy
    from gaussline.worker.learning.proposal import Proposer
    from gaussline.worker.learning.session import Rhythm, Session
    from gaussline.worker.telemetry.health import Health
    from gaussline.worker.telemetry.learning import LearnerMetrics
    from gaussline.worker.telemetry.logs import configure
    from gaussline.worker.telemetry.server import HealthServer

    settings = load_settings(redis_url=redis_url, line=line, log_level=log_level, log_format=log_format)
    policy = Policy.of(settings)
    client = open_redis(settings)
    if check:
        ports = [] if http_port is None else [port_is_free(settings.http_host, http_port)]
        report([*ports, redis_is_sound(client)])
        return
    if not once:
        give_way(settings.learn_nice)
    owner = name or f"{socket.gethostname()}-{os.getpid()}"
    logger = configure(settings.log_level, settings.log_format, secrets=secrets_of(settings))
    registry = prometheus.CollectorRegistry()
    metrics = LearnerMetrics(registry, settings.line, model)

    def say(event: str, **fields: Any) -> None:
        logger.info(event, extra={"learner": owner, "model": model, **fields})

    def notice(said: Any) -> None:
        metrics.notice(said)
        say(said.kind, camera=said.camera, **{key: value for key, value in said.facts.items() if key != "note"})

    session = Session(
        client,
        settings.line,
        model,
        policy,
        owner=owner,
        rhythm=Rhythm(checkpoint_s=settings.learn_checkpoint_s),
        from_base=not empty,
        seal=open_seal(settings),
        on_notice=notice,
    )
    stopping = threading.Event()
    parent = os.getppid()

    def stop(number: Signals) -> None:
        say("stopping", signal=number.name)
        stopping.set()

    health = Health(stages=("learn",))
    waits: list[str] = ["the learner starts"]
    end_s = time.monotonic() + connect_for

    def opened() -> Learner | None:
        """The learner; None where it was told to stop while it waited for Redis, or for a first version."""
        while not stopping.is_set():
            health.turned("learn")
            try:
                found = session.open(restart=restart)
            except BrokerUnavailable as error:
                if time.monotonic() + RETRY_S[1] > end_s:
                    raise
                waits[:] = [str(error)]
            except NotFound as error:
                if once:
                    raise
                if waits != [str(error)]:
                    say("waiting", why=str(error))
                waits[:] = [str(error)]
            else:
                for mistake in unsound(client):
                    logger.warning(mistake, extra={"learner": owner})
                return found
            stopping.wait(FIRST_VERSION_S)
        return None

    server: AbstractContextManager[object] = nullcontext()
    if http_port is not None:
        server = HealthServer(settings.http_host, http_port, registry, health, lambda: tuple(waits))
    retry_s = RETRY_S[0]
    try:
        with server, on_signals(stop, lambda number: os._exit(128 + number)):
            learner = opened()
            if learner is None:
                say("stopped")
                return
            say("learning", position=learner.position, last_id=learner.scouted_id, frames=learner.moments[0].count)
            waits.clear()
            proposer = Proposer(session, by=f"learner {owner}")
            while not stopping.is_set():
                health.turned("learn")
                try:
                    begin_s = time.perf_counter()
                    folded = session.step(time.monotonic())
                    learner = session.learner  # a new one where Redis was started again
                    if folded and learner.due():
                        proposer.propose()
                    if folded:
                        metrics.folded(time.perf_counter() - begin_s)
                    metrics.observe(learner)
                    waits.clear()
                    retry_s = RETRY_S[0]
                except Fenced:
                    raise
                except BrokerUnavailable as error:
                    waits[:] = [str(error)]
                    logger.warning("redis is away", extra={"learner": owner, "error": str(error)})
                    stopping.wait(retry_s)
                    retry_s = min(2 * retry_s, RETRY_S[1])
                    continue
                if not folded:
                    if once:
                        break
                    stopping.wait(IDLE_S)
                if with_parent and os.getppid() != parent:
                    break
            session.close()
    finally:
        session.abandon()
    told = {
        "model": model,
        "position": learner.position,
        "last_id": learner.scouted_id,
        "frames": learner.moments[0].count,
        "effective_size": learner.moments[0].effective_size,
        "counts": dict(learner.counts),
    }
    say("stopped", **{key: value for key, value in told.items() if key != "model"})
    if as_json:
        typer.echo(json.dumps(told))
