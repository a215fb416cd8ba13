"""systemd units: those of the repository are those of the code, sound, and tight; `service install` writes them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path, PurePosixPath
from unittest import mock

import pytest

from gaussline.worker.commands import service
from gaussline.worker.commands.exporter import PORT
from gaussline.worker.commands.units import PER_INSTANCE, Bridge, Camera, Site, Wish, environment, files, templates
from gaussline.worker.errors import SettingsError
from gaussline.worker.settings import PREFIX, Settings
from tests.deploy.test_files import DEPLOY, KNOWN, check_command
from tests.support.cli import Cli
from tests.support.skips import needs_program, program

SCORE = 20
"""Most exposure of a unit, in tenths, as `systemd-analyze security` counts it; docs/operations.md states the scores."""
SHIPPED = [DEPLOY / "systemd" / name for name in templates(Site())]
FIND_PROGRAM = service._program
PLACE = PurePosixPath("/etc/systemd/system")


@pytest.fixture
def cli() -> Cli:
    """The command line; no Redis is asked."""
    return Cli("redis://10.0.0.5:6379/0", "press4")


@pytest.fixture(autouse=True)
def installed() -> object:
    """gaussline lies in /opt."""
    with mock.patch.object(service, "_program", return_value=Path("/opt/gaussline/bin/gaussline")) as patched:
        yield patched


def test_the_units_of_the_repository_are_those_of_the_code() -> None:
    made = templates(Site())
    assert {path.name: path.read_text("utf-8") for path in SHIPPED} == made, "run: make docs"


@pytest.mark.parametrize("name", templates(Site()))
def test_units_call_what_is_there(name: str) -> None:
    text = templates(Site())[name]
    for call in re.findall(r"^ExecStart=/opt/gaussline/bin/gaussline (.*)$", text, re.MULTILINE):
        check_command(call.split())
    variables = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", text))
    assert variables <= KNOWN
    assert "\nUser=gaussline\n" in text


@needs_program("systemd-analyze", "systemd")
@pytest.mark.parametrize("user", [False, True], ids=["system", "user"])
def test_systemd_finds_nothing_wrong(tmp_path: Path, *, user: bool) -> None:
    paths = []
    for name, text in templates(Site(program=PurePosixPath("/bin/true"), user_manager=user)).items():
        path = tmp_path / name.replace("@.", "@cpu.")
        path.write_text(text, "utf-8")
        paths.append(str(path))
    words = [program("systemd-analyze", "systemd"), "verify", "--man=no", *(["--user"] if user else []), *paths]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        env={"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    ours = [line for line in done.stderr.splitlines() if "gaussline" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


@needs_program("systemd-analyze", "systemd")
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_units_are_confined(path: Path) -> None:
    words = [
        program("systemd-analyze", "systemd"),
        "security",
        "--offline=true",
        f"--threshold={SCORE}",
        "--no-pager",
        str(path),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    score = re.search(r"Overall exposure level for .*: ([\d.]+)", done.stdout)
    assert score is not None, done.stdout + done.stderr
    assert done.returncode == 0, f"{path.name}: {score[1]}"
    page = (DEPLOY.parent / "docs" / "operations.md").read_text("utf-8")
    assert f"| `{path.name}` | {score[1]} |" in page, "the page states another score"


def test_stopping_takes_longer_than_draining() -> None:
    settings = Settings.load({}, drain_s=93.5)
    site = Site.of(settings, Path("/opt/g"), Path("/etc/gaussline"), run_as="g", user_manager=False)
    found = re.search(r"^TimeoutStopSec=(\d+)$", templates(site)["gaussline-worker@.service"], re.MULTILINE)
    assert found is not None
    assert int(found[1]) > 93.5
    assert Site().stop_s > Settings.model_fields["drain_s"].default


def test_what_is_installed_is_shown_first_and_written_when_it_is_said(cli: Cli, tmp_path: Path) -> None:
    wish = ["--device", "cuda:0", "--device", "cuda:1", "--model", "default"]
    cameras = ("--camera", "cam1=/dev/video0 --rate 5", "--camera", "cam2=rtsp://10.0.0.7/1 --policy drop")
    bridge = ("--bridge", "mqtt=mqtts://10.0.0.9 --only fail")
    words = ("service", "install", "--root", str(tmp_path), *wish, *cameras, *bridge)
    shown = cli(*words, "--dry-run", GAUSSLINE_BATCH_WAIT_MS="25").stdout
    assert list(tmp_path.iterdir()) == []
    for word in ("gaussline-worker@.service", "GAUSSLINE_BATCH_WAIT_MS=25.0", "TimeoutStopSec=40", "/dev/video0"):
        assert word in shown
    assert "--yes" in cli(*words, code=2).stderr, "nobody is there to ask"
    assert list(tmp_path.iterdir()) == []
    told = cli(*words, "--yes").stdout
    assert (
        "enable --now gaussline-worker@cuda:0.service gaussline-worker@cuda:1.service gaussline-learner@default.service"
        in told
    )
    etc = tmp_path / "etc"
    assert {path.name for path in (etc / "systemd/system").iterdir()} == set(templates(Site()))
    settings = etc / "gaussline" / "gaussline.env"
    assert settings.stat().st_mode & 0o777 == 0o600
    assert "GAUSSLINE_LINE=press4\n" in settings.read_text("utf-8")
    ports = [(etc / "gaussline" / f"worker-cuda:{n}.env").read_text("utf-8") for n in (0, 1)]
    assert ports[0] == "GAUSSLINE_HTTP_PORT=9108\n"
    assert ports[1] != ports[0]
    camera = (etc / "gaussline" / "camera-cam2.env").read_text("utf-8")
    assert camera == 'SOURCE=rtsp://10.0.0.7/1\nPORT=9121\nOPTIONS="--policy drop"\n'
    told = (etc / "gaussline" / "bridge-mqtt.env").read_text("utf-8")
    assert told == 'GAUSSLINE_BRIDGE_URL=mqtts://10.0.0.9\nPORT=9112\nOPTIONS="--only fail"\n'
    again = cli(*words, "--dry-run").stdout
    assert again.count(": unchanged") == len(list(etc.rglob("*.*")))  # every file has a dot, no folder of ours has
    changed = cli(*words, "--dry-run", GAUSSLINE_DRAIN_S="60").stdout
    assert "+TimeoutStopSec=80" in changed
    assert "-TimeoutStopSec=40" in changed


def test_what_would_start_and_do_nothing_is_told(cli: Cli) -> None:
    words = ("service", "install", "--device", "cpu", "--model", "default", "--dry-run")
    told = cli(*words).stderr
    assert "GAUSSLINE_FEATURES is off" in told
    assert "GAUSSLINE_WEIGHTS is not set" in told
    assert cli(*words, GAUSSLINE_FEATURES="sample", GAUSSLINE_WEIGHTS="/var/lib/gaussline/net.pth").stderr == ""


def test_files_are_named_from_the_root(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit does not start in the folder that it was installed from."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    words = ("service", "install", "--dry-run", "--json", "--device", "cpu", "--camera")
    made = cli(*words, "cam1=pictures", "--user", GAUSSLINE_WEIGHTS="net.pth")
    texts = "".join(json.loads(made.stdout)["files"].values())
    assert f"GAUSSLINE_WEIGHTS={tmp_path}/net.pth\n" in texts
    assert f"SOURCE={tmp_path}/pictures\n" in texts
    assert "SOURCE=synthetic\n" in cli(*words, "cam1=synthetic", "--user").stdout.replace("\\n", "\n")
    assert "does not see" in cli(*words, "cam1=synthetic", code=2, GAUSSLINE_WEIGHTS="net.pth").stderr


def test_users_units_lie_with_the_user(cli: Cli, tmp_path: Path) -> None:
    told = cli(
        "service",
        "install",
        "--user",
        "--root",
        str(tmp_path),
        "--device",
        "cpu",
        "--yes",
        HOME="/home/ada",
        XDG_CONFIG_HOME="",
    ).stdout
    unit = (tmp_path / "home/ada/.config/systemd/user/gaussline-worker@.service").read_text("utf-8")
    assert "User=" not in unit
    assert "WantedBy=default.target" in unit
    assert "EnvironmentFile=/home/ada/.config/gaussline/gaussline.env" in unit
    assert "systemctl --user enable --now gaussline-worker@cpu.service" in told


def test_secrets_and_places_that_a_unit_does_not_see_are_refused(cli: Cli) -> None:
    words = ("service", "install", "--device", "cpu", "--dry-run")
    refused = cli(*words, code=2, GAUSSLINE_REDIS_URL="redis://ada:hunter2@10.0.0.5:6379/0")
    assert "REDIS_PASSWORD_FILE" in refused.stderr
    assert "hunter2" not in refused.stderr + refused.stdout
    assert "does not see" in cli(*words, code=2, GAUSSLINE_WEIGHTS="/home/ada/net.pth").stderr
    assert "named once" in cli(*words, "--device", "cpu", code=2).stderr
    assert "webhook|mqtt|opcua=URL" in cli(*words, "--bridge", "smtp=x", code=2).stderr
    assert "NAME=SOURCE" in cli(*words, "--camera", "cam1", code=2).stderr
    for name in ("../cam1=x", "a b=x", "=x"):
        assert cli(*words, "--camera", name, code=2).stderr


def test_every_changed_setting_reaches_the_file_and_comes_back() -> None:
    changed = Settings.load(
        {}, line="press4", weights="/var/lib/gaussline/a b.pth", batch_wait_ms=25.0, features="all", drain_s=31
    )
    text = environment(changed)
    read = dict(line.split("=", 1) for line in text.splitlines() if not line.startswith("#"))
    assert read[PREFIX + "WEIGHTS"] == '"/var/lib/gaussline/a b.pth"'
    assert Settings.load({key: value.strip('"') for key, value in read.items()}) == changed
    assert all(PREFIX + name.upper() not in read for name in PER_INSTANCE)
    with pytest.raises(SettingsError, match="one line"):
        environment(Settings.load({}, kept_store="file:///a\nUser=root"))


@pytest.mark.parametrize("letter", list('$`"\\'))
def test_what_means_something_to_systemd_is_escaped(letter: str) -> None:
    text = environment(Settings.load({}, weights=f"/var/lib/a{letter}b.pth"))
    assert f'GAUSSLINE_WEIGHTS="/var/lib/a\\{letter}b.pth"\n' in text


@pytest.mark.parametrize("letter", list("';# "))
def test_what_would_end_a_value_is_quoted(letter: str) -> None:
    text = environment(Settings.load({}, weights=f"/var/lib/a{letter}b.pth"))
    assert f'GAUSSLINE_WEIGHTS="/var/lib/a{letter}b.pth"\n' in text


@pytest.mark.parametrize("folder", ["/home/ada", "/root", "/tmp"])
def test_a_program_that_a_confined_unit_does_not_see_is_refused(folder: str) -> None:
    with mock.patch("shutil.which", return_value=f"{folder}/bin/gaussline"):
        with pytest.raises(SettingsError, match="/opt/gaussline"):
            FIND_PROGRAM(user=False)
        assert FIND_PROGRAM(user=True) == Path(folder) / "bin/gaussline"


def test_ports_of_one_machine_are_all_different() -> None:
    cameras = [Camera(f"cam{n}", "synthetic") for n in range(40)]
    wish = Wish(["cpu", "cuda:0", "cuda:1"], ["a", "b"], cameras, bridges=[Bridge("mqtt", "mqtt://b")])
    made = files(Site(), Settings.load({}), wish, PLACE)
    ports = [int(port) for text in made.secret.values() for port in re.findall(r"PORT=(\d+)", text)]
    ports += [PORT, int(re.findall(r"--http-port (\d+)", made.units[PLACE / "gaussline-judge.service"])[0])]
    assert len(set(ports)) == len(ports) == 48
    assert sorted(made.ports) == sorted(ports)
    taken = files(Site(), Settings.load({}, http_port=PORT), Wish(["cpu"]), PLACE)
    assert len(set(taken.ports)) == 3, "a worker that was to have the port of the exporter"
