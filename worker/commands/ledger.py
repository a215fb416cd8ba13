"""`gaussline ledger`: the balance of every camera."""

from __future__ import annotations

import dataclasses
import json

import typer
from rich.table import Table

from gaussline.worker.broker.ledger import Ledger, LedgerRow, read_ledger
from gaussline.worker.commands.console import err, out
from gaussline.worker.commands.mistakes import IMBALANCE
from gaussline.worker.commands.options import Json, Line, RedisUrl, open_line

EPILOG = """\b
Columns, in frames:
  admitted     what admission took from the camera's producers, each frame once
  pass, fail   verdicts of frames that were judged
  not judged   verdicts with a reason in the place of a decision
  in flight    admitted and without a verdict yet: counted from the unsettled messages themselves
  off by       admitted less all of the above; anything but 0 is a fault
  oldest s     age of the oldest frame in flight, in seconds
  bytes off    bytes counted as in flight less those of the unsettled messages; shown where it is not 0
  dropped      by the producer's own policy on a full backlog, before admission; shown where there are any
  unadmitted   stream entries that came past admission: dead-lettered, in no other column; shown where there are any

Exits with 5 where it does not balance."""
_EXTRA = ("dropped", "unadmitted")


def ledger(redis_url: RedisUrl = None, line: Line = None, as_json: Json = False) -> None:
    """The balance of every camera, in one atomic read: admitted = pass + fail + not judged + in flight."""
    opened = open_line(redis_url, line)
    book = read_ledger(opened.client, opened.line)
    if as_json:
        out().print_json(json.dumps({"line": opened.line, **ledger_dict(book)}))
    elif book.rows:
        out().print(ledger_table(book, opened.line))
    else:
        out().print(f"no camera on line {opened.line} yet: one registers itself when its producer starts")
    if not book.balances:
        for row in book.rows:
            if not row.balances:
                err().print(f"gaussline: {_fault(row)}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(IMBALANCE)


def ledger_dict(book: Ledger) -> dict[str, object]:
    """The ledger, JSON-able."""
    rows = [
        dataclasses.asdict(row) | {"balances": row.balances, "imbalance": row.imbalance, "bytes_off": _bytes_off(row)}
        for row in book.rows
    ]
    return {"balances": book.balances, "cameras": rows}


def ledger_table(book: Ledger, line: str) -> Table:
    """The ledger as a table."""
    table = Table(title=f"ledger of line {line}: {'balances' if book.balances else 'DOES NOT BALANCE'}")
    extra = [name for name in _EXTRA if any(getattr(row, name) for row in book.rows)]
    if any(_bytes_off(row) for row in book.rows):
        extra.insert(0, "bytes off")
    table.add_column("camera")
    for column in ("admitted", "pass", "fail", "not judged", "in flight", "off by", "oldest s", *extra):
        table.add_column(column, justify="right", no_wrap=True)
    for row in book.rows:
        table.add_row(
            row.camera,
            *(str(count) for count in (row.admitted, row.passed, row.failed, row.not_judged, row.in_flight)),
            f"[red]{row.imbalance}[/]" if row.imbalance else "0",
            f"{row.backlog_age_s:.1f}",
            *(str(_bytes_off(row) if name == "bytes off" else getattr(row, name)) for name in extra),
        )
    return table


def _bytes_off(row: LedgerRow) -> int:
    return row.counted_bytes - row.in_flight_bytes


def _fault(row: LedgerRow) -> str:
    said = []
    if row.imbalance > 0:
        said.append(f"{row.imbalance} of {row.admitted} admitted frames have no verdict and are not in flight")
    if row.imbalance < 0:
        said.append(f"{-row.imbalance} more frames have a verdict or are in flight than were admitted")
    if _bytes_off(row):
        said.append(
            f"{row.counted_bytes} bytes are counted as in flight, the unsettled messages hold {row.in_flight_bytes}"
        )
    return f"camera {row.camera} does not balance: {'; '.join(said)}"
