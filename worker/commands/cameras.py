"""`gaussline cameras`: which model judges a camera, and how much of the workers it may have."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer
from rich.table import Table

from gaussline.worker.broker.cameras import read_cameras, set_camera
from gaussline.worker.commands.console import err, out
from gaussline.worker.commands.options import Json, Line, RedisUrl, open_line
from gaussline.worker.contract.trial import STABLE
from gaussline.worker.errors import SettingsError

EPILOG = """\b
Examples:
  gaussline cameras list
  gaussline cameras set cam7 --model lids --weight 3
"""
app = typer.Typer(help="Cameras: list, set.", epilog=EPILOG, no_args_is_help=True, add_completion=False)


@app.command("list")
def list_cameras(redis_url: RedisUrl = None, line: Line = None, as_json: Json = False) -> None:
    """Registered cameras; one registers itself when its producer starts."""
    opened = open_line(redis_url, line)
    cameras = read_cameras(opened.client, opened.line)
    rows = [cameras[name] for name in sorted(cameras)]
    if as_json:
        out().print_json(json.dumps([dataclasses.asdict(row) for row in rows]))
        return
    if not rows:
        out().print(f"no camera on line {opened.line} yet: one registers itself when its producer starts")
        return
    pointers = opened.registry().pointers()
    stable = {pointer.model: pointer.version for pointer in pointers if pointer.channel == STABLE}
    table = Table()
    table.add_column("camera")
    table.add_column("model")
    table.add_column("version", justify="right")
    table.add_column("weight", justify="right")
    for row in rows:
        version = str(stable[row.model]) if row.model in stable else "[red]none promoted[/]"
        table.add_row(row.name, row.model, version, str(row.weight))
    out().print(table)


@app.command("set")
def change_camera(
    name: Annotated[str, typer.Argument(help="Camera.")],
    model: Annotated[str | None, typer.Option(help="Name of the model that judges it.")] = None,
    weight: Annotated[int | None, typer.Option(help="Its share of the workers beside the others', 1 … 100.")] = None,
    redis_url: RedisUrl = None,
    line: Line = None,
) -> None:
    """Change which model judges a camera, or its share of the workers; workers follow within a second."""
    if model is None and weight is None:
        raise SettingsError("cameras set: give --model, --weight or both")
    opened = open_line(redis_url, line)
    set_camera(opened.client, opened.line, name, model=model, weight=weight)
    now = read_cameras(opened.client, opened.line)[name]
    out().print(f"camera {name}: model {now.model}, weight {now.weight}", highlight=False)
    if opened.registry().pointer(now.model) is None:
        err().print(
            f"no version of model {now.model} is promoted: its frames get not_judged (no_model) until one is",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )
