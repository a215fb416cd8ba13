"""Where on the image a score comes from: the exact decomposition of the Mahalanobis distance at the pooling.

The pooled feature is a mean over positions, x = (1/HW) Σ f_hw. With z = WᵀW(x - m), W the whitening matrix,

    d² = ‖W(x - m)‖² = zᵀ(x - m) = (1/HW) Σ_hw zᵀ(f_hw - m),

so a level's map adds up to its squared distance, with no gradient and no approximation. Scaled by the level's share of
the score over d², the maps of all levels add up to the frame's score. Values are signed: a negative one is a place that
looks more normal than the frame's mean does.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gaussline.worker.contract.heat_map import Explanation
from gaussline.worker.contract.model import Model
from gaussline.worker.contract.regions import bounds
from gaussline.worker.contract.verdict import ModelRef
from gaussline.worker.errors import ModelError
from gaussline.worker.gaussian.combination import Combination, Rule
from gaussline.worker.gaussian.density import Gaussian

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class HeatMap:
    """One frame's explanation.

    Attributes:
        combined: (H, W) float64 at the input size; adds up to `score`.
        levels: name -> (h, w) float64 at the level's own size; adds up to the level's squared distance.
        distances: name -> Mahalanobis distance (not squared).
        score: of the frame, by the model's own combination of levels.
    """

    combined: Array
    levels: dict[str, Array]
    distances: dict[str, float]
    score: float

    def to_npy(self) -> bytes:
        """The combined map as a `.npy` file of float32 (H, W)."""
        file = io.BytesIO()
        np.save(file, self.combined.astype(np.float32), allow_pickle=False)
        return file.getvalue()

    def to_png(self, image: NDArray[np.uint8], *, full_scale: float | None = None) -> bytes:
        """The combined map laid over its image, as a PNG.

        Red adds to the score, blue takes from it; colour is full where a pixel reaches `full_scale`, which by default
        is the 99.5th percentile of the map's own magnitude. State it to make several frames comparable.

        Args:
            image: uint8 (H, W, 3) at the input size, the one that was scored.
        """
        if image.shape != (*self.combined.shape, 3):
            raise ValueError(f"image is {image.shape}, the map {self.combined.shape}")
        scale = full_scale or float(np.percentile(np.abs(self.combined), 99.5)) or 1.0
        strength = np.clip(self.combined / scale, -1.0, 1.0)[..., None]
        tint = np.where(strength > 0, _RED, _BLUE)
        # Grey below, so that a colour always means the map and never the part.
        grey = image.mean(axis=2, keepdims=True)
        opacity = 0.75 * np.abs(strength)
        mixed = np.rint(grey * (1.0 - opacity) + tint * opacity).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(mixed).save(file, "PNG")
        return file.getvalue()


_RED = np.array([230.0, 30.0, 20.0])
_BLUE = np.array([30.0, 90.0, 230.0])


def heat_map(model: Model, features: Sequence[NDArray[np.float32]], maps: Sequence[NDArray[np.float32]]) -> HeatMap:
    """Explain one frame at input size; arguments and errors as for `explain`."""
    return combined(explain(model, features, maps))


def combined(explanation: Explanation) -> HeatMap:
    """The levels of an explanation laid over each other at input size; their sum is kept."""
    whole = np.zeros(explanation.input_size)
    for name, values in explanation.levels.items():
        squared = float(values.sum(dtype=np.float64))
        if explanation.contributions[name] > 0.0 and squared > 0.0:
            whole += explanation.contributions[name] / squared * spread(values, explanation.input_size)
    levels = {name: np.asarray(values, np.float64) for name, values in explanation.levels.items()}
    return HeatMap(whole, levels, dict(explanation.distances), explanation.score)


def explain(
    model: Model,
    features: Sequence[NDArray[np.float32]],
    maps: Sequence[NDArray[np.float32]],
    *,
    frame: str = "",
    ref: ModelRef | None = None,
    farthest: Sequence[int] = (),
) -> Explanation:
    """Explain one frame, every level at its own size.

    Args:
        features: (d,) pooled features a level of the model's spec, region by region, the ones that were scored.
        maps: (d, h, w) feature maps a level of its `cuts`, as `Maps.of` gives them, in any layout.
        farthest: which region of each level was the farthest, where scoring has found that already.

    Raises:
        ModelError: the maps are not those of the model's levels.
    """
    cuts = model.spec.cuts
    widths = tuple(level.shape[0] for level in maps)
    if widths != tuple(cut.channels for cut in cuts):
        raise ModelError(f"feature maps of {widths} channels for levels of {[cut.channels for cut in cuts]}")
    levels: dict[str, Array] = {}
    distances: list[float] = []
    first = 0
    for index, (cut, level) in enumerate(zip(cuts, maps, strict=True)):
        own = slice(first, first + cut.regions)
        known = farthest[index] if farthest else None
        levels[cut.level] = farthest_map(model.gaussians[own], features[own], level, cut.grid, known)
        distances.append(float(np.sqrt(max(levels[cut.level].sum(), 0.0))))
        first += cut.regions
    given = shares(model.combination, distances)
    return Explanation(
        score=float(model.combination.combine_levels(np.array(distances))),
        input_size=model.spec.input_size,
        levels=levels,
        distances=dict(zip(levels, distances, strict=True)),
        contributions=dict(zip(levels, given, strict=True)),
        frame=frame,
        model=ref,
    )


def farthest_map(
    gaussians: Sequence[Gaussian],
    pooled: Sequence[NDArray[np.float32]],
    maps: NDArray[np.float32],
    grid: int,
    farthest: int | None = None,
) -> Array:
    """The (h, w) map of a level: of its farthest region, which alone makes the level's distance, and zero elsewhere.

    Args:
        gaussians, pooled: of the level's grid x grid regions, row by row.
        maps: (d, h, w).
        farthest: which region that is; None looks for it.
    """
    if grid == 1:
        return level_map(gaussians[0], pooled[0], maps)
    if farthest is None:
        far = [float(gaussian.mahalanobis_sq(x)) for gaussian, x in zip(gaussians, pooled, strict=True)]
        farthest = int(np.argmax(far))
    row, column = divmod(farthest, grid)
    place = (bounds(row, grid, maps.shape[1]), bounds(column, grid, maps.shape[2]))
    values = np.zeros(maps.shape[1:])
    values[place] = level_map(gaussians[farthest], pooled[farthest], maps[:, *place])
    return values


def level_map(gaussian: Gaussian, pooled: NDArray[np.float32], maps: NDArray[np.float32]) -> Array:
    """The (h, w) float64 map that adds up to the level's squared Mahalanobis distance.

    The pooled feature was rounded to float32, and directions of low variance magnify that (by up to 5e-5 of d² in the
    tests). So the map is written as (d² + zᵀ(f_hw - mean of f)) / HW: it explains the number in the verdict, and the
    rounding lies on all positions alike.

    Args:
        pooled: (d,) the feature that was scored.
        maps: (d, h, w) the feature map it is the mean of.
    """
    residual = pooled.astype(np.float64) - gaussian.mean
    white = gaussian.whitening @ residual
    z = gaussian.whitening.T @ white
    along = np.einsum("d,dhw->hw", z, maps)  # in float64, in whatever layout the maps lie
    values: Array = (white @ white + along - along.mean()) / along.size
    return values


def shares(combination: Combination, distances: Sequence[float]) -> list[float]:
    """What each level adds to the score; the sum is `combination.combine_levels(distances)`."""
    if combination.rule is Rule.SUM:
        return list(distances)
    if combination.rule is Rule.MEAN:
        return [distance / len(distances) for distance in distances]
    if combination.rule is Rule.MAX:
        top = int(np.argmax(distances))
        return [distance if index == top else 0.0 for index, distance in enumerate(distances)]
    learnt = zip(distances, combination.offset, combination.scale, strict=True)
    return [max((distance - offset) / scale, 0.0) for distance, offset, scale in learnt]


def spread(values: Array, size: tuple[int, int]) -> Array:
    """Resize an (h, w) map to `size` and keep its sum: each cell hands its whole value to the pixels around it.

    The weights are those of bilinear interpolation (antialiased where it shrinks), scaled so that each *cell's* weights
    add up to one, where interpolation lets each *pixel's* do so. Interpolating and then rescaling to the old sum would
    do worse: the sum of a signed map may be near zero while its values are not.
    """
    rows, columns = _weights(values.shape[0], size[0]), _weights(values.shape[1], size[1])
    resized: Array = rows @ values @ columns.T
    return resized


@lru_cache(maxsize=64)
def _weights(cells: int, pixels: int) -> Array:
    """(pixels, cells), columns adding up to one."""
    scale = cells / pixels
    # Pixels beyond the outermost cell's centre belong to that cell alone, as interpolation would repeat it.
    centres = np.clip((np.arange(pixels) + 0.5) * scale - 0.5, 0.0, cells - 1.0)
    distance = np.abs(centres[:, None] - np.arange(cells)[None, :]) / max(scale, 1.0)
    weights: Array = np.maximum(0.0, 1.0 - distance)
    weights /= weights.sum(axis=0, keepdims=True)
    weights.setflags(write=False)
    return weights
