"""What `--check` of the long-running commands looks at: everything that is wrong at once, a line each, and no start."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import typer

from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.soundness import unsound
from gaussline.worker.commands.mistakes import tell
from gaussline.worker.errors import BrokerError, GausslineError

Look = Callable[[], str]
"""Says what is well; raises GausslineError, a line a mistake."""


def report(looks: Iterable[Look]) -> None:
    """Look everywhere, whatever was found before. Raises typer.Exit with the code of the first mistake."""
    codes = []
    for look in looks:
        try:
            typer.echo(look())
        except GausslineError as error:
            codes.append(tell(error))
    if codes:
        raise typer.Exit(codes[0])


def port_is_free(host: str, port: int) -> Look:
    """A look at an address that is to be served."""

    def look() -> str:
        from prometheus_client import CollectorRegistry

        from gaussline.worker.telemetry.health import Health
        from gaussline.worker.telemetry.server import HealthServer

        server = HealthServer(host, port, CollectorRegistry(), Health(), tuple)
        server.close()
        return f"{host}:{server.port} is free"

    return look


def redis_is_sound(client: Redis) -> Look:
    """A look at Redis, its eviction policy and its clock."""

    def look() -> str:
        mistakes = unsound(client)
        if mistakes:
            raise BrokerError("\n".join(mistakes))
        return "Redis answers, evicts nothing, and its clock is ours"

    return look
