"""`gaussline review`: a local page of kept frames that a person should look at, with buttons that write feedback."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gaussline.worker.commands.console import err, out, progress
from gaussline.worker.commands.options import By, Line, RedisUrl, open_line, who, write_file
from gaussline.worker.commands.signals import on_signals
from gaussline.worker.errors import GausslineError, SettingsError

if TYPE_CHECKING:
    from gaussline.worker.commands.options import Connection

EPILOG = """\b
Examples:
  gaussline review
  gaussline review --port 8080 --near 0.95 --by ada
  gaussline review --export review.html --show flagged --count 50

Shown are the newest kept frames that failed, passed near their threshold, or are suspect: versions of the model
disagree over them, or feedback contradicts their verdict. The page has no login: by itself it listens on this machine
alone, and another machine reaches it best through ssh -L 8080:127.0.0.1:8080."""


def review(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 takes a free one and says it.")] = 8080,
    by: By = "",
    near: Annotated[float, typer.Option(min=0, max=1, help="Share of the threshold from which a pass is near.")] = 0.9,
    maps: Annotated[bool, typer.Option(help="Make missing heat maps again, with the backbone.")] = True,
    weights: Annotated[Path | None, typer.Option(help="Weights file; default GAUSSLINE_WEIGHTS.")] = None,
    export: Annotated[Path | None, typer.Option(help="Write the page as one HTML file, and end.")] = None,
    show: Annotated[str | None, typer.Option(help="Of an export: flagged, near, suspect or other.")] = None,
    camera: Annotated[str | None, typer.Option(help="Of an export: one camera.")] = None,
    count: Annotated[int, typer.Option(min=1, max=500, help="Of an export: most frames.")] = 100,
    redis_url: RedisUrl = None,
    line: Line = None,
) -> None:
    """Look through kept frames in a browser, and say which are good and which are bad. Ctrl-C ends it."""
    opened = open_line(redis_url, line, weights=weights)
    if export is not None:
        _export(opened, export, near, maps, show, camera, count)
        return
    from gaussline.worker.broker.client import time_us
    from gaussline.worker.review.server import LOOPBACK, ReviewServer

    time_us(opened.client)  # a page that could show nothing is a mistake that is told here
    ended = threading.Event()
    server = ReviewServer(
        opened.settings,
        opened.client,
        host=host,
        port=port,
        by=who(by),
        near=near,
        remake=maps,
        on_fault=lambda error: err().print(f"unexpected: {type(error).__name__}: {error}", style="red", markup=False),
    )
    with server, on_signals(lambda number: ended.set(), lambda number: ended.set()):
        out().print(f"review of line {opened.line}: {server.url} (Ctrl-C ends it)", highlight=False, soft_wrap=True)
        if host not in LOOPBACK:
            err().print(
                "whoever reaches this address may look at frames and write feedback: there is no login",
                style="yellow",
                highlight=False,
                soft_wrap=True,
            )
        ended.wait()


def _export(
    opened: Connection, file: Path, near: float, maps: bool, show: str | None, camera: str | None, count: int
) -> None:
    from gaussline.worker.review.frames import Kind, ReviewFrame, ReviewList
    from gaussline.worker.review.page import View, render_static
    from gaussline.worker.review.pictures import Pictures

    try:
        kind = None if show is None else Kind(show)
    except ValueError:
        raise SettingsError(f"--show {show!r} is none of {', '.join(Kind)}") from None
    pictures = Pictures(opened.settings, opened.client, remake=maps)
    page = ReviewList(opened.settings, opened.client, near=near).read(kind, camera=camera, count=count)
    problems: list[str] = []

    def made(frame: ReviewFrame) -> tuple[bytes | None, bytes | None]:
        pair: list[bytes | None] = []
        for what in ("frame", "map"):
            try:
                pair.append(pictures.frame(frame.verdict.id) if what == "frame" else pictures.heat_map(frame.verdict))
            except GausslineError as error:
                problems.append(str(error))
                pair.append(None)
        bar.advance(task)
        return pair[0], pair[1]

    with progress() as bar:
        task = bar.add_task("drawing", total=len(page.frames))
        text = render_static(opened.line, page, View(kind, camera), made)
    write_file(file, text.encode())
    out().print(f"{file}: {len(page.frames)} of {page.total} frames", highlight=False, markup=False, soft_wrap=True)
    if problems:
        err().print(
            f"{len(problems)} pictures are missing, the first because: {problems[0]}",
            style="yellow",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
