"""`gaussline models`: versions and the pointers that say which of them judges."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from gaussline.worker.broker.registry import Pointer, Version
from gaussline.worker.commands import trials
from gaussline.worker.commands.console import listing, out
from gaussline.worker.commands.fit import levels_table
from gaussline.worker.commands.options import By, Json, Line, Note, RedisUrl, open_line, who
from gaussline.worker.commands.signed_files import read_signed, write_signed
from gaussline.worker.contract.trial import DEFAULT_FRAMES, DEFAULT_RULES, STABLE
from gaussline.worker.errors import ArtefactError, NotFound

EPILOG = """\b
Examples:
  gaussline models list
  gaussline models promote default 4 --note "new lamp" --by ada
  gaussline models promote default 5 --canary 10% --for 30m --abort-if "extra_fails > 1% or lost_fails > 20%"
  gaussline models promote default 5 --shadow --for 2h
  gaussline models rollback default --note "too strict"
  gaussline models export default 4 --output model.safetensors

A version never changes; promoting and rolling back move a pointer, and the history says who moved it, when and why."""
app = typer.Typer(
    help="Model versions: list, show, promote, rollback, trials, stop, pin, unpin, history, gc, export, import.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
)
Name = Annotated[str, typer.Argument(help="Name of the model.")]
Number = Annotated[int, typer.Argument(help="Version.", min=1)]
Output = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]
SHORT = 12
"""Characters of a digest that a person is shown."""


@app.command("list")
def list_models(redis_url: RedisUrl = None, line: Line = None, as_json: Json = False) -> None:
    """Every version of every model, and what points at it."""
    opened = open_line(redis_url, line)
    registry = opened.registry()
    pointers = registry.pointers()
    rows = [version for name in registry.models() for version in registry.versions(name)]
    if as_json:
        out().print_json(json.dumps([_record(row, pointers) for row in rows]))
        return
    if not rows:
        out().print(f"no models on line {opened.line}; 'gaussline fit FOLDER' makes one")
        return
    columns = ("model", "version", "channels", "created (UTC)", "by", "size", "note")
    table = listing(*columns, flowing=("channels", "note"), right=("version", "size"))
    for row in rows:
        table.add_row(
            row.model,
            str(row.number),
            ", ".join(_channels(row, pointers)),
            _when(row.created_at)[: len("2026-01-31 14:00")],
            Text(row.by),
            f"{row.size_bytes / 1e6:.1f} MB",
            Text(row.note),
        )
    out().print(table)


@app.command()
def show(
    name: Name,
    number: Annotated[int | None, typer.Argument(help="Version; none shows the stable one.", min=1)] = None,
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """One version, with the report that was made with it."""
    opened = open_line(redis_url, line)
    registry = opened.registry()
    if number is None:
        pointer = registry.pointer(name)
        if pointer is None:
            raise NotFound(f"{name}/{STABLE} points nowhere on line {opened.line}: name a version")
        number = pointer.version
    record = _record(registry.version(name, number), registry.pointers())
    if as_json:
        out().print_json(json.dumps(record))
        return
    report = record.pop("report")
    levels = report.pop("levels", [])
    for key, value in (record | report).items():
        shown = f"{value:.6g}" if isinstance(value, float) else ", ".join(value) if key == "channels" else str(value)
        out().print(Text(f"{key.replace('_', ' '):20} {shown or '–'}"), soft_wrap=True)
    if levels:
        out().print(levels_table(levels))


@app.command()
def promote(
    name: Name,
    number: Number,
    canary: Annotated[
        str | None, typer.Option(help="Let it decide only this share of the frames, such as 10%, on trial.")
    ] = None,
    canary_camera: Annotated[
        list[str] | None, typer.Option(help="Let it decide this camera's frames, on trial; may be repeated.")
    ] = None,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Score every frame with it, and let it decide none.")
    ] = False,
    for_: Annotated[str | None, typer.Option("--for", help="Length of the trial, such as 30m. Default: 30m.")] = None,
    abort_if: Annotated[
        str, typer.Option(help="Rules that roll the trial back: MEASURE > LIMIT, joined by 'or'.")
    ] = DEFAULT_RULES,
    min_frames: Annotated[int, typer.Option(help="Frames judged by both before anything is concluded.", min=1)] = (
        DEFAULT_FRAMES
    ),
    force: Annotated[
        bool, typer.Option("--force", help="Though the version is not whole, or no worker could judge by it.")
    ] = False,
    hold: Annotated[
        bool, typer.Option("--hold", help="Do not promote it when the trial went well: wait for me.")
    ] = False,
    note: Note = "",
    by: By = "",
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """Let a version judge: workers load it beside their work and swap between two batches, within about a second.

    With --canary, --canary-camera or --shadow it is put on trial beside the stable version: 'gaussline judge' counts,
    on the same frames, and promotes it when its time is over, or rolls it back as soon as a rule is broken. Measures:
    extra_fails, lost_fails, disagreement, failed_share, failed_change, failed_ratio, p_value_shift, p99_ratio.
    """
    planned = trials.plan_trial(canary, canary_camera or [], shadow, for_, abort_if, min_frames, hold)
    opened = open_line(redis_url, line)
    registry = opened.registry()
    if not force:
        from gaussline.worker.commands.fitness import check_fit

        check_fit(opened.client, opened.line, name, number, seal=opened.seal())
    if planned is None:
        _say(registry.promote(name, number, by=who(by), note=note), as_json)
        return
    if registry.pointer(name) is None:
        raise NotFound(f"{name}/{STABLE} points nowhere: there is nothing to try version {number} against")
    channel, selection, trial = planned
    pointer = registry.promote(name, number, by=who(by), channel=channel, note=note, selection=selection, trial=trial)
    _say(pointer, as_json)
    if not as_json:
        out().print("'gaussline judge' must run for the trial to end by itself.", highlight=False)


@app.command()
def rollback(
    name: Name,
    note: Note = "",
    by: By = "",
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """Point the stable channel back at the version it pointed at before."""
    opened = open_line(redis_url, line)
    pointer = opened.registry().rollback(name, by=who(by), note=note)
    _say(pointer, as_json)


@app.command()
def history(name: Name, redis_url: RedisUrl = None, line: Line = None, as_json: Json = False) -> None:
    """Every move of a model's pointers, oldest first: who, when, why."""
    opened = open_line(redis_url, line)
    registry = opened.registry()
    moves = registry.history(name)
    if not moves and name not in registry.models():
        raise NotFound(f"no model {name!r} on line {opened.line}")
    if as_json:
        out().print_json(json.dumps([dataclasses.asdict(move) for move in moves]))
        return
    table = Table()
    for column in ("when (UTC)", "channel", "from", "to", "by", "why"):
        table.add_column(column, no_wrap=column != "why")
    for move in moves:
        versions = (str(version or "–") for version in (move.before, move.after))
        table.add_row(_when(move.at), move.channel, *versions, Text(move.by), Text(move.note))
    out().print(table)


