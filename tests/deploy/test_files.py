"""What is deployed names only what is there: commands, options, settings, ports and files."""

from __future__ import annotations

import json
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import typer
import yaml

from gaussline.worker.broker.acl import BRIDGES, acl_users
from gaussline.worker.commands.exporter import PORT
from gaussline.worker.commands.main import COMMANDS, app
from gaussline.worker.settings import PREFIX, Settings
from tests.support.repository import ROOT
from tests.support.tools import tool

DEPLOY = ROOT / "deploy"
VARIABLE = re.compile(rf"\b{PREFIX}[A-Z_]+\b")
KNOWN = {PREFIX + name.upper() for name in Settings.model_fields} | {PREFIX + "CONFIG"}
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
SERVING = [name for name, each in COMPOSE["services"].items() if "build" in each and name != "operator"]
"""Ours that run on; the operator's ends with each command."""
MADE_THERE = {
    f"./redis/{name.rstrip('/')}" for name in (DEPLOY / "redis" / ".gitignore").read_text("utf-8").splitlines()[1:]
}
"""Users, passwords and certificates: made on the machine, never committed."""
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
    own = (path for path in DEPLOY.rglob("*") if path.is_file() and path.parent.name != "weights")
    return [path for path in own if path.suffix not in {".json", ".pyc"}]


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
                assert (DEPLOY / source).exists() or source in MADE_THERE, f"{name}: {source}"
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
    served = {"worker": Settings.model_fields["http_port"].default, "exporter": PORT}
    for name in ("learner", "judge", "camera"):
        command = COMPOSE["services"][name]["command"]
        served[name] = int(command[command.index("--http-port") + 1])
    assert asked == served


def test_prometheus_tells_the_alertmanager_that_is_there() -> None:
    told = yaml.safe_load((DEPLOY / "prometheus" / "compose.yaml").read_text("utf-8"))["alerting"]["alertmanagers"]
    (part,) = told[0]["dns_sd_configs"]
    (service,) = part["names"]
    assert COMPOSE["services"][service]["ports"] == [f"127.0.0.1:{part['port']}:{part['port']}"]
    mounted = {volume.split(":")[1] for volume in COMPOSE["services"][service]["volumes"]}
    assert COMPOSE["services"][service]["command"][0].removeprefix("--config.file=") in mounted


@pytest.mark.parametrize("service", SERVING)
def test_health_is_asked_where_it_is_served(service: str) -> None:
    own = COMPOSE["services"][service]
    dockerfile = (DEPLOY / "docker" / Path(own["build"]["dockerfile"]).name).read_text("utf-8")
    asked = str(own.get("healthcheck", dockerfile.partition("HEALTHCHECK")[2]))
    command = own["command"]
    default = PORT if command[0] == "exporter" else Settings.model_fields["http_port"].default
    port = int(command[command.index("--http-port") + 1]) if "--http-port" in command else default
    assert f"http://127.0.0.1:{port}/healthz" in asked


def test_the_readmes_line_is_called_as_it_is_and_scraped_where_it_serves() -> None:
    section = (ROOT / "README.md").read_text("utf-8").split("\n## Operated in a factory\n")[1].split("```")[1]
    jobs = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text("utf-8"))["scrape_configs"]
    scraped = {job["job_name"]: job["static_configs"][0]["targets"][0].rsplit(":", 1)[1] for job in jobs}
    job_of = {"learn": "gaussline-learner", "produce": "gaussline-producer", "judge": "gaussline-judge"}
    called = [found.split("#")[0].split() for found in re.findall(r"gaussline ([a-z].*)", section)]
    for words in called:
        check_command(words)
        if "--http-port" in words:
            assert words[words.index("--http-port") + 1] == scraped[job_of[words[0]]], words
    assert {"fit", "worker", "exporter", "produce", "status"} <= {words[0] for words in called}


