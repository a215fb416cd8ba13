"""Commands about a line itself: its ledger, cameras, subscribers, kept frames and dead letters."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from gaussline.worker.broker.cameras import read_cameras, set_camera
from gaussline.worker.broker.dead_letters import DeadLetters
from gaussline.worker.broker.kept import KeptFrames
from gaussline.worker.broker.kept_folder import KeptFolder
from gaussline.worker.broker.ledger import Ledger, read_ledger
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.commands.console import out
from gaussline.worker.commands.options import Json, Line, RedisUrl, open_line
from gaussline.worker.contract.clock import to_text
from gaussline.worker.contract.frame import BadFrame
from gaussline.worker.contract.verdict import Reason

IMBALANCE_CODE = 5
cameras_app = typer.Typer(help="Cameras: list, set.", no_args_is_help=True, add_completion=False)
subscribers_app = typer.Typer(
    help="Subscribers with a durable cursor: list, register, unregister.", no_args_is_help=True
)
kept_app = typer.Typer(help="Kept frames: list, get.", no_args_is_help=True, add_completion=False)
dead_app = typer.Typer(help="Dead letters: what could not be judged.", no_args_is_help=True, add_completion=False)


def ledger(redis_url: RedisUrl = None, line: Line = None, as_json: Json = False) -> None:
    """The balance of every camera: admitted = passed + failed + not judged + in flight. Exits with 5 if broken.

    In flight is counted from the unsettled messages themselves, never computed from the other columns.
    """
    opened = open_line(redis_url, line)
    book = read_ledger(opened.client, opened.line)
    if as_json:
        rows = [dataclasses.asdict(row) | {"balances": row.balances, "imbalance": row.imbalance} for row in book.rows]
        out().print_json(json.dumps({"line": opened.line, "balances": book.balances, "cameras": rows}))
    else:
        out().print(ledger_table(book, opened.line))
    if not book.balances:
        raise typer.Exit(IMBALANCE_CODE)


def ledger_table(book: Ledger, line: str) -> Table:
    """The ledger as a table."""
    table = Table(title=f"ledger of line {line}: {'balances' if book.balances else 'DOES NOT BALANCE'}")
    columns = ("camera", "admitted", "pass", "fail", "not judged", "in flight", "off by", "oldest s")
    extra = [name for name in ("dropped", "unadmitted") if any(getattr(row, name) for row in book.rows)]
    for column in (*columns, *extra):
        table.add_column(column, justify="left" if column == "camera" else "right")
    for row in book.rows:
        table.add_row(
            row.camera,
            *(str(n) for n in (row.admitted, row.passed, row.failed, row.not_judged, row.in_flight)),
            f"[red]{row.imbalance}[/]" if row.imbalance else "0",
            f"{row.backlog_age_s:.1f}",
            *(str(getattr(row, name)) for name in extra),
        )
    return table


@cameras_app.command("list")
def list_cameras(redis_url: RedisUrl = None, line: Line = None, as_json: Json = False) -> None:
    """Registered cameras; one registers itself when its producer starts."""
    opened = open_line(redis_url, line)
    cameras = read_cameras(opened.client, opened.line)
    if as_json:
        out().print_json(json.dumps([dataclasses.asdict(camera) for camera in cameras.values()]))
        return
    table = Table()
    for column in ("camera", "model", "weight"):
        table.add_column(column)
    for name in sorted(cameras):
        table.add_row(name, cameras[name].model, str(cameras[name].weight))
    out().print(table)


@cameras_app.command("set")
def change_camera(
    name: Annotated[str, typer.Argument(help="Camera.")],
    model: Annotated[str | None, typer.Option(help="Name of the model that judges it.")] = None,
    weight: Annotated[int | None, typer.Option(help="Its share of the workers, 1 … 100.")] = None,
    redis_url: RedisUrl = None,
    line: Line = None,
) -> None:
    """Change which model judges a camera, or its share of the workers."""
    opened = open_line(redis_url, line)
    set_camera(opened.client, opened.line, name, model=model, weight=weight)


@subscribers_app.command("list")
def list_subscribers(redis_url: RedisUrl = None, line: Line = None, as_json: Json = False) -> None:
    """Registered subscribers and the last entry each acknowledged."""
    opened = open_line(redis_url, line)
    found = Verdicts(opened.client, opened.line).subscribers()
    if as_json:
        out().print_json(json.dumps(found))
        return
    for name, entry in found.items():
        out().print(f"{name:24} {entry}", highlight=False)


@subscribers_app.command("register")
def register_subscriber(
    name: Annotated[str, typer.Argument(help="Subscriber.")], redis_url: RedisUrl = None, line: Line = None
) -> None:
    """Keep verdicts for a subscriber from now on, until it acknowledges them."""
    opened = open_line(redis_url, line)
    Verdicts(opened.client, opened.line).register(name)


@subscribers_app.command("unregister")
def unregister_subscriber(
    name: Annotated[str, typer.Argument(help="Subscriber.")], redis_url: RedisUrl = None, line: Line = None
) -> None:
    """Keep no verdicts for a subscriber any more."""
    opened = open_line(redis_url, line)
    Verdicts(opened.client, opened.line).unregister(name)


@kept_app.command("list")
def list_kept(
    count: Annotated[int, typer.Option(help="How many.")] = 50, redis_url: RedisUrl = None, line: Line = None
) -> None:
    """The newest kept frames."""
    opened = open_line(redis_url, line)
    for frame in KeptFrames(opened.client, opened.line).list(count):
        out().print(f"{to_text(frame.kept_us)} {frame.id}", highlight=False)


@kept_app.command("get")
def get_kept(
    frame_id: Annotated[str, typer.Argument(help="Frame, camera:epoch:sequence.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write its bytes to.")],
    redis_url: RedisUrl = None,
    line: Line = None,
) -> None:
    """Write a kept frame's bytes to a file, exactly as its camera sent them."""
    opened = open_line(redis_url, line)
    store = KeptFolder.of(opened.settings) or KeptFrames(opened.client, opened.line)
    frame = store.get(frame_id).frames[0]
    output.write_bytes(frame.data)
    what = "unreadable frame" if isinstance(frame, BadFrame) else frame.encoding
    out().print(f"{output}: {len(frame.data)} bytes, {what}", highlight=False)


@dead_app.command("list")
def list_dead(
    reason: Annotated[Reason | None, typer.Option(help="Letters of one reason; none counts them all.")] = None,
    count: Annotated[int, typer.Option(help="How many.")] = 20,
    redis_url: RedisUrl = None,
    line: Line = None,
) -> None:
    """Dead letters by reason, or the newest of one reason."""
    opened = open_line(redis_url, line)
    letters = DeadLetters(opened.client, opened.line)
    if reason is not None:
        for entry_id, letter in letters.list(reason, count):
            text = f"{entry_id} {letter.id} {len(letter.data)} bytes, delivered {letter.deliveries}×: {letter.detail}"
            out().print(text, highlight=False, markup=False)
        return
    table = Table()
    for column in ("reason", "frames ever", "letters", "bytes", "dropped for space", "aged out"):
        table.add_column(column, justify="left" if column == "reason" else "right")
    for row in letters.counts():
        cells = (row.total, row.letters, row.size_bytes, row.dropped, row.aged)
        table.add_row(row.reason.value, *(str(cell) for cell in cells))
    out().print(table)
