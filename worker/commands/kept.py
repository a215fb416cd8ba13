"""`gaussline kept`: the frames whose bytes are kept."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from gaussline.worker.broker.kept import KeptFrames
from gaussline.worker.commands.console import err, out
from gaussline.worker.commands.options import Json, Line, RedisUrl, open_line, write_file
from gaussline.worker.contract.clock import to_text
from gaussline.worker.contract.frame import BadFrame

EPILOG = """\b
Examples:
  gaussline kept list
  gaussline kept get cam1:3:1042 --output part.png

Every failed frame is kept, and a share of the passed ones (GAUSSLINE_KEEP_PASS_SHARE), until they are too old or too
many (GAUSSLINE_KEPT_MAX_AGE_S, GAUSSLINE_KEPT_MAX_BYTES). The line's GAUSSLINE_KEPT_STORE says where."""
app = typer.Typer(help="Kept frames: list, get.", epilog=EPILOG, no_args_is_help=True, add_completion=False)


@app.command("list")
def list_kept(
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 50,
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """The newest kept frames, newest first."""
    opened = open_line(redis_url, line)
    frames = KeptFrames(opened.client, opened.line).list(count)
    if as_json:
        out().print_json(json.dumps([dataclasses.asdict(frame) for frame in frames]))
        return
    for frame in frames:
        out().print(f"{to_text(frame.kept_us)} {frame.id}", highlight=False)
    if not frames:
        err().print(f"no kept frame on line {opened.line}", highlight=False)


@app.command("get")
def get_kept(
    frame_id: Annotated[str, typer.Argument(help="Frame, camera:epoch:sequence; a verdict's id.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write its bytes to.")],
    redis_url: RedisUrl = None,
    line: Line = None,
) -> None:
    """Write a kept frame's bytes to a file, exactly as its camera sent them."""
    opened = open_line(redis_url, line)
    frame = KeptFrames.of(opened.settings, opened.client).get(frame_id).frames[0]
    write_file(output, frame.data)
    what = "an unreadable frame" if isinstance(frame, BadFrame) else frame.encoding
    if not isinstance(frame, BadFrame) and frame.encoding == "raw":
        what = f"a raw array of shape {'×'.join(map(str, frame.shape or ()))}, {frame.dtype}"
    out().print(f"{output}: {len(frame.data)} bytes, {what}", highlight=False, markup=False, soft_wrap=True)
