"""What commands share on a terminal: data on standard output, notes and progress with time left on standard error."""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import cache

from rich import box
from rich.console import Console, JustifyMethod
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

PIPE_COLUMNS = 160
"""Width of a table that nobody sees on a terminal: 80 would fold digests and cut numbers."""


@cache
def out() -> Console:
    """Results. Made on first use: a console looks at the terminal and its environment."""
    return _console(stderr=False)


@cache
def err() -> Console:
    """Notes and progress: never mixed into what a program reads."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_COLUMNS
    return console


def listing(*columns: str, flowing: Collection[str], right: Collection[str] = ()) -> Table:
    """A table of many columns for a terminal of 80: nothing but air between them, and nothing in them is cut.

    Args:
        flowing: columns that give way, and are broken into lines.
        right: columns of numbers.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in columns:
        justify: JustifyMethod = "right" if name in right else "left"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=name not in flowing)
    return table


def progress(of: str = "images") -> Progress:
    """A progress bar with the time left, on standard error."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{of}, left"),
        TimeRemainingColumn(),
        TextColumn("gone"),
        TimeElapsedColumn(),
        console=err(),
        transient=False,
    )
