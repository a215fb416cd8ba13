"""A small MES that takes verdicts over HTTP, in a process that a test kills. mes_http.py PORT FOLDER [CERT KEY CA]

What it takes it appends to FOLDER/taken as one line of JSON, flushed before it answers. FOLDER/answers may hold
`part=status` lines: that status is answered for that part, and nothing taken.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    allow_reuse_address = True


def main(port: str, folder: str, *tls: str) -> None:
    """Serve until killed."""
    home = Path(folder)
    taken = os.open(home / "taken", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(200)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            verdict = json.loads(body)
            answers = home / "answers"
            told = dict(line.split("=") for line in answers.read_text().splitlines()) if answers.exists() else {}
            status = int(told.get(verdict["part"], "204"))
            if status < 300:
                line = {"headers": dict(self.headers), "body": body.decode()}
                with lock:
                    os.write(taken, (json.dumps(line) + "\n").encode())
            self._answer(status)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = Server(("127.0.0.1", int(port)), Handler)
    if tls:
        certificate, key, authority = tls
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority)
        context.load_cert_chain(certificate, key)
        context.verify_mode = ssl.CERT_REQUIRED
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
