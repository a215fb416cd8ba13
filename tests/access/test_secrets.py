"""Passwords appear nowhere: not in logs, `repr`, messages of errors, `/metrics`, or what commands print.

The words of this line's users are marked (`S3CRET-…`), and stand in a URL, in settings and in files.
"""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import quote

import pytest

from gaussline import Producer, Verdicts
from gaussline.worker.broker.client import connect, open_redis, redact, time_us
from gaussline.worker.commands.access_findings import secret_files
from gaussline.worker.errors import BrokerUnavailable, GausslineError, SettingsError
from gaussline.worker.settings import Settings
from tests.access.conftest import LINE, Secured, word
from tests.broker.way import Way
from tests.commands.workers import start_worker
from tests.support.cli import Cli

MARK = "S3CRET"


def url_of(secured: Secured, user: str, password: str, port: int | None = None) -> str:
    """An address that holds the password, as an operator may write it."""
    return f"rediss://{user}:{quote(password, safe='')}@127.0.0.1:{port or secured.port}/0"


def test_no_repr_holds_a_password(secured: Secured) -> None:
    environment = secured.settings("worker") | {"GAUSSLINE_LINE": LINE}
    in_url = Settings.load(environment, redis_url=url_of(secured, "worker", word("worker")))
    for settings in (Settings.load(environment), in_url):
        client = open_redis(settings)
        assert time_us(client) > 0
        things = (settings, client, client.connection_pool, Verdicts(settings), settings.model_dump())
        for thing in things:
            assert MARK not in f"{thing!r} {thing}", type(thing)
        client.close()
    with Producer("cam1", settings=Settings.load(secured.settings("producer"), line=LINE)) as camera:
        assert MARK not in repr(camera)


