"""A small MES that is an OPC UA server, in a process that a test kills. mes_opcua.py PORT FOLDER

It has a variable, an object and a method; each verdict that is written to it is appended to FOLDER/taken.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from asyncua import ua
from asyncua.server.server import Server

SPACE = "urn:test:mes"
FIELDS = {
    "part": ua.VariantType.String,
    "decision": ua.VariantType.String,
    "score": ua.VariantType.Double,
    "sequence": ua.VariantType.Int64,
    "kept": ua.VariantType.Boolean,
    "json": ua.VariantType.String,
    "unknown": ua.VariantType.String,
    "id": ua.VariantType.String,
}


def _node(name: str) -> ua.NodeId:
    return ua.NodeId.from_string(f"ns=2;s={name}")


class Mes:
    """The server and its nodes."""

    def __init__(self, port: int, folder: Path) -> None:
        self.server = Server()
        self._port = port
        self._file = os.open(folder / "taken", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.ids: list[str] = []
        self.nodes: dict[str, Any] = {}

    async def open(self) -> Mes:
        """Make the nodes; the server is not started."""
        await self.server.init()
        self.server.set_endpoint(f"opc.tcp://127.0.0.1:{self._port}/mes")
        space = await self.server.register_namespace(SPACE)
        assert space == 2
        objects = self.server.nodes.objects

        async def variable(parent: Any, name: str, kind: ua.VariantType, value: Any) -> Any:
            node = await parent.add_variable(_node(name), f"{space}:{name.split('.')[-1]}", value, kind)
            await node.set_writable()
            return node

        self.nodes["Verdict"] = await variable(objects, "Verdict", ua.VariantType.String, "")
        self.nodes["Ack"] = await variable(objects, "Ack", ua.VariantType.String, "")
        self.nodes["Number"] = await variable(objects, "Number", ua.VariantType.Double, 0.0)
        station = await objects.add_object(_node("Station"), f"{space}:Station")
        for name, kind in FIELDS.items():
            value = {ua.VariantType.Double: 0.0, ua.VariantType.Int64: 0, ua.VariantType.Boolean: False}.get(kind, "")
            self.nodes[name] = await variable(station, f"Station.{name}", kind, value)
        text = [ua.VariantType.String]
        await station.add_method(_node("Take"), f"{space}:Take", self._take, text, [ua.VariantType.Boolean])
        return self

    def keep(self, text: str) -> None:
        """Write a verdict down before the client is answered."""
        os.write(self._file, text.encode() + b"\n")

    def _take(self, parent: Any, text: ua.Variant) -> list[ua.Variant]:
        if "refuse" in text.Value:
            return [ua.Variant(False, ua.VariantType.Boolean)]
        self.keep(text.Value)
        return [ua.Variant(True, ua.VariantType.Boolean)]


async def main(port: str, folder: str) -> None:
    """Serve until killed."""
    mes = await Mes(int(port), Path(folder)).open()
    async with mes.server:
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
