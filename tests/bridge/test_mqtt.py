"""`gaussline bridge mqtt` against a real broker, which is killed, asks for certificates and passwords, and refuses."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from gaussline.worker.bridge.mqtt import Mqtt, MqttPlace, checked_topic
from gaussline.worker.bridge.parcel import parcel_of
from gaussline.worker.bridge.secrets import TlsFiles
from gaussline.worker.errors import NotNow, SettingsError
from tests.bridge.certificates import Authority
from tests.bridge.line import check, publish, seen_in, stands
from tests.bridge.receivers import Process, free_port, reaches
from tests.broker.way import Way
from tests.support.cli import Cli
from tests.support.skips import needs_program, program
from tests.support.waiting import eventually

pytestmark = needs_program("mosquitto", "mosquitto")
QUICK = {"GAUSSLINE_BRIDGE_LEASE_S": "1", "GAUSSLINE_BRIDGE_BACKOFF_MAX_S": "0.2", "GAUSSLINE_BRIDGE_TIMEOUT_S": "3"}


def broker(folder: Path, *lines: str) -> Process:
    """A broker on this machine; what its configuration says besides the port."""
    port = free_port()
    file = folder / "mosquitto.conf"
    file.write_text("\n".join([f"listener {port} 127.0.0.1", *lines]) + "\n")
    return Process([program("mosquitto", "mosquitto"), "-c", str(file)], port)


class Mes:
    """A subscriber that keeps what it gets, and comes back when the broker does."""

    def __init__(self, port: int, topic: str) -> None:
        self.got: list[paho.MQTTMessage] = []
        self._subscribed: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="mes", protocol=MQTTProtocolVersion.MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *about: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *about: self._subscribed.put(None)
        self._client.on_message = lambda client, data, message: self.got.append(message)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def subscribed(self) -> None:
        """Wait until the broker has noted the subscription."""
        self._subscribed.get(timeout=20)

    def seen(self) -> list[tuple[str, str]]:
        """(part, id) of what it got."""
        return seen_in([bytes(message.payload) for message in list(self.got)])

    def has(self, ids: Collection[str]) -> None:
        """Wait until it has all of these."""
        eventually(lambda: {identity for _, identity in self.seen()} == set(ids), what="all of them")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def mes(port: int, topic: str = "gaussline/#") -> Iterator[Mes]:
    made = Mes(port, topic)
    try:
        made.subscribed()
        yield made
    finally:
        made.close()


def place(port: int, **more: Any) -> MqttPlace:
    return MqttPlace(f"mqtt://127.0.0.1:{port}", TlsFiles(), "gaussline/{line}/{camera}", "bridge", **more)


def parcel(**fields: Any) -> Any:
    body = json.dumps({"v": 1, "id": "cam1:1:0", "camera": "cam1", "part": "A", "decision": "fail", **fields})
    return parcel_of("1-0", "line1", {b"json": body.encode()})


def test_a_broker_and_a_bridge_that_are_killed_lose_no_verdict_and_no_order(way: Way, cli: Cli, tmp_path: Path) -> None:
    ids: list[str] = []
    with broker(tmp_path, "allow_anonymous true", "max_queued_messages 0") as server, mes(server.port) as receiver:
        # A broker that forgets its sessions when it dies: what it had promised to a subscriber that it did not reach
        # is gone with it. So the bridge waits for the subscriber, and kills come when its deliveries have arrived.
        command = ("bridge", "mqtt", f"mqtt://127.0.0.1:{server.port}", "--http-port", "0", "--need-subscriber")
        process = cli.start(*command, **QUICK)
        for turn in range(4):
            least = len(receiver.got) + 1
            ids += publish(way, 150, first=len(ids))
            reaches(lambda: len(receiver.got), least)
            if turn % 2:
                process.send_signal(signal.SIGKILL)
                process.wait(20)
                process = cli.start(*command, **QUICK)
            else:
                eventually(lambda: stands(way, "mqtt"))
                receiver.has(ids)
                server.kill()
                ids += publish(way, 20, first=len(ids))
                server.start()
                receiver.subscribed()
        eventually(lambda: stands(way, "mqtt"), what="the cursor at the end")
        receiver.has(ids)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        check(receiver.seen(), ids)
        for message in receiver.got:
            assert message.qos == 1
            said = json.loads(message.payload)
            assert dict(vars(message.properties)["UserProperty"]) == {"id": said["id"], "line": way.line}
            assert message.topic == f"gaussline/{way.line}/{said['camera']}"


def test_tls_with_certificates_and_a_password(way: Way, cli: Cli, tmp_path: Path) -> None:
    authority = Authority.make(tmp_path)
    server_pair, client = authority.pair("server"), authority.pair("client")
    passwords, secret, wrong = tmp_path / "passwords", tmp_path / "password", tmp_path / "wrong"
    secret.write_text("t0ps3cret")
    wrong.write_text("t0ps3cret-not")
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", str(passwords), "line", "t0ps3cret"], check=True, capture_output=True
    )
    passwords.chmod(0o644)
    tmp_path.chmod(0o755)
    server_pair.key.chmod(0o644)
    tls = [f"cafile {authority.file}", f"certfile {server_pair.certificate}", f"keyfile {server_pair.key}"]
    with broker(tmp_path, "user root", "require_certificate true", f"password_file {passwords}", *tls) as server:
        base = ("bridge", "mqtt", f"mqtts://127.0.0.1:{server.port}", "--ca-file", str(authority.file))
        shown = ("--cert-file", str(client.certificate), "--key-file", str(client.key), "--http-port", "0")
        user = ("--user", "line", "--password-file", str(secret))
        assert "takes the connection" in cli(*base, *shown, *user, "--check").stdout
        told = cli(*base, *shown, "--user", "line", "--password-file", str(wrong), "--check", code=1).stderr
        assert "does not let the bridge in" in told
        assert "t0ps3cret" not in told
        told = cli(*base, *user, "--check", "--http-port", "0", code=1).stderr
        assert "the broker 127.0.0.1" in told, "no certificate shown"
        publish(way, 5)
        process = cli.start(*base, *shown, *user, **QUICK)
        eventually(lambda: stands(way, "mqtt"))
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "t0ps3cret" not in log


def test_a_broker_without_a_subscriber_may_be_waited_for(tmp_path: Path) -> None:
    with broker(tmp_path, "allow_anonymous true") as server:
        waiting, content = Mqtt(place(server.port, need_subscriber=True)), Mqtt(place(server.port))
        content.send(parcel())
        content.close()
        with pytest.raises(NotNow, match="nobody has subscribed to gaussline/line1/cam1") as told:
            waiting.send(parcel())
        assert told.value.whole
        with mes(server.port) as receiver:
            waiting.send(parcel())
            eventually(lambda: receiver.got)
        waiting.close()


def test_a_broker_that_refuses_a_topic_is_no_refusal_of_the_verdict(tmp_path: Path) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic write allowed/#\n")
    rules.chmod(0o644)
    with broker(tmp_path, "user root", "allow_anonymous true", f"acl_file {rules}") as server:
        refused = Mqtt(place(server.port))
        with pytest.raises(NotNow, match="Not authorized"):
            refused.send(parcel())
        refused.close()


def test_a_broker_that_says_nothing_is_given_up_in_time_and_a_new_connection_made(tmp_path: Path) -> None:
    with broker(tmp_path, "allow_anonymous true") as server:
        bridge = Mqtt(place(server.port, timeout_s=0.5))
        bridge.send(parcel())
        assert server._running is not None
        server._running.send_signal(signal.SIGSTOP)
        with pytest.raises(NotNow, match="did not answer") as told:
            bridge.send(parcel())
        assert told.value.whole
        server._running.send_signal(signal.SIGCONT)
        bridge.send(parcel())
        several = [threading.Thread(target=bridge.send, args=(parcel(id=f"cam1:1:{n}"),)) for n in range(8)]
        for thread in several:
            thread.start()
        for thread in several:
            thread.join(20)
            assert not thread.is_alive()
        server.kill()
        with pytest.raises(NotNow):
            bridge.send(parcel())
        bridge.close()


def test_topics_and_places_that_cannot_be_are_refused() -> None:
    assert checked_topic("plant/{line}/{camera}/{decision}")
    for topic in ("a/+/b", "a/#", "", "{part}", "{line", "{line.x}", "{}", "a\0", "x" * 2000):
        with pytest.raises(SettingsError, match="no topic"):
            checked_topic(topic)
    for url in ("http://x", "mqtt://", "mqtt://u:p@x"):
        with pytest.raises(SettingsError, match="bridge_url"):
            Mqtt(MqttPlace(url, TlsFiles(), "t", "id"))
