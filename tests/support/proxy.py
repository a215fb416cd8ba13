"""A small TCP proxy before a Redis, which loses answers, tears requests, dawdles and goes away when it is told to."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType


class Proxy:
    """Listens on 127.0.0.1 and passes bytes on to a Redis.

    Args:
        place: the server's Unix socket, or its host and port.
    """

    def __init__(self, place: str | tuple[str, int]) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._clients: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._away = False
        self.lose_reply: Callable[[], bool] = lambda: False
        """Asked for each answer that Redis gave to a script: True loses it and cuts the connection."""
        self.tear_request: Callable[[int], int | None] = lambda size: None
        """Asked for each call of a script with its size: a number passes that many bytes on and cuts."""
        self.delay_s = 0.0
        """Each piece waits so long before it is passed on, in both directions."""
        self.bytes_per_s = 0.0
        """How fast bytes are passed on, in both directions; 0 is as fast as they come."""
        self.mute = False
        """Swallow every answer; the connection stays."""
        self.deaf = False
        """Swallow every request; the connection stays."""
        self.lost = 0
        self.torn = 0
        self._ending = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        """What a client connects to."""
        return f"redis://127.0.0.1:{self.port}/0"

    def go_away(self) -> None:
        """Cut every connection and answer new ones by closing them."""
        with self._lock:
            self._away = True
            self._cut_all()

    def come_back(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._away = False

    def cut(self) -> int:
        """Cut every connection, and take new ones at once; how many there were."""
        with self._lock:
            self._cut_all()
            return len(self._open) // 2

    def half_close(self) -> None:
        """End the answers of every connection, while its requests are still passed on."""
        with self._lock:
            for client in self._clients:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_WR)

    def heal(self) -> None:
        """Pass everything on at once again."""
        self.delay_s = self.bytes_per_s = 0.0
        self.mute = self.deaf = False
        self.lose_reply = lambda: False
        self.tear_request = lambda size: None
        self.come_back()

    def dawdle(self, size: int) -> None:
        """Wait as long as the delay and the rate say."""
        wait_s = self.delay_s + (size / self.bytes_per_s if self.bytes_per_s else 0.0)
        if wait_s:
            self._ending.wait(wait_s)

    def __enter__(self) -> Proxy:
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
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
                server = socket.socket(socket.AF_UNIX if isinstance(self._place, str) else socket.AF_INET)
                try:
                    server.connect(self._place)
                except OSError:
                    client.close()
                    server.close()
                    continue
                self._open |= {client, server}
                self._clients.add(client)
            pair = _Pair(self, client, server)
            for target in (pair.pass_requests, pair.pass_replies):
                thread = threading.Thread(target=target, daemon=True)
                self._threads.append(thread)
                thread.start()

    def forget(self, *ends: socket.socket) -> None:
        """Both directions of a connection are over."""
        with self._lock:
            self._open -= set(ends)
            self._clients -= set(ends)
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
                script = b"EVAL" in data
                self._in_script |= script
                keep = self._proxy.tear_request(len(data)) if script else None
                if keep is not None:
                    self._proxy.torn += 1
                    _send(self._server, data[:keep])
                    return
                self._proxy.dawdle(len(data))
                if self._proxy.deaf:
                    continue
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
                self._proxy.dawdle(len(data))
                if self._proxy.mute:
                    continue
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
