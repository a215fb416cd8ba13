"""What compute hands to settle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from gaussline.worker.engine.prepare import MessageWork, PreparedFrame

Image = TypeVar("Image")


@dataclass(frozen=True, slots=True, eq=False)
class Decided(Generic[Image]):
    """Judged frames with their outcomes, and messages that are whole already because intake decided all of them."""

    frames: Sequence[PreparedFrame[Image]] = ()
    outcomes: Sequence[object] = ()
    whole: Sequence[MessageWork[Image]] = ()
