"""Rendered parts: a milled metal plate with holes under a lamp, with and without defects.

For demonstrations and tests that must not wait for a line's own images. Every picture is drawn from (seed, index)
alone, so frame 4711 can be asked for without the 4711 before it. Geometry is given by signed distances, light by a
lamp with a direction, metal by a brushed texture that is another piece of sheet for each part. Numpy and Pillow only.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gaussline.producer.shot import Shot
from gaussline.producer.sources.defects import Blemish, draw_blemish
from gaussline.worker.errors import SettingsError, SourceError

Plane = NDArray[np.float32]

GOOD: Final = "good"
DEFECTS: Final = ("scratch", "spot", "missing_hole", "blur")
_SHEET: Final = 768
"""Side of the sheet of metal, in pixels, from which every part is cut."""
_CORNERS: Final = ((-0.58, -0.40), (0.58, -0.40), (-0.58, 0.40), (0.58, 0.40))
_CORNER_RADIUS: Final = 0.085
_BORE: Final = (-0.13, 0.0, 0.24)
_SLOT: Final = (0.36, -0.17, 0.17, 0.055)
"""x, lower and upper y, half width: a long hole, so that the part has one right way round."""
_HALF: Final = (0.76, 0.58)
_LAMP: Final = (-0.55, -0.83)


@dataclass(frozen=True, slots=True, eq=False)
class RenderedPart:
    """One picture and the truth about it.

    Attributes:
        image: (S, S, 3) uint8, red, green, blue.
        label: `good`, or one of `DEFECTS`.
        mask: (S, S) bool, where the defect shows; empty for a good part, the whole plate where it is out of focus.
        severity: 0 … 1 within its kind of defect, 0 for a good part; below about 0.3 a person has to look for it.
    """

    index: int
    image: NDArray[np.uint8]
    label: str
    mask: NDArray[np.bool_]
    severity: float


class SyntheticParts:
    """An endless line of plates.

    Args:
        seed: other seeds are other production runs.
        size: side of the square picture in pixels.
        defect_share: share of parts with a defect.
        defects: kinds that may occur.
        brightness: mean of the lamp's strength; lower it by and by to see a line drift.
        count: length when iterated over; None is endless.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        size: int = 256,
        defect_share: float = 0.1,
        defects: Sequence[str] = DEFECTS,
        brightness: float = 1.0,
        count: int | None = None,
    ) -> None:
        if seed < 0:
            raise SettingsError(f"seed {seed} is negative")
        if not 32 <= size <= 2048:
            raise SettingsError(f"a rendered part of {size} pixels is not between 32 and 2048")
        if not 0 <= defect_share <= 1:
            raise SettingsError(f"defect_share {defect_share} is not between 0 and 1")
        unknown = sorted(set(defects) - set(DEFECTS))
        if unknown or not defects:
            raise SettingsError(f"defects {unknown or 'of no kind'}: there are {', '.join(DEFECTS)}")
        self.seed = seed
        self.size = size
        self.defect_share = defect_share
        self.defects = tuple(defects)
        self.brightness = brightness
        self.count = count
        self._sheet = _brushed_sheet()
        self._belt = _belt(size)
        axis = ((np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0).astype(np.float32)
        self._x, self._y = np.meshgrid(axis, axis)

    def __iter__(self) -> Iterator[Shot]:
        """Shots from index 0 on, their labels and names set."""
        index = 0
        while self.count is None or index < self.count:
            part = self.render(index)
            yield Shot(part.image, label=part.label, name=f"part{index}")
            index += 1

    def label(self, index: int) -> str:
        """The label that `render(index)` will draw."""
        draw = np.random.default_rng((self.seed, index, 0))
        return str(draw.choice(self.defects)) if draw.random() < self.defect_share else GOOD

    def render(self, index: int, label: str | None = None) -> RenderedPart:
        """Part `index`; `label` asks for `good` or a kind of defect in the place of its own. Same part either way."""
        label = self.label(index) if label is None else label
        if label != GOOD and label not in DEFECTS:
            raise SettingsError(f"no defect {label!r:.40}: there are {', '.join(DEFECTS)}")
        draw = np.random.default_rng((self.seed, index, 1))
        flaw = np.random.default_rng((self.seed, index, 2))
        severity = 0.0 if label == GOOD else float(flaw.beta(1.3, 1.3))
        u, v = self._pose(draw)
        missing = int(flaw.integers(len(_CORNERS))) if label == "missing_hole" else None
        surface, cover, holes = self._plate(u, v, missing, draw)
        mask = np.zeros((self.size, self.size), dtype=np.bool_)
        tint = np.zeros_like(surface)
        if label in {"scratch", "spot"}:
            free = cover * (1.0 - holes)
            blemish = draw_blemish(label, u, v, severity, 2.0 / self.size, flaw)
            surface, tint, mask = _lay_on(blemish, surface, tint, free)
        picture = self._shade(surface, tint, u, v, cover, holes, draw)
        if missing is not None:
            x, y = _CORNERS[missing]
            mask = _length(u - x, v - y) < _CORNER_RADIUS * 1.15
        if label == "blur":
            picture = _out_of_focus(picture, (0.5 + 2.3 * severity) * self.size / 256)
            mask = cover > 0.5
        picture += draw.standard_normal((self.size, self.size, 1), dtype=np.float32) * np.float32(0.006)
        np.clip(picture, 0.0, 1.0, out=picture)
        return RenderedPart(index, (picture * 255.0 + 0.5).astype(np.uint8), label, mask, severity)

    def _pose(self, draw: np.random.Generator) -> tuple[Plane, Plane]:
        """Where the fixture left the part: coordinates of every pixel in the part's own frame, in half pictures."""
        angle = float(np.clip(draw.normal(0.0, 0.009), -0.03, 0.03))
        dx, dy = np.clip(draw.normal(0.0, 0.010, 2), -0.03, 0.03)
        x, y = self._x - np.float32(dx), self._y - np.float32(dy)
        cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return x * cosine + y * sine, y * cosine - x * sine

    def _plate(self, u: Plane, v: Plane, missing: int | None, draw: np.random.Generator) -> tuple[Plane, Plane, Plane]:
        """Brightness of the metal before the lamp, coverage of the plate, coverage of its holes."""
        pixel = np.float32(2.0 / self.size)
        rim = _rounded_box(u, v, *_HALF, 0.11)
        cover = _inside(rim, pixel)
        distances = [
            (_length(u - np.float32(x), v - np.float32(y)) - np.float32(_CORNER_RADIUS), x, y)
            for number, (x, y) in enumerate(_CORNERS)
            if number != missing
        ]
        x, y, radius = _BORE
        distances.append((_length(u - np.float32(x), v - np.float32(y)) - np.float32(radius), x, y))
        x, low, high, half = _SLOT
        along = v - np.clip(v, np.float32(low), np.float32(high))
        distances.append((_length(u - np.float32(x), along) - np.float32(half), x, (low + high) / 2))

        offset = draw.integers(0, _SHEET - 390, 2)
        surface = self._cut_sheet(u, v, offset)
        surface += _bevel(rim, u, v, np.float32(0.028), outwards=True)
        nearest = distances[0][0]
        for distance, x, y in distances:
            near = distance < 0.05
            if near.any():
                surface += _bevel(-distance, u - np.float32(x), v - np.float32(y), np.float32(0.022), outwards=False)
            nearest = np.minimum(nearest, distance)
        return surface, cover, _inside(nearest, pixel)

    def _cut_sheet(self, u: Plane, v: Plane, offset: NDArray[np.int64]) -> Plane:
        """The part's own piece of the sheet; the brushing turns with the part."""
        scale = np.float32(128.0)
        column = ((u + np.float32(1.5)) * scale).astype(np.int32) + np.int32(offset[0])
        row = (v + np.float32(1.5)) * scale
        whole = row.astype(np.int32)
        share = row - whole
        place = (whole + np.int32(offset[1])) * np.int32(_SHEET) + column
        # Streaks are fine across and long along x: only between rows would the nearest pixel leave visible steps.
        return self._sheet.take(place) * (np.float32(1.0) - share) + self._sheet.take(place + _SHEET) * share

    def _shade(
        self, surface: Plane, tint: Plane, u: Plane, v: Plane, cover: Plane, holes: Plane, draw: np.random.Generator
    ) -> Plane:
        """Light on metal and belt, and the camera's colours: (S, S, 3) in 0..1."""
        strength = np.float32(self.brightness * draw.normal(1.0, 0.025))
        tilt_x, tilt_y = draw.normal((0.05, 0.08), 0.02).astype(np.float32)
        middle, width = np.float32(draw.normal(-0.15, 0.05)), np.float32(0.42)
        # Brushed metal shines in a band across the brushing, where the lamp is mirrored.
        glint = np.exp(-(((v + np.float32(0.12) * u - middle) / width) ** 2)) * np.float32(0.13)
        light = strength * (np.float32(1.0) - tilt_x * self._x - tilt_y * self._y)
        metal = (surface * light + glint * strength) * (np.float32(1.0) - tint)

        shift = np.float32(0.05)
        fall = _rounded_box(u - shift, v - np.float32(1.5) * shift, *_HALF, 0.13)
        shade = np.float32(1.0) - np.float32(0.55) * np.clip(np.float32(0.5) - fall * 8.0, 0.0, 1.0)
        belt = self._belt * light
        ground = belt * (shade * (np.float32(1.0) - cover) + np.float32(0.33) * cover)
        share = cover * (np.float32(1.0) - holes)
        warm = draw.normal(0.0, 0.006)
        picture = np.empty((self.size, self.size, 3), dtype=np.float32)
        for channel, (of_metal, of_belt, of_tint) in enumerate(
            ((0.985 + warm, 0.80, 0.75), (0.995, 0.92, 1.0), (1.02 - warm, 1.0, 1.3))
        ):
            stained = metal * (np.float32(1.0) - tint * np.float32(of_tint - 1.0)) if tint.any() else metal
            picture[..., channel] = share * stained * np.float32(of_metal) + (
                np.float32(1.0) - share
            ) * ground * np.float32(of_belt)
        return picture


def write_folder(parts: SyntheticParts, root: Path, *, good: int, defects: int, first: int = 0) -> int:
    """Write `root/good/`, `root/bad/<defect>/` and `root/ground_truth/<defect>/` as PNG files; how many images.

    Args:
        good, defects: number of good parts, and of parts with each kind of defect.
        first: index of the first part, so that another call can write other parts.
    """
    count = 0
    try:
        for label, number in ((GOOD, good), *((kind, defects) for kind in parts.defects)):
            folder = root / GOOD if label == GOOD else root / "bad" / label
            masks = root / "ground_truth" / label
            folder.mkdir(parents=True, exist_ok=True)
            if label != GOOD:
                masks.mkdir(parents=True, exist_ok=True)
            for _ in range(number):
                part = parts.render(first + count, label)
                Image.fromarray(part.image).save(folder / f"{count:05d}.png", compress_level=1)
                if label != GOOD:
                    Image.fromarray(part.mask.astype(np.uint8) * 255).save(masks / f"{count:05d}_mask.png")
                count += 1
    except OSError as error:
        raise SourceError(f"folder {root} cannot be written: {error.strerror or error}") from None
    return count


@functools.cache
def _brushed_sheet() -> Plane:
    """(_SHEET, _SHEET) of brushed metal: fine streaks along x, cloudy over longer ways. The same for every seed."""
    draw = np.random.default_rng(20_210_712)
    noise = draw.standard_normal((_SHEET, _SHEET)).astype(np.float32)
    frequency = np.fft.fft2(noise)
    along = np.fft.fftfreq(_SHEET).astype(np.float32)[None, :]
    across = np.fft.fftfreq(_SHEET).astype(np.float32)[:, None]
    streaks = np.real(np.fft.ifft2(frequency * np.exp(-((along * 90) ** 2) - (across * 1.2) ** 2)))
    grain = np.real(np.fft.ifft2(frequency * np.exp(-((along * 6) ** 2) - (across * 1.0) ** 2)))
    clouds = np.real(np.fft.ifft2(frequency * np.exp(-((along * 60) ** 2) - (across * 60) ** 2)))
    sheet: NDArray[np.float64] = (
        0.60 + 0.030 * streaks / streaks.std() + 0.014 * grain / grain.std() + 0.012 * clouds / clouds.std()
    )
    return sheet.astype(np.float32)


def _belt(size: int) -> Plane:
    """(size, size) of a dark woven belt; it lies still, the parts lie on it."""
    draw = np.random.default_rng(7)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) * np.float32(256.0 / size)
    weave = np.sin(x * 1.1 + y * 1.1) * np.sin(x * 1.1 - y * 1.1)
    belt: NDArray[np.float64] = 0.115 + 0.014 * weave + 0.006 * draw.standard_normal((size, size))
    return belt.astype(np.float32)


