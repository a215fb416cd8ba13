"""`gaussline plan`: what a line of a given size needs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from gaussline.worker.commands.capacity import CPU, Load, Measured, Plan, plan
from gaussline.worker.commands.console import out
from gaussline.worker.commands.options import Json
from gaussline.worker.errors import SettingsError
from gaussline.worker.settings import Settings

EPILOG = """\b
Examples:
  gaussline plan --cameras 40 --rate 5 --frame-bytes 200k --backbone efficientnet_b4
  gaussline plan --cameras 40 --rate 5 --frame-bytes 200k --backbone efficientnet_b4 --gpu l4 --images-per-second 400
  gaussline plan --cameras 8 --rate 10 --frame-bytes 80k --features 0.1 --json | jq .first_limit

Bounds (budgets, ages) are those of the settings. The numbers behind it come from one measured machine, which it names;
'python -m bench.capacity FILE' measures another, and --measured FILE takes that."""
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}


def plan_command(
    cameras: Annotated[int, typer.Option(min=1, help="Cameras.")],
    rate: Annotated[float, typer.Option(min=1e-6, help="Frames a second of one camera.")],
    frame_bytes: Annotated[str, typer.Option(help="Bytes of one frame as it is sent, such as 200k.")],
    megapixels: Annotated[float, typer.Option(min=0.001, help="Of one frame: what decoding costs.")] = 1.3,
    encoding: Annotated[str, typer.Option(help="jpeg, png or raw.")] = "jpeg",
    backbone: Annotated[str, typer.Option(help="Name of the backbone.")] = "mobilenet_v2",
    gpu: Annotated[str | None, typer.Option(help="Name of the GPU of a worker; none: a CPU.")] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Cores of a worker's machine; none: as measured.")] = None,
    images_per_second: Annotated[
        float | None, typer.Option(min=0.001, help="Of one worker, where you have measured it yourself.")
    ] = None,
    outage: Annotated[
        float, typer.Option(min=0, help="Seconds that judging may stop before producers have to wait.")
    ] = 60.0,
    network: Annotated[float, typer.Option(min=0.001, help="Gbit/s at Redis, each way.")] = 1.0,
    features: Annotated[
        float, typer.Option(min=0, max=1, help="Share of frames that a learner is to see; 0: none learns.")
    ] = 0.0,
    measured: Annotated[Path | None, typer.Option(help="File of bench.capacity; none: the package's own.")] = None,
    as_json: Json = False,
) -> None:
    """Tell workers, Redis's CPU, memory and network, the learner's load, and where the first limit lies."""
    load = Load(
        cameras,
        rate,
        _bytes(frame_bytes),
        megapixels,
        backbone,
        encoding,
        CPU if gpu is None else gpu,
        cores,
        images_per_second,
        outage,
        network,
        features,
    )
    made = plan(load, Measured.read(measured), Settings.load())
    if as_json:
        out().print_json(json.dumps(made.to_dict()))
        return
    out().print(_table(load, made))
    first = made.first_limit
    out().print(
        f"first limit: {first.what}, at {first.frames_per_second:,.0f} frames/s, {first.headroom:.1f} times this load",
        highlight=False,
        markup=False,
    )
    for note in made.notes:
        out().print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    out().print(f"measured on {made.measured_on}", highlight=False, markup=False, soft_wrap=True)


def _table(load: Load, made: Plan) -> Table:
    title = f"{load.cameras} cameras, {made.frames_per_second:,.0f} frames/s, {made.megabytes_per_second:,.0f} MB/s"
    table = Table("what", "needs", "made of", title=title, title_justify="left")
    for need in made.needs:
        table.add_row(need.what, Text(need.amount), Text(need.why))
    return table


def _bytes(text: str) -> int:
    """A number of bytes such as 200k or 1.5M. Raises SettingsError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)b?", text.strip().lower())
    size = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    if size < 1:
        raise SettingsError(f"--frame-bytes {text!r}: a number of bytes, such as 200k or 1.5M")
    return size
