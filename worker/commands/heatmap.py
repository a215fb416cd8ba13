"""`gaussline heatmap`: where on a frame its score comes from, as a picture and as numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from gaussline.worker.broker.heat_maps import HeatMaps
from gaussline.worker.commands.console import err, out
from gaussline.worker.commands.frames import bytes_of, verdict_of
from gaussline.worker.commands.options import (
    Connection,
    Json,
    Line,
    RedisUrl,
    open_line,
    read_file,
    write_file,
)
from gaussline.worker.contract.frame import Frame
from gaussline.worker.contract.heat_map import Explanation, reference
from gaussline.worker.contract.trial import STABLE
from gaussline.worker.contract.verdict import ModelRef, Verdict
from gaussline.worker.errors import NotFound, SettingsError

if TYPE_CHECKING:
    from gaussline.worker.engine.recheck import Recheck

EPILOG = """\b
Examples:
  gaussline heatmap cam1:3:1042
  gaussline heatmap cam1:3:1042 --output map.png --array map.npy
  gaussline heatmap part.png --model plates --version 7 --array map.safetensors

Red adds to the score, blue takes from it; the map adds up to the score. A failed frame's map is made by the worker and
read from its ring; where it is not there, it is made again from the kept frame, by the version that judged it. --array
takes a .npy file (the map at input size, float32) or a .safetensors file (every level's own map)."""


def heatmap(
    what: Annotated[str, typer.Argument(metavar="FRAME|FILE", help="A verdict's id, or an image file.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="PNG file; default named after FRAME.")] = None,
    array: Annotated[Path | None, typer.Option("--array", help="The numbers too: .npy or .safetensors.")] = None,
    model: Annotated[str, typer.Option("--model", help="Model for an image file.")] = "default",
    version: Annotated[int | None, typer.Option(min=1, help="Its version; none takes the stable one.")] = None,
    full_scale: Annotated[
        float | None, typer.Option(min=0, help="Score of one pixel at full colour; state it to compare frames.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights file; default GAUSSLINE_WEIGHTS.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """Where on a frame its score comes from: a PNG to look at, an array to count with, and each level's part."""
    if array is not None and array.suffix not in (".npy", ".safetensors"):
        raise SettingsError(f"--array {array}: the name must end in .npy or .safetensors")
    opened = open_line(redis_url, line, weights=weights, device=device)
    file = Path(what)
    image: NDArray[np.uint8] | None
    if file.is_file():
        found, image, source = _of_file(opened, file, model, version)
        name = file.stem
    else:
        found, image, source = _of_frame(opened, verdict_of(opened, what))
        name = what.replace(":", "_")
    _write(found, image, source, output or Path(f"{name}.heatmap.png"), array, full_scale, as_json)


def _of_file(
    opened: Connection, file: Path, name: str, number: int | None
) -> tuple[Explanation, NDArray[np.uint8], str]:
    registry = opened.registry()
    if number is None:
        pointer = registry.pointer(name)
        if pointer is None:
            raise NotFound(f"{name}/{STABLE} points nowhere on line {opened.line}: name a --version")
        number = pointer.version
    ref = ModelRef(name, number, registry.version(name, number).digest)
    look = _recheck(opened).look(Frame(read_file(file), _encoding(file), 0), ref, maps=True)
    assert look.explanation is not None
    return look.explanation, look.image, "made from the file"


def _of_frame(opened: Connection, verdict: Verdict) -> tuple[Explanation, NDArray[np.uint8] | None, str]:
    """The stored map with the kept frame below it; else both from the kept frame; else the map alone, or NotFound."""
    if verdict.model is None:
        raise NotFound(f"frame {verdict.id} was not judged ({verdict.reason}): it has no score to explain")
    named = verdict.heat_map or reference(verdict.id, verdict.model.digest)
    ring = HeatMaps(opened.client, opened.line)
    stored: Explanation | None = None
    missing = ""
    try:
        stored = ring.get(named)
    except NotFound as error:
        missing = str(error)
    try:
        frame = bytes_of(opened, verdict)
    except NotFound as error:
        if stored is None:
            raise NotFound(f"{missing}\n{error}: the map cannot be made again") from None
        return stored, None, "stored by the worker"
    if stored is not None:
        from gaussline.worker.engine.picture import at_size

        return stored, at_size(opened.settings, frame, stored.input_size), "stored by the worker"
    look = _recheck(opened).look(frame, verdict.model, name=verdict.id, maps=True)
    assert look.explanation is not None
    return look.explanation, look.image, "made again from the kept frame"


def _write(
    found: Explanation,
    image: NDArray[np.uint8] | None,
    source: str,
    output: Path,
    array: Path | None,
    full_scale: float | None,
    as_json: bool,
) -> None:
    from gaussline.worker.vision.heatmap import combined

    heat = combined(found)
    ground = np.full((*found.input_size, 3), 128, np.uint8) if image is None else image
    write_file(output, heat.to_png(ground, full_scale=full_scale or None))
    if array is not None:
        write_file(array, heat.to_npy() if array.suffix == ".npy" else found.to_bytes())
    if as_json:
        told = {
            "frame": found.frame or None,
            "source": source,
            "score": found.score,
            "sum": float(heat.combined.sum()),
            "levels": {
                name: {"distance": found.distances[name], "contribution": found.contributions[name]}
                for name in found.levels
            },
            "model": None if found.model is None else [found.model.name, found.model.version],
            "picture": image is not None,
            "files": [str(path) for path in (output, array) if path is not None],
        }
        out().print_json(json.dumps(told))
        return
    table = Table("level", "distance", "of the score")
    for name in found.levels:
        share = found.contributions[name] / found.score if found.score else 0.0
        table.add_row(name, f"{found.distances[name]:.4g}", f"{100 * share:.1f} %")
    out().print(table)
    files = " and ".join(str(path) for path in (output, array) if path is not None)
    out().print(f"{files}: score {found.score:.4g}, {source}", highlight=False, markup=False, soft_wrap=True)
    if image is None:
        err().print("the frame itself has expired: the map lies on plain grey", style="yellow", highlight=False)


def _recheck(opened: Connection) -> Recheck:
    from gaussline.worker.engine.recheck import Recheck

    return Recheck(opened.settings, opened.client)


def _encoding(file: Path) -> str:
    """The decoder looks at the bytes; the name only has to be on the list."""
    endings = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".bmp": "bmp", ".webp": "webp"}
    endings |= {".tif": "tiff", ".tiff": "tiff"}
    if file.suffix.lower() not in endings:
        raise SettingsError(f"{file} is no image of a known kind: {', '.join(endings)}")
    return endings[file.suffix.lower()]
