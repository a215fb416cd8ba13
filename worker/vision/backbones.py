"""The backbones that gaussline knows, each describing itself: its levels, their channels, its native input size.

Levels are those of the paper where it has the network (EfficientNet: stem, the seven stages, head; ResNet: max-pool
and the four stages); for the others, the end of every stage. The tests hold every description against the network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torchvision import models

from gaussline.worker.errors import ModelError


@dataclass(frozen=True, slots=True)
class BackboneInfo:
    """One backbone's description.

    Attributes:
        levels: module paths, shallow to deep; a level is that module's output.
        channels: of each level.
        size: native input height and width in pixels.
        build: makes the network; takes torchvision's `weights` argument.
        weights: torchvision's name of its pretrained weights.
    """

    name: str
    levels: tuple[str, ...]
    channels: tuple[int, ...]
    size: int
    build: Callable[..., nn.Module]
    weights: str


def _efficientnet(letter: str, size: int, channels: tuple[int, ...]) -> BackboneInfo:
    name = f"efficientnet_b{letter}"
    levels = tuple(f"features.{index}" for index in range(9))
    return BackboneInfo(name, levels, channels, size, getattr(models, name), "IMAGENET1K_V1")


def _resnet(name: str, wide: int) -> BackboneInfo:
    levels = ("maxpool", "layer1", "layer2", "layer3", "layer4")
    channels = (64, 64 * wide, 128 * wide, 256 * wide, 512 * wide)
    return BackboneInfo(name, levels, channels, 224, getattr(models, name), "IMAGENET1K_V1")


def _features(name: str, indices: tuple[int, ...], channels: tuple[int, ...]) -> BackboneInfo:
    levels = tuple(f"features.{index}" for index in indices)
    return BackboneInfo(name, levels, channels, 224, getattr(models, name), "IMAGENET1K_V1")


_ALL = (
    _efficientnet("0", 224, (32, 16, 24, 40, 80, 112, 192, 320, 1280)),
    _efficientnet("1", 240, (32, 16, 24, 40, 80, 112, 192, 320, 1280)),
    _efficientnet("2", 260, (32, 16, 24, 48, 88, 120, 208, 352, 1408)),
    _efficientnet("3", 300, (40, 24, 32, 48, 96, 136, 232, 384, 1536)),
    _efficientnet("4", 380, (48, 24, 32, 56, 112, 160, 272, 448, 1792)),
    _efficientnet("5", 456, (48, 24, 40, 64, 128, 176, 304, 512, 2048)),
    _efficientnet("6", 528, (56, 32, 40, 72, 144, 200, 344, 576, 2304)),
    _efficientnet("7", 600, (64, 32, 48, 80, 160, 224, 384, 640, 2560)),
    _resnet("resnet18", 1),
    _resnet("resnet34", 1),
    _resnet("resnet50", 4),
    _resnet("wide_resnet50_2", 4),
    _features("mobilenet_v2", (1, 3, 6, 10, 13, 16, 17, 18), (16, 24, 32, 64, 96, 160, 320, 1280)),
    _features("mobilenet_v3_small", (0, 1, 3, 8, 11, 12), (16, 16, 24, 48, 96, 576)),
    _features("mobilenet_v3_large", (0, 1, 3, 6, 10, 12, 15, 16), (16, 16, 24, 40, 80, 112, 160, 960)),
    _features("squeezenet1_1", (2, 5, 7, 8, 10, 12), (64, 128, 256, 256, 384, 512)),
    _features("convnext_tiny", (0, 1, 3, 5, 7), (96, 96, 192, 384, 768)),
)
BACKBONES = {info.name: info for info in _ALL}


def find(name: str) -> BackboneInfo:
    """The description of a backbone. Raises ModelError with the names there are."""
    if name not in BACKBONES:
        raise ModelError(f"no backbone is called {name!r}; there are: {', '.join(sorted(BACKBONES))}")
    return BACKBONES[name]


class LevelNetwork(nn.Module):
    """A backbone cut behind its last wanted level, which gives its levels' feature maps.

    Args:
        network: the whole network; it is cut, not copied.
        levels: module paths, shallow to deep.
    """

    def __init__(self, network: nn.Module, levels: tuple[str, ...]) -> None:
        super().__init__()
        groups: list[tuple[str, nn.Module]] = []
        for name, child in network.named_children():
            if isinstance(child, nn.Sequential) and any(level.startswith(name + ".") for level in levels):
                groups.extend((f"{name}.{index}", part) for index, part in child.named_children())
            else:
                groups.append((name, child))
        names = [name for name, _ in groups]
        missing = [level for level in levels if level not in names]
        if missing:
            raise ModelError(f"the network has no level {missing[0]!r}; there are {names}")
        last = max(names.index(level) for level in levels)
        self.parts = nn.ModuleList([part for _, part in groups[: last + 1]])
        self._wanted = [names.index(level) for level in levels]

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(n, 3, H, W) to a list of (n, d, h, w), one a level."""
        maps: dict[int, torch.Tensor] = {}
        x = images
        for index, part in enumerate(self.parts):
            x = part(x)
            if index in self._wanted:
                # A later in-place activation would overwrite the map it is given.
                maps[index] = x
        return [maps[index] for index in self._wanted]
