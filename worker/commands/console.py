"""What commands share on a terminal: data on standard output, notes and progress with time left on standard error."""

from __future__ import annotations

from functools import cache

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@cache
def out() -> Console:
    """Results. Made on first use: a console looks at the terminal and its environment."""
    return Console(soft_wrap=False)


@cache
def err() -> Console:
    """Notes and progress: never mixed into what a program reads."""
    return Console(stderr=True)


def progress() -> Progress:
    """A progress bar with the time left, on standard error."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("images, left"),
        TimeRemainingColumn(),
        TextColumn("gone"),
        TimeElapsedColumn(),
        console=err(),
        transient=False,
    )
