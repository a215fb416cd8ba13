"""`gaussline bridge opcua` against real OPC UA servers: one in the test, one that is killed, one with certificates."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from asyncua import ua
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.user_managers import UserManager

from gaussline.worker.bridge.opcua import OpcUa, OpcUaPlace
from gaussline.worker.bridge.parcel import parcel_of
from gaussline.worker.errors import NotNow, SettingsError, Undeliverable
from tests.bridge.certificates import Authority, Pair
from tests.bridge.line import check, publish, seen_in, stands
from tests.bridge.mes_opcua import Mes
from tests.bridge.receivers import Process, free_port, reaches
from tests.broker.way import Way
from tests.support.cli import Cli
from tests.support.waiting import eventually

T = TypeVar("T")
QUICK = {"GAUSSLINE_BRIDGE_LEASE_S": "1", "GAUSSLINE_BRIDGE_BACKOFF_MAX_S": "0.2"}


def parcel(identity: str = "cam1:1:7", **fields: Any) -> Any:
    said = {"v": 1, "id": identity, "camera": "cam1", "part": "A ä", "decision": "fail", "score": 412.5, "sequence": 7}
    body = json.dumps({**said, "kept": True, **fields}, ensure_ascii=False)
    return parcel_of("1-0", "line1", {b"json": body.encode()})


class Site:
    """A server in this process, in a loop of its own."""

    def __init__(self, mes: Mes, loop: asyncio.AbstractEventLoop, port: int) -> None:
        self.mes, self._loop = mes, loop
        self.url = f"opc.tcp://127.0.0.1:{port}/mes"

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def value(self, name: str) -> Any:
        return self.do(self.mes.nodes[name].read_value())

    def bridge(self, node: str, **more: Any) -> OpcUa:
        return OpcUa(OpcUaPlace(self.url, f"ns=2;s={node}", **{"timeout_s": 5.0, **more}))


@contextmanager
def serving(folder: Path, before: Callable[[Mes], Coroutine[Any, Any, None]] | None = None) -> Iterator[Site]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    port = free_port()
    site = Site(Mes(port, folder), loop, port)
    try:
        site.do(site.mes.open())
        if before is not None:
            site.do(before(site.mes))
        site.do(site.mes.server.start())
        yield site
        site.do(site.mes.server.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving(tmp_path_factory.mktemp("opcua")) as running:
        yield running


def test_a_server_and_a_bridge_that_are_killed_lose_no_verdict_and_no_order(way: Way, cli: Cli, tmp_path: Path) -> None:
    ids: list[str] = []
    port = free_port()

    def taken() -> list[str]:
        file = tmp_path / "taken"
        return file.read_text("utf-8").splitlines() if file.exists() else []

    with Process([sys.executable, "-m", "tests.bridge.mes_opcua", str(port), str(tmp_path)], port) as server:
        command = ("bridge", "opcua", f"opc.tcp://127.0.0.1:{port}/mes", "--node", "ns=2;s=Take", "--http-port", "0")
        process = cli.start(*command, **QUICK)
        for turn in range(2):
            least = len(taken()) + 1
            ids += publish(way, 60, first=len(ids))
            reaches(lambda: len(taken()), least)
            if turn % 2:
                process.kill()
                process.wait(20)
                process = cli.start(*command, **QUICK)
            else:
                server.kill()
                server.start()
        eventually(lambda: stands(way, "opcua"), what="the cursor at the end")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    check(seen_in(taken()), ids)


def test_a_variable_takes_the_whole_verdict(site: Site) -> None:
    bridge = site.bridge("Verdict")
    assert "a variable" in bridge.check()
    bridge.send(parcel())
    assert json.loads(site.value("Verdict"))["id"] == "cam1:1:7"
    bridge.close()


def test_an_object_takes_its_fields_at_once(site: Site) -> None:
    bridge = site.bridge("Station")
    bridge.send(parcel())
    values = {name: site.value(name) for name in ("id", "part", "decision", "score", "sequence", "kept", "unknown")}
    assert values == {
        "id": "cam1:1:7",
        "part": "A ä",
        "decision": "fail",
        "score": 412.5,
        "sequence": 7,
        "kept": True,
        "unknown": "",
    }
    assert json.loads(site.value("json"))["score"] == 412.5
    bridge.send(parcel("cam1:1:8", score=None, part=None))
    assert math.isnan(site.value("score"))
    assert site.value("part") == ""
    with pytest.raises(Undeliverable, match="sequence = 'many' is no Int64"):
        bridge.send(parcel("cam1:1:9", sequence="many"))
    bridge.close()


def test_a_method_may_refuse_a_verdict(site: Site) -> None:
    bridge = site.bridge("Take")
    bridge.send(parcel())
    with pytest.raises(Undeliverable, match="returned False"):
        bridge.send(parcel(detail="refuse"))
    bridge.send(parcel())
    bridge.close()


def test_with_an_ack_node_a_verdict_is_delivered_when_its_id_comes_back(site: Site) -> None:
    bridge = site.bridge("Verdict", ack_node="ns=2;s=Ack", timeout_s=1.0)
    with pytest.raises(NotNow, match="did not answer within 1 s"):
        bridge.send(parcel("cam1:1:20"))
    done = threading.Event()

    def deliver() -> None:
        bridge.send(parcel("cam1:1:21"))
        done.set()

    thread = threading.Thread(target=deliver)
    thread.start()
    eventually(lambda: json.loads(site.value("Verdict"))["id"] == "cam1:1:21")
    assert not done.is_set()
    site.do(site.mes.nodes["Ack"].write_value("cam1:1:21"))
    assert done.wait(20)
    thread.join()
    bridge.send(parcel("cam1:1:21"))  # a repeat: its id stands there already
    bridge.close()


def test_what_is_wrong_with_the_server_is_no_fault_of_the_verdict(site: Site) -> None:
    for node, said in (("Nothing", "BadNodeIdUnknown"), ("Number", "BadTypeMismatch")):
        bridge = site.bridge(node)
        with pytest.raises(NotNow if node == "Nothing" else Undeliverable, match=said):
            bridge.send(parcel())
        bridge.close()
    nobody = OpcUa(OpcUaPlace(f"opc.tcp://127.0.0.1:{free_port()}/", "ns=2;s=Verdict", timeout_s=2.0))
    with pytest.raises(NotNow, match="cannot be used") as told:
        nobody.send(parcel())
    assert told.value.whole
    nobody.close()


def test_places_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for url, node, more, said in (
        ("http://x", "i=1", {}, "opc.tcp://host"),
        ("opc.tcp://u:p@x", "i=1", {}, "user or password"),
        ("opc.tcp://x", "nonsense", {}, "no node id"),
        ("opc.tcp://x", "i=1", {"ack_node": "?"}, "bridge_ack_node"),
        ("opc.tcp://x", "i=1", {"certificate": tmp_path}, "all three"),
        ("opc.tcp://x", "i=1", dict.fromkeys(("certificate", "key", "server_certificate"), tmp_path / "no"), "no file"),
    ):
        with pytest.raises(SettingsError, match=said):
            OpcUa(OpcUaPlace(url, node, **more))


class _Users(UserManager):
    def get_user(
        self, iserver: Any, username: Any = None, password: Any = None, certificate: Any = None
    ) -> User | None:
        return User(role=UserRole.User) if (username, password) == ("line", "t0ps3cret") else None


def test_certificates_and_a_password(way: Way, cli: Cli, tmp_path: Path) -> None:
    authority = Authority.make(tmp_path)
    own: Pair = authority.pair("mes", "urn:test:mes")
    client, other = authority.pair("client", "urn:gaussline:bridge"), authority.pair("other", "urn:test:mes")
    secret, wrong = tmp_path / "password", tmp_path / "wrong"
    secret.write_text("t0ps3cret")
    wrong.write_text("t0ps3cret-not")

    async def secure(mes: Mes) -> None:
        mes.server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
        mes.server.iserver.user_manager = _Users()
        await mes.server.set_application_uri("urn:test:mes")
        await mes.server.load_certificate(str(own.certificate))
        await mes.server.load_private_key(str(own.key), format="pem")

    with serving(tmp_path, secure) as site:
        base = ("bridge", "opcua", site.url, "--node", "ns=2;s=Station", "--user", "line", "--http-port", "0")
        shown = ("--cert-file", str(client.certificate), "--key-file", str(client.key))
        trusted = ("--ca-file", str(own.certificate), "--password-file", str(secret))
        assert "a object" in cli(*base, *shown, *trusted, "--check").stdout
        for files in (
            ("--ca-file", str(own.certificate), "--password-file", str(wrong)),
            ("--ca-file", str(other.certificate), "--password-file", str(secret)),
        ):
            told = cli(*base, *shown, *files, "--check", code=1, GAUSSLINE_BRIDGE_TIMEOUT_S="3").stderr
            assert "t0ps3cret" not in told
        assert cli(*base, "--password-file", str(secret), "--check", code=1, GAUSSLINE_BRIDGE_TIMEOUT_S="3").stderr
        ids = publish(way, 3)
        process = cli.start(*base, *shown, *trusted, **QUICK)
        eventually(lambda: stands(way, "opcua"))
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
        assert process.returncode == 0
        assert site.value("id") == ids[-1]
        assert "t0ps3cret" not in log
