"""`gaussline acl`: the users of a line as Redis's access control takes them."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from gaussline.worker.broker.acl import LIMITS_6_2, acl_file
from gaussline.worker.commands.options import Line, load_settings

EPILOG = """Examples:

  gaussline acl --line press4 >> /etc/redis/users.acl

  gaussline acl --line press4 --subscriber mes --subscriber scada

  gaussline acl --redis 6.2

Nobody can be one of these users until it has a password: redis-cli ACL SETUSER producer '>…', then ACL SAVE. See
deploy/redis/README.md. Talks to no Redis."""


def acl(
    subscriber: Annotated[
        list[str] | None, typer.Option(help="A subscriber, with a user of its own; may be repeated. (default: mes)")
    ] = None,
    redis: Annotated[Literal["7", "6.2"], typer.Option(help="The server's version: 7 or later, or 6.2.")] = "7",
    line: Line = None,
) -> None:
    """Print a line's users with the least that each of them needs."""
    settings = load_settings(line=line)
    version = 7 if redis == "7" else 6
    typer.echo(acl_file(settings.line, subscriber or ["mes"], redis=version), nl=False)
    if version < 7:
        typer.echo(LIMITS_6_2, err=True)
