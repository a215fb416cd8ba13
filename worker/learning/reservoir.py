"""The calibration reservoir: frames drawn before they were scored, failed ones among them, that never teach.

It is kept in pages, one a block: a page never changes, so that a checkpoint writes each of them once. It is cleaned by
labels, by the times of alarms, and by one stated robust rule (`fence`), never by what the gate thinks of a frame.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.errors import ArtefactError

FENCE = 12.0
"""Half-widths over the median from which a reservoir frame counts as a gross outlier; see `fence`."""


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """Reservoir frames of one block.

    Attributes:
        number: of the block.
        ids, cameras: of the frames.
        at_us: (m,) working time.
        features: (m, D) float32.
    """

    number: int
    ids: tuple[str, ...]
    cameras: tuple[str, ...]
    at_us: NDArray[np.int64]
    features: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, keep: Sequence[int]) -> Page:
        """A page of some of its frames."""
        return Page(
            self.number,
            tuple(self.ids[row] for row in keep),
            tuple(self.cameras[row] for row in keep),
            self.at_us[list(keep)],
            self.features[list(keep)],
        )

    def pack(self) -> bytes:
        """As bytes; the same page gives the same bytes."""
        about = {"kind": "reservoir", "number": self.number, "ids": list(self.ids), "cameras": list(self.cameras)}
        return Artefact.pack(about, {"at_us": self.at_us, "features": self.features}).data

    @classmethod
    def unpack(cls, data: bytes) -> Page:
        """From `pack`. Raises ArtefactError."""
        artefact = Artefact.unpack(data)
        try:
            said: Any = artefact.manifest
            page = cls(
                int(said["number"]),
                tuple(said["ids"]),
                tuple(said["cameras"]),
                np.array(artefact.arrays["at_us"], np.int64),
                np.array(artefact.arrays["features"], np.float32),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"a page of the reservoir is malformed: {error}") from None
        if not len(page.ids) == len(page.cameras) == len(page.at_us) == len(page.features):
            raise ArtefactError("a page of the reservoir holds columns of different lengths")
        return page


class Reservoir:
    """The newest frames, page by page.

    Args:
        frames: the oldest page goes where as many frames are left without it.
        max_bytes: of features; beyond it the oldest pages go, the newest stays.
        max_age_s: of working time; a page goes with its oldest frame.
    """

    def __init__(self, frames: int, *, max_bytes: int = 2**63, max_age_s: float = 1e12) -> None:
        self.frames = frames
        self.max_bytes = max_bytes
        self.max_age_s = max_age_s
        self.pages: list[Page] = []

    def __len__(self) -> int:
        return sum(len(page) for page in self.pages)

    @property
    def size_bytes(self) -> int:
        """Of all features."""
        return sum(page.features.nbytes for page in self.pages)

    def add(self, page: Page) -> None:
        """Append a block's frames."""
        if not len(page):
            return
        self.pages.append(page)
        frames, size = len(self), self.size_bytes
        while len(self.pages) > 1 and (frames - len(self.pages[0]) >= self.frames or size > self.max_bytes):
            oldest = self.pages.pop(0)
            frames, size = frames - len(oldest), size - oldest.features.nbytes

    def age(self, now_us: int) -> None:
        """Let go what is over its age at a working time."""
        oldest_us = now_us - int(self.max_age_s * 1e6)
        while self.pages and self.pages[0].at_us[0] < oldest_us:
            del self.pages[0]

    def forget(self, camera: str, before_us: int) -> None:
        """Leave out frames of a camera (empty: of all) before a time: they show what is no more."""
        kept = []
        for page in self.pages:
            rows = [
                row
                for row in range(len(page))
                if page.at_us[row] >= before_us or (camera and page.cameras[row] != camera)
            ]
            if rows:
                kept.append(page if len(rows) == len(page) else page.rows(rows))
        self.pages = kept

    def holds(self, frame_id: str) -> bool:
        """Whether a frame is in it."""
        return any(frame_id in page.ids for page in self.pages)

    def usable(self, bad: Collection[str], covered: Any, until_us: int) -> NDArray[np.float32]:
        """(n, D) frames up to a time, oldest first, without those labelled bad and those `covered(camera, at_us)`.

        The time is that of the last frame whose quarantine is over: a frame calibrates no earlier than it could have
        taught, so that an objection or an alarm about it still finds it outside of every version.
        """
        parts = []
        for page in self.pages:
            rows = [
                row
                for row in range(len(page))
                if page.at_us[row] <= until_us
                and page.ids[row] not in bad
                and not covered(page.cameras[row], int(page.at_us[row]))
            ]
            if rows:
                parts.append(page.features[rows])
        return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def fence(scores: ArrayLike, width: float = FENCE) -> float:
    """The score over which a reservoir frame is taken for a defect that nobody labelled.

    Median plus `width` times the distance from the 10 % quantile to the median. Both quantiles lie in the lower half,
    so up to 40 % of defects barely move the fence; heavy tails of normal frames hardly reach it (0.1 % of Student's t
    with 4 degrees of freedom in 6 dimensions, simulated), and what it cuts of them adds to the rate no more than that.
    """
    s = np.asarray(scores, np.float64)
    low, median = np.quantile(s, (0.1, 0.5))
    return float(median + width * (median - low))
