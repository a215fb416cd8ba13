"""Verdicts as MQTT 5 messages with quality of service 1: the broker's PUBACK says that it has one."""

from __future__ import annotations

import contextlib
import string
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gaussline.worker.bridge.parcel import Parcel
from gaussline.worker.bridge.secrets import TlsFiles
from gaussline.worker.errors import NotNow, SettingsError, Undeliverable

LANES = 64
PORTS = {"mqtt": 1883, "mqtts": 8883}
TOPIC_FIELDS = ("line", "camera", "decision")
KEEPALIVE_S = 30
NO_SUBSCRIBER = 0x10
FOR_GOOD = frozenset({0x90, 0x95, 0x99})
"""Reason codes that no second try changes: topic name invalid, packet too large, payload format invalid."""


@dataclass(frozen=True, slots=True)
class MqttPlace:
    """Which broker, which topic, and what to show there.

    Attributes:
        topic: may hold {line}, {camera} and {decision}; the camera of a part verdict is `parts`.
        client_id: a second client with the same id throws the first one out.
        need_subscriber: a message that the broker had nobody for counts as not delivered.
    """

    url: str
    tls: TlsFiles
    topic: str
    client_id: str
    user: str | None = None
    password: str | None = None
    need_subscriber: bool = False
    timeout_s: float = 10.0


class Mqtt:
    """Publishes verdicts to one broker.

    A connection that breaks is thrown away with everything that it had under way: what the delivery sends again must
    not be sent again by the library as well, at a moment of its own.
    """

    lanes = LANES

    def __init__(self, place: MqttPlace) -> None:
        parts = urlsplit(place.url)
        if parts.scheme not in PORTS or not parts.hostname:
            raise SettingsError(
                f"bridge_url {place.url.split('@')[-1]!r}: a broker's is mqtts://host:8883, or mqtt://…"
            )
        if "@" in parts.netloc:
            raise SettingsError("bridge_url holds a user or password: use bridge_user and bridge_password_file")
        self._at = place
        self._host, self._port = parts.hostname, parts.port or PORTS[parts.scheme]
        self._context = place.tls.context() if parts.scheme == "mqtts" else None
        self._topic = checked_topic(place.topic)
        self._lock = threading.Lock()
        self._session: _Session | None = None

    @property
    def place(self) -> str:
        """Broker and topic."""
        return f"{self._at.url.split('?', 1)[0]} {self._at.topic}"

    def send(self, parcel: Parcel) -> None:
        """Publish, and wait for the broker's PUBACK. Raises Undeliverable, NotNow."""
        topic = self._topic.format(line=parcel.line, camera=parcel.camera or "parts", decision=parcel.decision)
        code = self._connected().publish(topic, parcel, self._at.timeout_s)
        if code.value == NO_SUBSCRIBER and self._at.need_subscriber:
            raise NotNow(f"nobody has subscribed to {topic}", whole=True)
        if code.value in FOR_GOOD:
            raise Undeliverable(f"the broker refuses it: {code}")
        if code.is_failure:
            raise NotNow(f"the broker does not take it: {code}")

    def check(self) -> str:
        """Connect, and leave again."""
        session = self._open()
        session.close()
        return f"the broker {self._host}:{self._port} takes the connection"

    def close(self) -> None:
        """Leave the broker."""
        with self._lock:
            if self._session is not None:
                self._session.close()
                self._session = None

    def _connected(self) -> _Session:
        with self._lock:
            if self._session is None or self._session.broken:
                if self._session is not None:
                    self._session.close()
                self._session = None
                self._session = self._open()
            return self._session

    def _open(self) -> _Session:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._at.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        client.connect_timeout = self._at.timeout_s
        client.max_inflight_messages_set(LANES)
        if self._at.user is not None:
            client.username_pw_set(self._at.user, self._at.password)
        if self._context is not None:
            client.tls_set_context(self._context)
        session = _Session(client)
        session.connect(self._host, self._port, self._at.timeout_s)
        return session


