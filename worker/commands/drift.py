"""`gaussline drift`: what a learner has seen change, and what an operator says to it."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from gaussline.worker.broker.client import translated
from gaussline.worker.commands.console import out
from gaussline.worker.commands.options import By, Json, Line, Note, RedisUrl, open_line, who
from gaussline.worker.contract.clock import to_text
from gaussline.worker.contract.keys import Keys, check_name
from gaussline.worker.contract.order import Order, OrderKind

EPILOG = """\b
Examples:
  gaussline drift list default
  gaussline drift confirm default --camera cam7 --note "new lamp"    (the new look is normal: learn it)
  gaussline drift release default --camera cam7                      (it was nothing: go on)
  gaussline drift freeze default --note "tool change"
  gaussline drift resume default

Orders go into the model's feature log, behind the frames that are in it; its learner obeys them when it comes there."""
app = typer.Typer(
    help="Drift of the line: list, confirm, release, freeze, resume.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
)
Name = Annotated[str, typer.Argument(help="Name of the model.")]
Camera = Annotated[str, typer.Option("--camera", help="Camera; none means all of them.")]


@app.command("list")
def list_drift(
    model: Name = "default",
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Newest entries.")] = 50,
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """What the model's learner said, oldest first: alarms, their ends, orders, proposals. Times are UTC."""
    opened = open_line(redis_url, line)
    key = Keys(opened.line).drift(check_name("model", model))
    with translated("reading the drift stream"):
        entries = opened.client.xrevrange(key, count=count)[::-1]
    rows = [
        {"id": i.decode(), "kind": f[b"kind"].decode(), "camera": f[b"camera"].decode(), **json.loads(f[b"json"])}
        for i, f in entries
    ]
    if as_json:
        out().print_json(json.dumps(rows))
        return
    if not rows:
        out().print(f"nothing was said of model {model} on line {opened.line}", highlight=False)
    for row in rows:
        out().print(line_of(row), highlight=False, markup=False, soft_wrap=True)


def line_of(row: dict[str, Any]) -> str:
    """One entry of the drift stream for a person."""
    clock = to_text(int(row["at_us"]))
    said = str(row.get("text") or f"{row['kind']} {row.get('order', '')} {row['camera']}".rstrip())
    by = f", by {row['by']}" if row.get("by") else ""
    note = f": {row['note']}" if row.get("note") else ""
    return f"{clock[:10]} {clock[11:19]}  {said}{by}{note}"


def _order(
    kind: OrderKind, model: str, camera: str, note: str, by: str, redis_url: str | None, line: str | None
) -> None:
    from gaussline.worker.broker.feature_log import write_order

    opened = open_line(redis_url, line)
    entry = write_order(opened.client, opened.line, model, Order(kind, who(by), note, camera=camera))
    about = f"camera {camera}" if camera else "all cameras"
    out().print(f"{kind.value} of {about} stands in the log of model {model} as {entry}", highlight=False)


@app.command()
def confirm(
    model: Name = "default",
    camera: Camera = "",
    note: Note = "",
    by: By = "",
    redis_url: RedisUrl = None,
    line: Line = None,
) -> None:
    """What changed is the new normal: forget the old, and learn from the frames since the alarm, past the gate."""
    _order(OrderKind.CONFIRM, model, camera, note, by, redis_url, line)


@app.command()
def release(
    model: Name = "default",
    camera: Camera = "",
    note: Note = "",
    by: By = "",
    redis_url: RedisUrl = None,
    line: Line = None,
) -> None:
    """The alarm was nothing: what it keeps in quarantine may teach, if the gate lets it."""
    _order(OrderKind.RELEASE, model, camera, note, by, redis_url, line)


@app.command()
def freeze(
    model: Name = "default",
    camera: Camera = "",
    note: Note = "",
    by: By = "",
    redis_url: RedisUrl = None,
    line: Line = None,
) -> None:
    """Nothing teaches from here on."""
    _order(OrderKind.FREEZE, model, camera, note, by, redis_url, line)


@app.command()
def resume(
    model: Name = "default",
    camera: Camera = "",
    note: Note = "",
    by: By = "",
    redis_url: RedisUrl = None,
    line: Line = None,
) -> None:
    """Frames teach again."""
    _order(OrderKind.RESUME, model, camera, note, by, redis_url, line)
