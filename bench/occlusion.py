"""What mending a place does to the score, beside what the heat map says of that place.

A map is arithmetic: it adds up, whatever it shows. Whether the places it names are those that the score hangs on is
another question, answered by taking the defect away there and nowhere else. A rendered part can be had without its
defect, all else alike; so each square of a board laid over the picture is replaced by that of its sound twin, and the
score is asked again. (Covering a place with grey, or with another part, is a defect of its own: that was tried first.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gaussline.worker.contract.model import Model
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.heatmap import heat_map

Array = NDArray[np.float64]
BOARD = 7
"""Squares a side."""


@dataclass(frozen=True, slots=True)
class Mended:
    """One defective picture; shares of what mending all of it takes off the score.

    Attributes:
        named: what mending the one square takes off that the map shows as adding the most.
        best: what the best single square takes off.
        mean: what a square takes off on average: what naming one by lot would give.
    """

    named: float
    best: float
    mean: float


def mended(
    extractor: FeatureExtractor, model: Model, image: torch.Tensor, twin: torch.Tensor, board: int = BOARD
) -> Mended:
    """Hold a map against its cause. `image`, `twin`: uint8 (3, h, w) at the input size, with and without the defect."""
    edges = [np.linspace(0, side, board + 1).round().astype(int) for side in image.shape[1:]]
    pictures = [image, twin]
    for row in range(board):
        for column in range(board):
            place = (slice(None), slice(*edges[0][row : row + 2]), slice(*edges[1][column : column + 2]))
            picture = image.clone()
            picture[place] = twin[place]
            pictures.append(picture)
    whole, sound, *rest = _scores(extractor, model, pictures)
    fallen = (whole - np.array(rest)) / (whole - sound)
    features, maps = extractor.extract_with_maps(image[None])
    combined = heat_map(model, [level[0].cpu().numpy() for level in features], maps.of(0)).combined
    said = np.add.reduceat(np.add.reduceat(combined, edges[0][:-1], axis=0), edges[1][:-1], axis=1)
    return Mended(float(fallen[int(np.argmax(said))]), float(fallen.max()), float(fallen.mean()))


def _scores(extractor: FeatureExtractor, model: Model, images: Sequence[torch.Tensor]) -> Array:
    return model.scores(list(extractor.extract(torch.stack(list(images)))))
