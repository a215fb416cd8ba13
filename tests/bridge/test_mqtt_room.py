"""A broker that takes few messages at a time (MQTT 5, Receive Maximum) is sent no more: it would cut the connection."""

from __future__ import annotations

import json
import select
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

from gaussline.worker.bridge.mqtt import Mqtt, MqttPlace
from gaussline.worker.bridge.parcel import parcel_of
from gaussline.worker.bridge.secrets import TlsFiles

ROOM = 2
CONNECT, PUBLISH = 1, 3


class Narrow:
    """A broker that answers only when nothing more comes, and notes how much it had to hold."""

    def __init__(self) -> None:
        self.most = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        """Once its client has left."""
        self._thread.join(20)
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        held: list[bytes] = []
        with connection:
            while True:
                if held and not select.select([connection], [], [], 0.1)[0]:
                    connection.sendall(b"".join(b"\x40\x02" + number for number in held))
                    held.clear()
                head = connection.recv(1)
                if not head:
                    return
                size = shift = 0
                while True:
                    (byte,) = connection.recv(1)
                    size |= (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        break
                body = connection.recv(size, socket.MSG_WAITALL)
                if head[0] >> 4 == CONNECT:
                    connection.sendall(bytes([0x20, 6, 0, 0, 3, 0x21, 0, ROOM]))
                elif head[0] >> 4 == PUBLISH:
                    after_topic = 2 + int.from_bytes(body[:2], "big")
                    held.append(body[after_topic : after_topic + 2])
                    self.most = max(self.most, len(held))


def test_no_more_is_under_way_than_the_broker_takes() -> None:
    broker = Narrow()
    mqtt = Mqtt(MqttPlace(f"mqtt://127.0.0.1:{broker.port}", TlsFiles(), "gaussline/{camera}", "bridge"))
    parcels = []
    for number in range(7):
        verdict = {"v": 1, "id": f"cam1:1:{number}", "camera": "cam1", "part": f"P{number}", "decision": "pass"}
        parcels.append(parcel_of(f"1-{number}", "line1", {b"json": json.dumps(verdict).encode()}))
    with ThreadPoolExecutor(len(parcels)) as lanes:
        list(lanes.map(mqtt.send, parcels))
    mqtt.close()
    broker.close()
    assert 1 <= broker.most <= ROOM
