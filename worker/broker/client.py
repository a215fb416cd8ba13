"""The connection to Redis, and the border where redis-py's errors become gaussline's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gaussline.worker.broker.address import check_login, is_topology, parse, with_login
from gaussline.worker.broker.followed import LineClient, follow
from gaussline.worker.broker.replication import NO_WAITING, Waiting
from gaussline.worker.errors import BrokerError, BrokerUnavailable, SettingsError
from gaussline.worker.settings import Settings

Redis: TypeAlias = Any
"""A redis-py client that answers bytes. Its own annotations mix sync and async answers, and help nobody here."""

READ_BYTES = 2**18
"""Most bytes of one read: frames are large, and redis-py's own 64 kB would take four reads where one will do."""
_SECRET = re.compile(r"(://)\S*@")  # to the last @: a password may hold one, and should not hold a /, but may
_SECRET_OPTION = re.compile(r"(password=)[^&\s'\"]*")
_FOR_NOW = re.compile(r"(?:^|-)(BUSY|MISCONF|NOREPLICAS|READONLY|UNBLOCKED)\b")
"""Refusals that end by themselves, or by an operator's hand: a long script of somebody's, a full disk, a failover.
Redis 6.2 puts the code of an error inside a script into the middle of its text; where redis-py has a class for a code,
the text goes without it."""


def redact(text: str) -> str:
    """The text without the user and password of any URL in it."""
    return _SECRET_OPTION.sub(r"\1***", _SECRET.sub(r"\1***@", text))


@dataclass(frozen=True, slots=True)
class Tls:
    """How a rediss:// connection is secured.

    Attributes:
        ca: file of the certificates that may have signed the server's; None takes the system's.
        cert, key: our own certificate and its key, where the server asks for one.
        check_hostname: the server's certificate must name the host of the URL.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    check_hostname: bool = True


def connect(
    url: str,
    *,
    timeout_s: float = 5.0,
    user: str | None = None,
    password: str | None = None,
    tls: Tls | None = None,
    line: str | None = None,
    waiting: Waiting = NO_WAITING,
) -> Redis:
    """A client for `url`: one server, the master of Sentinels, or the owner of `line`'s slot in a Cluster (`address`).

    A user and a password that are given stand in the place of the URL's.
    Connects on first use; answers bytes. Raises SettingsError where the URL is none, where certificates are given for a
    connection without TLS, and where a Cluster's line is not named.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "health_check_interval": 15,
        "socket_read_size": READ_BYTES,
        # Retrying is decided by the loops, which know what may be sent twice.
        "retry": Retry(NoBackoff(), 0),
    }
    if not url.startswith("unix://"):
        options["socket_keepalive"] = True
    if url.startswith("rediss"):
        options |= tls_options(tls or Tls())
    elif tls is not None and tls != Tls():
        raise SettingsError(f"redis_tls_… is set, but redis_url {redact(url)!r} is not rediss://")
    check_login(url)
    try:
        whole = with_login(url, user, password)
        if is_topology(url):
            client: Any = follow(parse(whole), line, options, timeout_s=timeout_s)
        else:
            client = LineClient.from_url(whole, **options)
    except ValueError as error:
        raise SettingsError(
            f"redis_url {redact(url)!r} is no Redis URL ({redact(str(error))}): use redis://host:port/0, "
            "rediss://… for TLS, unix:///path, redis+sentinel://host,host2/name, or redis+cluster://host,host2"
        ) from None
    client.waiting = waiting
    return client


def tls_options(tls: Tls) -> dict[str, Any]:
    """The same as redis-py names it. Raises SettingsError for a file that cannot be read."""
    for name, path in (("ca", tls.ca), ("cert", tls.cert), ("key", tls.key)):
        try:
            if path is not None:
                path.open("rb").close()
        except OSError as error:
            raise SettingsError(f"redis_tls_{name} {path} cannot be read: {error.strerror or error}") from None
    if (tls.cert is None) != (tls.key is None):
        raise SettingsError("redis_tls_cert and redis_tls_key belong together: set both, or none")
    options: dict[str, Any] = {"ssl_cert_reqs": "required", "ssl_check_hostname": tls.check_hostname}
    named = {"ssl_ca_certs": tls.ca, "ssl_certfile": tls.cert, "ssl_keyfile": tls.key}
    return options | {name: str(path) for name, path in named.items() if path is not None}


def open_redis(settings: Settings) -> Redis:
    """The client that the settings describe: URL, user, password file, TLS. Raises SettingsError."""
    tls = Tls(settings.redis_tls_ca, settings.redis_tls_cert, settings.redis_tls_key, settings.redis_tls_check_hostname)
    url, timeout_s = settings.redis_url.get_secret_value(), settings.redis_timeout_s
    waiting = Waiting(settings.wait_replicas, settings.wait_timeout_s, settings.wait_policy == "hold")
    user, password = settings.redis_user, read_password(settings)
    return connect(url, timeout_s=timeout_s, user=user, password=password, tls=tls, line=settings.line, waiting=waiting)


def read_password(settings: Settings) -> str | None:
    """The password of its file, None where there is none. Raises SettingsError."""
    file = settings.redis_password_file
    if file is None:
        return None
    try:
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "it is no text"
        raise SettingsError(f"redis_password_file {file} cannot be read: {said}") from None


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Translate redis-py's errors: BrokerUnavailable where Redis cannot be reached, BrokerError where it refused."""
    try:
        yield
    except redis.exceptions.AuthenticationError as error:
        raise BrokerUnavailable(f"{what}: Redis refused the login: {redact(str(error))}") from None
    except (
        redis.exceptions.BusyLoadingError,
        redis.exceptions.ReadOnlyError,
        redis.exceptions.ClusterDownError,
        redis.exceptions.TryAgainError,
    ) as error:
        raise BrokerUnavailable(f"{what}: Redis is not ready: {redact(str(error))}") from None
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
        raise BrokerUnavailable(f"{what}: Redis cannot be reached: {redact(str(error))}") from None
    except redis.exceptions.InvalidResponse as error:
        raise BrokerUnavailable(f"{what}: what answers there is no Redis: {redact(str(error))}") from None
    except redis.exceptions.AskError as error:
        raise BrokerUnavailable(f"{what}: the line's slot is moving to another node: {redact(str(error))}") from None
    except redis.exceptions.NoPermissionError as error:
        raise BrokerError(
            f"{what}: this user of Redis has no right to it ({redact(str(error))}): docs/access.md says who does what"
        ) from None
    except redis.exceptions.RedisError as error:
        if _FOR_NOW.search(str(error)):
            raise BrokerUnavailable(f"{what}: Redis is not ready: {redact(str(error))}") from None
        raise BrokerError(f"{what}: Redis refused: {redact(str(error))}") from None


def time_us(client: Redis) -> int:
    """Redis's own time, microseconds since the Unix epoch."""
    with translated("reading Redis's clock"):
        seconds, micros = client.time()
        return int(seconds) * 1_000_000 + int(micros)