app.command("trials", epilog=None)(trials.show_trials)
app.command("stop")(trials.stop_trial)
app.command("pin")(trials.pin)
app.command("unpin")(trials.unpin)
app.command("gc")(trials.gc)


@app.command("export")
def export_version(
    name: Name, number: Number, output: Output, redis_url: RedisUrl = None, line: Line = None, as_json: Json = False
) -> None:
    """Write a version's artefact to a file, to take to another line; its signatures to FILE.sig beside it."""
    opened = open_line(redis_url, line)
    registry = opened.registry()
    version = registry.version(name, number)
    write_signed(output, registry.fetch(version.digest), opened.seal(), registry.signatures(version.digest))
    if as_json:
        out().print_json(json.dumps({"file": str(output)} | dataclasses.asdict(version)))
    else:
        said = f"{output}: {version.size_bytes} bytes, SHA-256 {version.digest}"
        out().print(said, highlight=False, markup=False, soft_wrap=True)


@app.command("import")
def import_version(
    file: Annotated[Path, typer.Argument(help="Artefact, as 'models export' wrote it.")],
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the model.")] = "default",
    note: Note = "",
    by: By = "",
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """Publish an artefact from a file as the model's next version; it is checked first.

    Where keys are configured, a trusted one must have signed it (FILE.sig beside it, or 'gaussline keys sign').
    """
    from gaussline.worker.contract.artefact import Artefact
    from gaussline.worker.contract.model import Model
    from gaussline.worker.learning.fit import report

    opened = open_line(redis_url, line)
    data, signatures = read_signed(file, opened.seal())
    try:
        artefact = Artefact.unpack(data)
        model = Model.from_artefact(artefact)
    except ArtefactError as error:
        raise ArtefactError(f"{file}: {error}") from None
    version = opened.registry().publish(
        name,
        artefact.data,
        by=who(by),
        note=note or f"imported from {file.name}",
        report=report(model),
        signatures=signatures,
    )
    if as_json:
        out().print_json(json.dumps(dataclasses.asdict(version)))
        return
    out().print(f"version {version.number} of model {name}, digest {version.digest[:SHORT]}…", highlight=False)
    out().print(f"It judges nothing yet: gaussline models promote {name} {version.number}", highlight=False)


def _channels(version: Version, pointers: list[Pointer]) -> list[str]:
    return [each.channel for each in pointers if (each.model, each.version) == (version.model, version.number)]


def _record(version: Version, pointers: list[Pointer]) -> dict[str, Any]:
    return dataclasses.asdict(version) | {"channels": _channels(version, pointers)}


def _when(text: str) -> str:
    """RFC 3339 as people read it, to the second."""
    return text[:19].replace("T", " ")


def _say(pointer: Pointer, as_json: bool) -> None:
    digest = f"digest {pointer.digest[:SHORT]}…"
    text = f"{pointer.model}/{pointer.channel} points at version {pointer.version} ({digest})"
    trials.say_pointer(pointer, as_json, text)
