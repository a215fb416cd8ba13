"""The decomposition is exact to 1e-5 for every backbone family in every numeric mode, before and after it is stored."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gaussline.worker.contract.heat_map import Explanation
from gaussline.worker.contract.model import Model
from gaussline.worker.gaussian.combination import Rule
from gaussline.worker.vision.backbones import load_backbone
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.heatmap import combined, explain
from gaussline.worker.vision.numeric import layouts
from gaussline.worker.vision.runtime import RuntimeChoice
from gaussline.worker.vision.weights import WeightsSource
from tests.support.skips import needs_cuda
from tests.vision.models import fitted

FAMILIES = ("resnet18", "mobilenet_v2", "mobilenet_v3_small", "squeezenet1_1", "efficientnet_b0", "convnext_tiny")
EXACT = 1e-5
SIZE = 64


def frames(number: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(number, 3, 8, 8, generator=generator) * 40 + 128
    fine = torch.randn(number, 3, SIZE, SIZE, generator=generator) * 8
    whole = torch.nn.functional.interpolate(coarse, size=SIZE, mode="bilinear") + fine
    return whole.clamp(0, 255).to(torch.uint8)


def opened(name: str, mode: str, rule: Rule, device: str = "cpu") -> tuple[FeatureExtractor, Model]:
    backbone = load_backbone(name, WeightsSource(random_seed=0), input_size=(SIZE, SIZE), numeric_mode=mode)
    extract = FeatureExtractor(backbone, RuntimeChoice(device=device, memory_format=layouts(mode)[0], batch_size=8))
    return extract, fitted(extract.spec, extract.extract(frames(24, 0)), rule)


def check(extract: FeatureExtractor, model: Model) -> None:
    """Level by level and together, against distances and score that know nothing of maps."""
    features, maps = extract.extract_with_maps(frames(4, 1))
    pooled = [level.cpu().numpy() for level in features]
    distances = model.distances(list(pooled))
    scores = model.scores(list(pooled))
    for row in range(4):
        made = explain(model, [level[row] for level in pooled], maps.of(row))
        for told in (made, Explanation.from_bytes(made.to_bytes())):
            for index, (name, values) in enumerate(told.levels.items()):
                squared = float(np.square(distances[row, index]))
                assert values.sum(dtype=np.float64) == pytest.approx(squared, rel=EXACT), name
            assert combined(told).combined.sum() == pytest.approx(scores[row], rel=EXACT)


@pytest.mark.parametrize("mode", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_maps_add_up(name: str, mode: str) -> None:
    check(*opened(name, mode, Rule.SUM))


@pytest.mark.parametrize("rule", list(Rule))
def test_maps_add_up_under_every_combination(rule: Rule) -> None:
    check(*opened("resnet18", "float32", rule))


@needs_cuda()
@pytest.mark.parametrize("mode", ["float32", "bfloat16", "tf32"])
def test_maps_add_up_on_a_gpu(mode: str) -> None:
    check(*opened("resnet18", mode, Rule.SUM, "cuda"))


@pytest.mark.parametrize("mode", ["float32", "bfloat16"])
def test_a_feature_is_the_mean_of_its_map_pooled_in_float32_or_wider(mode: str) -> None:
    """What the exactness rests on; a mean taken in bfloat16 is seen to break it."""
    extract, model = opened("mobilenet_v2", mode, Rule.SUM)
    features, maps = extract.extract_with_maps(frames(2, 1))
    plain = extract.extract_tensors(frames(2, 1))
    for level, again, values in zip(features, plain, maps.levels, strict=True):
        wide = values.double().mean((2, 3))
        norm = wide.norm(dim=1).clamp(min=1e-12)
        assert level.dtype == torch.float32
        assert ((level.double() - wide).norm(dim=1) / norm).max() < 1e-6
        assert ((again.double() - wide).norm(dim=1) / norm).max() < 1e-5
    narrow = [values.to(torch.bfloat16).mean((2, 3)).float().cpu().numpy() for values in maps.levels]
    pooled = [level.cpu().numpy() for level in features]
    assert np.abs(model.scores(list(narrow)) / model.scores(list(pooled)) - 1.0).max() > EXACT
