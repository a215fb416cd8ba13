"""docs/access.md, followed step by step: certificates, users, Redis, a process, and what doctor says of it."""

from __future__ import annotations

import json
import re
import shlex
import stat
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gaussline.worker.broker.certificates import CertificateWatch, certificates, read_end
from gaussline.worker.broker.client import open_redis, time_us
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.errors import BrokerUnavailable, SettingsError
from gaussline.worker.settings import Settings
from tests.access.certificates import Authority
from tests.access.conftest import LINE, Secured, free_port
from tests.broker.way import Way
from tests.support.cli import Cli
from tests.support.repository import ROOT
from tests.support.skips import needs_program, program
from tests.support.waiting import eventually

PAGE = (ROOT / "docs" / "access.md").read_text("utf-8")


def block(name: str) -> list[str]:
    """Lines of one tested block of the page."""
    found = re.search(rf"<!-- tested: {name} -->\n```\n(.*?)\n```", PAGE, re.DOTALL)
    assert found is not None, name
    return found[1].splitlines()


class Plant:
    """A machine that was set up by the page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        for line in block("certificates"):
            subprocess.run(shlex.split(self.here(line)), cwd=ROOT, check=True, capture_output=True)
        self.cli = Cli("unix:///none", "press4")
        (users,) = block("users")
        self.cli(*shlex.split(self.here(users))[1:])
        options = dict(self.here(line).split(" ", 1) for line in block("redis"))
        self.server = EmbeddedRedis(server=program("redis-server", "redis-server"), options=options)

    def here(self, text: str) -> str:
        """The page's places on this machine."""
        for old, new in (
            ("/etc/gaussline", str(self.folder)),
            ("/etc/redis", str(self.folder)),
            ("redis.plant.lan:6379", f"localhost:{self.port}"),
            ("redis.plant.lan 10.0.0.5", "localhost 127.0.0.1"),
            ("tls-port 6379", f"tls-port {self.port}"),
        ):
            text = text.replace(old, new)
        return text

    def settings(self, user: str) -> dict[str, str]:
        """The page's settings of a user's process."""
        return dict(self.here(line).replace("worker", user).split("=", 1) for line in block("process"))


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    made = Plant(tmp_path_factory.mktemp("plant"))
    # The embedded server looks for an answer as `default`, which is off here.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EmbeddedRedis, "_wait_ready", lambda self, log: None)
        made.server.start()
    admin = open_redis(Settings.load(made.settings("admin")))

    def answers() -> bool:
        try:
            return time_us(admin) > 0
        except BrokerUnavailable:
            return False

    eventually(answers, what="Redis")
    admin.close()
    yield made
    made.server.stop()


pytestmark = needs_program("openssl", "openssl")


def doctor(plant: Plant, user: str, code: int = 0) -> dict[str, dict[str, str]]:
    done = plant.cli("doctor", "--json", env=plant.settings(user), code=code)
    return {finding["what"]: finding for finding in json.loads(done.stdout)}


def test_the_page_leads_to_a_line_that_doctor_finds_sound(plant: Plant) -> None:
    assert "openssl" in program("openssl", "openssl")
    found = doctor(plant, "operator")
    assert found["access"]["found"] == "connected as operator"
    assert found["rights"]["level"] == "good"
    for what in ("ca", "client", "server"):
        assert found[f"certificate {what}"]["level"] == "good"
    assert "secrets" not in found
    plant.cli("subscribers", "register", "mes", env=plant.settings("operator"))
    plant.cli("verdicts", "--group", "mes", env=plant.settings("subscriber"))
    refused = plant.cli("models", "promote", "default", "1", code=1, env=plant.settings("subscriber"))
    assert "no right" in refused.stderr
    assert "docs/access.md" in refused.stderr


def test_doctor_as_admin_looks_at_all_users(plant: Plant) -> None:
    assert doctor(plant, "admin")["users"]["level"] == "good"
    client = open_redis(Settings.load(plant.settings("admin")))
    client.execute_command("ACL", "DELUSER", "judge")
    client.execute_command("ACL", "SETUSER", "guest", "on", "nopass", "+ping")
    found = doctor(plant, "admin", code=1)
    assert "judge" in found["users"]["found"]
    assert "guest" in found["passwords"]["found"]
    client.execute_command("ACL", "LOAD")
    assert "passwords" not in doctor(plant, "admin")
    client.close()


