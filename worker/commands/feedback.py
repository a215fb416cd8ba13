"""`gaussline feedback`: say of a frame that its part is good or bad; the learner listens."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from gaussline.worker.broker.feedback import FeedbackLog
from gaussline.worker.commands.console import out
from gaussline.worker.commands.options import By, Json, Line, RedisUrl, open_line, who
from gaussline.worker.contract.feedback import Feedback, Label

EPILOG = """\b
Examples:
  gaussline feedback cam1:3:1042 bad --by ada
  gaussline feedback cam1:3:1042 good --by ada --note "only dust, wiped off"

A frame's id is its verdict's. The last word on a frame holds; what was said before stays in the stream. An MES writes
to the same stream, see docs/contract.md. Feedback on a frame that this line never saw is refused (exit code 1)."""


def feedback(
    frame: Annotated[str, typer.Argument(help="Frame, camera:epoch:sequence; a verdict's id.", show_default=False)],
    label: Annotated[Label, typer.Argument(help="What its part really is.", show_default=False)],
    by: By = "",
    note: Annotated[str, typer.Option("--note", help="Why.")] = "",
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """Say of a frame that its part is good or bad."""
    said = Feedback(frame, label, who(by), note)
    opened = open_line(redis_url, line)
    entry = FeedbackLog(opened.client, opened.line, max_entries=opened.settings.feedback_max_entries).write(said)
    if as_json:
        out().print_json(json.dumps(said.to_fields() | {"entry": entry}))
        return
    out().print(f"{said.id} is {said.label.value}, says {said.by}", highlight=False, markup=False)