class _Session:
    """One connection, and the answers that came over it."""

    def __init__(self, client: paho.Client) -> None:
        self._client = client
        self._changed = threading.Condition()
        self._answers: dict[int, ReasonCode] = {}
        self._greeting: ReasonCode | None = None
        self._room = LANES
        self._under_way = 0
        self.broken = ""
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish

    def connect(self, host: str, port: int, timeout_s: float) -> None:
        """Connect and wait for the broker's greeting. Raises NotNow."""
        try:
            self._client.connect(host, port, keepalive=KEEPALIVE_S, clean_start=True)
        except (OSError, ValueError) as error:
            self._leave()
            raise NotNow(f"the broker {host}:{port} cannot be reached: {error}", whole=True) from None
        self._client.loop_start()
        end_s = time.monotonic() + timeout_s
        with self._changed:
            while self._greeting is None and not self.broken and (left_s := end_s - time.monotonic()) > 0:
                self._changed.wait(left_s)
        if self._greeting is None or self._greeting.is_failure:
            said = self._greeting or self.broken or "it says nothing"
            self.close()
            raise NotNow(f"the broker {host}:{port} does not let the bridge in: {said}", whole=True)

    def publish(self, topic: str, parcel: Parcel, timeout_s: float) -> ReasonCode:
        """Publish one message, as soon as the broker has room for it; its answer.

        Raises NotNow where none came, Undeliverable.
        """
        end_s = time.monotonic() + timeout_s
        with self._changed:
            while self._under_way >= self._room:
                left_s = end_s - time.monotonic()
                if self.broken or left_s <= 0:
                    raise NotNow(self.broken or f"the broker had no room within {timeout_s:g} s", whole=True)
                self._changed.wait(left_s)
            self._under_way += 1
        try:
            return self._publish(topic, parcel, end_s, timeout_s)
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def _publish(self, topic: str, parcel: Parcel, end_s: float, timeout_s: float) -> ReasonCode:
        about = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        about.ContentType = "application/json"
        about.PayloadFormatIndicator = 1
        traced = [] if parcel.trace is None else [("traceparent", parcel.trace)]
        about.UserProperty = [("id", parcel.id), ("line", parcel.line), *traced]
        try:
            info = self._client.publish(topic, parcel.body, qos=1, properties=about)
        except ValueError as error:
            raise Undeliverable(f"no message can be made of it: {error}") from None
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._break(f"{paho.error_string(info.rc)}")
        with self._changed:
            # The answer may be there before its number is known here; numbers are used again only when they are free.
            while (answer := self._answers.pop(info.mid, None)) is None:
                left_s = end_s - time.monotonic()
                if self.broken or left_s <= 0:
                    break
                self._changed.wait(left_s)
        if answer is not None:
            return answer
        self._break(self.broken or f"the broker did not answer within {timeout_s:g} s")
        raise NotNow(self.broken, whole=True)

    def close(self) -> None:
        """Say goodbye, and end the thread."""
        self._break("closed")
        self._leave()

    def _leave(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._client.disconnect()
        self._client.loop_stop()

    def _break(self, why: str) -> None:
        with self._changed:
            self.broken = self.broken or why
            self._changed.notify_all()

    # --- from the library's thread, which may hold locks of its own: never call it from under `_changed` --------------
    def _on_connect(self, client: Any, userdata: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        with self._changed:
            self._greeting = code
            # More at a time than it says is an error, for which it cuts the connection.
            self._room = min(LANES, getattr(properties, "ReceiveMaximum", LANES))
            self._changed.notify_all()

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        self._break(f"the connection to the broker broke: {code}")

    def _on_publish(self, client: Any, userdata: Any, mid: int, code: ReasonCode, properties: Any) -> None:
        with self._changed:
            self._answers[mid] = code
            self._changed.notify_all()


def checked_topic(topic: str) -> str:
    """A topic that may be published to, with fields that a verdict has. Raises SettingsError."""
    try:
        fields = {name for _, name, spec, conversion in string.Formatter().parse(topic) if name is not None}
        plain = topic.format(**dict.fromkeys(TOPIC_FIELDS, "x"))
    except (KeyError, ValueError, IndexError, AttributeError):
        fields, plain = {""}, ""
    if not fields <= set(TOPIC_FIELDS) or not plain or len(plain) > 1024 or any(sign in plain for sign in "+#\0"):
        raise SettingsError(
            f"bridge_topic {topic!r} is no topic to publish to: text without + and #, and fields out of "
            + ", ".join(f"{{{name}}}" for name in TOPIC_FIELDS)
        )
    return topic