def test_stopping_takes_longer_than_draining() -> None:
    drain_s = Settings.model_fields["drain_s"].default
    assert int(COMPOSE["services"]["worker"]["stop_grace_period"].removesuffix("s")) > drain_s


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_are_pinned_built_in_stages_and_run_as_nobody(path: Path) -> None:
    text = path.read_text("utf-8")
    stages = re.findall(r"^FROM (\S+)(?: AS (\w+))?$", text, re.MULTILINE)
    named = {name for _, name in stages if name}
    assert named == {"build", "inventory", "sbom"}
    assert all(image in {"build", "scratch"} or re.search(r":\d+\.\d+\.\d+-", image) for image, _ in stages)
    last = text.rsplit("\nFROM ", 1)[1]
    assert re.search(r"^USER 10001$", last, re.MULTILINE)
    assert "pip install" not in last
    assert "--build-arg" not in last
    assert f'org.opencontainers.image.version="{version("gaussline")}"' in last
    assert "sbom.json" in last
    assert "\nHEALTHCHECK " in last
    assert not re.search(r"(?i)password|secret|token", text)
    copied = re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    for line in copied:
        for source in line.split()[:-1]:
            assert (ROOT / source).exists()
            assert f"!{source}" in ignored
    command = last.rsplit("\nCMD [", 1)[1].split("]")[0]
    check_command([word.strip(' "') for word in command.split(",")])


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path: Path) -> None:
    done = subprocess.run(
        [tool("hadolint"), "--failure-threshold", "style", str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_compose_is_valid_by_its_specification() -> None:
    compose_spec.PyCompose.from_json(json.dumps(COMPOSE)).validate()
    for name, value in (("read_onlyy", True), ("restart", "sometimes"), ("ports", "a")):
        spoilt = json.loads(json.dumps(COMPOSE))
        spoilt["services"]["worker"][name] = value
        with pytest.raises(ValueError, match=r"."):
            compose_spec.PyCompose.from_json(json.dumps(spoilt))
    for service in COMPOSE["services"].values():
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"])


def test_the_gpus_are_added_to_a_service_that_is_there() -> None:
    added = yaml.safe_load((DEPLOY / "compose.gpu.yaml").read_text("utf-8"))
    compose_spec.PyCompose.from_json(json.dumps(added)).validate()
    for name, service in added["services"].items():
        check_command(service["command"])
        assert set(COMPOSE["services"][name]["command"]) < set(service["command"]), "it takes the place of the other"
        wanted = service["deploy"]["resources"]["reservations"]["devices"]
        assert [each["capabilities"] for each in wanted] == [["gpu"]]


def test_an_operator_finds_weights_where_the_worker_does_and_is_not_started_unasked() -> None:
    worker, operator = COMPOSE["services"]["worker"], COMPOSE["services"]["operator"]
    assert operator["profiles"] == ["operator"]
    assert operator["restart"] == "no"
    folder = worker["environment"]["GAUSSLINE_WEIGHTS"]
    assert operator["environment"]["GAUSSLINE_WEIGHTS"] == folder
    for service in (worker, operator):
        assert f"./weights:{folder}:ro" in service["volumes"]
    text = (DEPLOY / "compose.yaml").read_text("utf-8") + (ROOT / "docs" / "operations.md").read_text("utf-8")
    called = re.findall(r"run --rm (?:-v \S+ )?operator (.*)", text)
    assert len(called) > 3
    for words in called:
        check_command(words.split("#")[0].split())


def test_the_producers_image_has_no_torch() -> None:
    assert "[worker]" not in (DEPLOY / "docker" / "producer.Dockerfile").read_text("utf-8")


def test_every_service_of_compose_is_a_user_of_its_own_and_redis_knows_it() -> None:
    users = acl_users("line1")
    redis = COMPOSE["services"]["redis"]
    words = redis["command"]
    told = dict(zip(words[1::2], words[2::2], strict=True))
    mounted = {volume.split(":")[1] for volume in redis["volumes"]}
    assert told["--aclfile"] in mounted
    for name, service in COMPOSE["services"].items():
        if "build" not in service:
            continue
        environment = service["environment"]
        found = re.search(r"://(\w+)@redis:6379/0$", environment["GAUSSLINE_REDIS_URL"])
        assert found is not None, name
        assert found[1] in users
        assert service["secrets"] == [found[1]], "it sees no other's password"
        assert environment["GAUSSLINE_REDIS_PASSWORD_FILE"] == f"/run/secrets/{found[1]}"
        assert COMPOSE["secrets"][found[1]]["file"] == f"./redis/passwords/{found[1]}"


def test_the_tls_profile_sets_every_variable_and_points_at_mounted_files() -> None:
    text = (DEPLOY / "compose.yaml").read_text("utf-8")
    asked = dict(re.findall(r"\$\{(REDIS_[A-Z_]+):-([^}]*)\}", text))
    lines = [line for line in (DEPLOY / "tls.env").read_text("utf-8").splitlines() if not line.startswith("#")]
    told = dict(line.split("=", 1) for line in lines)
    assert told.keys() == asked.keys()
    assert (asked["REDIS_TLS_PORT"], told["REDIS_PORT"]) == ("0", "0"), "one of them listens, never both"
    assert asked["REDIS_PORT"] == told["REDIS_TLS_PORT"] == "6379"
    for name, service in COMPOSE["services"].items():
        if "build" in service or name == "redis":
            assert "./redis/tls:/etc/redis/tls:ro" in service["volumes"]
    for value in " ".join(told.values()).split():
        if value.startswith("/"):
            assert value.startswith("/etc/redis/tls/")
            assert value.endswith((".crt", ".key"))


def test_no_secret_is_committed() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in listed if name.endswith((".key", ".pem", ".p12")) or "/passwords/" in name]
