"""Augmentation at the time of a fit: turned and relit copies of the training images, drawn by a seed.

A copy teaches the Gaussians what normal parts look like the other way round, or under another lamp, where the line
promises nothing about either. Copies never calibrate: a working point must see frames as they come. What is drawn for
an image depends on the seed, the number of the copy and the image's own bytes, not on its place in a folder.

Copies are no new parts: a covariance counts them as frames, and shrinks less than so few parts deserve. How many there
are is the user's to say, and stands in the model.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from gaussline.worker.contract.views import BRIGHTNESS, IDENTITY, TURNS, brightness
from gaussline.worker.errors import ArtefactError, FitError
from gaussline.worker.vision.views import seen

MAX_COPIES: Final = 100
"""The paper's number for its threshold."""
_RANGE: Final = re.compile(rf"{BRIGHTNESS}([0-9.]+)\.\.([0-9.]+)")


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How copies are drawn: one turn out of those named and none at all, each as likely, and a factor of brightness.

    Attributes:
        turns: of `contract.views.TURNS`.
        light: least and greatest factor of brightness; (1, 1) changes none.
        copies: of each training image.
    """

    turns: tuple[str, ...]
    light: tuple[float, float]
    copies: int
    seed: int

    def __post_init__(self) -> None:
        if not 1 <= self.copies <= MAX_COPIES:
            raise FitError(f"{self.copies} augmented copies of each image are not between 1 and {MAX_COPIES}")
        if not self.turns and self.light == (1.0, 1.0):
            raise FitError("an augmentation that changes nothing is none: name a turn or a range of brightness")

    @classmethod
    def parse(cls, text: str, copies: int, seed: int) -> Augmentation:
        """From `hflip,rot180,brightness:0.9..1.1`. Raises FitError for what it does not know."""
        turns, light = [], (1.0, 1.0)
        for part in (part.strip() for part in text.split(",") if part.strip()):
            found = _RANGE.fullmatch(part)
            if found is None:
                if part not in TURNS or part == IDENTITY:
                    known = ", ".join(turn for turn in TURNS if turn != IDENTITY)
                    raise FitError(f"there is no augmentation {part!r:.40}: {known}, or {BRIGHTNESS}LOW..HIGH")
                turns.append(part)
                continue
            try:
                low, high = (float(bound) for bound in found.groups())
                brightness(f"{BRIGHTNESS}{low}"), brightness(f"{BRIGHTNESS}{high}")
            except (ValueError, ArtefactError) as error:
                raise FitError(f"augmentation {part!r:.60}: {error}") from None
            if low > high:
                raise FitError(f"augmentation {part!r:.60}: {low:g} is more than {high:g}")
            light = (low, high)
        return cls(tuple(dict.fromkeys(turns)), light, copies, seed)

    def copy(self, image: torch.Tensor, digest: str, number: int) -> torch.Tensor:
        """Copy `number` of a uint8 (3, h, w) image whose file has a digest (hex)."""
        draw = np.random.default_rng([self.seed, number, int(digest[:16], 16)])
        turn = (IDENTITY, *self.turns)[int(draw.integers(len(self.turns) + 1))]
        turned = seen(image[None], turn)
        if self.light != (1.0, 1.0):
            turned = seen(turned, f"{BRIGHTNESS}{draw.uniform(*self.light)}")
        return turned[0]

    def key(self, number: int) -> str:
        """What else, beside image and backbone, a copy's features depend on; letters and digits."""
        said = repr((self.turns, self.light, self.seed, number))
        return "copy" + hashlib.sha256(said.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """JSON-able, for the model's record."""
        return {"turns": list(self.turns), "brightness": list(self.light), "copies": self.copies, "seed": self.seed}
