"""HTTP connections whose answers come whole within the time limit, or not at all.

A socket's time limit is one of each read: whoever sends a byte at a time would hold a connection for as long as it
likes.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection


class _InTime(io.RawIOBase):
    """A socket's bytes until a moment; a read that would end later raises TimeoutError."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, end_s: float) -> None:
        self._raw = raw
        self._sock = sock
        self._end_s = end_s

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """As of a file; the library sets the socket's own limit anew before it is used again."""
        left_s = self._end_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left_s)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        """Let go of the socket."""
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer that must be there whole when the socket's time limit is over."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        limit_s = sock.gettimeout()
        if limit_s is not None:
            raw: Any = self.fp.detach()
            self.fp = io.BufferedReader(_InTime(raw, sock, time.monotonic() + limit_s))


class _Connection(HTTPConnection):
    response_class = _Answer


class _TlsConnection(HTTPSConnection):
    response_class = _Answer


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class PunctualPools(urllib3.PoolManager):
    """urllib3's, with such connections."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
