"""The backbones that gaussline knows, each describing itself: its levels, their widths, its native input size.

A level is named by the path of the module whose output it is. Every trunk here is a chain of stages, so a backbone can
stop after the last level that is wanted. The tests hold each description against the real outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gaussline.worker.contract.spec import IMAGENET_MEAN, IMAGENET_STD
from gaussline.worker.errors import NotFound

WEIGHTS: Final = "IMAGENET1K_V1"
"""torchvision's first weights everywhere: its `DEFAULT` moves with its version, and a model must not."""


@dataclass(frozen=True, slots=True)
class BackboneEntry:
    """One backbone's description of itself.

    Attributes:
        name: torchvision's name of the model.
        native_size: (height, width) it was trained at, the default input size.
        stages: paths of the trunk's modules in the order they run; a stage of several modules is joined by "+".
        levels: path of the module behind each level, shallow to deep, each one the (last) module of a stage.
        channels: width of each level.
        mean, std: that its weights were trained with, for RGB in 0..1.
    """

    name: str
    native_size: tuple[int, int]
    stages: tuple[str, ...]
    levels: tuple[str, ...]
    channels: tuple[int, ...]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


def _chain(
    name: str, size: int, modules: int, levels: Mapping[int, int], container: str = "features"
) -> tuple[str, BackboneEntry]:
    entry = BackboneEntry(
        name,
        (size, size),
        tuple(f"{container}.{index}" for index in range(modules)),
        tuple(f"{container}.{index}" for index in levels),
        tuple(levels.values()),
    )
    return name, entry


def _efficientnet(variant: int, size: int, *channels: int) -> tuple[str, BackboneEntry]:
    return _chain(f"efficientnet_b{variant}", size, 9, dict(enumerate(channels)))


def _resnet(name: str, *channels: int) -> tuple[str, BackboneEntry]:
    layers = ("layer1", "layer2", "layer3", "layer4")
    return name, BackboneEntry(name, (224, 224), ("conv1+bn1+relu+maxpool", *layers), ("maxpool", *layers), channels)


_ENTRIES: Final[Mapping[str, BackboneEntry]] = dict(
    (
        _efficientnet(0, 224, 32, 16, 24, 40, 80, 112, 192, 320, 1280),
        _efficientnet(1, 240, 32, 16, 24, 40, 80, 112, 192, 320, 1280),
        _efficientnet(2, 260, 32, 16, 24, 48, 88, 120, 208, 352, 1408),
        _efficientnet(3, 300, 40, 24, 32, 48, 96, 136, 232, 384, 1536),
        _efficientnet(4, 380, 48, 24, 32, 56, 112, 160, 272, 448, 1792),
        _efficientnet(5, 456, 48, 24, 40, 64, 128, 176, 304, 512, 2048),
        _efficientnet(6, 528, 56, 32, 40, 72, 144, 200, 344, 576, 2304),
        _efficientnet(7, 600, 64, 32, 48, 80, 160, 224, 384, 640, 2560),
        _resnet("resnet18", 64, 64, 128, 256, 512),
        _resnet("resnet34", 64, 64, 128, 256, 512),
        _resnet("resnet50", 64, 256, 512, 1024, 2048),
        _resnet("wide_resnet50_2", 64, 256, 512, 1024, 2048),
        _chain("mobilenet_v2", 224, 19, {1: 16, 3: 24, 6: 32, 10: 64, 13: 96, 16: 160, 17: 320, 18: 1280}),
        _chain("mobilenet_v3_small", 224, 13, {1: 16, 3: 24, 6: 40, 8: 48, 11: 96, 12: 576}),
        _chain("mobilenet_v3_large", 224, 17, {1: 16, 3: 24, 6: 40, 10: 80, 12: 112, 15: 160, 16: 960}),
        _chain("squeezenet1_1", 224, 13, {1: 64, 4: 128, 7: 256, 10: 384, 12: 512}),
        _chain("convnext_tiny", 224, 8, {1: 96, 3: 192, 5: 384, 7: 768}),
    )
)


def names() -> tuple[str, ...]:
    """Names of all registered backbones, in their order of registration."""
    return tuple(_ENTRIES)


def entry(name: str) -> BackboneEntry:
    """The description of one backbone. Raises NotFound, with the names that there are."""
    found = _ENTRIES.get(name)
    if found is None:
        raise NotFound(f"there is no backbone {name!r:.60}; known are {', '.join(_ENTRIES)}, and timm:NAME")
    return found
