"""Sentinels and Clusters over TLS, with client certificates."""

from __future__ import annotations

from pathlib import Path

import pytest

from gaussline.worker.broker.client import Tls, open_redis
from gaussline.worker.errors import BrokerUnavailable
from gaussline.worker.settings import Settings
from tests.access.certificates import Authority
from tests.availability.conftest import LINE
from tests.support.redis_node import Secure
from tests.support.replicated import ClusterSet, SentinelSet
from tests.support.skips import program


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
def test_certificates_are_shown_to_every_server(kind: str, tmp_path: Path) -> None:
    program("redis-server", "redis-server")
    authority = Authority(tmp_path)
    server, client = authority.sign("server", server=True), authority.sign("client")
    secure = Secure(authority.cert, server.cert, server.key)
    with (
        SentinelSet(tmp_path / "set", replicas=1, secure=secure)
        if kind == "sentinel"
        else ClusterSet(tmp_path / "set", LINE, replicas=1, secure=secure)
    ) as topology:
        files = {"redis_tls_ca": authority.cert, "redis_tls_cert": client.cert, "redis_tls_key": client.key}
        settings = Settings.load({}, redis_url=topology.url, line=LINE, **files)
        own = open_redis(settings)
        assert own.set(f"gl:{{{LINE}}}:x", 1)
        master = topology.master()
        assert master is not None
        assert own.whereabouts.find()[1] == master.port
        stranger = open_redis(Settings.load({}, redis_url=topology.url, line=LINE, redis_tls_ca=authority.cert))
        with pytest.raises(BrokerUnavailable):
            _ping(stranger)
        assert Tls() != Tls(authority.cert)


def _ping(client: object) -> None:
    from gaussline.worker.broker.client import time_us

    time_us(client)
