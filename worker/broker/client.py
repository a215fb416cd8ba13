"""The connection to Redis, and the border where redis-py's errors become gaussline's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gaussline.worker.errors import BrokerError, BrokerUnavailable, SettingsError

Redis: TypeAlias = Any
"""A redis-py client that answers bytes. Its own annotations mix sync and async answers, and help nobody here."""

_SECRET = re.compile(r"(://)[^/@\s]*@")


def redact(text: str) -> str:
    """The text without the user and password of any URL in it."""
    return _SECRET.sub(r"\1***@", text)


def connect(url: str, *, timeout_s: float = 5.0, password: str | None = None) -> Redis:
    """A client for `url` (redis://, rediss:// or unix://). Connects on first use; answers bytes.

    Raises SettingsError where the URL is none.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "health_check_interval": 15,
        # Retrying is decided by the loops, which know what may be sent twice.
        "retry": Retry(NoBackoff(), 0),
    }
    if password is not None:
        options["password"] = password
    if not url.startswith("unix://"):
        options["socket_keepalive"] = True
    try:
        return redis.Redis.from_url(url, **options)
    except ValueError as error:
        raise SettingsError(
            f"redis_url {redact(url)!r} is no Redis URL ({redact(str(error))}): use redis://host:port/0, "
            "rediss://… for TLS, or unix:///path"
        ) from None


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Translate redis-py's errors: BrokerUnavailable where Redis cannot be reached, BrokerError where it refused."""
    try:
        yield
    except redis.exceptions.AuthenticationError as error:
        raise BrokerUnavailable(f"{what}: Redis refused the login: {redact(str(error))}") from None
    except (redis.exceptions.BusyLoadingError, redis.exceptions.ReadOnlyError) as error:
        raise BrokerUnavailable(f"{what}: Redis is not ready: {redact(str(error))}") from None
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
        raise BrokerUnavailable(f"{what}: Redis cannot be reached: {redact(str(error))}") from None
    except redis.exceptions.RedisError as error:
        if str(error).startswith("MISCONF"):  # its disk is full, or broken: it takes no writes until that is mended
            raise BrokerUnavailable(f"{what}: Redis is not ready: {redact(str(error))}") from None
        raise BrokerError(f"{what}: Redis refused: {redact(str(error))}") from None


def time_us(client: Redis) -> int:
    """Redis's own time, microseconds since the Unix epoch."""
    with translated("reading Redis's clock"):
        seconds, micros = client.time()
        return int(seconds) * 1_000_000 + int(micros)
