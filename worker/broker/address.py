"""Where a line's Redis is: one server, a master that Sentinels watch, or the owner of the line's slot in a Cluster.

    redis://[user:password@]host[:6379][/db]                             one server; rediss:// with TLS, unix:///path
    redis+sentinel://[user:password@]host[:26379][,host…]/name[/db]      the master that Sentinels call `name`
    redis+cluster://[user:password@]host[:6379][,host…]                  a Cluster: some of its nodes

`rediss+sentinel://` and `rediss+cluster://` speak TLS, to Sentinels too. Where Sentinels want a login of their own,
`?sentinel_username=…&sentinel_password=…` has it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

from gaussline.worker.errors import SettingsError

Node = tuple[str, int]
"""Host and port."""
SCHEMES: Final = ("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
_PORTS: Final = {"sentinel": 26379, "cluster": 6379}


@dataclass(frozen=True, slots=True)
class Address:
    """A URL of several nodes, taken apart.

    Attributes:
        kind: `sentinel` or `cluster`.
        nodes: Sentinels, or nodes of the Cluster, to ask first.
        service: name of the master, of Sentinels alone.
        username, password: for the Redis servers.
        sentinel_username, sentinel_password: for the Sentinels.
    """

    kind: str
    tls: bool
    nodes: tuple[Node, ...]
    service: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None

    def __repr__(self) -> str:
        return f"Address({self.kind}, {self.nodes}, {self.service!r})"


def is_topology(url: str) -> bool:
    """The URL names Sentinels or a Cluster, and not one server."""
    return url.partition("://")[0] in SCHEMES


def parse(url: str) -> Address:
    """Take a URL of several nodes apart. Raises SettingsError, which shows no secret."""
    parts = urlsplit(url)
    kind = parts.scheme.partition("+")[2]
    login, _, places = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    path = [part for part in parts.path.split("/") if part]
    options = dict(parse_qsl(parts.query))
    unknown = sorted(set(options) - ({"sentinel_username", "sentinel_password"} if kind == "sentinel" else set()))
    if unknown:
        raise SettingsError(f"redis_url: a {kind} URL has no option {', '.join(unknown)}")
    nodes = tuple(_node(place, _PORTS[kind]) for place in places.split(",") if place)
    if not nodes:
        raise SettingsError(f"redis_url names no host: {_HOW[kind]}")
    if kind == "cluster" and (path or parts.path not in ("", "/")):
        raise SettingsError(
            f"redis_url: a Cluster has one database and no name, so nothing stands behind its hosts: {_HOW[kind]}"
        )
    if kind == "sentinel" and not 1 <= len(path) <= 2:
        raise SettingsError(f"redis_url names no master: {_HOW[kind]}")
    db = path[1] if len(path) == 2 else "0"
    if not db.isdigit():
        raise SettingsError(f"redis_url: database {db!r} is no number: {_HOW[kind]}")
    return Address(
        kind,
        parts.scheme.startswith("rediss"),
        nodes,
        unquote(path[0]) if path else "",
        int(db),
        unquote(user) or None,
        unquote(password) or None,
        options.get("sentinel_username"),
        options.get("sentinel_password"),
    )


def check_login(url: str) -> None:
    """Raises SettingsError, which shows nothing of it, where a user or password holds a sign that ends it in a URL.

    What stands before that sign would be taken for the host, and told in errors, asked of name servers.
    """
    rest = re.sub(r"password=[^&]*", "", url.partition("://")[2])
    place = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if not url.startswith("unix://") and "@" in rest[len(place) :]:
        raise SettingsError(
            "redis_url: its user or password holds a '/', '?' or '#', which must stand there as %2F, %3F or %23; "
            "a file is better: redis_password_file"
        )


def with_login(url: str, user: str | None, password: str | None) -> str:
    """The URL with this user and password in the place of its own; what is None stays. ValueError where it is none."""
    if user is None and password is None:
        return url
    parts = urlsplit(url)
    login, _, place = parts.netloc.rpartition("@")
    own_user, colon, own_password = login.partition(":")
    login = own_user if user is None else quote(user, safe="")
    if password is not None:
        login += f":{quote(password, safe='')}"
    elif colon:
        login += f":{own_password}"
    return urlunsplit(parts._replace(netloc=f"{login}@{place}"))


_HOW: Final = {
    "sentinel": "use redis+sentinel://host:26379,host2:26379/name",
    "cluster": "use redis+cluster://host:6379,host2:6379",
}


def _node(place: str, default: int) -> Node:
    host, colon, port = place.rpartition(":")
    if not colon or place.endswith("]"):  # no port, or an IPv6 address in brackets without one
        host, port = place, str(default)
    if not port.isdigit() or not 0 < int(port) < 65_536:
        raise SettingsError(f"redis_url: {place!r} is no host:port")
    return host.strip("[]"), int(port)
