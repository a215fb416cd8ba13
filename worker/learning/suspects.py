"""The most suspicious training images, with heat maps, so that a person can look at them and remove them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.contract.model import Model
from gaussline.worker.errors import SourceError
from gaussline.worker.gaussian.calibration import Method
from gaussline.worker.learning.dataset import Sample
from gaussline.worker.learning.fit import Copies, FitOptions, fit_rows, suspects
from gaussline.worker.learning.working_point import working_point
from gaussline.worker.vision.decode import decode
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.heatmap import heat_map
from gaussline.worker.vision.preprocess import preprocess_one, stack


@dataclass(frozen=True, slots=True)
class Suspect:
    """One image.

    Attributes:
        score: by a fit on other frames alone.
        p_value: of the score, among good frames as the body of all scores has them.
        left_out: a robust fit leaves it out.
        map_file: its heat map.
    """

    path: Path
    score: float
    p_value: float
    left_out: bool
    map_file: Path

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "file": str(self.path),
            "score": self.score,
            "p_value": self.p_value,
            "left_out": self.left_out,
            "heat_map": str(self.map_file),
        }


def write_suspects(
    extractor: FeatureExtractor,
    samples: Sequence[Sample],
    features: Sequence[ArrayLike],
    options: FitOptions,
    count: int,
    folder: Path,
    copies: Copies = (),
) -> list[Suspect]:
    """Score every image by fits that have not seen it; the worst `count`, worst first, with a PNG each in the folder.

    A map is made under a fit on all frames but the suspects, so that none of them explains itself away.

    Raises FitError where the images are too few, SourceError where the folder cannot be written.
    """
    rows = np.arange(len(samples))
    found = suspects(features, rows, extractor.spec.levels, options, copies)
    worst = found.worst(count)
    rest = np.setdiff1d(rows[found.trusted], worst)
    fitted = fit_rows(features, rest, extractor.spec.levels, options, copies)
    arrays = [np.asarray(level) for level in features]
    scores = fitted.combination.combine(fitted.distances(arrays, rest))
    shown = Model(
        extractor.spec,
        fitted.gaussians,
        fitted.combination,
        # A map needs none; a model without one there is not.
        working_point(Method.EMPIRICAL, 0.5, scores, fitted.gaussians, fitted.combination),
    )
    told, pictures = [], []
    for rank, place in enumerate(worst.tolist(), 1):
        sample = samples[place]
        file = folder / f"{rank:03d}_{sample.path.stem}.png"
        frame = sample.frame()
        image = preprocess_one(decode(frame.data, frame.encoding, ImageLimits()), extractor.spec.input_size)
        own, maps = extractor.extract_with_maps(stack([image]))
        explained = heat_map(shown, [level[0].cpu().numpy() for level in own], maps.of(0))
        pictures.append((file, explained.to_png(image.permute(1, 2, 0).numpy())))
        left_out = not bool(found.trusted[place])
        told.append(Suspect(sample.path, float(found.scores[place]), float(found.p_values[place]), left_out, file))
    try:  # all of them are made: what can still fail is the disk
        folder.mkdir(parents=True, exist_ok=True)
        for file, picture in pictures:
            file.write_bytes(picture)
    except OSError as error:
        raise SourceError(f"{folder} cannot be written to: {error.strerror or error}") from None
    return told
