"""What commands share on a terminal: data on standard output, notes and progress with time left on standard error."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

out = Console(soft_wrap=False)
"""Results."""
err = Console(stderr=True)
"""Notes and progress: never mixed into what a program reads."""


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
        console=err,
        transient=False,
    )
