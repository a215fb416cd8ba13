"""The heat map as it is stored: one small map a level, and what each level gives to the score; safetensors, no code.

A verdict names its map before it exists: the reference follows from the frame and the model alone, as the map does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.frame import parse_frame_id
from gaussline.worker.contract.verdict import ModelRef
from gaussline.worker.errors import ArtefactError, ContractError, LimitExceeded

MAX_BYTES: Final = 64 * 2**20
MAX_LEVELS: Final = 64
_DIGEST_CHARS: Final = 16
"""Of the model's digest in a reference: 64 bits, for one frame a handful of models at most."""


def reference(frame_id: str, model_digest: str) -> str:
    """What a verdict calls the heat map of a frame under a model: `camera:epoch:sequence@digest`, 16 digits of it."""
    return f"{frame_id}@{model_digest[:_DIGEST_CHARS]}"


def parse_reference(text: str) -> tuple[str, str]:
    """A reference as frame id and the beginning of the model's digest. Raises ContractError."""
    frame_id, mark, digest = text.partition("@")
    if not mark or len(digest) != _DIGEST_CHARS or not set(digest) <= set("0123456789abcdef"):
        raise ContractError(f"{text[:120]!r} is no reference of a heat map, such as cam1:3:1042@0123456789abcdef")
    parse_frame_id(frame_id)
    return frame_id, digest


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Where the score of one frame comes from.

    Attributes:
        model: what judged; None where it was an image of no line.
        frame: the frame's id; empty where it was an image of no line.
        score: of the frame, by the model's own combination of levels.
        input_size: (height, width) the frame was scored at, in pixels.
        levels: name -> (h, w) map at the level's own size; adds up to the level's squared distance.
        distances: name -> Mahalanobis distance (not squared).
        contributions: name -> what the level gives to the score; they add up to it.
    """

    score: float
    input_size: tuple[int, int]
    levels: Mapping[str, NDArray[Any]]
    distances: Mapping[str, float]
    contributions: Mapping[str, float]
    frame: str = ""
    model: ModelRef | None = None

    def to_bytes(self) -> bytes:
        """As safetensors; maps as float32. The same explanation gives the same bytes."""
        names = list(self.levels)
        model = self.model
        manifest = {
            "kind": "heat_map",
            "frame": self.frame,
            "model": None
            if model is None
            else {"name": model.name, "version": model.version, "digest": model.digest, "channel": model.channel},
            "score": self.score,
            "input_size": list(self.input_size),
            "levels": [[name, self.distances[name], self.contributions[name]] for name in names],
        }
        arrays = {f"level{index}": np.asarray(self.levels[name], np.float32) for index, name in enumerate(names)}
        return Artefact.pack(manifest, arrays).data

    @classmethod
    def from_bytes(cls, data: bytes) -> Explanation:
        """Read one. Raises ContractError, LimitExceeded (also for maps with NaN, or larger than the frame)."""
        if len(data) > MAX_BYTES:
            raise LimitExceeded(f"heat map of {len(data)} bytes is over the limit of {MAX_BYTES}")
        try:
            artefact = Artefact.unpack(data)
            said = artefact.manifest
            if said["kind"] != "heat_map" or len(said["levels"]) > MAX_LEVELS:
                raise ValueError(f"kind {said['kind']!r:.40}, {len(said['levels'])} levels")
            model = said["model"]
            height, width = (int(side) for side in said["input_size"])
            found = cls(
                score=float(said["score"]),
                input_size=(height, width),
                levels={name: artefact.arrays[f"level{index}"] for index, (name, _, _) in enumerate(said["levels"])},
                distances={str(name): float(distance) for name, distance, _ in said["levels"]},
                contributions={str(name): float(share) for name, _, share in said["levels"]},
                frame=str(said["frame"]),
                model=None
                if model is None
                else ModelRef(model["name"], model["version"], model["digest"], model.get("channel", "stable")),
            )
            found._check()
        except (ArtefactError, KeyError, TypeError, ValueError) as error:
            raise ContractError(f"bytes are no heat map: {type(error).__name__}: {str(error)[:200]}") from None
        return found

    def _check(self) -> None:
        height, width = self.input_size
        if not (1 <= height <= 16_384 and 1 <= width <= 16_384):
            raise ValueError(f"input size {self.input_size}")
        for name, values in self.levels.items():
            if values.ndim != 2 or not (1 <= values.shape[0] <= height and 1 <= values.shape[1] <= width):
                raise ValueError(f"map {name} has shape {values.shape} at input size {self.input_size}")
            if values.dtype != np.float32 or not np.isfinite(values).all():
                raise ValueError(f"map {name} is not finite float32")
        numbers = (self.score, *self.distances.values(), *self.contributions.values())
        if not all(map(math.isfinite, numbers)):
            raise ValueError("a number is not finite")