def test_doctor_tells_rights_that_are_missing_or_too_many(plant: Plant) -> None:
    client = open_redis(Settings.load(plant.settings("admin")))
    client.execute_command("ACL", "SETUSER", "exporter", "(+hset ~*)")
    found = doctor(plant, "exporter")
    assert found["rights"]["level"] == "warning"
    assert "hset" in found["rights"]["found"]
    client.execute_command("ACL", "SETUSER", "exporter", "clearselectors")
    assert doctor(plant, "exporter", code=1)["rights"]["level"] == "fault"
    client.execute_command("ACL", "LOAD")
    client.close()


def test_files_of_secrets_are_for_their_owner_alone(plant: Plant) -> None:
    files = [*(plant.folder / "passwords").iterdir(), *(plant.folder / "tls").glob("*.key")]
    assert len(files) >= 12
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert not any(file.read_text("utf-8").strip() in (plant.folder / "users.acl").read_text("utf-8") for file in files)
    file = plant.folder / "passwords" / "operator"
    file.chmod(0o644)
    assert str(file) in doctor(plant, "operator")["secrets"]["found"]
    file.chmod(0o600)


def test_running_the_command_again_changes_no_password(plant: Plant) -> None:
    before = (plant.folder / "users.acl").read_text("utf-8")
    told = plant.cli(*shlex.split(plant.here(block("users")[0]))[1:]).stderr
    assert told == f"{plant.folder}/users.acl: 11 users of line press4, their passwords in {plant.folder}/passwords\n"
    assert (plant.folder / "users.acl").read_text("utf-8") == before


# --- dates -----------------------------------------------------------------------------------------------------------
def test_the_dates_of_certificates(secured: Secured, tmp_path: Path) -> None:
    settings = Settings.load(secured.settings("exporter") | {"GAUSSLINE_LINE": LINE})
    found = {certificate.what: certificate.not_after_s for certificate in certificates(settings)}
    end_s = datetime(2099, 1, 1, tzinfo=UTC).timestamp()
    assert found == {"ca": end_s, "client": end_s, "server": end_s}
    assert certificates(Settings.load({})) == [], "none without TLS"
    with pytest.raises(SettingsError, match="no certificate"):
        read_end(secured.client.key)
    with pytest.raises(SettingsError, match="cannot be read"):
        read_end(tmp_path / "none")


def test_of_several_certificates_the_first_to_end_counts(tmp_path: Path) -> None:
    soon = datetime.now(UTC) + timedelta(days=3)
    one, two = Authority(tmp_path, "one"), Authority(tmp_path, "two", end=soon)
    both = tmp_path / "both.crt"
    both.write_bytes(one.cert.read_bytes() + two.cert.read_bytes())
    assert abs(read_end(both) - soon.timestamp()) < 1.0


def test_the_exporter_looks_once_a_minute_and_survives_a_file_that_is_gone(secured: Secured, tmp_path: Path) -> None:
    now_s = 0.0
    ca = tmp_path / "ca.crt"
    ca.write_bytes(secured.ca.read_bytes())
    environment = secured.settings("exporter") | {"GAUSSLINE_REDIS_TLS_CA": str(ca)}
    watch = CertificateWatch(Settings.load(environment), lambda: now_s)
    assert len(watch()) == 3
    ca.unlink()
    assert len(watch()) == 3, "not looked at again yet"
    now_s = 61.0
    assert len(watch()) == 3, "an end that nobody sees any more comes all the same"


def test_doctor_warns_of_a_certificate_near_its_end(cli: Cli, secured: Secured, way: Way, tmp_path: Path) -> None:
    soon = Authority(tmp_path, "soon", end=datetime.now(UTC) + timedelta(days=3))
    both = tmp_path / "both.crt"
    both.write_bytes(secured.ca.read_bytes() + soon.cert.read_bytes())
    done = cli("doctor", "--json", env=secured.settings("operator") | {"GAUSSLINE_REDIS_TLS_CA": str(both)})
    found = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert found["certificate ca"]["level"] == "warning"
    assert "3 days" in found["certificate ca"]["found"] or "2 days" in found["certificate ca"]["found"]
