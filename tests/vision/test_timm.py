"""Backbones of timm, through a small stand-in of the package (and the real one, where it is installed)."""

from __future__ import annotations

import importlib.util
import sys
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from gaussline.worker.errors import ModelError, NotFound, WeightsUnavailable
from gaussline.worker.vision import backbones
from gaussline.worker.vision.backbones import load_backbone
from gaussline.worker.vision.weights import WeightsSource

RANDOM = WeightsSource(random_seed=0)


class BatchNormAct(nn.BatchNorm2d):
    """As timm's: the normalisation carries the activation."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.act = nn.SiLU()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise and activate."""
        activated: torch.Tensor = self.act(super().forward(input))
        return activated


class Efficient(nn.Module):
    """The stages of timm's EfficientNet, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.bn1 = BatchNormAct(8)
        self.blocks = nn.Sequential(
            nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), BatchNormAct(12)),
            nn.Sequential(nn.Conv2d(12, 16, 3, 2, 1), nn.BatchNorm2d(16)),
        )
        self.conv_head = nn.Conv2d(16, 24, 1)
        self.bn2 = BatchNormAct(24)
        self.classifier = nn.Linear(24, 10)
        self.pretrained_cfg = {"input_size": (3, 96, 96), "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The whole network."""
        x = self.bn2(self.conv_head(self.blocks(self.bn1(self.conv_stem(x)))))
        return torch.as_tensor(self.classifier(x.mean((2, 3))))


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_model(name: str, pretrained: bool) -> nn.Module:
        if pretrained:
            raise ConnectionError("no route to host\nand a long story")
        return Efficient() if name == "small" else nn.Sequential(nn.Linear(3, 3))

    stand_in = SimpleNamespace(__version__="9", is_model={"small", "vit"}.__contains__, create_model=create_model)
    monkeypatch.setitem(sys.modules, "timm", stand_in)


@pytest.mark.usefixtures("timm")
def test_the_model_describes_itself() -> None:
    spec = load_backbone("timm:small", RANDOM).spec
    assert spec.levels == ("bn1", "blocks.0", "blocks.1", "bn2")
    assert spec.channels == (8, 12, 16, 24)
    assert (spec.input_size, spec.mean, spec.std) == ((96, 96), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.mark.usefixtures("timm")
def test_folding_keeps_the_activation() -> None:
    compare("timm:small")


@pytest.mark.usefixtures("timm")
def test_what_cannot_be_had_is_said() -> None:
    with pytest.raises(WeightsUnavailable, match=r"cannot be downloaded \(no route to host\): name a file"):
        load_backbone("timm:small")
    with pytest.raises(NotFound, match="has no model 'other'"):
        load_backbone("timm:other", RANDOM)
    with pytest.raises(ModelError, match="neither like EfficientNet nor like ResNet"):
        load_backbone("timm:vit", RANDOM)


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"pip install 'gaussline\[timm\]'"):
        load_backbone("timm:small")


def compare(name: str) -> None:
    described, network = backbones._network(name, RANDOM)
    seen: dict[str, torch.Tensor] = {}

    def keep(path: str, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        seen[path] = output.clone()

    for path in described.levels:
        network.get_submodule(path).register_forward_hook(partial(keep, path))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    backbone = load_backbone(name, RANDOM)
    assert not [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.inference_mode():
        network(x)
        for path, level in zip(described.levels, backbone.maps(x), strict=True):
            scale = float(seen[path].abs().max())
            torch.testing.assert_close(level, seen[path], rtol=1e-3, atol=1e-4 * scale)


if importlib.util.find_spec("timm") is not None:

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("name", ["timm:tf_efficientnet_b0.aa_in1k", "timm:resnet18.a1_in1k"])
    def test_the_real_timm(name: str) -> None:
        compare(name)
