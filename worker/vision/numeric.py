"""The numeric modes of a backbone spec, on real devices."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.errors import ModelError, SettingsError


def dtype_of(mode: str) -> torch.dtype:
    """Of weights and activations."""
    return torch.bfloat16 if mode == "bfloat16" else torch.float32


def layouts(mode: str) -> tuple[str, ...]:
    """The memory formats that a backbone may run in without changing what its features mean.

    In float32 both, they agree to 1e-6. In bfloat16 channels_last alone: the kernels of the other layout round at other
    places and move features by up to 0.7 % (ResNet-50), far more than a working point can bear.
    """
    return ("channels_last",) if mode == "bfloat16" else ("channels_last", "contiguous")


def check_runtime(spec: BackboneSpec, device: str, memory_format: str) -> None:
    """Raise ModelError or SettingsError where this device or layout would compute other features than the spec's."""
    if memory_format not in layouts(spec.numeric_mode):
        raise SettingsError(
            f"memory_format = {memory_format!r} would move the features of numeric mode {spec.numeric_mode}: "
            f"it runs in {' or '.join(layouts(spec.numeric_mode))}"
        )
    if spec.numeric_mode == "tf32":
        place = torch.device(device)
        if place.type != "cuda":
            raise ModelError(f"numeric mode tf32 exists on CUDA devices only, not on {device}: fit in float32")
        if torch.cuda.get_device_capability(place) < (8, 0):
            raise ModelError(f"{torch.cuda.get_device_name(place)} has no TensorFloat-32: fit in float32")


@contextlib.contextmanager
def numeric_mode(mode: str, device: torch.device) -> Iterator[None]:
    """Allow TensorFloat-32 products in the mode `tf32` and nowhere else; torch's own default allows them in cuDNN."""
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = mode == "tf32"
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before
