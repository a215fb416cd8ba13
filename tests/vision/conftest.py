"""The real backbone and real images that several tests share, each read once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.vision.decode import decode
from gaussline.worker.vision.preprocess import preprocess_one, stack
from tests.support.skips import data


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tests run side by side: threads that wait for each other on a busy machine take ten times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def mobilenet_weights() -> Path:
    """ImageNet weights of MobileNetV2."""
    return data("weights/mobilenet_v2_features.pth")


@pytest.fixture(scope="session")
def cells() -> dict[str, torch.Tensor]:
    """Solar cells at 224x224, uint8 (n, 3, 224, 224): all good ones and all bad ones, in the order of their names."""
    return {name: stack([_read(path) for path in sorted(data(part).rglob("*.png"))]) for name, part in _PARTS.items()}


_PARTS = {"good": "elpv_mono/good", "bad": "elpv_mono/bad"}


def _read(path: Path) -> torch.Tensor:
    pixels: NDArray[np.uint8] = decode(path.read_bytes(), "png", ImageLimits())
    return preprocess_one(pixels, (224, 224))
