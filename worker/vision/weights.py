"""Where a backbone's weights come from, and their digest."""

from __future__ import annotations

import hashlib
import urllib.error
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gaussline.worker.errors import BackboneMismatch, ModelError, WeightsUnavailable
from gaussline.worker.vision.backbones import BackboneInfo


def digest(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 of a state dict: names, dtypes, shapes and bytes in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        total.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def from_file(info: BackboneInfo, path: Path) -> nn.Module:
    """The network with the weights of a state-dict file. Raises WeightsUnavailable, BackboneMismatch, ModelError."""
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsUnavailable(f"weights file {path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # the foreign loader raises many kinds; all mean that this is no weights file
        reason = " ".join(str(error).split())[:150]
        raise ModelError(f"weights file {path} holds no plain state dict (nothing else is loaded): {reason}") from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(f"weights file {path} holds no state dict of tensors")
    network = info.build(weights=None)
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise BackboneMismatch(f"weights file {path} does not fit {info.name}: {reason}") from None
    return network


def from_torchvision(info: BackboneInfo) -> nn.Module:
    """The network with torchvision's own pretrained weights. Raises WeightsUnavailable where they cannot be had."""
    try:
        return info.build(weights=info.weights)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise WeightsUnavailable(
            f"torchvision's weights {info.weights} of {info.name} cannot be downloaded ({str(error)[:120]}): "
            "give a file with --weights"
        ) from None


def random(info: BackboneInfo, seed: int = 0) -> nn.Module:
    """The network with seeded random weights: for tests, and for the demo that says so. They mean nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return info.build(weights=None)
