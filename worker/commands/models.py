"""`gaussline models`: versions and the pointers that say which of them judges."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from gaussline.worker.broker.registry import STABLE, Registry
from gaussline.worker.commands.console import out
from gaussline.worker.commands.options import By, Json, Line, Note, RedisUrl, open_line, who
from gaussline.worker.errors import ArtefactError, NotFound

app = typer.Typer(
    help="Model versions: list, show, promote, rollback, history, export, import.",
    no_args_is_help=True,
    add_completion=False,
)
Name = Annotated[str, typer.Argument(help="Name of the model.")]
Number = Annotated[int, typer.Argument(help="Version.")]


@app.command("list")
def list_models(redis_url: RedisUrl = None, line: Line = None, as_json: Json = False) -> None:
    """Every version of every model, and what points at it."""
    opened = open_line(redis_url, line)
    registry = Registry(opened.client, opened.line)
    pointers = registry.pointers()
    rows = [version for name in registry.models() for version in registry.versions(name)]
    if as_json:
        out().print_json(
            json.dumps(
                [
                    dataclasses.asdict(row)
                    | {"channels": [p.channel for p in pointers if (p.model, p.version) == (row.model, row.number)]}
                    for row in rows
                ]
            )
        )
        return
    if not rows:
        out().print(f"no models on line {opened.line}; 'gaussline fit FOLDER' makes one")
        return
    table = Table()
    for column in ("model", "version", "channels", "created", "by", "size", "digest", "note"):
        table.add_column(column)
    for row in rows:
        channels = ", ".join(p.channel for p in pointers if (p.model, p.version) == (row.model, row.number))
        table.add_row(
            row.model,
            str(row.number),
            channels,
            row.created_at[:19] + "Z",
            row.by,
            f"{row.size_bytes / 1e6:.1f} MB",
            row.digest[:12],
            row.note,
        )
    out().print(table)


@app.command()
def show(name: Name, number: Number, redis_url: RedisUrl = None, line: Line = None) -> None:
    """One version with its report, as JSON."""
    opened = open_line(redis_url, line)
    out().print_json(json.dumps(dataclasses.asdict(Registry(opened.client, opened.line).version(name, number))))


@app.command()
def promote(
    name: Name,
    number: Number,
    channel: Annotated[str, typer.Option(help="Channel to move.")] = STABLE,
    note: Note = "",
    by: By = "",
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """Let a version judge: workers load it beside their work and swap between two batches, within about a second."""
    opened = open_line(redis_url, line)
    pointer = Registry(opened.client, opened.line).promote(name, number, by=who(by), channel=channel, note=note)
    if as_json:
        out().print_json(json.dumps(dataclasses.asdict(pointer)))
    else:
        out().print(f"{name}/{channel} points at version {pointer.version} ({pointer.digest[:12]}…)", highlight=False)


@app.command()
def rollback(
    name: Name,
    channel: Annotated[str, typer.Option(help="Channel to move.")] = STABLE,
    note: Note = "",
    by: By = "",
    redis_url: RedisUrl = None,
    line: Line = None,
) -> None:
    """Point a channel back at the version it pointed at before."""
    opened = open_line(redis_url, line)
    pointer = Registry(opened.client, opened.line).rollback(name, by=who(by), channel=channel, note=note)
    out().print(f"{name}/{channel} points at version {pointer.version} again", highlight=False)


@app.command()
def history(name: Name, redis_url: RedisUrl = None, line: Line = None, as_json: Json = False) -> None:
    """Every move of a model's pointers: who, when, why."""
    opened = open_line(redis_url, line)
    moves = Registry(opened.client, opened.line).history(name)
    if as_json:
        out().print_json(json.dumps([dataclasses.asdict(move) for move in moves]))
        return
    table = Table()
    for column in ("when", "channel", "from", "to", "by", "why"):
        table.add_column(column)
    for move in moves:
        table.add_row(
            move.at[:19] + "Z", move.channel, str(move.before or "–"), str(move.after or "–"), move.by, move.note
        )
    out().print(table)


@app.command("export")
def export_version(
    name: Name,
    number: Number,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    redis_url: RedisUrl = None,
    line: Line = None,
) -> None:
    """Write a version's artefact to a file, to take to another line."""
    opened = open_line(redis_url, line)
    registry = Registry(opened.client, opened.line)
    version = registry.version(name, number)
    output.write_bytes(registry.fetch(version.digest))
    out().print(f"{output}: {version.size_bytes} bytes, SHA-256 {version.digest}", highlight=False)


@app.command("import")
def import_version(
    file: Annotated[Path, typer.Argument(help="Artefact, as 'models export' wrote it.")],
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the model.")] = "default",
    note: Note = "",
    by: By = "",
    redis_url: RedisUrl = None,
    line: Line = None,
) -> None:
    """Publish an artefact from a file as the model's next version; it is checked first."""
    from gaussline.worker.contract.artefact import Artefact
    from gaussline.worker.contract.model import Model

    if not file.is_file():
        raise NotFound(f"there is no file {file}")
    try:
        artefact = Artefact.unpack(file.read_bytes())
        model = Model.from_artefact(artefact)
    except ArtefactError as error:
        raise ArtefactError(f"{file}: {error}") from None
    opened = open_line(redis_url, line)
    version = Registry(opened.client, opened.line).publish(
        name, artefact.data, by=who(by), note=note or f"imported from {file.name}", report=dict(model.info)
    )
    out().print(f"version {version.number} of model {name}, digest {version.digest[:12]}…", highlight=False)
