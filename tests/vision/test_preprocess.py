"""Resizing and normalising."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from gaussline.worker.contract.spec import IMAGENET_MEAN, IMAGENET_STD, BackboneSpec
from gaussline.worker.vision.preprocess import Normaliser, preprocess_one, stack
from tests.vision.images import scene

SIZE = (24, 32)


def spec(**changes: Any) -> BackboneSpec:
    values: dict[str, Any] = {
        "name": "mobilenet_v2",
        "weights_digest": "0" * 64,
        "weights_source": "file:x",
        "random_weights": False,
        "levels": ("features.1",),
        "channels": (16,),
        "input_size": SIZE,
    }
    return BackboneSpec(**(values | changes))


@pytest.mark.parametrize(("height", "width"), [(48, 64), (100, 37), (12, 500), (7, 9), (24, 32), (24, 33)])
def test_any_size_is_squashed_as_pillow_would(height: int, width: int) -> None:
    picture = scene(height, width)
    found = preprocess_one(picture, SIZE)
    assert found.shape == (3, *SIZE)
    assert found.dtype == torch.uint8
    # Pillow's bilinear filter is the independent reference: antialiased, no corner alignment.
    expected = np.asarray(Image.fromarray(picture).resize(SIZE[::-1], Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(found.permute(1, 2, 0).numpy() - expected).max() <= 1


def test_fine_stripes_do_not_alias() -> None:
    picture = np.zeros((240, 320, 3), np.uint8)
    picture[::3] = 255
    found = preprocess_one(picture, SIZE).float()
    assert float((found - 85).abs().max()) < 12
    # The same resize without antialias sees some stripes and misses others.
    stripes = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    naive = torch.nn.functional.interpolate(stripes, size=SIZE, mode="bilinear")
    assert float((naive - 85).abs().max()) > 40


@pytest.mark.parametrize("height", [24, 50])
def test_grey_gives_what_three_equal_channels_give(height: int) -> None:
    grey = scene(height, 64)[..., :1]
    seen = np.broadcast_to(grey, (height, 64, 3))
    np.testing.assert_array_equal(preprocess_one(seen, SIZE), preprocess_one(np.repeat(grey, 3, axis=2), SIZE))


def test_the_source_may_be_read_only_or_turned_and_is_not_shared() -> None:
    picture = scene(*SIZE)
    frozen = picture.copy()
    frozen.setflags(write=False)
    turned = picture[::-1, ::-1]
    np.testing.assert_array_equal(preprocess_one(frozen, SIZE), preprocess_one(picture, SIZE))
    np.testing.assert_array_equal(preprocess_one(turned, SIZE), preprocess_one(picture, SIZE).flip(1, 2))
    found = preprocess_one(picture.copy(), SIZE)
    mine = picture.copy()
    kept = preprocess_one(mine, SIZE)
    mine[:] = 0
    assert torch.equal(found, kept)


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_what_is_no_rgb_image_is_a_programming_error(wrong: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="not uint8"):
        preprocess_one(wrong, SIZE)


def test_normalising_is_the_formula_whatever_the_company() -> None:
    images = [preprocess_one(scene(30 + seed, 40, seed), SIZE) for seed in range(5)]
    images.append(preprocess_one(np.broadcast_to(scene()[..., :1], (48, 64, 3)), SIZE))
    batch = stack(images)
    assert batch.shape == (6, 3, *SIZE)
    normalise = Normaliser(spec())
    found = normalise(batch)
    assert found.is_contiguous(memory_format=torch.channels_last)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(found.double(), (batch.double() / 255 - mean) / std, rtol=1e-6, atol=1e-6)
    assert torch.equal(normalise(batch.contiguous()), found)  # whatever the layout it comes in
    for row in range(6):
        assert torch.equal(normalise(batch[row : row + 1])[0], found[row])
