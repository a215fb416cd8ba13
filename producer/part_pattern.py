"""Part ids made of what a source knows of a frame, such as `A-{n:06d}` or `{label}/{stem}`."""

from __future__ import annotations

import string
from pathlib import PurePosixPath
from typing import Final

from gaussline.producer.shot import Shot
from gaussline.worker.errors import SettingsError

FIELDS: Final = {
    "n": "number of the frame in this run, from 0; {n:06d} pads it",
    "name": "path of the file inside its folder, or the source's own name of the frame",
    "stem": "the same without folders and suffix",
    "label": "good, or the defect's name, by the folder; empty where it is not known",
    "camera": "name of the camera",
}


class PartPattern:
    """A checked pattern. Raises SettingsError for one that names anything but `FIELDS`."""

    def __init__(self, pattern: str, camera: str) -> None:
        self._pattern = pattern
        self._camera = camera
        try:
            parts = list(string.Formatter().parse(pattern))
        except ValueError as error:
            raise SettingsError(f"part id pattern {pattern!r} is malformed: {error}") from None
        for _, field, spec, _ in parts:
            if field is not None and (field not in FIELDS or "{" in (spec or "")):
                raise SettingsError(
                    f"part id pattern {pattern!r} names {{{field}}}; there are "
                    + ", ".join(f"{{{name}}}" for name in FIELDS)
                )
        self.fill(0, Shot(b"", name="x.png", label="good"))

    def fill(self, number: int, shot: Shot) -> str:
        """The part id of a shot. Raises SettingsError where a format does not fit its value."""
        name = shot.name or f"frame{number}"
        values = {
            "n": number,
            "name": name,
            "stem": PurePosixPath(name).stem,
            "label": shot.label or "",
            "camera": self._camera,
        }
        try:
            return self._pattern.format_map(values)
        except (ValueError, IndexError) as error:
            raise SettingsError(f"part id pattern {self._pattern!r} is malformed: {error}") from None
