"""`gaussline dead`: what could not be judged, and the bytes of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from gaussline.worker.broker.dead_letters import DeadLetters
from gaussline.worker.commands.console import out
from gaussline.worker.commands.options import Json, Line, RedisUrl, open_line, write_file
from gaussline.worker.contract.verdict import Reason
from gaussline.worker.errors import NotFound

EPILOG = """Examples:

  gaussline dead list

  gaussline dead list --reason undecodable

  gaussline dead get undecodable cam1:3:1042 --output letter.msgpack"""
SEARCHED = 10_000
app = typer.Typer(
    help="Dead letters, what could not be judged: list, get.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
)


@app.command("list")
def list_dead(
    reason: Annotated[Reason | None, typer.Option(help="Letters of one reason; none counts them all.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many letters.")] = 20,
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """Dead letters by reason, or the newest of one reason."""
    opened = open_line(redis_url, line)
    letters = DeadLetters(opened.client, opened.line)
    if reason is not None:
        for entry_id, letter in letters.list(reason, count):
            about = {name: value for name, value in dataclasses.asdict(letter).items() if name != "data"}
            text = json.dumps({"entry": entry_id, **about, "size_bytes": len(letter.data)}, ensure_ascii=not as_json)
            if not as_json:
                size = f"{len(letter.data)} bytes, delivered {letter.deliveries}×"
                text = f"{entry_id} {letter.id} {size}: {json.dumps(letter.detail, ensure_ascii=False)[1:-1]}"
            out().print(text, highlight=False, markup=False, soft_wrap=True)
        return
    rows = letters.counts()
    if as_json:
        out().print_json(json.dumps([dataclasses.asdict(row) for row in rows]))
        return
    if not rows:
        out().print(f"no dead letter on line {opened.line}")
        return
    table = Table()
    for column in ("reason", "frames ever", "letters", "bytes", "dropped for space", "aged out"):
        table.add_column(column, justify="left" if column == "reason" else "right")
    for row in rows:
        cells = (row.total, row.letters, row.size_bytes, row.dropped, row.aged)
        table.add_row(row.reason.value, *(str(cell) for cell in cells))
    out().print(table)


@app.command("get")
def get_dead(
    reason: Annotated[Reason, typer.Argument(help="Its reason.")],
    identity: Annotated[str, typer.Argument(help="Frame, camera:epoch:sequence, or the letter's entry id.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write its bytes to.")],
    redis_url: RedisUrl = None,
    line: Line = None,
) -> None:
    """Write a dead letter's bytes to a file: a frame batch, or what came in the place of one."""
    opened = open_line(redis_url, line)
    for entry_id, letter in DeadLetters(opened.client, opened.line).list(reason, SEARCHED):
        if identity in (entry_id, letter.id):
            write_file(output, letter.data)
            out().print(f"{output}: {len(letter.data)} bytes", highlight=False, markup=False, soft_wrap=True)
            return
    raise NotFound(f"no dead letter {identity!r} of reason {reason.value} on line {opened.line}")
