"""A Redis with TLS, client certificates and a line's users."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gaussline.worker.broker.acl import acl_users
from gaussline.worker.broker.client import Redis, Tls, connect
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.errors import BrokerUnavailable
from tests.access.certificates import Authority, Pair
from tests.broker.way import Way
from tests.commands.conftest import artefact, model_file, parts  # noqa: F401 - fixtures
from tests.support.cli import Cli
from tests.support.skips import program

LINE = "line1"


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def word(user: str) -> str:
    """The password of a user: marked, so that it is found wherever it should not be, and awkward in a URL."""
    return f"S3CRET-{user}@/:%"


@dataclass(frozen=True, slots=True)
class Secured:
    """One such server. On its Unix socket, that no one but the test has, anybody may do anything."""

    server: EmbeddedRedis
    port: int
    ca: Path
    client: Pair
    folder: Path

    @property
    def tls(self) -> Tls:
        """What our clients show."""
        return Tls(self.ca, self.client.cert, self.client.key)

    def url(self, user: str) -> str:
        """The TLS address of a user, without the password."""
        return f"rediss://{user}@127.0.0.1:{self.port}/0"

    def connect(self, user: str) -> Redis:
        """A client of a user."""
        return connect(self.url(user), password=word(user), tls=self.tls)

    def settings(self, user: str) -> dict[str, str]:
        """Environment of a user's commands."""
        file = self.folder / f"password-{user}"
        file.write_text(word(user) + "\n", "utf-8")
        return {
            "GAUSSLINE_REDIS_URL": self.url(user),
            "GAUSSLINE_REDIS_PASSWORD_FILE": str(file),
            "GAUSSLINE_REDIS_TLS_CA": str(self.ca),
            "GAUSSLINE_REDIS_TLS_CERT": str(self.client.cert),
            "GAUSSLINE_REDIS_TLS_KEY": str(self.client.key),
        }


@pytest.fixture(scope="package")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """The server; its users come from deploy/redis/users-7.acl, as an operator would load them."""
    path = program("redis-server", "redis-server")
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder)
    own, client, port = authority.sign("server", server=True), authority.sign("client"), free_port()
    options = {
        "tls-port": str(port),
        "tls-cert-file": str(own.cert),
        "tls-key-file": str(own.key),
        "tls-ca-cert-file": str(authority.cert),
        "tls-auth-clients": "yes",
    }
    try:
        server = EmbeddedRedis(server=path, options=options).start()
    except BrokerUnavailable as error:
        pytest.skip(f"needs a redis-server that was built with TLS: {error}")
    admin = server.client()
    for user, rules in acl_users(LINE, ("mes", "scada")).items():
        admin.execute_command("ACL", "SETUSER", user, "reset", "on", f">{word(user)}", *split(rules))
    yield Secured(server, port, authority.cert, client, folder)
    server.stop()


def split(rules: str) -> list[str]:
    """Rules as arguments: a selector in brackets is one."""
    found: list[str] = []
    for piece in rules.split():
        if found and found[-1].startswith("(") and not found[-1].endswith(")"):
            found[-1] += f" {piece}"
        else:
            found.append(piece)
    return found


@pytest.fixture
def way(secured: Secured) -> Iterator[Way]:
    """The line, with every right, and empty."""
    line = Way(secured.server.url, LINE)
    line.client.flushall()
    yield line
    line.close()


@pytest.fixture
def cli(secured: Secured) -> Iterator[Cli]:
    """The command line; each call names its user's settings."""
    line = Cli(secured.server.url, LINE)
    yield line
    line.close()
