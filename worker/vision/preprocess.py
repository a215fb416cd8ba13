"""From RGB pixels to the network's input: one piece of code for fitting and for scoring.

Resize in the decode threads, on 8-bit channels (torch's own kernel: measured 4 to 10 times as fast as Pillow's or the
float one for frames larger than the input, and within one grey level of both); normalise in the compute stage, on the
whole batch. Each image is handled by itself, so that a batch's company cannot change it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from gaussline.worker.contract.spec import BackboneSpec


def preprocess_one(image: NDArray[np.uint8], input_size: tuple[int, int]) -> torch.Tensor:
    """Squash one image to the input size: bilinear, with antialias where it shrinks.

    Args:
        image: uint8 (H, W, 3), RGB.
        input_size: (h, w).

    Returns:
        uint8 (3, h, w) that shares no memory with `image`; its channels lie side by side, or are one where they are
        one in `image` (grey).
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image is {image.dtype} {image.shape}, not uint8 (H, W, 3)")
    height, width = image.shape[:2]
    grey = image.strides[2] == 0
    if grey:
        image = image[..., :1]
    # A copy where torch could not hold the array: read-only, or turned upside down by a view.
    if not image.flags.writeable or not image.flags.c_contiguous or (height, width) == tuple(input_size):
        image = image.copy()
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    if (height, width) != tuple(input_size):
        pixels = functional.interpolate(
            pixels[None], size=tuple(input_size), mode="bilinear", align_corners=False, antialias=True
        )[0]
    return pixels.expand(3, -1, -1) if grey else pixels


def stack(images: Sequence[torch.Tensor]) -> torch.Tensor:
    """uint8 (3, h, w) images as one uint8 (n, 3, h, w) batch in channels_last layout."""
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


class Normaliser:
    """(x / 255 - mean) / std in float32 on the batch's device: one product and one sum a number, in place.

    Rows of pixels are taken as they lie in memory, with the factors repeated along them: broadcasting three factors
    over the innermost axis was measured 25 times as slow, a quarter of the time of a small backbone.
    """

    def __init__(self, spec: BackboneSpec, device: torch.device | str = "cpu") -> None:
        mean = torch.tensor(spec.mean, dtype=torch.float64)
        std = torch.tensor(spec.std, dtype=torch.float64)
        width = spec.input_size[1]
        self._scale = (1.0 / (255.0 * std)).float().repeat(width).to(device)
        self._shift = (-mean / std).float().repeat(width).to(device)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """uint8 (n, 3, h, w) to float32 (n, 3, h, w) in channels_last layout."""
        number, _, height, width = batch.shape
        rows = batch.permute(0, 2, 3, 1).reshape(number * height, 3 * width)
        x = rows.to(torch.float32).mul_(self._scale).add_(self._shift)
        return x.view(number, height, width, 3).permute(0, 3, 1, 2)
