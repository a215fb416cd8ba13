"""Options that commands share, and how a command comes by its settings and its connection."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import typer
from pydantic import SecretStr

from gaussline.worker.broker.address import with_login
from gaussline.worker.broker.client import Redis, open_redis, read_password
from gaussline.worker.broker.registry import Registry
from gaussline.worker.broker.seal import Seal, open_seal
from gaussline.worker.errors import SourceError
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

    def seal(self) -> Seal:
        """What signs and checks artefacts here. Raises SettingsError."""
        return open_seal(self.settings)

    def registry(self) -> Registry:
        """The line's versions, under that seal. Raises SettingsError."""
        return Registry(self.client, self.line, seal=self.seal())


def load_settings(**options: Any) -> Settings:
    """Settings of the environment and the options, user and password put into the URL. Raises SettingsError."""
    settings = Settings.load(**options)
    url = settings.redis_url.get_secret_value()
    try:
        url = with_login(url, settings.redis_user, read_password(settings))
    except ValueError:
        return settings  # whoever connects says that it is no URL
    return settings.model_copy(update={"redis_url": SecretStr(url)})


def secrets_of(settings: Settings) -> tuple[str, ...]:
    """What must never be written anywhere: passwords, as they stand in the URL and as they are."""
    parts = urlsplit(settings.redis_url.get_secret_value())
    options = parse_qs(parts.query)
    words = [
        parts.password or "",
        *(word for name in ("password", "sentinel_password") for word in options.get(name, [])),
    ]
    return tuple({form for word in words if word for form in (word, quote(word, safe=""), unquote(word))})


def open_line(redis_url: str | None, line: str | None, **options: Any) -> Connection:
    """Connect to a line. Raises SettingsError."""
    settings = load_settings(redis_url=redis_url, line=line, **options)
    client = open_redis(settings)
    return Connection(client, settings.line, settings)


def who(by: str) -> str:
    """The given name, else the login name, `unknown` where the system knows none (a container's bare number)."""
    if by:
        return by
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def write_file(path: Path, data: bytes) -> None:
    """Write a whole file or nothing of it. Raises SourceError, saying why not."""
    spare = path.with_name(f".{path.name}.part")
    try:
        spare.write_bytes(data)
        spare.replace(path)
    except OSError as error:
        spare.unlink(missing_ok=True)
        raise SourceError(f"{path} cannot be written: {error.strerror or error}") from None


def read_file(path: Path) -> bytes:
    """A whole file. Raises SourceError, saying why not."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from None
