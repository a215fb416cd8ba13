"""`gaussline bridge webhook` against HTTP servers that are killed, refuse, and ask for certificates."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import random
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gaussline.worker.bridge.parcel import parcel_of
from gaussline.worker.bridge.secrets import TlsFiles, read_secret
from gaussline.worker.bridge.webhook import Webhook, WebhookPlace
from gaussline.worker.broker.bridge_store import BridgeStore
from gaussline.worker.commands.bridge_run import Errand
from gaussline.worker.errors import NotNow, SettingsError, Undeliverable
from gaussline.worker.settings import Settings
from tests.bridge.certificates import Authority
from tests.bridge.line import check, publish, seen_in, stands
from tests.bridge.receivers import free_port, http_mes, reaches, taken
from tests.broker.way import Way
from tests.support.cli import Cli
from tests.support.waiting import eventually

QUICK = {"GAUSSLINE_BRIDGE_LEASE_S": "1", "GAUSSLINE_BRIDGE_BACKOFF_MAX_S": "0.2"}


def parcel(identity: str = "cam1:1:0", part: str | None = "A") -> Any:
    body = json.dumps({"v": 1, "id": identity, "camera": "cam1", "part": part, "decision": "fail"}, ensure_ascii=False)
    return parcel_of("1-0", "line1", {b"json": body.encode()})


def bodies(folder: Path) -> list[str]:
    return [str(request["body"]) for request in taken(folder)]


def started(process: subprocess.Popen[str]) -> int:
    """The port of a bridge's /metrics, once it says so; the rest of its log stays to be read."""
    assert process.stderr is not None
    while line := process.stderr.readline():
        said = json.loads(line)
        if said["event"] == "started":
            return int(said["http_port"])
    raise AssertionError(f"ended with {process.wait(20)}")


