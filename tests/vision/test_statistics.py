"""What the watch over drift sees of a picture: each cause moves its own statistic, and the others stand still."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from gaussline.producer.sources.synthetic import SyntheticParts
from gaussline.worker.learning.watch import STATISTICS
from gaussline.worker.vision.preprocess import preprocess_one, stack
from gaussline.worker.vision.statistics import image_statistics

PARTS = [SyntheticParts(3, size=224).render(index, "good").image for index in range(6)]


GREY = Image.new("RGB", (224, 224), (128, 128, 128))
CAUSES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "lamp": lambda picture: picture.point(lambda value: value * 2 // 3),
    "lens": lambda picture: picture.filter(ImageFilter.GaussianBlur(2.0)),
    "haze": lambda picture: Image.blend(picture, GREY, 0.4),
    "filter": lambda picture: picture.convert("RGB", (0.8, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)),
}


def means(pictures: list[Image.Image]) -> dict[str, float]:
    found = image_statistics(stack([preprocess_one(np.array(picture), (224, 224)) for picture in pictures]))
    return {name: sum(each[name] for each in found) / len(found) for name in STATISTICS}


@pytest.mark.parametrize(
    ("cause", "moved"),
    [("lamp", "exposure"), ("lens", "sharpness"), ("haze", "contrast"), ("filter", "red")],
)
def test_a_cause_moves_its_own_statistic(cause: str, moved: str) -> None:
    usual = [Image.fromarray(part) for part in PARTS]
    before, after = means(usual), means([CAUSES[cause](picture) for picture in usual])
    changes = {name: abs(after[name] / before[name] - 1.0) for name in STATISTICS}
    assert changes[moved] > STATISTICS[moved], changes
    if cause == "lamp":
        assert {name for name, by in changes.items() if by > STATISTICS[name]} == {"exposure"}, changes


def test_empty_pictures_have_finite_statistics_and_the_names_are_those_of_the_watch() -> None:
    for level in (0, 255):
        (found,) = image_statistics(torch.full((1, 3, 32, 32), level, dtype=torch.uint8))
        assert found.keys() == STATISTICS.keys()
        assert found["exposure"] == pytest.approx(level / 255)
        assert all(0.0 <= value <= 1.0 for value in found.values())


def test_a_picture_has_the_same_statistics_whatever_batch_it_rides_in() -> None:
    batch = stack([preprocess_one(part, (224, 224)) for part in PARTS])
    together, alone = image_statistics(batch), [image_statistics(batch[row : row + 1])[0] for row in range(len(PARTS))]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_statistics_are_what_they_are_defined_as() -> None:
    """Against numpy in float64, on pictures that differ in light and on an even one."""
    batch = stack(
        [preprocess_one(part, (224, 224)) for part in PARTS] + [torch.full((3, 224, 224), 77, dtype=torch.uint8)]
    )
    rows = batch.numpy()[:, :, ::8].astype(np.float64)
    grey = np.tensordot(rows, (0.299, 0.587, 0.114), axes=((1,), (0,)))
    step = np.abs(np.diff(grey, axis=2)).mean(axis=(1, 2))
    for row, found in enumerate(image_statistics(batch)):
        mean, spread = grey[row].mean(), grey[row].std()
        red, _, blue = rows[row].mean(axis=(1, 2)) / rows[row].mean(axis=(1, 2)).sum()
        want = {"exposure": mean / 255.0, "contrast": spread / mean, "sharpness": step[row] / max(spread, 1.0)}
        assert found == pytest.approx(want | {"red": red, "blue": blue}, rel=1e-4, abs=1e-5)
