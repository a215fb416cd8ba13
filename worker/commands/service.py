"""`gaussline service`: run a line's processes under systemd."""

from __future__ import annotations

import difflib
import json
import os
import shutil
import sys
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from gaussline.worker.broker.acl import BRIDGES
from gaussline.worker.commands.console import err, out
from gaussline.worker.commands.options import Line, RedisUrl, write_file
from gaussline.worker.commands.units import Bridge, Camera, Files, Site, Wish, files
from gaussline.worker.contract.keys import check_name
from gaussline.worker.errors import ContractError, SettingsError, SourceError
from gaussline.worker.settings import Settings

EPILOG = """\b
Examples:
  gaussline service install --device cuda:0 --device cuda:1 --dry-run
  sudo -E gaussline service install --device cpu --model default
  gaussline service install --user --device cpu --camera 'cam1=/dev/video0 --rate 5'

The settings are those of the environment and of GAUSSLINE_CONFIG. Nothing is started: the commands that do are said at
the end."""
app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Run a line's processes under systemd.", epilog=EPILOG
)
SYSTEM_UNITS = PurePosixPath("/etc/systemd/system")
SYSTEM_SETTINGS = PurePosixPath("/etc/gaussline")


@app.callback()
def root() -> None:
    """Only what stands above the commands."""


