"""A stretch of time as people type it."""

from __future__ import annotations

import re

from gaussline.worker.errors import SettingsError

_AGO = re.compile(r"(\d{1,9})([smhd])\Z", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds_of(text: str) -> int | None:
    """Seconds of 90s, 10m, 2h or 3d; None where it is no such text."""
    found = _AGO.match(text)
    return None if found is None else int(found[1]) * _SECONDS[found[2]]


def parse_ago(option: str, text: str) -> int:
    """The same of an option's value. Raises SettingsError, naming the option."""
    seconds = seconds_of(text)
    if seconds is None:
        raise SettingsError(f"{option} {text!r} is no stretch of time such as 90s, 10m, 2h or 3d")
    return seconds
