"""`gaussline produce`: send a folder, a video, a camera or rendered parts to a line."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal, cast

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from gaussline.producer.clock import SystemClock
from gaussline.producer.command_check import look, waits
from gaussline.producer.metrics import MetricsServer
from gaussline.producer.part_pattern import PartPattern
from gaussline.producer.producer import Producer
from gaussline.producer.reader import Reader
from gaussline.producer.shot import Shot
from gaussline.producer.sources.folder import Folder
from gaussline.producer.sources.rate import Pace
from gaussline.producer.sources.synthetic import SyntheticParts
from gaussline.producer.sources.video import Video, is_video
from gaussline.worker.contract.keys import check_name
from gaussline.worker.errors import ContractError, GausslineError, SettingsError
from gaussline.worker.settings import Settings

SYNTHETIC = "synthetic"


class StoppableClock(SystemClock):
    """A clock whose waits a signal handler ends with KeyboardInterrupt; it never interrupts anything but a wait."""

    def __init__(self) -> None:
        self.stopping = False
        self._waiting = False

    def wait(self, seconds: float, wake: threading.Event | None = None) -> None:
        """Return after `seconds`. Raises KeyboardInterrupt on, and after, `stop`."""
        self._waiting = True
        try:
            if self.stopping:
                raise KeyboardInterrupt
            super().wait(seconds, wake)
        finally:
            self._waiting = False

    def stop(self) -> None:
        """To be called by a signal handler of the thread that waits."""
        self.stopping = True
        if self._waiting:
            raise KeyboardInterrupt


@dataclass(slots=True)
class _Run:
    """One run of the command."""

    producer: Producer
    reader: Reader
    clock: StoppableClock
    batch: int
    pattern: PartPattern | None
    signal: int = 0
    sent: int = 0
    overrun: int = 0

    def go(self, told: Any) -> None:
        """Send until the source ends or somebody stops it; `told(frames)` after each turn."""
        while not self.clock.stopping:
            shots = self.reader.take(self.batch)
            lost, self.overrun = self.reader.overrun - self.overrun, self.reader.overrun
            if lost:
                self.producer.note_dropped(lost)
            if not shots:
                return
            if self.pattern is not None:
                shots = [replace(shot, part_id=self.pattern.fill(self.sent + i, shot)) for i, shot in enumerate(shots)]
            self.sent += len(shots)
            self.producer.send_many(shots)
            told(len(shots) + lost)

    def stop(self, number: int, _: FrameType | None) -> None:
        """The signal handler: the first signal ends the run cleanly, a second one at once."""
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
        self.reader.stop()
        self.clock.stop()


def produce(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder of images, an image or video file, /dev/video0, rtsp://…, or 'synthetic': rendered parts.",
        ),
    ],
    camera: Annotated[str, typer.Option("--camera", "-c", help="Name of the camera; a new one registers itself.")],
    rate: Annotated[
        float | None,
        typer.Option("--rate", "-r", help="Frames a second, on an open-loop schedule. Default: as fast as they come."),
    ] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again at the end of a folder or file.")] = False,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="A new order of the folder in each round.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of --shuffle and of rendered parts.")] = 0,
    limit: Annotated[int | None, typer.Option(min=0, help="Stop after this many frames.")] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Most frames in one message; frames wait for each other only while one is sent.")
    ] = 1,
    policy: Annotated[
        str | None, typer.Option(help="On a full backlog: 'block' waits, 'drop' drops and counts. (default: block)")
    ] = None,
    block_timeout: Annotated[
        float | None, typer.Option(help="Longest wait on a full backlog, in seconds. (default: no limit)")
    ] = None,
    part_id: Annotated[
        str | None,
        typer.Option(help="Part id of each frame, such as 'A-{n:06d}'; knows {n} {name} {stem} {label} {camera}."),
    ] = None,
    deadline_ms: Annotated[
        float | None, typer.Option(min=0, help="Time from capture after which nobody needs the verdict.")
    ] = None,
    encode: Annotated[str, typer.Option(help="What video and rendered frames are sent as: raw, png or jpeg.")] = "raw",
    model: Annotated[
        str | None, typer.Option(help="Model that judges a camera that is new. (default: default)")
    ] = None,
    recursive: Annotated[bool, typer.Option(help="Look into the folders inside a folder.")] = True,
    size: Annotated[int, typer.Option(help="Side of a rendered part in pixels.")] = 256,
    defect_share: Annotated[float, typer.Option(min=0, max=1, help="Share of rendered parts with a defect.")] = 0.1,
    video_option: Annotated[
        list[str] | None, typer.Option(help="FFmpeg option of a video or camera, as name=value; may be repeated.")
    ] = None,
    redis_url: Annotated[
        str | None, typer.Option(help="Redis of the line. (default: GAUSSLINE_REDIS_URL or redis://127.0.0.1:6379/0)")
    ] = None,
    line: Annotated[str | None, typer.Option(help="Name of the line. (default: GAUSSLINE_LINE or line1)")] = None,
    connect_for: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a Redis that is not there yet at the start.")
    ] = 0.0,
    http_port: Annotated[
        int | None, typer.Option(help="Port of /metrics, /healthz, /readyz; 0: a free one; none: none.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check settings, source, port and Redis, take no camera, and exit.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as one line of JSON on stdout.")] = False,
) -> None:
    """Send the frames of one camera to a line.

    Every frame is admitted exactly once, through outages of Redis too, and
    gets exactly one verdict. One producer runs for a camera: a second one
    takes the camera over, and the first one stops and says so.

    \b
    Examples:
      gaussline produce --camera cam1 pictures/ --rate 5 --loop
      gaussline produce --camera cam1 /dev/video0 --video-option framerate=10
      gaussline produce --camera cam1 rtsp://user:password@10.0.0.7/1 --policy drop
      gaussline produce --camera cam1 synthetic --limit 1000 --part-id '{label}-{n:06d}'

    An endless run (a camera, --loop, synthetic without --limit) is ended by
    Ctrl-C and exits with 0; a run that Ctrl-C cuts short exits with 130.
    """
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    settings = Settings.load(redis_url=redis_url, line=line, full_policy=policy, block_timeout_s=block_timeout)
    try:
        check_name("camera", camera)
    except ContractError as error:
        raise SettingsError(f"--camera: {error}") from None
    if encode not in ("raw", "png", "jpeg"):
        raise SettingsError(f"--encode {encode}: there are raw, png and jpeg")
    options = dict(_option(text) for text in video_option or [])
    shots, total, live = _open(source, loop, shuffle, seed, recursive, size, defect_share, options)
    total = limit if total is None else total if limit is None else min(limit, total)
    pattern = None if part_id is None else PartPattern(part_id, camera)
    pace = None if rate is None else Pace(rate)
    clock = StoppableClock()
    producer = Producer(
        camera,
        settings=settings,
        model=model,
        encode=cast(Literal["raw", "png", "jpeg"], encode),
        deadline=None if deadline_ms is None else timedelta(milliseconds=deadline_ms),
        batch_frames=batch,
        connect_for_s=connect_for,
        clock=clock,
    )
    server = (
        None if http_port is None else MetricsServer(settings.http_host, http_port, producer, lambda: waits(producer))
    )
    if check:
        look(producer, shots, server)
        return
    # On a schedule, or from a camera, frames come whether or not there is room; from a folder they can wait.
    drop = settings.full_policy == "drop"
    reader = Reader(shots, pace=pace, depth=max(4, 2 * batch), live=live or (drop and pace is not None), limit=limit)
    run = _Run(producer, reader, clock, batch, pattern)
    began_s = clock.monotonic_s()
    with _signals(run), server or nullcontext():
        failure = _run(run, errors, total, quiet=quiet)
    seconds = clock.monotonic_s() - began_s
    _say(run, settings, seconds, total, as_json=as_json)
    if failure is not None:
        raise failure
    if run.signal and total is not None and run.sent < total:
        raise typer.Exit(128 + run.signal)


def _run(run: _Run, errors: Console, total: int | None, *, quiet: bool) -> GausslineError | None:
    """Run to the end. What goes wrong before the first frame is raised, later it is answered beside the summary."""
    run.producer.start()
    for mistake in run.producer.unsound():
        errors.print(f"gaussline produce: {mistake}", style="yellow", markup=False)
    warnings = _ToConsole(errors)
    log = logging.getLogger("gaussline.producer")
    log.addHandler(warnings)
    try:
        with nullcontext() if quiet or not errors.is_terminal else _bar(errors, run, total) as bar:
            run.reader.start()
            run.go(lambda frames: None if bar is None else bar.advance(bar.task_ids[0], frames))
    except KeyboardInterrupt:
        if not run.signal:
            raise
    except GausslineError as error:
        if not run.sent:
            raise
        return error
    finally:
        run.reader.close()
        run.producer.close()
        log.removeHandler(warnings)
    return None


class _ToConsole(logging.Handler):
    """Warnings of the library as lines on stderr, above the progress bar and not through it."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        self._console.print(f"gaussline produce: {record.getMessage()}", style="yellow", markup=False)