@app.command(epilog=EPILOG)
def install(
    device: Annotated[
        list[str] | None, typer.Option(help="A worker on this device: cpu, cuda:0, …; may be repeated.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="A learner of this model; may be repeated.")] = None,
    camera: Annotated[
        list[str] | None,
        typer.Option(help="A producer: NAME=SOURCE and options of 'produce', in one word; may be repeated."),
    ] = None,
    bridge: Annotated[
        list[str] | None,
        typer.Option(
            help="A bridge: webhook, mqtt or opcua =URL and options of 'bridge', in one word; may be repeated."
        ),
    ] = None,
    exporter: Annotated[bool, typer.Option(help="The metrics of the line: on one machine of it.")] = True,
    judge: Annotated[bool, typer.Option(help="The roll-out judge: on one machine of it.")] = True,
    user: Annotated[bool, typer.Option("--user", help="Units of your own user manager, not of the system.")] = False,
    run_as: Annotated[str, typer.Option(help="User of the system's units.")] = "gaussline",
    root: Annotated[Path, typer.Option(help="Write below this folder: for an image, or to look at.")] = Path("/"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be written, and write nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write without asking.")] = False,
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print places and texts as JSON.")] = False,
) -> None:
    """Show the units and settings files of this machine's processes, and write them."""
    settings = _with_whole_paths(Settings.load(redis_url=redis_url, line=line))
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    unit_folder = PurePosixPath(home / "systemd" / "user") if user else SYSTEM_UNITS
    folder = Path(home / "gaussline") if user else Path(SYSTEM_SETTINGS)
    site = Site.of(settings, _program(user=user), folder, run_as=run_as, user_manager=user)
    wish = Wish(
        _names("device", device),
        _names("model", model),
        [_camera(word) for word in camera or []],
        exporter,
        judge,
        [_bridge(word) for word in bridge or []],
    )
    made = files(site, settings, wish, unit_folder)
    everything = made.units | made.secret
    if as_json:
        out().print_json(json.dumps({"enable": made.enable, "files": {str(k): v for k, v in everything.items()}}))
    else:
        for place, text in everything.items():
            _show(_below(root, place), text)
    for note in _notes(settings, wish, user=user):
        err().print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    if dry_run:
        return
    if not yes:
        if not sys.stdin.isatty():
            raise SettingsError("there is nobody to ask here: look at it with --dry-run, then say --yes")
        typer.confirm(f"Write these {len(everything)} files?", abort=True, err=True)
    _write(root, made)
    _say_next(made, site, user=user)


def _with_whole_paths(settings: Settings) -> Settings:
    """The same files for a process that starts in another folder."""
    paths = {name: getattr(settings, name) for name in type(settings).model_fields}
    return settings.model_copy(
        update={name: path.absolute() for name, path in paths.items() if isinstance(path, Path)},
    )


def _notes(settings: Settings, wish: Wish, *, user: bool) -> list[str]:
    """What would start, and not do what was wished."""
    found = []
    if wish.models and settings.features == "off":
        found.append("a learner has nothing to learn from: GAUSSLINE_FEATURES is off; set it to sample, or all")
    if wish.devices and settings.weights is None and not user:
        found.append(
            "GAUSSLINE_WEIGHTS is not set, and a confined worker cannot fetch torchvision's own: put the file below "
            "/var/lib/gaussline, and name it"
        )
    return found


def _program(*, user: bool) -> Path:
    """Where gaussline lies, as it was called. Raises SettingsError for a place that a system unit does not see."""
    name = sys.argv[0] if Path(sys.argv[0]).name == "gaussline" else "gaussline"
    beside = Path(sys.executable).with_name("gaussline")
    found = shutil.which(name) or (str(beside) if beside.exists() else None)
    if found is None:
        raise SettingsError(
            "the program gaussline is not on PATH: call it by its path, such as /opt/gaussline/bin/gaussline"
        )
    program = Path(found).absolute()
    if not user and str(program).startswith(("/home", "/root", "/tmp")):
        raise SettingsError(
            f"{program}: a system unit does not see that folder; install gaussline into /opt/gaussline "
            "(python -m venv /opt/gaussline), or take --user"
        )
    return program


def _names(kind: str, given: list[str] | None) -> list[str]:
    """Names that may stand in a unit's name. Raises SettingsError."""
    for name in given or []:
        try:
            check_name(kind, name.replace(":", "-"))
        except ContractError as error:
            raise SettingsError(f"--{kind}: {error}") from None
    return given or []


def _camera(word: str) -> Camera:
    name, sign, rest = word.partition("=")
    source, *options = rest.split() or [""]
    if not sign or not source:
        raise SettingsError(f"--camera {word!r} is not of the form 'NAME=SOURCE --option …'")
    _names("camera", [name])
    if Path(source).exists():  # no address, and no 'synthetic'
        source = str(Path(source).absolute())
    return Camera(name, source, tuple(options))


def _bridge(word: str) -> Bridge:
    kind, _, rest = word.partition("=")
    url, *options = rest.split() or [""]
    if kind not in BRIDGES or not url:
        raise SettingsError(f"--bridge {word!r} is not of the form '{'|'.join(BRIDGES)}=URL --option …'")
    return Bridge(kind, url, tuple(options))


def _below(root: Path, place: PurePosixPath) -> Path:
    return root / place.relative_to("/")


def _show(place: Path, text: str) -> None:
    """A file that is new, or what changes in one that is there."""
    try:
        before = place.read_text("utf-8") if place.is_file() else None
    except OSError as error:
        raise SourceError(f"{place} cannot be read: {error.strerror or error}") from None
    if before == text:
        typer.echo(f"# {place}: unchanged\n")
    elif before is None:
        typer.echo(f"# {place}\n{text}")
    else:
        typer.echo(
            "".join(difflib.unified_diff(before.splitlines(True), text.splitlines(True), str(place), str(place)))
        )


def _write(root: Path, made: Files) -> None:
    for places, mode in ((made.units, 0o644), (made.secret, 0o600)):
        for place, text in places.items():
            path = _below(root, place)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SourceError(
                    f"{path.parent} cannot be made: {error.strerror or error}; as root, or with --user"
                ) from None
            write_file(path, text.encode())
            path.chmod(mode)


def _say_next(made: Files, site: Site, *, user: bool) -> None:
    """The commands that start what was written."""
    control = "systemctl --user" if user else "sudo systemctl"
    said = [] if user else [f"id {site.run_as} >/dev/null 2>&1 || sudo useradd --system --no-create-home {site.run_as}"]
    said += [f"{control} daemon-reload", f"{control} enable --now {' '.join(made.enable)}", "gaussline status"]
    said += [f"loginctl enable-linger {os.environ.get('USER', '')}".strip()] if user else []
    ports = ", ".join(str(port) for port in made.ports)
    err().print(f"for Prometheus, on this machine: the ports {ports} (deploy/prometheus has the rest)", highlight=False)
    err().print("written; now:", highlight=False)
    for command in said:
        out().print(f"  {command}", highlight=False, markup=False, soft_wrap=True)