def _length(x: Plane, y: Plane) -> Plane:
    """Euclidean length; np.hypot guards against overflow, which costs it a factor of six."""
    return np.sqrt(x * x + y * y)


def _rounded_box(u: Plane, v: Plane, half_x: float, half_y: float, radius: float) -> Plane:
    """Signed distance to a box with round corners, negative inside."""
    x = np.abs(u) - np.float32(half_x - radius)
    y = np.abs(v) - np.float32(half_y - radius)
    outside = _length(np.maximum(x, 0), np.maximum(y, 0))
    distance: Plane = outside + np.minimum(np.maximum(x, y), 0) - np.float32(radius)
    return distance


def _inside(distance: Plane, pixel: np.float32) -> Plane:
    """Coverage 0..1 of each pixel by the inside of a shape."""
    cover: Plane = np.clip(np.float32(0.5) - distance / pixel, 0.0, 1.0)
    return cover


def _bevel(distance: Plane, u: Plane, v: Plane, width: np.float32, *, outwards: bool) -> Plane:
    """Light on the broken edge just inside a rim: bright towards the lamp, dark away from it."""
    ring = np.clip(np.float32(1.0) - np.abs(distance + width * np.float32(0.5)) / (width * np.float32(0.6)), 0.0, 1.0)
    if outwards:
        # The outer rim is nearly a box: the side that a pixel is nearest to gives the direction.
        across = np.abs(u) - np.float32(_HALF[0]) > np.abs(v) - np.float32(_HALF[1])
        facing = np.where(across, np.sign(u) * np.float32(_LAMP[0]), np.sign(v) * np.float32(_LAMP[1]))
    else:
        facing = -(u * np.float32(_LAMP[0]) + v * np.float32(_LAMP[1])) / np.maximum(_length(u, v), np.float32(1e-3))
    light: Plane = ring * (facing * np.float32(0.20) + np.float32(0.02))
    return light


def _lay_on(blemish: Blemish, surface: Plane, tint: Plane, free: Plane) -> tuple[Plane, Plane, NDArray[np.bool_]]:
    changed = blemish.cover * free
    return surface + blemish.brightness * free, tint + blemish.tint * free, changed > 0.2


def _out_of_focus(picture: Plane, sigma: float) -> Plane:
    """Gaussian blur in the spectrum: exact, and periodic at the border, where there is only belt."""
    size = picture.shape[0]
    frequency = np.fft.fftfreq(size).astype(np.float32)
    row = np.exp(-2.0 * (np.pi * sigma * frequency) ** 2)
    half = np.exp(-2.0 * (np.pi * sigma * np.fft.rfftfreq(size)) ** 2)
    spectrum = np.fft.rfft2(picture, axes=(0, 1)) * row[:, None, None] * half[None, :, None]
    blurred: Plane = np.fft.irfft2(spectrum, s=(size, size), axes=(0, 1)).astype(np.float32)
    return blurred
