"""systemd units of a line, as text: what `gaussline service install` writes, and what deploy/systemd holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from gaussline.worker.errors import SettingsError
from gaussline.worker.settings import PREFIX, Settings

PROGRAM = PurePosixPath("/opt/gaussline/bin/gaussline")
FOLDER = PurePosixPath("/etc/gaussline")
GRACE_S = 20.0
"""Beyond the drain time, before systemd kills."""
EXPORTER_PORT, LEARNER_PORT, JUDGE_PORT, BRIDGE_PORT, CAMERA_PORT = 9109, 9110, 9111, 9112, 9120
"""The worker's is 9108; further workers, learners and cameras come after those."""
MORE_WORKERS_PORT, MORE_LEARNERS_PORT = 9130, 9141
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""Folders that a hardened unit does not see, or sees its own of."""
PER_INSTANCE = ("device", "worker_name", "http_port", "http_host")
"""Settings that no file for all processes may hold."""

EVERYWHERE = """\
NoNewPrivileges=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
UMask=0077
"""
HARDENED = """\
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RemoveIPC=yes
KeyringMode=private
CapabilityBoundingSet=
AmbientCapabilities=
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
"""
NO_DEVICES = "PrivateDevices=yes\nPrivateUsers=yes\n"
CLOSED_DEVICES = "DevicePolicy=closed\n"
NO_NEW_CODE = "MemoryDenyWriteExecute=yes\n"
"""Not for processes with torch, whose kernels are compiled as they run."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where and as whom the units run.

    Attributes:
        user_manager: units of one user's own manager, which may not confine them as far as the system's.
        run_as: user of the system's units.
        stop_s: time that a worker may take to end.
        write_to: folders that workers write to.
    """

    program: PurePosixPath = PROGRAM
    folder: PurePosixPath = FOLDER
    run_as: str = "gaussline"
    user_manager: bool = False
    stop_s: float = 40.0
    write_to: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings, program: Path, folder: Path, *, run_as: str, user_manager: bool) -> Site:
        """The site of these settings. Raises SettingsError for a path that a unit could not see."""
        for name in type(settings).model_fields:
            value = getattr(settings, name)
            if isinstance(value, Path) and not user_manager and str(value).startswith(HIDDEN):
                raise SettingsError(
                    f"{PREFIX}{name.upper()} {value}: a service does not see that folder; move the file to "
                    "/etc/gaussline or /var/lib/gaussline"
                )
        kept = settings.kept_store
        return cls(
            PurePosixPath(program),
            PurePosixPath(folder),
            run_as,
            user_manager,
            math.ceil(settings.drain_s + GRACE_S),
            (kept.removeprefix("file://"),) if kept.startswith("file:///") else (),
        )


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera of this machine: its name, its source, and further words of `gaussline produce`."""

    name: str
    source: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bridge:
    """One bridge of this machine: webhook, mqtt or opcua, its receiver, and further words of `gaussline bridge`."""

    kind: str
    url: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to run on a machine."""

    devices: Sequence[str] = ()
    models: Sequence[str] = ()
    cameras: Sequence[Camera] = ()
    exporter: bool = True
    judge: bool = True
    bridges: Sequence[Bridge] = ()


@dataclass(frozen=True, slots=True)
class Files:
    """What is to be written, by its place, and the units to enable.

    Attributes:
        secret: places that only root and the service may read.
        ports: where metrics are served.
    """

    units: dict[PurePosixPath, str] = field(default_factory=dict)
    secret: dict[PurePosixPath, str] = field(default_factory=dict)
    enable: list[str] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)


def templates(site: Site) -> dict[str, str]:
    """All unit files of a site, by name."""
    worker = _exec(site, "worker --connect-for 60") + (
        "# Longer than GAUSSLINE_DRAIN_S: what is in hand is judged before the end.\n"
        f"TimeoutStopSec={site.stop_s:g}\nKillMode=mixed\n"
    )
    gpu = "" if site.user_manager else CLOSED_DEVICES + "DeviceAllow=char-nvidia* rw\nStateDirectory=gaussline\n"
    video = "" if site.user_manager else CLOSED_DEVICES + "DeviceAllow=char-video4linux rw\nSupplementaryGroups=video\n"
    alone = "" if site.user_manager else NO_DEVICES
    return {
        "gaussline-worker@.service": _unit(
            site,
            "worker on %i",
            "Environment=GAUSSLINE_DEVICE=%i\n" + worker + "LimitNOFILE=65536\n",
            gpu + _writes(site),
            environment="worker-%i",
            about="One worker a device: gaussline-worker@cpu, gaussline-worker@cuda:0 and so on. Each has its port in "
            "worker-INSTANCE.env.",
        ),
        "gaussline-learner@.service": _unit(
            site,
            "learner of model %i",
            f"Environment=PORT={LEARNER_PORT}\n"
            + _exec(site, "learn %i --http-port ${PORT} --connect-for 60")
            + f"TimeoutStopSec={site.stop_s:g}\n",
            alone,
            environment="learner-%i",
            about="One learner a model: gaussline-learner@default. A second one has its PORT in learner-MODEL.env.",
        ),
        "gaussline-camera@.service": _unit(
            site,
            "camera %i",
            f"Environment=PORT={CAMERA_PORT} SOURCE=synthetic OPTIONS=\n"
            + _exec(site, "produce ${SOURCE} --camera %i --http-port ${PORT} --connect-for 60 --quiet $OPTIONS"),
            video + NO_NEW_CODE,
            environment="camera-%i",
            about="One producer a camera: gaussline-camera@cam1. SOURCE, PORT and OPTIONS stand in camera-CAMERA.env.",
        ),
        "gaussline-bridge@.service": _unit(
            site,
            "bridge %i",
            f"Environment=PORT={BRIDGE_PORT} OPTIONS=\n"
            + _exec(site, "bridge %i --http-port ${PORT} $OPTIONS")
            + f"TimeoutStopSec={site.stop_s:g}\n",
            alone + NO_NEW_CODE,
            environment="bridge-%i",
            about="One bridge a protocol: gaussline-bridge@webhook, @mqtt, @opcua. GAUSSLINE_BRIDGE_URL and OPTIONS "
            "stand in bridge-INSTANCE.env.",
        ),
        "gaussline-exporter.service": _unit(
            site, "metrics of the line", _exec(site, "exporter"), alone + NO_NEW_CODE, about="One exporter a line."
        ),
        "gaussline-judge.service": _unit(
            site,
            "roll-out judge",
            _exec(site, f"judge --http-port {JUDGE_PORT}"),
            alone,
            about="One judge a line.",
        ),
    }


def files(site: Site, settings: Settings, wish: Wish, unit_folder: PurePosixPath) -> Files:
    """Everything that a wish needs. Raises SettingsError for a password in the URL, or the same thing twice."""
    made = Files()
    made.secret[site.folder / "gaussline.env"] = environment(settings)
    all_units = templates(site)

    def unit(name: str, instances: Sequence[str] = ("",)) -> None:
        if not instances:
            return
        if len(set(instances)) != len(instances):
            raise SettingsError(f"{name.partition('@')[0]}: {', '.join(instances)}: each may be named once")
        made.units[unit_folder / name] = all_units[name]
        made.enable.extend(name.replace("@.", f"@{instance}.") for instance in instances)

    # These stand in the units themselves.
    fixed = [EXPORTER_PORT] * wish.exporter + [JUDGE_PORT] * wish.judge

    def served(port: int) -> int:
        while port and port in (*fixed, *made.ports):  # an eleventh camera comes to where further workers begin
            port += 1
        made.ports.append(port)
        return port

    unit("gaussline-worker@.service", wish.devices)
    for number, device in enumerate(wish.devices):
        port = settings.http_port if number == 0 else MORE_WORKERS_PORT + number - 1
        made.secret[site.folder / f"worker-{device}.env"] = f"{PREFIX}HTTP_PORT={served(port)}\n"
    unit("gaussline-learner@.service", wish.models)
    for number, model in enumerate(wish.models):
        port = served(LEARNER_PORT if number == 0 else MORE_LEARNERS_PORT + number - 1)
        made.secret[site.folder / f"learner-{model}.env"] = f"PORT={port}\n"
    unit("gaussline-camera@.service", [camera.name for camera in wish.cameras])
    for number, camera in enumerate(wish.cameras):
        words = {
            "SOURCE": camera.source,
            "PORT": str(served(CAMERA_PORT + number)),
            "OPTIONS": " ".join(camera.options),
        }
        made.secret[site.folder / f"camera-{camera.name}.env"] = "".join(
            f"{name}={_quoted(value)}\n" for name, value in words.items()
        )
    unit("gaussline-bridge@.service", [bridge.kind for bridge in wish.bridges])
    for number, bridge in enumerate(wish.bridges):
        words = {
            f"{PREFIX}BRIDGE_URL": bridge.url,
            "PORT": str(served(BRIDGE_PORT + number)),
            "OPTIONS": " ".join(bridge.options),
        }
        made.secret[site.folder / f"bridge-{bridge.kind}.env"] = "".join(
            f"{name}={_quoted(value)}\n" for name, value in words.items()
        )
    if wish.exporter:
        unit("gaussline-exporter.service")
    if wish.judge:
        unit("gaussline-judge.service")
    made.ports.extend(fixed)
    return made


def environment(settings: Settings) -> str:
    """The settings that differ from their defaults, as an environment file. Raises SettingsError for a password."""
    lines = ["# Written by 'gaussline service install'; every setting: gaussline settings"]
    for name, about in type(settings).model_fields.items():
        value = getattr(settings, name)
        if name in PER_INSTANCE or value == about.get_default():
            continue
        text = value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
        if name == "redis_url" and "@" in text and ":" in text.partition("://")[2].rpartition("@")[0]:
            raise SettingsError(
                f"{PREFIX}REDIS_URL holds a password: write it to a file of its own, name that with "
                f"{PREFIX}REDIS_PASSWORD_FILE, and leave it out of the URL"
            )
        lines.append(f"{PREFIX}{name.upper()}={_quoted(text)}")
    return "\n".join(lines) + "\n"


# --- text ------------------------------------------------------------------------------------------------------------
def _unit(
    site: Site, what: str, service: str, confined: str, *, environment: str | None = None, about: str = ""
) -> str:
    own = f"EnvironmentFile=-{site.folder}/{environment}.env\n" if environment else ""
    run_as = "" if site.user_manager else f"User={site.run_as}\n"
    hardened = EVERYWHERE + ("" if site.user_manager else HARDENED) + confined
    target = "default.target" if site.user_manager else "multi-user.target"
    online = (
        "" if site.user_manager else "After=network-online.target redis-server.service\nWants=network-online.target\n"
    )
    return (
        f"# {about}\n# Settings: {site.folder}/gaussline.env, see .env.example. Made by 'gaussline service install'.\n"
        f"[Unit]\nDescription=gaussline {what}\n{online}"
        "# Never given up: at boot, and in an outage, Redis may be away for any time.\nStartLimitIntervalSec=0\n\n"
        f"[Service]\nType=exec\n{run_as}EnvironmentFile={site.folder}/gaussline.env\n{own}{service}"
        f"Restart=always\nRestartSec=2\n{hardened}\n[Install]\nWantedBy={target}\n"
    )


def _exec(site: Site, words: str) -> str:
    return f"ExecStart={site.program} {words}\n"


def _writes(site: Site) -> str:
    if site.user_manager or not site.write_to:
        return ""
    return f"ReadWritePaths={' '.join(site.write_to)}\n"


def _quoted(text: str) -> str:
    """A value of an environment file. Raises SettingsError for what such a file cannot hold."""
    if any(not letter.isprintable() for letter in text):
        raise SettingsError(f"{text!r} does not fit into one line of an environment file")
    if text and not any(letter in " \t'\"\\#;$`" for letter in text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$").replace("`", "\\`") + '"'
