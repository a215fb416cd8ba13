"""Structured logs: one line an event, as JSON or as text for a person; storms are limited, secrets never appear."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from gaussline.worker.broker.client import redact
from gaussline.worker.contract.clock import to_text
from gaussline.worker.engine.observer import Observer

LOGGER = "gaussline"
STORM_S = 10.0
"""An event of the same kind is written at most once in this time; the next line says how many were left out."""
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _Formatter(logging.Formatter):
    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._json = as_json

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": to_text(int(record.created * 1e6)),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        fields |= {name: value for name, value in vars(record).items() if name not in _PLAIN}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        if self._json:
            return redact(json.dumps(fields, default=str, ensure_ascii=False))
        head = f"{fields.pop('time')} {fields.pop('level'):7} {fields.pop('event')}"
        traceback = fields.pop("traceback", "")
        pairs = "".join(f" {name}={value}" for name, value in fields.items())
        return redact(head + pairs + (f"\n{traceback}" if traceback else ""))


def configure(level: str, form: str) -> logging.Logger:
    """Send gaussline's log to standard error. Called once, by a command."""
    logger = logging.getLogger(LOGGER)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(form == "json"))
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
    return logger


class LogObserver(Observer):
    """Writes down what a person would want to know later; never a line a frame."""

    def __init__(self, logger: logging.Logger, worker: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._worker = worker
        self._monotonic = monotonic
        self._last: dict[str, tuple[float, int]] = {}

    def redelivered(self, camera: str, messages: int, crashes: int) -> None:
        self._say(
            logging.WARNING, "messages claimed", f"claim:{camera}", camera=camera, messages=messages, crashes=crashes
        )

    def lost_race(self, messages: int) -> None:
        self._say(logging.INFO, "settled by somebody else", "race", messages=messages)

    def trouble(self, stage: str, error: BaseException) -> None:
        self._say(logging.WARNING, "trouble, trying again", f"trouble:{stage}", stage=stage, said=str(error))

    def surprise(self, stage: str, error: BaseException) -> None:
        kind = type(error).__name__
        self._say(logging.ERROR, "unexpected fault", f"surprise:{stage}:{kind}", error, stage=stage, said=str(error))

    def model_loaded(self, name: str, version: int, digest: str, seconds: float) -> None:
        self._logger.info(
            "model loaded",
            extra={
                "worker": self._worker,
                "model": name,
                "version": version,
                "digest": digest,
                "seconds": round(seconds, 3),
            },
        )

    def model_refused(self, name: str, version: int, error: BaseException) -> None:
        self._logger.error(
            "model refused", extra={"worker": self._worker, "model": name, "version": version, "error": str(error)}
        )

    def _say(self, level: int, event: str, key: str, fault: BaseException | None = None, **fields: Any) -> None:
        now = self._monotonic()
        since, left_out = self._last.get(key, (-STORM_S, 0))
        if now - since < STORM_S:
            self._last[key] = (since, left_out + 1)
            return
        if len(self._last) > 1000:
            self._last.clear()
        self._last[key] = (now, 0)
        if left_out:
            fields["left_out"] = left_out
        self._logger.log(level, event, exc_info=fault, extra={"worker": self._worker, **fields})
