"""A small TCP proxy before a Redis, which loses answers, tears requests and goes away when it is told to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from types import TracebackType


class Proxy:
    """Listens on 127.0.0.1 and passes bytes on to a Redis on a Unix socket.

    Args:
        socket_path: the server's Unix socket.
    """

    def __init__(self, socket_path: str) -> None:
        self._path = socket_path
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._away = False
        self.lose_reply: Callable[[], bool] = lambda: False
        """Asked for each answer that Redis gave to a script: True loses it and cuts the connection."""
        self.tear_request: Callable[[int], int | None] = lambda size: None
        """Asked for each call of a script with its size: a number passes that many bytes on and cuts."""
        self.lost = 0
        self.torn = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        """What a client connects to."""
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def go_away(self) -> None:
        """Cut every connection and answer new ones by closing them."""
        with self._lock:
            self._away = True
            self._cut_all()

    def come_back(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._away = False

    def __enter__(self) -> Proxy:
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.go_away()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        for thread in self._threads:
            thread.join()

    def _cut_all(self) -> None:
        for one in self._open:
            _cut(one)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._away:
                    client.close()
                    continue
                server = socket.socket(socket.AF_UNIX)
                try:
                    server.connect(self._path)
                except OSError:
                    client.close()
                    server.close()
                    continue
                self._open |= {client, server}
            pair = _Pair(self, client, server)
            for target in (pair.pass_requests, pair.pass_replies):
                thread = threading.Thread(target=target, daemon=True)
                self._threads.append(thread)
                thread.start()

    def forget(self, *ends: socket.socket) -> None:
        """Both directions of a connection are over."""
        with self._lock:
            self._open -= set(ends)
        for end in ends:
            end.close()


class _Pair:
    """One connection: its two directions, each in a thread. The last one to end closes both sockets."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._left = 2
        self._in_script = False
        self._lock = threading.Lock()

    def pass_requests(self) -> None:
        try:
            while data := _receive(self._client):
                script = b"EVAL" in data[:64]
                self._in_script |= script
                keep = self._proxy.tear_request(len(data)) if script else None
                if keep is not None:
                    self._proxy.torn += 1
                    _send(self._server, data[:keep])
                    return
                if not _send(self._server, data):
                    return
        finally:
            self._end()

    def pass_replies(self) -> None:
        try:
            while data := _receive(self._server):
                in_script, self._in_script = self._in_script, False
                if in_script and self._proxy.lose_reply():
                    self._proxy.lost += 1
                    return
                if not _send(self._client, data):
                    return
        finally:
            self._end()

    def _end(self) -> None:
        _cut(self._client)
        _cut(self._server)
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._proxy.forget(self._client, self._server)


def _receive(end: socket.socket) -> bytes:
    try:
        return end.recv(1 << 20)
    except OSError:
        return b""


def _send(end: socket.socket, data: bytes) -> bool:
    try:
        end.sendall(data)
    except OSError:
        return False
    return True


def _cut(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
