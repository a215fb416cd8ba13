"""A kept frame as a picture at a model's input size, with no backbone loaded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.contract.frame import BadFrame, Frame
from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.errors import ContractError
from gaussline.worker.settings import Settings
from gaussline.worker.vision.decode import decode
from gaussline.worker.vision.preprocess import preprocess_one


def at_size(settings: Settings, frame: Frame | BadFrame, input_size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 (H, W, 3), as the backbone sees it. Raises ImageError, ContractError."""
    return preprocess_one(pixels_of(settings, frame), input_size).permute(1, 2, 0).contiguous().numpy()


def pixels_of(settings: Settings, frame: Frame | BadFrame) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) at the frame's own size. Raises ImageError, ContractError."""
    if isinstance(frame, BadFrame):
        raise ContractError(f"the frame breaks the contract: {frame.detail}")
    limits = ImageLimits(settings.image_max_bytes, settings.image_max_pixels, settings.image_max_side)
    return decode(frame.data, frame.encoding, limits, shape=frame.shape, dtype=frame.dtype)
