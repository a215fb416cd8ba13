"""Options that commands share, and how a command comes by its connection."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from typing import Annotated

import typer

from gaussline.worker.broker.client import Redis, connect
from gaussline.worker.settings import Settings

RedisUrl = Annotated[str | None, typer.Option("--redis-url", help="Redis; default GAUSSLINE_REDIS_URL.")]
Line = Annotated[str | None, typer.Option("--line", help="Line; default GAUSSLINE_LINE.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
By = Annotated[str, typer.Option("--by", help="Who; it stands in the history. Default: the login name.")]
Note = Annotated[str, typer.Option("--note", help="Why; it stands in the history.")]


@dataclass(frozen=True, slots=True)
class Connection:
    """A line, connected."""

    client: Redis
    line: str
    settings: Settings


def open_line(redis_url: str | None, line: str | None) -> Connection:
    """Connect to a line. Raises SettingsError."""
    settings = Settings.load(redis_url=redis_url, line=line)
    client = connect(settings.redis_url.get_secret_value(), timeout_s=settings.redis_timeout_s)
    return Connection(client, settings.line, settings)


def who(by: str) -> str:
    """The given name, else the login name."""
    return by or getpass.getuser()
