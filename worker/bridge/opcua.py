"""Verdicts into an OPC UA server's address space: a variable, the variables of an object, or a method's argument."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from asyncua import ua
from asyncua.client.client import Client
from asyncua.common.node import Node
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.crypto.uacrypto import CertProperties
from asyncua.ua.uaerrors import UaError, UaStatusCodeError
from cryptography import x509

from gaussline.worker.bridge.parcel import Parcel
from gaussline.worker.errors import DeliveryError, NotNow, SettingsError, Undeliverable

T = TypeVar("T")
APPLICATION_URI = "urn:gaussline:bridge"
ACK_PERIOD_MS = 20.0
FOR_GOOD = frozenset({"BadInvalidArgument", "BadOutOfRange", "BadTypeMismatch", "BadEncodingLimitsExceeded"})
"""What a method or a variable says of the value itself; anything else may be mended without the verdict."""
_FLOATS = {ua.VariantType.Float, ua.VariantType.Double}
_INTEGERS = {
    *(ua.VariantType.SByte, ua.VariantType.Int16, ua.VariantType.Int32, ua.VariantType.Int64),
    *(ua.VariantType.Byte, ua.VariantType.UInt16, ua.VariantType.UInt32, ua.VariantType.UInt64),
}


@dataclass(frozen=True, slots=True)
class OpcUaPlace:
    """Which server, which node, and what to show there.

    Attributes:
        node: a variable (the verdict's JSON is written), an object (its variables that are named as fields of a verdict
            are written at once), or a method (called with the JSON; False refuses the verdict).
        ack_node: a variable in which the MES writes the id of the verdict that it has taken.
        certificate, key, server_certificate: all three sign and encrypt (Basic256Sha256); no other server is trusted.
    """

    url: str
    node: str
    ack_node: str | None = None
    user: str | None = None
    password: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_certificate: Path | None = None
    timeout_s: float = 10.0


class OpcUa:
    """Writes verdicts into one server, one after the other: a variable has room for one.

    The library is asynchronous; its loop runs in a thread of its own.
    """

    lanes = 1

    def __init__(self, place: OpcUaPlace) -> None:
        parts = urlsplit(place.url)
        if parts.scheme != "opc.tcp" or not parts.hostname:
            raise SettingsError(f"bridge_url {place.url.split('@')[-1]!r}: an OPC UA server's is opc.tcp://host:4840/…")
        if "@" in parts.netloc:
            raise SettingsError("bridge_url holds a user or password: use bridge_user and bridge_password_file")
        files = (place.certificate, place.key, place.server_certificate)
        if any(files) and not all(files):
            raise SettingsError(
                "bridge_cert_file, bridge_key_file and bridge_ca_file: OPC UA needs all three, the last one being the "
                "server's own certificate, or none"
            )
        for file in filter(None, files):
            if not file.is_file():
                raise SettingsError(f"{file} is no file")
        for name, node in (("bridge_node", place.node), ("bridge_ack_node", place.ack_node)):
            if node is not None:
                _node_id(name, node)
        self._at = place
        self._client: Client | None = None
        self._deliver: Callable[[Parcel], Awaitable[None]] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="opcua", daemon=True)
        self._thread.start()

    @property
    def place(self) -> str:
        """Server and node."""
        return f"{self._at.url} {self._at.node}"

    def send(self, parcel: Parcel) -> None:
        """Write one verdict; with an ack node wait for its id there. Raises Undeliverable, NotNow."""
        self._await(self._send(parcel))

    def check(self) -> str:
        """Connect, and look at the node."""
        kind = self._await(self._look())
        return f"the server {self._at.url} has {self._at.node}, a {kind}"

    def close(self) -> None:
        """Close the session and end the thread."""
        with contextlib.suppress(DeliveryError):
            self._await(self._leave())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(self._at.timeout_s)
        if not self._thread.is_alive():
            self._loop.close()

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it in the loop's thread, within the time limit; whatever the library raises becomes ours."""
        return asyncio.run_coroutine_threadsafe(self._bounded(work), self._loop).result()

    async def _bounded(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await asyncio.wait_for(work, self._at.timeout_s)
        except DeliveryError:
            raise
        except TimeoutError:
            await self._leave()
            raise NotNow(f"{self._at.url} did not answer within {self._at.timeout_s:g} s", whole=True) from None
        except UaStatusCodeError as error:
            name = type(error).__name__
            if name in FOR_GOOD:
                raise Undeliverable(f"the server refuses it: {name}") from None
            await self._leave()
            raise NotNow(f"the server refuses the bridge: {name}", whole=True) from None
        except (UaError, OSError, ValueError) as error:
            await self._leave()
            raise NotNow(f"{self._at.url} cannot be used: {type(error).__name__}: {error}", whole=True) from None

    async def _send(self, parcel: Parcel) -> None:
        if self._client is None or self._deliver is None:
            await self._connect()
        assert self._deliver is not None
        await self._deliver(parcel)

    # --- the connection ----------------------------------------------------------------------------------------------
    async def _connect(self) -> str:
        await self._leave()
        place = self._at
        client = Client(place.url, timeout=place.timeout_s)
        client.name, client.application_uri = "gaussline bridge", APPLICATION_URI
        if place.user is not None:
            client.set_user(place.user)
            client.set_password(place.password or "")
        if place.certificate is not None and place.key is not None and place.server_certificate is not None:
            client.application_uri = _application_uri(place.certificate)
            await client.set_security(
                SecurityPolicyBasic256Sha256,
                _file(place.certificate),
                _file(place.key),
                server_certificate=_file(place.server_certificate),
            )
        self._client = client
        await client.connect()
        node = client.get_node(place.node)
        kind = await node.read_node_class()
        acknowledged = None if place.ack_node is None else await _Acknowledged.watch(client, place.ack_node)
        if kind is ua.NodeClass.Variable:
            write = _variable(node)
        elif kind is ua.NodeClass.Object:
            write = await _object(client, node)
        elif kind is ua.NodeClass.Method:
            write = await _method(node)
        else:
            raise NotNow(f"bridge_node {place.node} is no variable, object or method: {kind.name}", whole=True)

        async def deliver(parcel: Parcel) -> None:
            await write(parcel)
            if acknowledged is not None:
                await acknowledged.wait_for(parcel.id)

        self._deliver = deliver
        return kind.name.lower()

    async def _look(self) -> str:
        kind = await self._connect()
        await self._leave()
        return kind

    async def _leave(self) -> None:
        client, self._client, self._deliver = self._client, None, None
        if client is not None:
            with contextlib.suppress(UaError, OSError, ValueError, TimeoutError):
                await asyncio.wait_for(client.disconnect(), 1.0)


class _Acknowledged:
    """The ack node's value, as the server reports it."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._value: Any = None

    @classmethod
    async def watch(cls, client: Client, node: str) -> _Acknowledged:
        self = cls()
        subscription = await client.create_subscription(ACK_PERIOD_MS, self)
        await subscription.subscribe_data_change(client.get_node(node))
        return self

    def datachange_notification(self, node: Node, value: Any, data: Any) -> None:
        """Called by the library in its loop."""
        self._value = value
        self._changed.set()

    async def wait_for(self, identity: str) -> None:
        """Until the MES has written this id; of a repeat it may stand there already."""
        while self._value != identity:
            self._changed.clear()
            await self._changed.wait()


# --- the three kinds of node -----------------------------------------------------------------------------------------
Write = Callable[[Parcel], Awaitable[None]]


def _variable(node: Node) -> Write:
    async def write(parcel: Parcel) -> None:
        await node.write_value(parcel.body.decode(), ua.VariantType.String)

    return write


async def _object(client: Client, node: Node) -> Write:
    variables: dict[str, tuple[Node, ua.VariantType]] = {}
    for child in await node.get_children(nodeclassmask=ua.NodeClass.Variable):
        name = (await child.read_browse_name()).Name or ""
        variables[name] = (child, await child.read_data_type_as_variant_type())
    if "id" not in variables:
        raise NotNow("the object of bridge_node has no variable `id`: a repeat could not be recognised", whole=True)
    # Servers write in the order of the request: who watches `id` finds the other values there already.
    names = [*(name for name in variables if name != "id"), "id"]

    async def write(parcel: Parcel) -> None:
        known = [name for name in names if name in parcel.fields or name == "json"]
        values = [_variant(name, parcel, variables[name][1]) for name in known]
        await client.write_values([variables[name][0] for name in known], values)

    return write


async def _method(node: Node) -> Write:
    owner = await node.get_parent()
    if owner is None:
        raise NotNow("the method of bridge_node belongs to no object", whole=True)

    async def write(parcel: Parcel) -> None:
        if await owner.call_method(node.nodeid, parcel.body.decode()) is False:
            raise Undeliverable("the method returned False")

    return write


def _variant(name: str, parcel: Parcel, kind: ua.VariantType) -> ua.Variant:
    """A field as the variable's type. Raises Undeliverable where it cannot be one."""
    value = parcel.body.decode() if name == "json" else parcel.fields[name]
    try:
        return ua.Variant(_converted(value, kind), kind)
    except (TypeError, ValueError, OverflowError) as error:
        raise Undeliverable(f"{name} = {str(value)[:50]!r} is no {kind.name}: {error}") from None


def _converted(value: Any, kind: ua.VariantType) -> Any:
    if kind is ua.VariantType.Boolean:
        return bool(value)
    if kind in _FLOATS:
        return math.nan if value is None else float(value)
    if kind in _INTEGERS:
        return 0 if value is None else int(value)
    if kind is ua.VariantType.DateTime:
        return datetime.fromisoformat(value)
    if kind is ua.VariantType.String:
        if isinstance(value, Mapping | list):
            return json.dumps(value, ensure_ascii=False)
        return "" if value is None else str(value)
    raise TypeError("not a type that a verdict's field can have")


def _node_id(setting: str, text: str) -> None:
    try:
        ua.NodeId.from_string(text)
    except (UaError, ValueError) as error:
        raise SettingsError(f"{setting} {text!r} is no node id such as ns=2;s=Line1.Verdict: {error}") from None


def _file(path: Path) -> CertProperties:
    """A file for the library, which goes by a file's name where it is not told what is in it."""
    return CertProperties(path, "pem" if b"-----BEGIN" in path.read_bytes() else "der")


def _application_uri(certificate: Path) -> str:
    """The URI in a certificate: a server compares it with the one that the client gives."""
    data = certificate.read_bytes()
    try:
        read = x509.load_pem_x509_certificate(data) if b"-----BEGIN" in data else x509.load_der_x509_certificate(data)
        names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, x509.ExtensionNotFound):
        uris = []
    return uris[0] if uris else APPLICATION_URI
