"""URLs of several nodes: what they mean, and what is said of wrong ones."""

from __future__ import annotations

import pytest

from gaussline.worker.broker.address import Address, is_topology, parse, with_login
from gaussline.worker.broker.client import connect, redact
from gaussline.worker.broker.followed import FollowedConnection, FollowedSSLConnection
from gaussline.worker.broker.replication import Waiting, waiting_of
from gaussline.worker.broker.whereabouts import Sentinels, SlotOwner
from gaussline.worker.commands.options import secrets_of
from gaussline.worker.errors import SettingsError
from gaussline.worker.settings import Settings

READ = {
    "redis+sentinel://a:1,b/main": Address("sentinel", False, (("a", 1), ("b", 26379)), "main"),
    "redis+sentinel://a/main/3": Address("sentinel", False, (("a", 26379),), "main", 3),
    "rediss+sentinel://u:p%40@[::1]:7,[::2]/m?sentinel_username=s&sentinel_password=t%2F": Address(
        "sentinel", True, (("::1", 7), ("::2", 26379)), "m", 0, "u", "p@", "s", "t/"
    ),
    "redis+cluster://a,b:7": Address("cluster", False, (("a", 6379), ("b", 7))),
    "rediss+cluster://:word@a:1/": Address("cluster", True, (("a", 1),), password="word"),
}


@pytest.mark.parametrize("url", READ)
def test_urls_are_taken_apart(url: str) -> None:
    assert parse(url) == READ[url]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+sentinel://a:1", "names no master"),
        ("redis+sentinel:///main", "names no host"),
        ("redis+sentinel://a:0/main", "'a:0' is no host:port"),
        ("redis+sentinel://a:x/main", "'a:x' is no host:port"),
        ("redis+sentinel://a/main/x", "database 'x' is no number"),
        ("redis+sentinel://a/main?password=S3CRET", "no option password"),
        ("redis+cluster://u:S3CRET@a/0", "a Cluster has one database"),
        ("redis+cluster://a", "no line was named"),
        ("redis+kluster://a", "is no Redis URL"),
    ],
)
def test_a_wrong_url_is_told_as_such_and_without_its_secrets(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as told:
        connect(url)
    assert "S3CRET" not in str(told.value)


def test_a_client_knows_whom_to_follow_and_what_to_wait_for() -> None:
    waiting = Waiting(2, 0.5)
    sentinel = connect("rediss+sentinel://u:S3CRET@a,b/main", waiting=waiting)
    cluster = connect("redis+cluster://a:1,b:2", line="line1")
    single = connect("redis://a:1", waiting=waiting)
    assert isinstance(sentinel.whereabouts, Sentinels)
    assert isinstance(cluster.whereabouts, SlotOwner)
    assert single.whereabouts is None
    assert [client.clustered for client in (sentinel, cluster, single)] == [False, True, False]
    assert sentinel.connection_pool.connection_class is FollowedSSLConnection
    assert cluster.connection_pool.connection_class is FollowedConnection
    assert [waiting_of(client) for client in (sentinel, cluster, single)] == [waiting, Waiting(), waiting]
    assert "S3CRET" not in repr(sentinel) + repr(sentinel.connection_pool)


def test_no_secret_of_a_url_is_shown() -> None:
    url = "redis+sentinel://u:S3CRET@a,b/main?sentinel_username=s&sentinel_password=S3CRET2"
    assert redact(f"no {url!r} here") == (
        "no 'redis+sentinel://***@a,b/main?sentinel_username=s&sentinel_password=***' here"
    )
    assert repr(parse(url)) == "Address(sentinel, (('a', 26379), ('b', 26379)), 'main')"
    assert {"S3CRET", "S3CRET2"} <= set(secrets_of(Settings.load({}, redis_url=url)))


def test_replicas_are_not_waited_for_longer_than_for_redis_itself() -> None:
    with pytest.raises(SettingsError, match="wait_timeout_s"):
        Settings.load({}, wait_replicas=1, wait_timeout_s=5.0)
    assert Settings.load({}, wait_timeout_s=5.0).wait_replicas == 0


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("redis://host/0", "redis://worker:p%40%2F@host/0"),
        ("rediss://somebody:else@host:1/0?x=1", "rediss://worker:p%40%2F@host:1/0?x=1"),
        ("unix:///run/redis.sock", "unix://worker:p%40%2F@/run/redis.sock"),
        ("redis+sentinel://a:b@one:1,two:2/name/3", "redis+sentinel://worker:p%40%2F@one:1,two:2/name/3"),
    ],
)
def test_a_login_beside_the_address_stands_in_the_place_of_its_own(url: str, whole: str) -> None:
    assert with_login(url, "worker", "p@/") == whole
    assert with_login(url, None, None) == url
    if is_topology(url):
        address = parse(whole)
        assert (address.username, address.password, len(address.nodes)) == ("worker", "p@/", 2)


def test_what_is_not_given_beside_the_address_stays() -> None:
    assert with_login("redis://a:b%40@host/0", "worker", None) == "redis://worker:b%40@host/0"
    assert with_login("redis://a%40:b@host/0", None, "word") == "redis://a%40:word@host/0"
