"""A decoded image to a backbone's input: squashed to the input size, bilinear with antialiasing, as uint8.

One frame at a time, so that the result cannot depend on its batch; normalisation follows in float on the device.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from gaussline.worker.contract.spec import BackboneSpec


def resize(pixels: NDArray[np.uint8], spec: BackboneSpec) -> torch.Tensor:
    """(H, W, 3) or grey (H, W) uint8 to a (c, h, w) uint8 tensor with c of 3 or 1.

    Grey stays one channel until the batch is normalised: a third of the bytes to move.
    """
    array = pixels if pixels.flags.writeable else pixels.copy()
    image = torch.from_numpy(array)
    image = image[None] if image.ndim == 2 else image.permute(2, 0, 1)
    size = (spec.input_height, spec.input_width)
    if tuple(image.shape[1:]) == size:
        return image.contiguous()
    return functional.interpolate(image[None], size, mode=spec.interpolation, antialias=True, align_corners=False)[0]


def normalise(images: list[torch.Tensor], spec: BackboneSpec, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Resized images to one normalised (n, 3, h, w) batch on the device, channels last."""
    grey = [image.shape[0] == 1 for image in images]
    if all(grey):
        batch = torch.stack(images).to(device).expand(-1, 3, -1, -1)
    else:
        batch = torch.stack([image.expand(3, -1, -1) for image in images]).to(device)
    mean = torch.tensor(spec.mean, device=device).view(1, 3, 1, 1) * 255.0
    std = torch.tensor(spec.std, device=device).view(1, 3, 1, 1) * 255.0
    normalised = batch.to(torch.float32).sub(mean).div_(std)
    return normalised.to(dtype).contiguous(memory_format=torch.channels_last)
