"""Structured logs: one line an event, as JSON or as text for a person; storms are limited, secrets never appear."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from gaussline.worker.broker.client import redact
from gaussline.worker.contract.clock import to_text
from gaussline.worker.contract.trial import STABLE
from gaussline.worker.contract.verdict import Verdict
from gaussline.worker.engine.observer import Observer
from gaussline.worker.telemetry.storm import Storm

LOGGER = "gaussline"
STORM_S = 10.0
"""A line of one kind is written at most once in this time; a later line says how many were left out."""
HIDDEN = "***"
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Form(logging.Formatter):
    """A record as one line.

    Args:
        as_json: one JSON object, else text for a person; only a traceback takes further lines, and only as text.
        secrets: words that are never written, whatever they stand in; those in URLs are hidden besides.
    """

    def __init__(self, *, as_json: bool, secrets: Sequence[str] = ()) -> None:
        super().__init__()
        self._json = as_json
        self._secrets = tuple(sorted((word for word in secrets if word), key=len, reverse=True))

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        fields: dict[str, Any] = {
            "time": to_text(int(record.created * 1e6)),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        fields |= {name: value for name, value in vars(record).items() if name not in _PLAIN}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        fields = {name: self._safe(value) for name, value in fields.items()}
        if self._json:
            return json.dumps(fields, ensure_ascii=False)
        head = f"{fields.pop('time')} {fields.pop('level'):7} {_one_line(fields.pop('event'))}"
        traceback = fields.pop("traceback", "")
        pairs = "".join(f" {name}={_quoted(value)}" for name, value in fields.items() if value is not None)
        return head + pairs + (f"\n{traceback}" if traceback else "")

    def _safe(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, dict):
            return {self._safe(str(name)): self._safe(each) for name, each in value.items()}
        text = str(value)
        for word in self._secrets:
            text = text.replace(word, HIDDEN)
        return redact(text)


def _one_line(text: str) -> str:
    """Text that cannot pass for a second line; names and details come from outside."""
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)


def _quoted(value: Any) -> str:
    """A value that ends where it seems to end."""
    text = str(value)
    plain = text and text.isprintable() and not any(letter in ' "=' for letter in text)
    return text if plain else json.dumps(text, ensure_ascii=False)


def configure(level: str, form: str, *, secrets: Sequence[str] = ()) -> logging.Logger:
    """Send gaussline's log, and Python's warnings with it, to standard error. Called once, by a command."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Form(as_json=form == "json", secrets=secrets))
    logger = logging.getLogger(LOGGER)
    for each in (logger, logging.getLogger("py.warnings")):
        each.handlers[:] = [handler]
        each.propagate = False
    logger.setLevel(level.upper())
    return logger


class LogObserver(Observer):
    """Writes down what a person would want to know later; never a line a frame.

    The hooks come from several threads at once.
    """

    def __init__(self, logger: logging.Logger, worker: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._worker = worker
        self._storm: Storm[tuple[int, str, str]] = Storm(STORM_S, monotonic)

    def redelivered(self, camera: str, messages: int, crashes: int) -> None:
        self._say(logging.WARNING, "messages claimed", "", camera=camera, messages=messages, crashes=crashes)

    def isolated(self, frames: int, poisonous: int) -> None:
        self._say(logging.WARNING, "message judged in isolation", "", frames=frames, poisonous=poisonous)

    def lost_race(self, messages: int) -> None:
        self._say(logging.INFO, "settled by somebody else", "", messages=messages)

    def settled(self, verdicts: Sequence[Verdict], seconds: float, now_us: int) -> None:
        for verdict in verdicts:
            if verdict.reason is not None:
                reason = verdict.reason.value
                about: dict[str, Any] = {"frame": verdict.id, "part": verdict.part, "said": verdict.detail}
                self._say(logging.WARNING, "frame not judged", reason, reason=reason, camera=verdict.camera, **about)

    def trouble(self, stage: str, error: BaseException) -> None:
        self._say(logging.WARNING, "trouble, trying again", stage, stage=stage, said=str(error))

    def surprise(self, stage: str, error: BaseException) -> None:
        kind = type(error).__name__
        self._say(logging.ERROR, "unexpected fault", f"{stage} {kind}", error, stage=stage, said=str(error))

    def model_loaded(self, name: str, version: int, digest: str, seconds: float, channel: str = STABLE) -> None:
        fields = {"model": name, "channel": channel, "version": version, "digest": digest, "seconds": round(seconds, 3)}
        self._write(logging.INFO, "model loaded", fields)

    def model_dropped(self, name: str, channel: str) -> None:
        self._write(logging.INFO, "model dropped", {"model": name, "channel": channel})

    def model_refused(self, name: str, version: int, error: BaseException) -> None:
        self._write(logging.ERROR, "model refused", {"model": name, "version": version, "said": str(error)})

    def turned(self, stage: str) -> None:
        """The watch turns about once a second: time to tell the end of a storm that nothing came after."""
        if stage == "watch":
            self.tell_ended()

    def tell_ended(self, *, all_of_them: bool = False) -> None:
        """Say how many lines were left out of every storm that is over, or of every one because the process ends."""
        for kind, left_out in self._storm.ended(all_of_them=all_of_them):
            level, event, detail = kind
            self._write(level, event, {"of": detail, "left_out": left_out})

    def _say(self, level: int, event: str, detail: str, fault: BaseException | None = None, **fields: Any) -> None:
        left_out = self._storm.let((level, event, detail))
        if left_out is not None:
            self._write(level, event, fields | ({"left_out": left_out} if left_out else {}), fault)

    def _write(self, level: int, event: str, fields: dict[str, Any], fault: BaseException | None = None) -> None:
        self._logger.log(level, event, exc_info=fault, extra={"worker": self._worker, **fields})
