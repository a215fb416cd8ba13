"""The review page's web server: local, small, and careful about who may write.

There is no login: whoever reaches the address may look and say. So it listens on this machine unless told otherwise,
answers to its own names only (a page elsewhere must not reach it through a name that points here), and takes feedback
only with the token that its own page carries.
"""

from __future__ import annotations

import hmac
import json
import secrets
import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.feedback import FeedbackLog
from gaussline.worker.contract.feedback import Feedback, Label
from gaussline.worker.contract.frame import parse_frame_id
from gaussline.worker.contract.keys import check_name
from gaussline.worker.errors import BrokerUnavailable, ContractError, GausslineError, NotFound, SettingsError
from gaussline.worker.review.frames import Kind, ReviewList
from gaussline.worker.review.page import PER_PAGE, View, render, said
from gaussline.worker.review.pictures import Pictures
from gaussline.worker.settings import Settings

BODY_BYTES = 8192
CLIENT_S = 10.0
CLIENTS = 16
"""Connections that are answered at a time; further ones are closed at once."""
MAX_SKIP = 100_000
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class ReviewServer:
    """Serves from `start` until `close`. Port 0 takes a free one.

    Args:
        by: name that stands in the page until a person writes another.
        on_fault: is told what nobody expected.

    Raises SettingsError where the address or the port cannot be had.
    """

    def __init__(
        self,
        settings: Settings,
        client: Redis,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        by: str = "",
        near: float = 0.9,
        remake: bool = True,
        on_fault: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self.token = secrets.token_urlsafe(32)
        self._line = settings.line
        self._by = by
        self._list = ReviewList(settings, client, near=near)
        self._pictures = Pictures(settings, client, remake=remake)
        self._feedback = FeedbackLog(client, settings.line, max_entries=settings.feedback_max_entries)
        self._lock = threading.Lock()  # the list holds what it has read of models
        review = self

        class Handler(_Handler):
            owner = review

        try:
            self._server = _Server(host, port, Handler, on_fault)
        except (OSError, OverflowError) as error:
            told = getattr(error, "strerror", None) or str(error)
            raise SettingsError(f"review: {host} port {port}: {told}; choose another with --host, --port") from None
        own = self._server.server_address
        self.names = frozenset(f"{name}:{own[1]}" for name in (*LOOPBACK, f"[{host}]" if ":" in host else host))
        self.open_to_all = host in ("0.0.0.0", "::", "")
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="review", daemon=True)

    @property
    def url(self) -> str:
        """Where the page is."""
        host, port = self._server.server_address[:2]
        shown = str(host) if isinstance(host, str) else host.decode()
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/"

    def start(self) -> ReviewServer:
        """Serve, from threads of its own."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop serving, and give the port back."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(CLIENT_S)
        self._server.server_close()

    def __enter__(self) -> ReviewServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def page(self, view: View, nonce: str) -> str:
        """The page of a view."""
        with self._lock:
            found = self._list.read(view.show, camera=view.camera, skip=view.skip, count=PER_PAGE)
        return render(self._line, found, view, token=self.token, nonce=nonce, by=self._by)

    def frame(self, frame_id: str) -> bytes:
        """A picture of a kept frame. Raises NotFound."""
        parse_frame_id(frame_id)
        return self._pictures.frame(frame_id)

    def heat_map(self, frame_id: str) -> bytes:
        """A picture of its heat map. Raises NotFound."""
        parse_frame_id(frame_id)
        verdict = self._list.verdict(frame_id)
        if verdict is None:
            raise NotFound(f"frame {frame_id} is kept no more")
        return self._pictures.heat_map(verdict)

    def write(self, fields: dict[str, str]) -> Feedback:
        """Write feedback. Raises NotFound, ContractError, Forbidden."""
        if not hmac.compare_digest(fields.get("token", "").encode(), self.token.encode()):
            raise _ForbiddenError("this page is of an earlier start of the server: load it again")
        try:
            label = Label(fields.get("label", ""))
        except ValueError:
            raise ContractError("feedback is good or bad") from None
        feedback = Feedback(fields.get("id", ""), label, fields.get("by", "").strip(), fields.get("note", "").strip())
        self._feedback.write(feedback)
        return feedback


class _ForbiddenError(GausslineError):
    """Somebody who may not write, or asks by a name that is not ours."""


class _Handler(BaseHTTPRequestHandler):
    owner: ReviewServer
    timeout = CLIENT_S
    server_version = "gaussline"
    sys_version = ""

    def do_GET(self) -> None:
        self._answered(self._get)

    def do_HEAD(self) -> None:
        self._answered(self._get)

    def do_POST(self) -> None:
        self._answered(self._post)

    def _answered(self, work: Callable[[], None]) -> None:
        """Every expected mistake becomes a status and one plain line."""
        try:
            if not self.owner.open_to_all and self.headers.get("Host", "") not in self.owner.names:
                raise _ForbiddenError("this address answers to its own names only")
            work()
        except _ForbiddenError as error:
            self._tell(403, str(error))
        except NotFound as error:
            self._tell(404, str(error))
        except BrokerUnavailable as error:
            self._tell(503, str(error))
        except ContractError as error:
            self._tell(400, str(error))
        except GausslineError as error:
            self._tell(409, str(error))

    def _get(self) -> None:
        parts = self._asked()
        kind, _, rest = parts.path.lstrip("/").partition("/")
        if parts.path == "/":
            nonce = secrets.token_urlsafe(16)
            policy = (
                f"default-src 'none'; img-src 'self' data:; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
                "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
            )
            body = self.owner.page(_view(parts.query), nonce).encode()
            self._send(200, "text/html; charset=utf-8", body, {"Content-Security-Policy": policy})
        elif kind == "frame" and rest:
            self._send(200, "image/jpeg", self.owner.frame(unquote(rest)))
        elif kind == "map" and rest:
            self._send(200, "image/jpeg", self.owner.heat_map(unquote(rest)))
        else:
            raise NotFound("there are /, /frame/ID, /map/ID and /feedback")

    def _asked(self) -> SplitResult:
        try:
            return urlsplit(self.path)
        except ValueError:
            raise ContractError("this address is none") from None

    def _post(self) -> None:
        if self._asked().path != "/feedback":
            raise NotFound("feedback goes to /feedback")
        size = self.headers.get("Content-Length", "")
        if not (size.isascii() and size.isdigit() and len(size) < 8 and int(size) <= BODY_BYTES):
            raise ContractError(f"a body of at most {BODY_BYTES} bytes is needed, and its Content-Length")
        try:
            asked = parse_qs(self.rfile.read(int(size)).decode(), max_num_fields=10)
        except ValueError:
            raise ContractError("the body is no form") from None
        feedback = self.owner.write({name: values[0] for name, values in asked.items()})
        if "application/json" in self.headers.get("Accept", ""):
            body = json.dumps({"said": said(feedback)}).encode()
            self._send(200, "application/json", body)
        else:  # without its script the page's form comes here, and goes back
            self._send(303, "text/plain", b"", {"Location": "/"})

    def _tell(self, status: int, error: str) -> None:
        self._send(status, "application/json", json.dumps({"error": error}).encode())

    def _send(self, status: int, kind: str, body: bytes, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        for name, value in (headers | (more or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """A picture that was looked at is no event."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, host: str, port: int, handler: type[_Handler], on_fault: Callable[[BaseException], None]
    ) -> None:
        self._on_fault = on_fault
        self._free = threading.BoundedSemaphore(CLIENTS)
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        """Bind, and look no name up."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Answer in a thread, where one is free."""
        if not self._free.acquire(timeout=CLIENT_S):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """The thread's body."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up while it is answered is no event."""
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError | TimeoutError):
            self._on_fault(error)


def _view(query: str) -> View:
    try:
        asked = {name: values[0] for name, values in parse_qs(query, max_num_fields=10).items()}
        camera = asked.get("camera")
        skip = asked.get("skip", "0")
        if not (skip.isascii() and skip.isdigit() and int(skip) <= MAX_SKIP):
            raise ValueError(skip)
        show = Kind(asked["show"]) if "show" in asked else None
        return View(show, None if camera is None else check_name("camera", camera), int(skip))
    except ValueError as error:
        raise ContractError(f"this page does not exist: {str(error)[:100]}") from None
