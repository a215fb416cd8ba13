"""A client that stays with the master, wherever it goes: through Sentinel's failovers, and a Cluster's.

All keys of a line lie in one slot, so one connection to one server is all that a line needs, in a Cluster too: the
rest of the code knows nothing of topologies. What changes is only where a connection goes (asked anew each time) and
what ends it: an answer that says that this server is no master, or not ours.
"""

from __future__ import annotations

import re
from typing import Any, Final

import redis
from redis.connection import Connection, SSLConnection

from gaussline.worker.broker.address import Address
from gaussline.worker.broker.replication import NO_WAITING, Waiting
from gaussline.worker.broker.whereabouts import ASK_S, Sentinels, SlotOwner, Whereabouts
from gaussline.worker.errors import SettingsError

REDIRECTIONS: Final = 5
"""Most redirections of one command; more means that nodes disagree, and time must pass."""
_NO_MASTER: Final = re.compile(r"(?:^|-)(READONLY|NOREPLICAS|UNBLOCKED)\b")
"""Answers of a server that is no master (any more), or that knows that it may be cut off. Redis 6.2 puts the code of an
error inside a script into the middle of its text; where redis-py has a class for a code, the text goes without it."""


class Moved(redis.exceptions.ConnectionError):
    """The command was not carried out, because another server is the one to ask: it may be sent again."""


class _Follows:
    """What both kinds of connection do beside what redis-py's do."""

    def __init__(self, *, whereabouts: Whereabouts, **options: Any) -> None:
        self._whereabouts = whereabouts
        self._generation = -1
        super().__init__(**options)

    def connect(self) -> None:
        """To where the master is now; called before every use."""
        if self.is_connected_to_master:
            self._whereabouts.look_again()
            if self.is_connected_to_master:
                return
        self.disconnect()  # type: ignore[attr-defined]
        self.host, self.port = self._whereabouts.find()
        self._generation = self._whereabouts.generation
        try:
            super().connect()  # type: ignore[misc]
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            self._whereabouts.forget()
            raise

    @property
    def is_connected_to_master(self) -> bool:
        """It is connected, and nobody has seen the master move since."""
        return self._sock is not None and self._generation == self._whereabouts.generation  # type: ignore[attr-defined]

    def read_response(self, *arguments: Any, **named: Any) -> Any:
        """As redis-py's; an answer that no master gives ends the connection."""
        try:
            return super().read_response(*arguments, **named)  # type: ignore[misc]
        except redis.exceptions.MovedError as error:
            self._leave((error.host or self.host, error.port))
            raise Moved(f"the line's slot has moved to {error.host}:{error.port}") from None
        except redis.exceptions.ResponseError as error:
            known = isinstance(error, redis.exceptions.ReadOnlyError | redis.exceptions.ClusterDownError)
            if not known and _NO_MASTER.search(str(error)) is None:
                raise
            self._leave(None)
            raise redis.exceptions.ConnectionError(f"this server does not serve as the master: {error}") from None

    def _leave(self, hint: tuple[str, int] | None) -> None:
        self._whereabouts.forget(hint)
        self.disconnect()  # type: ignore[attr-defined]


class FollowedConnection(_Follows, Connection):
    """A connection to the master."""


class FollowedSSLConnection(_Follows, SSLConnection):
    """The same with TLS."""


class LineClient(redis.Redis):
    """redis-py's client, with what a line asks of its replicas.

    Attributes:
        waiting: replicas that must have a write before it counts.
        whereabouts: of the master; None for one server.
    """

    waiting: Waiting = NO_WAITING
    whereabouts: Whereabouts | None = None

    @property
    def moves(self) -> int:
        """How often another server became the master, as far as this client has seen."""
        return 0 if self.whereabouts is None else self.whereabouts.moves

    @property
    def clustered(self) -> bool:
        """The server is a node of a Cluster."""
        return isinstance(self.whereabouts, SlotOwner)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """As redis-py's, and follows redirections. A script is not sent after an ASK: see `Script`."""
        execute: Any = super().execute_command
        for _ in range(REDIRECTIONS):
            try:
                return execute(*args, **options)
            except Moved:
                continue
            except redis.exceptions.AskError as error:
                if str(args[0]).upper() in ("EVAL", "EVALSHA"):
                    raise
                return self._asking(error.host, error.port, *args, **options)
        return execute(*args, **options)

    def _asking(self, host: str, port: int, *args: Any, **options: Any) -> Any:
        """The key is on its way to another node, which answers this one command."""
        pool = self.connection_pool
        kwargs = {name: value for name, value in pool.connection_kwargs.items() if name != "whereabouts"}
        whole: Any = SSLConnection if issubclass(pool.connection_class, SSLConnection) else Connection
        connection = whole(**{**kwargs, "host": host, "port": port})
        try:
            connection.connect()
            connection.send_command("ASKING")
            connection.read_response()
            connection.send_command(*args)
            parse: Any = self.parse_response
            return parse(connection, args[0], **options)
        finally:
            connection.disconnect()


def follow(address: Address, line: str | None, options: dict[str, Any], *, timeout_s: float) -> LineClient:
    """A client of the master that an address leads to.

    Args:
        line: whose slot, in a Cluster.
        options: of redis-py's connections, to all of these servers.

    Raises SettingsError where a Cluster's line is not named.
    """
    whereabouts: Whereabouts
    login = {"username": address.username, "password": address.password}
    options = {**{name: value for name, value in login.items() if value is not None}, **options}
    # A question is short: its own connection, and no wait as long as one for an answer with frames.
    brief = {**options, "socket_timeout": min(ASK_S, timeout_s), "socket_connect_timeout": min(ASK_S, timeout_s)}
    if address.kind == "sentinel":
        brief.pop("username", None)
        brief.pop("password", None)
        brief |= {"username": address.sentinel_username, "password": address.sentinel_password}
        whereabouts = Sentinels(address.nodes, address.service, _opener(address.tls, brief))
    elif line is None:
        raise SettingsError("a Cluster is asked for a line's slot, and no line was named")
    else:
        whereabouts = SlotOwner(address.nodes, line, _opener(address.tls, brief))
    pool = redis.ConnectionPool(
        connection_class=FollowedSSLConnection if address.tls else FollowedConnection,
        whereabouts=whereabouts,
        db=address.db,
        **options,
    )
    client = LineClient(connection_pool=pool)
    client.whereabouts = whereabouts
    return client


def _opener(tls: bool, options: dict[str, Any]) -> Any:
    def open_(host: str, port: int) -> Any:
        return redis.Redis(host=host, port=port, ssl=tls, **options)

    return open_
