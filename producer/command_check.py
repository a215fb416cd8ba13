"""`gaussline produce --check`: everything that a start needs, looked at without taking the camera."""

from __future__ import annotations

from collections.abc import Iterable

import typer

from gaussline.producer.metrics import MetricsServer
from gaussline.producer.producer import Producer
from gaussline.producer.shot import Shot
from gaussline.worker.errors import BrokerError, BrokerUnavailable, GausslineError, SourceError


def waits(producer: Producer) -> tuple[str, ...]:
    """Why no frame can be sent now."""
    if not producer.epoch:
        return ("the camera is not open yet: Redis has not answered",)
    return ("a message waits for Redis to come back",) if producer.unsent else ()


def look(producer: Producer, shots: Iterable[Shot], server: MetricsServer | None) -> None:
    """Look at everything that a start needs, the port being had already; say every mistake, and start nothing."""

    def redis() -> str:
        mistakes = producer.unsound()
        if mistakes:
            raise BrokerError("\n".join(mistakes))
        return "Redis answers, evicts nothing, and its clock is ours"

    def source() -> str:
        shot = next(iter(shots), None)
        if shot is None:
            raise SourceError("the source gives no frame")
        return f"the source gives frames, such as {shot.name or 'one without a name'}"

    if server is not None:
        server.close()
    failed = 0
    for one in (redis, source):
        try:
            typer.echo(one())
        except GausslineError as error:
            advice = f"; {error.advice}" if error.advice else ""
            for line in str(error).splitlines():
                typer.echo(f"gaussline: {line}{advice}", err=True)
            code = 2 if isinstance(error, SourceError) else 3 if isinstance(error, BrokerUnavailable) else 1
            failed = failed or code
    producer.close()
    if failed:
        raise typer.Exit(failed)
