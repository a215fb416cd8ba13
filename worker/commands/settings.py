"""`gaussline settings`: every setting, what it is now, and what it means."""

from __future__ import annotations

import json
from typing import Any

import typer
from pydantic import SecretStr
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gaussline.worker.broker.client import redact
from gaussline.worker.commands.console import out
from gaussline.worker.commands.options import Json
from gaussline.worker.settings import PREFIX, Settings

EPILOG = """\b
Examples:
  gaussline settings
  GAUSSLINE_LINE=press4 gaussline settings --json

A misspelt name is refused, with the one that was probably meant. Passwords are not shown."""


TABLE_COLUMNS = 120
"""A terminal that is narrower has no room for four columns, and would break the names that are to be copied."""


def settings(
    changed: bool = typer.Option(False, "--changed", help="Only those that differ from their default."),
    as_json: Json = False,
) -> None:
    """Print every setting: its environment variable, its value here and now, its default, and what it means."""
    rows = _rows(Settings.load())
    if changed:
        rows = [row for row in rows if row["value"] != row["default"]]
    if as_json:
        out().print_json(json.dumps(rows))
        return
    if out().width < TABLE_COLUMNS:
        for row in rows:
            other = "" if row["value"] == row["default"] else f"  (default: {_plain(row['default'])})"
            said = f"{row['variable']} = {_plain(row['value'])}{other}"
            out().print(said, markup=False, highlight=False, soft_wrap=True)
            out().print(Padding(Text(row["meaning"]), (0, 0, 0, 4), expand=False))
        return
    table = Table(title="settings")
    for column in ("variable", "value", "default", "meaning"):
        table.add_column(column, overflow="fold")
    for row in rows:
        value = "" if row["value"] == row["default"] else _plain(row["value"])
        table.add_row(row["variable"], value, _plain(row["default"]), row["meaning"])
    out().print(table, markup=False)


def _rows(found: Settings) -> list[dict[str, Any]]:
    return [
        {
            "variable": PREFIX + name.upper(),
            "value": _shown(getattr(found, name)),
            "default": _shown(field.default),
            "meaning": field.description or "",
        }
        for name, field in Settings.model_fields.items()
    ]


def _shown(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return redact(value.get_secret_value())
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _plain(value: Any) -> str:
    return "–" if value is None else str(value)
