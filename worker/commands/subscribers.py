"""`gaussline subscribers`: who reads the verdicts with a durable cursor."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from gaussline.worker.broker.client import time_us
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.commands.console import out
from gaussline.worker.commands.options import Json, Line, RedisUrl, open_line
from gaussline.worker.contract.clock import to_text

EPILOG = """\b
Examples:
  gaussline subscribers register mes
  gaussline verdicts --follow --json --group mes
  gaussline subscribers list

A verdict stays until every subscriber has acknowledged it: one that is gone for good must be unregistered, or it holds
verdicts back up to the hard bound (GAUSSLINE_VERDICT_MAX_BYTES)."""
app = typer.Typer(
    help="Subscribers with a durable cursor: list, register, unregister.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
)
Name = Annotated[str, typer.Argument(help="Subscriber.")]


@app.command("list")
def list_subscribers(redis_url: RedisUrl = None, line: Line = None, as_json: Json = False) -> None:
    """Registered subscribers, the last entry each acknowledged, and the time that it was judged at."""
    opened = open_line(redis_url, line)
    reader = Verdicts(opened.client, opened.line)
    found = reader.subscribers()
    if as_json:
        out().print_json(json.dumps(found))
        return
    if not found:
        out().print(f"no subscriber on line {opened.line}; 'gaussline subscribers register NAME' makes one")
        return
    newest, now_us = reader.last_id(), time_us(opened.client)
    table = Table()
    for column in ("subscriber", "acknowledged", "judged at", "behind"):
        table.add_column(column)
    for name, entry in found.items():
        at_us = 1000 * int(entry.split("-", 1)[0])
        # The age of what it acknowledged says little while nothing new is there to be read.
        behind = "no" if entry == newest or newest == "0-0" else f"{(now_us - at_us) / 1e6:.0f} s" if at_us else "all"
        table.add_row(name, entry, to_text(at_us)[:23] + "Z" if at_us else "–", behind)
    out().print(table)


@app.command("register")
def register_subscriber(name: Name, redis_url: RedisUrl = None, line: Line = None) -> None:
    """Keep verdicts for a subscriber, those that are still there first; one that exists stays where it is."""
    opened = open_line(redis_url, line)
    reader = Verdicts(opened.client, opened.line)
    reader.register(name)
    out().print(f"subscriber {name} stands at {reader.position(name)}", highlight=False)


@app.command("unregister")
def unregister_subscriber(name: Name, redis_url: RedisUrl = None, line: Line = None) -> None:
    """Keep no verdicts for a subscriber any more."""
    opened = open_line(redis_url, line)
    Verdicts(opened.client, opened.line).unregister(name)
    out().print(f"subscriber {name} is forgotten", highlight=False)
