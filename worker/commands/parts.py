"""`gaussline parts`: one verdict a part, out of the verdicts of its frames."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from signal import Signals
from typing import Annotated

import typer

from gaussline.worker.broker.verdicts import trim_parts
from gaussline.worker.commands.options import Line, RedisUrl, open_line, secrets_of
from gaussline.worker.commands.signals import on_signals
from gaussline.worker.contract.keys import check_name
from gaussline.worker.contract.part_verdict import MAX_FRAMES, PartVerdict
from gaussline.worker.engine.part_book import LateFrame, PartRule
from gaussline.worker.engine.part_judge import PartJudge
from gaussline.worker.errors import BrokerError, ContractError, GausslineError, SettingsError
from gaussline.worker.settings import Settings

EPILOG = """\b
Examples:
  gaussline parts --cameras cam1,cam2
  gaussline parts --cameras cam1,cam2=3 --deadline 5
  gaussline parts --frames 4
  gaussline verdicts --parts --follow --json --group mes

A part is what frames with the same part id show. It is decided when every expected frame has a pass or a fail, or at
the deadline after its first verdict: fail if any frame fails, not_judged if one is missing or not judged, else pass.
Run one on a line; a second one is a spare that disturbs nothing."""
TRIM_S = 1.0
LATE = "frame came after its part was decided"


def parts(
    cameras: Annotated[str | None, typer.Option(help="Cameras that see a part: cam1,cam2 or cam1,cam2=3.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames of a part in all.")] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds from its first verdict.")] = None,
    log_format: Annotated[str | None, typer.Option(help="json or text.")] = None,
    redis_url: RedisUrl = None,
    line: Line = None,
) -> None:
    """Decide parts until SIGTERM or Ctrl-C. What it knows is in Redis: it may die at any instant, and go on."""
    from gaussline.worker.telemetry.logs import STORM_S, configure
    from gaussline.worker.telemetry.storm import Storm

    opened = open_line(
        redis_url,
        line,
        parts_cameras=cameras,
        parts_frames=frames,
        parts_deadline_s=deadline,
        log_format=log_format,
    )
    settings = opened.settings
    rule = part_rule(settings)
    logger = configure(settings.log_level, settings.log_format, secrets=secrets_of(settings))
    storm: Storm[str] = Storm(STORM_S, time.monotonic)
    stopping = threading.Event()

    def tell(decided: Sequence[PartVerdict], late: Sequence[LateFrame]) -> None:
        for one in late:
            left_out = storm.let("late")
            if left_out is not None:
                about = {"part": one.part, "frame": one.frame.id, "decision": one.frame.decision.value}
                logger.warning(LATE, extra=about | ({"left_out": left_out} if left_out else {}))

    def trouble(error: BrokerError) -> None:
        if storm.let("trouble") is not None:
            logger.warning("trouble, trying again", extra={"said": str(error)})

    def trim() -> None:
        while not stopping.wait(TRIM_S):
            try:
                trim_parts(
                    opened.client,
                    opened.line,
                    min_age_s=settings.verdict_min_age_s,
                    max_bytes=settings.verdict_max_bytes,
                )
            except GausslineError as error:
                if storm.let("trim") is not None:
                    logger.warning("part verdicts are not trimmed", extra={"said": str(error)})

    def stop(number: Signals) -> None:
        stopping.set()

    def quit_at_once(number: Signals) -> None:
        os._exit(128 + number)

    judge = PartJudge(
        opened.client,
        opened.line,
        rule,
        remember_s=settings.parts_remember_s,
        on_turn=tell,
        on_trouble=trouble,
    )
    trimmer = threading.Thread(target=trim, name="trim", daemon=True)
    with on_signals(stop, quit_at_once):
        judge.step()  # a mistake of the settings, or a Redis that is away, is said at once
        logger.info("ready", extra={"line": opened.line, "cameras": settings.parts_cameras, "pid": os.getpid()})
        trimmer.start()
        judge.run(stopping)
    logger.info("stopped")


def part_rule(settings: Settings) -> PartRule:
    """What the settings expect of a part. Raises SettingsError."""
    expected: dict[str, int] = {}
    for item in filter(None, (text.strip() for text in settings.parts_cameras.split(","))):
        name, sign, count = item.partition("=")
        try:
            check_name("camera", name)
            expected[name] = int(count) if sign else 1
        except (ContractError, ValueError) as error:
            raise SettingsError(f"parts_cameras: {item!r} is no camera, or camera=frames: {error}") from None
        if not 1 <= expected[name] <= 256:
            raise SettingsError(f"parts_cameras: {item!r}: frames are between 1 and 256")
    if sum(expected.values()) > MAX_FRAMES:
        raise SettingsError(f"parts_cameras: {sum(expected.values())} frames in all, over {MAX_FRAMES} of a part")
    if not expected and not settings.parts_frames:
        raise SettingsError("nothing is expected of a part: set parts_cameras or parts_frames (--cameras, --frames)")
    return PartRule(expected, settings.parts_frames, int(settings.parts_deadline_s * 1000), settings.parts_max_open)