def asked(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


# --- at least once, in order, whatever is killed ---------------------------------------------------------------------
def test_a_receiver_and_a_bridge_that_are_killed_lose_no_verdict_and_no_order(
    way: Way, cli: Cli, tmp_path: Path
) -> None:
    chance = random.Random(20251125)
    pause = threading.Event()
    ids: list[str] = []
    with http_mes(tmp_path) as mes:
        command = ("bridge", "webhook", f"http://127.0.0.1:{mes.port}/verdicts", "--http-port", "0")
        process = cli.start(*command, **QUICK)
        for turn in range(6):
            least = len(taken(tmp_path)) + 1
            ids += publish(way, 150, first=len(ids))
            reaches(lambda: len(taken(tmp_path)), least)
            pause.wait(chance.uniform(0, 0.05))
            if turn % 2:
                process.kill()
                process.wait(20)
                process = cli.start(*command, **QUICK)
            else:
                mes.kill()
                mes.start()
        eventually(lambda: stands(way, "webhook"), what="the cursor at the end")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    check(seen_in(bodies(tmp_path)), ids)
    assert {request["headers"]["Idempotency-Key"] for request in taken(tmp_path)} == set(ids)
    assert list(BridgeStore(way.client, way.line, "webhook").letters()) == []


def test_tls_with_certificates_metrics_secrets_and_dead_letters(way: Way, cli: Cli, tmp_path: Path) -> None:
    authority = Authority.make(tmp_path)
    client = authority.pair("client")
    token, key = tmp_path / "token", tmp_path / "sign"
    token.write_text("t0ps3cret-token\n")
    key.write_text("t0ps3cret-key")
    (tmp_path / "answers").write_text("P3=422\nP4=500")
    ids = publish(way, 28)
    with http_mes(tmp_path, authority) as mes:
        url = f"https://127.0.0.1:{mes.port}/verdicts"
        base = ["bridge", "webhook", url, "--name", "mes", "--ca-file", str(authority.file)]
        shown = ["--cert-file", str(client.certificate), "--key-file", str(client.key)]
        secrets = ["--token-file", str(token), "--sign-key-file", str(key), "--http-port", "0"]
        told = cli(*base, *shown, *secrets, "--check").stdout
        assert "answers (HTTP 200)" in told
        assert "bridge mes is new" in told
        assert "does not answer" in cli(*base, "--check", "--http-port", "0", code=1).stderr, "no certificate shown"
        process = cli.start(*base, *shown, *secrets, **QUICK, GAUSSLINE_BRIDGE_GIVE_UP_TRIES="2")
        port = started(process)
        ids += publish(way, 14, first=28)
        eventually(lambda: len(taken(tmp_path)) >= 30)
        assert asked(port, "/healthz")[0] == 200
        assert asked(port, "/readyz")[0] == 200
        metrics = asked(port, "/metrics")[1]
        (tmp_path / "answers").write_text("P3=422")
        eventually(lambda: stands(way, "mes"))
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
        assert process.returncode == 0
        labels = f'{{bridge="mes",line="{way.line}"}}'
        assert f"gaussline_bridge_delivered_total{labels} 30.0" in metrics
        for name in ("retried_total", "dead_total", "lag_seconds", "waiting"):
            assert f"gaussline_bridge_{name}{labels}" in metrics
        assert '"event": "dead letter"' in log
        assert "t0ps3cret" not in log + metrics + told
        refused = [identity for number, identity in enumerate(ids) if number % 7 == 3]
        letters = [json.loads(line) for line in cli("bridge", "dead", "mes", "--json").stdout.splitlines()]
        assert [letter["id"] for letter in letters] == refused
        assert {letter["why"] for letter in letters} == {"HTTP 422"}
        # The MES is mended: what was refused is delivered after all.
        (tmp_path / "answers").write_text("")
        assert "6 of 6" in cli(*base, *shown, *secrets, "--retry-dead").stdout
        assert cli("bridge", "dead", "mes").stdout.startswith("no dead letter of bridge mes")
    requests = taken(tmp_path)
    assert {verdict for _, verdict in seen_in(bodies(tmp_path))} == set(ids)
    for request in requests:
        headers = request["headers"]
        assert headers["Authorization"] == "Bearer t0ps3cret-token"
        at, _, signed = headers["Gaussline-Signature"].partition(",v1=")
        text = f"{at.removeprefix('t=')}.{request['body']}".encode()
        assert signed == hmac.new(b"t0ps3cret-key", text, hashlib.sha256).hexdigest()


def test_a_bridge_that_cannot_begin_says_so_in_one_line(way: Way, cli: Cli, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/"
    empty = tmp_path / "empty"
    empty.write_text("\n")
    for arguments, code, said in (
        ([], 2, "bridge_url is not set"),
        (["ftp://x/"], 2, "a webhook's is https://host/path"),
        (["https://u:pw@x/"], 2, "holds a user or password"),
        ([nobody, "--token-file", str(tmp_path / "none")], 2, "No such file"),
        ([nobody, "--token-file", str(empty)], 2, "holds no secret"),
        (["https://x/", "--cert-file", str(empty)], 2, "give both or neither"),
        (["https://x/", "--ca-file", str(empty)], 2, "holds no certificate"),
        ([nobody, "--check", "--http-port", "0"], 1, "does not answer"),
        ([nobody, "--name", "a b"], 2, "not allowed"),
        ([nobody, "--redis-url", f"redis://127.0.0.1:{free_port()}/0"], 3, "Redis cannot be reached"),
    ):
        told = cli("bridge", "webhook", *arguments, code=code).stderr
        assert said in told
        assert "pw" not in told


# --- what each answer means ------------------------------------------------------------------------------------------
@pytest.fixture
def answering() -> Iterator[tuple[str, list[tuple[int, dict[str, str], bytes]]]]:
    """A server that gives the answers of a list, the last one again and again: its URL, and the list."""
    answers: list[tuple[int, dict[str, str], bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, headers, body = answers[0] if len(answers) == 1 else answers.pop(0)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", answers
        server.shutdown()
        thread.join()


def test_what_each_status_means(answering: tuple[str, list[tuple[int, dict[str, str], bytes]]]) -> None:
    url, answers = answering
    hook = Webhook(WebhookPlace(url, TlsFiles(), timeout_s=5))
    for status in (200, 201, 204):
        answers[:] = [(status, {}, b"")]
        hook.send(parcel())
    for status in (400, 404, 410, 413, 422):
        answers[:] = [(status, {}, b"no such\npart \xff")]
        with pytest.raises(Undeliverable, match=f"HTTP {status}: no such part"):
            hook.send(parcel())
    for status, whole in (
        *((408, False), (409, False), (425, False), (500, False), (502, False)),
        *((429, True), (503, True), (301, True), (401, True), (403, True), (407, True)),
    ):
        answers[:] = [(status, {"Location": "http://127.0.0.1:1/"}, b"x" * 100_000)]
        with pytest.raises(NotNow, match=f"HTTP {status}") as told:
            hook.send(parcel())
        assert told.value.whole is whole, status
        assert len(str(told.value)) < 600
    for text, seconds in (("7", 7.0), ("1e9", 300.0), ("-1", 0.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0)):
        answers[:] = [(503, {"Retry-After": text}, b"")]
        with pytest.raises(NotNow) as told:
            hook.send(parcel())
        assert told.value.least_s == seconds
    hook.close()


def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as mute:
        hook = Webhook(WebhookPlace(f"http://127.0.0.1:{mute.getsockname()[1]}/", TlsFiles(), timeout_s=0.2))
        with pytest.raises(NotNow, match="does not answer") as told:
            hook.send(parcel())
        assert told.value.whole
        hook.close()


@pytest.mark.parametrize("begin", [b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: ", b""])
def test_a_server_that_answers_a_byte_at_a_time_is_given_up_in_time(begin: bytes) -> None:
    """Else it would hold a lane for as long as it likes: each of its bytes comes in time."""
    import socket

    ended, sent = threading.Event(), list[int]()
    with socket.create_server(("127.0.0.1", 0)) as slow:

        def answer() -> None:
            connection, _ = slow.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(begin)
                while not ended.wait(0.02) and len(sent) < 500:
                    try:
                        connection.sendall(b"1")
                    except OSError:
                        return
                    sent.append(1)

        thread = threading.Thread(target=answer)
        thread.start()
        hook = Webhook(WebhookPlace(f"http://127.0.0.1:{slow.getsockname()[1]}/", TlsFiles(), timeout_s=0.5))
        with pytest.raises(NotNow, match="does not answer") as told:
            hook.send(parcel())
        assert told.value.whole
        assert len(sent) < 100
        ended.set()
        thread.join()
        hook.close()


def test_an_answer_that_repeats_the_token_does_not_show_it(
    answering: tuple[str, list[tuple[int, dict[str, str], bytes]]],
) -> None:
    url, answers = answering
    hook = Webhook(WebhookPlace(url, TlsFiles(), token="t0ps3cret-token"))
    for status, kind in ((401, NotNow), (422, Undeliverable)):
        # The second one is cut off in the middle of the token.
        for body in (b"who is Bearer t0ps3cret-token?", b"x" * 490 + b"t0ps3cret-token"):
            answers[:] = [(status, {}, body)]
            with pytest.raises(kind) as told:
                hook.send(parcel())
            assert "t0ps3cre" not in str(told.value)
    hook.close()


def test_two_bridges_that_think_they_are_the_same_process_are_two() -> None:
    """As in two containers of one host's network: each is process 1 of that host."""
    settings = Settings.load({})
    owners = {Errand("webhook", settings, 0, None, False, False, ())._store().owner for _ in range(2)}
    assert len(owners) == 2


def test_an_address_that_is_none_is_told_without_its_query() -> None:
    with pytest.raises(SettingsError, match="is no URL") as told:
        Webhook(WebhookPlace("https://host:99999/verdicts?key=s3cret", TlsFiles()))
    assert "s3cret" not in str(told.value)


def test_ids_of_any_text_make_a_header_and_never_two(tmp_path: Path) -> None:
    hook = Webhook(WebhookPlace("http://127.0.0.1:1/", TlsFiles(), token="t"))
    assert hook._headers(parcel("cam1:1:0"))["Idempotency-Key"] == "cam1:1:0"
    hostile = hook._headers(parcel("A ä\r\nX: y@cam1:1:0"))["Idempotency-Key"]
    assert hostile == "A%20%C3%A4%0D%0AX%3A%20y@cam1:1:0".replace("%3A%20", ":%20")
    assert hostile.isascii()
    hook.close()


def test_secrets_are_read_from_files_and_never_told(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"  s3cret \n")
    assert read_secret("bridge_token_file", file) == "s3cret"
    assert read_secret("bridge_token_file", None) is None
    for text in (b"two\nlines", b"\xff\xfe", b"", b"x" * 70_000):
        file.write_bytes(text)
        with pytest.raises(SettingsError, match="bridge_token_file"):
            read_secret("bridge_token_file", file)