@pytest.mark.parametrize("wrong", ["password", "port", "database", "user"])
def test_no_error_holds_a_password(secured: Secured, wrong: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    password = word("nobody") if wrong == "password" else word("worker")
    user = "nobody" if wrong == "user" else "worker"
    url = url_of(secured, user, password, 1 if wrong == "port" else None)
    url = url.removesuffix("0") + "99999" if wrong == "database" else url
    with pytest.raises(GausslineError) as caught:
        time_us(connect(url, tls=secured.tls, timeout_s=2.0))
    assert MARK not in str(caught.value)
    assert MARK not in caplog.text
    assert caught.value.__cause__ is None, "the foreign error, whose text is not ours, is left out of a traceback"


@pytest.mark.parametrize(
    "url",
    [
        *("redis://u:S3CRET@host:port/0", "ftp://u:S3CRET@host/0", "redis://u:S3CRET@[::1/0"),
        # Not percent-encoded, as it must be: no part of it may be taken for the host or the port.
        *("redis://u:a/S3CRET@host/0", "redis://u:S3CRET/a@host/0", "redis://u:S3CRET#a@host/0"),
        *("redis://u:a?S3CRET@host/0", "redis://u:a@S3CRET/b@host/0", "redis://u:a@S3CRET@host:port/0"),
        *("redis+sentinel://u:S3CRET/a@host/main", "redis+cluster://u:a/S3CRET@host"),
    ],
)
def test_an_address_that_is_none_is_told_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        connect(url)
    assert MARK not in str(caught.value)
    with pytest.raises(SettingsError) as caught:
        Settings.load({"GAUSSLINE_REDIS_URL": url, "GAUSSLINE_LINE": "no line!"})
    assert MARK not in str(caught.value)
    assert MARK not in redact(f"settings say {url!r}, so")


def test_the_address_is_given_without_encryption_where_certificates_are_set(secured: Secured) -> None:
    with pytest.raises(SettingsError, match="not rediss://") as caught:
        connect(f"redis://u:{MARK}@127.0.0.1/0", tls=secured.tls)
    assert MARK not in str(caught.value)


@pytest.mark.parametrize("where", ["file", "url", "bad file"])
def test_no_command_prints_a_password(cli: Cli, secured: Secured, way: Way, tmp_path: Path, where: str) -> None:
    env = secured.settings("operator")
    code = 0
    if where == "url":
        env["GAUSSLINE_REDIS_URL"] = url_of(secured, "operator", word("operator"))
        del env["GAUSSLINE_REDIS_PASSWORD_FILE"]
    if where == "bad file":
        file = tmp_path / "password"
        file.write_text(f"{MARK}-wrong", "utf-8")
        env["GAUSSLINE_REDIS_PASSWORD_FILE"], code = str(file), 3
    done = cli("settings", env=env)
    assert MARK not in done.stdout + done.stderr
    for words in (("ledger",), ("status", "--once"), ("verdicts", "--since", "1h")):
        done = cli(*words, env=env, code=code)
        assert MARK not in done.stdout + done.stderr, words
    done = cli("doctor", env=env, code=1 if code else 0)
    assert MARK not in done.stdout + done.stderr


def test_a_worker_in_trouble_tells_no_password(cli: Cli, secured: Secured, way: Way, model_file: Path) -> None:
    operator = secured.settings("operator")
    cli("models", "import", str(model_file), env=operator)
    cli("models", "promote", "default", "1", env=operator)
    worker = start_worker(cli, env=secured.settings("worker") | {"GAUSSLINE_LOG_LEVEL": "debug"})
    try:
        # Its password is changed under it, and its connections are cut: it cannot log in any more.
        way.client.execute_command("ACL", "SETUSER", "worker", "resetpass", ">another")
        way.client.execute_command("CLIENT", "KILL", "USER", "worker")
        worker.says("trouble, trying again")
        status, text = worker.get("/readyz")
        assert status == 503
        assert MARK not in text + worker.get("/metrics")[1] + worker.get("/healthz")[1]
        assert MARK not in str(worker.log) + "".join(worker.other)
    finally:
        way.client.execute_command("ACL", "SETUSER", "worker", "resetpass", f">{word('worker')}")
    assert worker.end(15) in (0, 3)


def test_a_stolen_client_cannot_log_in_without_a_certificate_or_to_a_false_server(secured: Secured) -> None:
    from gaussline.worker.broker.client import Tls

    for tls in (Tls(secured.ca), Tls(None, secured.client.cert, secured.client.key)):
        with pytest.raises(BrokerUnavailable):
            time_us(connect(secured.url("worker"), password=word("worker"), tls=tls))
    other = secured.url("worker").replace("127.0.0.1", "127.0.0.2")
    with pytest.raises(BrokerUnavailable):
        time_us(connect(other, password=word("worker"), tls=secured.tls))
    loose = Tls(secured.ca, secured.client.cert, secured.client.key, check_hostname=False)
    assert time_us(connect(other, password=word("worker"), tls=loose)) > 0


def test_one_address_serves_all_users_where_user_and_password_stand_beside_it(cli: Cli, secured: Secured) -> None:
    """They go before what the address holds, for libraries and for commands alike."""
    for address in (secured.url("nobody"), url_of(secured, "nobody", "wrong"), secured.url("").replace("@", "")):
        env = secured.settings("operator") | {"GAUSSLINE_REDIS_URL": address, "GAUSSLINE_REDIS_USER": "operator"}
        client = open_redis(Settings.load(env))
        assert client.acl_whoami() == "operator"
        client.close()
        assert cli("ledger", env=env).stdout


def test_a_file_of_a_secret_that_others_may_read_is_told(tmp_path: Path) -> None:
    names = ("redis_password_file", "bridge_token_file", "bridge_sign_key_file", "bridge_password_file")
    files = {name: tmp_path / name for name in (*names, "bridge_key_file", "redis_tls_key")}
    for file in files.values():
        file.write_text(MARK, "utf-8")
        file.chmod(0o600)
    settings = Settings.load({}, **files)
    assert list(secret_files(settings)) == []
    for file in files.values():
        file.chmod(0o640)
        (finding,) = secret_files(settings)
        assert str(file) in finding.found
        assert MARK not in finding.found
        file.chmod(0o600)
