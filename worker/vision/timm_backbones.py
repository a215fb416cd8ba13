"""Backbones of the optional package timm, as `timm:NAME` (say, `timm:tf_efficientnet_b4.aa_in1k`, the paper's weights).

Two families have the chain of stages that a level needs: EfficientNet-like (stem, seven stages, head) and ResNet-like
(max-pool, four stages). Others are refused by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import torch
from torch import nn

from gaussline.worker.errors import ModelError, NotFound, WeightsUnavailable
from gaussline.worker.vision.registry import BackboneEntry

PREFIX: Final = "timm:"


def timm_network(name: str, *, pretrained: bool) -> tuple[BackboneEntry, nn.Module]:
    """A timm model and its description, built from the model itself.

    Args:
        name: with its prefix `timm:`.
        pretrained: download timm's own weights.

    Raises:
        ModelError: timm is not installed, or the model is of no family that has levels. NotFound: timm knows no such
        model. WeightsUnavailable: the download failed.
    """
    try:
        timm: Any = importlib.import_module("timm")
    except ImportError:
        raise ModelError(f"{name} needs the package timm: pip install 'gaussline[timm]'") from None
    plain = name.removeprefix(PREFIX)
    if not timm.is_model(plain):
        raise NotFound(f"timm {timm.__version__} has no model {plain!r:.80}; timm.list_models() names all it has")
    try:
        network: nn.Module = timm.create_model(plain, pretrained=pretrained)
    # timm and the hub client beneath it raise many kinds where a download fails
    except Exception as error:
        if not pretrained:
            raise ModelError(f"timm cannot build {plain}: {type(error).__name__}: {str(error)[:200]}") from None
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise WeightsUnavailable(f"timm's weights of {plain} cannot be downloaded ({said}): name a file") from None
    network.eval()
    stages, levels = _chain(plain, network)
    config: Any = network.pretrained_cfg
    height, width = (int(side) for side in config["input_size"][1:])
    described = BackboneEntry(
        name,
        (height, width),
        stages,
        levels,
        _widths(network, levels),
        _three(config["mean"]),
        _three(config["std"]),
    )
    return described, network


def _chain(name: str, network: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
    parts = dict(network.named_children())
    if {"conv_stem", "bn1", "blocks", "conv_head", "bn2"} <= set(parts):
        blocks = tuple(f"blocks.{index}" for index, _ in enumerate(parts["blocks"].children()))
        return ("conv_stem+bn1", *blocks, "conv_head+bn2"), ("bn1", *blocks, "bn2")
    if {"conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4"} <= set(parts):
        layers = ("layer1", "layer2", "layer3", "layer4")
        return ("conv1+bn1+act1+maxpool", *layers), ("maxpool", *layers)
    raise ModelError(f"timm's {name} is neither like EfficientNet nor like ResNet: its levels are not known here")


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue


def _widths(network: nn.Module, levels: tuple[str, ...]) -> tuple[int, ...]:
    widths: dict[str, int] = {}

    def note(level: str, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        widths[level] = int(output.shape[1])

    hooks = [network.get_submodule(level).register_forward_hook(partial(note, level)) for level in levels]
    with torch.no_grad():
        network(torch.zeros(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    return tuple(widths[level] for level in levels)
