"""What is deployed names only what is there: commands, options, settings, ports and files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from gaussline.worker.broker.acl import BRIDGES
from gaussline.worker.commands.exporter import PORT
from gaussline.worker.commands.main import COMMANDS, app
from gaussline.worker.settings import PREFIX, Settings
from tests.support.repository import ROOT

DEPLOY = ROOT / "deploy"
VARIABLE = re.compile(rf"\b{PREFIX}[A-Z_]+\b")
KNOWN = {PREFIX + name.upper() for name in Settings.model_fields} | {PREFIX + "CONFIG"}
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
DOCKERFILES = sorted((DEPLOY / "docker").glob("*.Dockerfile"))


def check_command(words: list[str]) -> None:
    """A command of gaussline's, and options that it has."""
    assert words[0] in COMMANDS, words
    group = typer.main.get_command(app)
    command = group.get_command(None, words[0])  # type: ignore[attr-defined]
    within = getattr(command, "commands", {})
    called = [command] if not within else [within[name] for name in (BRIDGES if words[1] == "%i" else words[1:2])]
    for each in called:
        options = {name for parameter in each.params for name in parameter.opts} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= options, words


def texts() -> list[Path]:
    return [path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix not in {".json", ".pyc"}]


@pytest.mark.parametrize("path", texts(), ids=lambda path: path.name)
def test_every_setting_that_is_named_is_one(path: Path) -> None:
    assert set(VARIABLE.findall(path.read_text("utf-8"))) <= KNOWN


@pytest.mark.parametrize("service", [name for name, each in COMPOSE["services"].items() if "build" in each])
def test_services_of_compose_call_what_is_there(service: str) -> None:
    own = COMPOSE["services"][service]
    check_command(own["command"])
    assert (DEPLOY / own["build"]["context"] / own["build"]["dockerfile"]).resolve().is_file()
    assert own["read_only"], "no service of ours writes outside its volumes"


def test_mounted_files_are_there_and_every_image_is_pinned() -> None:
    for name, service in COMPOSE["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), f"{name}: {source}"
            else:
                assert source in COMPOSE["volumes"]
        if "build" not in service:
            assert re.search(r":v?\d+\.\d+", service["image"]), f"{name}: {service['image']} is not pinned"


def test_redis_keeps_frames_and_evicts_none() -> None:
    words = COMPOSE["services"]["redis"]["command"]
    told = dict(zip(words[1::2], words[2::2], strict=True))
    assert told["--appendonly"] == "yes"
    assert told["--maxmemory-policy"] == "noeviction"


def test_prometheus_asks_the_ports_that_are_served() -> None:
    jobs = yaml.safe_load((DEPLOY / "prometheus" / "compose.yaml").read_text("utf-8"))["scrape_configs"]
    asked = {part["names"][0]: part["port"] for job in jobs for part in job["dns_sd_configs"]}
    assert asked == {"worker": Settings.model_fields["http_port"].default, "exporter": PORT}


def test_stopping_takes_longer_than_draining() -> None:
    drain_s = Settings.model_fields["drain_s"].default
    assert int(COMPOSE["services"]["worker"]["stop_grace_period"].removesuffix("s")) > drain_s
    unit = (DEPLOY / "systemd" / "gaussline-worker@.service").read_text("utf-8")
    found = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert found is not None
    assert int(found[1]) > drain_s


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_call_what_is_there_and_give_little_away(unit: Path) -> None:
    text = unit.read_text("utf-8")
    calls = re.findall(r"^ExecStart(?:Pre)?=/opt/gaussline/bin/gaussline (.*)$", text, re.MULTILINE)
    assert calls
    for call in calls:
        check_command(call.split())
    for line in ("User=gaussline", "NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet="):
        assert f"\n{line}\n" in text


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_are_pinned_built_in_stages_and_run_as_nobody(path: Path) -> None:
    text = path.read_text("utf-8")
    stages = re.findall(r"^FROM (\S+)(?: AS (\w+))?$", text, re.MULTILINE)
    assert len(stages) == 2
    assert all(re.search(r":\d+\.\d+\.\d+-", image) for image, _ in stages)
    last = text.rsplit("\nFROM ", 1)[1]
    assert re.search(r"^USER 10001$", last, re.MULTILINE)
    assert "pip install" not in last
    assert "--build-arg" not in last
    copied = re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    for line in copied:
        for source in line.split()[:-1]:
            assert (ROOT / source).exists()
            assert f"!{source}" in ignored
    command = last.rsplit("\nCMD [", 1)[1].split("]")[0]
    check_command([word.strip(' "') for word in command.split(",")])


def test_the_producers_image_has_no_torch() -> None:
    assert "[worker]" not in (DEPLOY / "docker" / "producer.Dockerfile").read_text("utf-8")