def _open(
    source: str,
    loop: bool,
    shuffle: bool,
    seed: int,
    recursive: bool,
    size: int,
    defect_share: float,
    options: dict[str, str],
) -> tuple[Iterable[Shot], int | None, bool]:
    """The source, its length where it has one, and whether it is live."""
    if source == SYNTHETIC:
        return SyntheticParts(seed, size=size, defect_share=defect_share), None, False
    if is_video(source):
        video = Video(source, loop=loop, options=options)
        return video, None, video.is_live
    folder = Folder(Path(source), recursive=recursive, loop=loop, shuffle=shuffle, seed=seed)
    return folder, None if loop else len(folder), False


def _option(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise SettingsError(f"--video-option {text!r} is not of the form name=value")
    return name, value


@contextmanager
def _signals(run: _Run) -> Iterator[None]:
    """SIGINT and SIGTERM stop the run; afterwards they do what they did before."""
    before = {number: signal.signal(number, run.stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Rate(ProgressColumn):
    """Frames a second, and what became of the others."""

    def __init__(self, run: _Run) -> None:
        super().__init__()
        self._run = run

    def render(self, task: Task) -> Text:
        """The column's text."""
        stats = self._run.producer.stats
        text = f"{task.finished_speed or task.speed or 0:,.0f}/s"
        text += f"  {stats.dropped:,} dropped" if stats.dropped else ""
        return Text(text + ("  busy" if stats.offered > stats.admitted + stats.dropped else ""))


def _bar(console: Console, run: _Run, total: int | None) -> Progress:
    columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn("{task.description}")]
    columns += [BarColumn()] if total is not None else []
    columns += [MofNCompleteColumn(), _Rate(run)]
    columns += [TimeRemainingColumn()] if total is not None else []
    bar = Progress(*columns, console=console, transient=True)
    bar.add_task(f"{run.producer.camera} epoch {run.producer.epoch}", total=total)
    return bar


def _say(run: _Run, settings: Settings, seconds: float, total: int | None, *, as_json: bool) -> None:
    stats = run.producer.stats
    rate = stats.admitted / seconds if seconds > 0 else 0.0
    if as_json:
        summary = {
            "camera": run.producer.camera,
            "line": settings.line,
            "epoch": run.producer.epoch,
            "seconds": round(seconds, 3),
            "frames_per_second": round(rate, 2),
            "total": total,
            "signal": signal.Signals(run.signal).name if run.signal else None,
            **stats.to_dict(),
        }
        sys.stdout.write(json.dumps(summary) + "\n")
        return
    said = [f"{stats.admitted:,} frames admitted"]
    said += [f"{stats.dropped:,} dropped"] if stats.dropped else []
    said += [f"{stats.refused:,} refused"] if stats.refused else []
    said += [f"{stats.unanswered:,} without an answer"] if stats.unanswered else []
    said += [f"{stats.reconnects:,} outages"] if stats.reconnects else []
    sys.stdout.write(
        f"{run.producer.camera} (line {settings.line}, epoch {run.producer.epoch}): {', '.join(said)} in "
        f"{seconds:.1f} s ({rate:,.1f}/s)\n"
    )
