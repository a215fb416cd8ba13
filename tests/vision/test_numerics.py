"""The numbers of every backbone in every numeric mode a CPU has: batches, whitening, heat maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gaussline.worker.gaussian.combination import Rule
from gaussline.worker.gaussian.density import Projection
from gaussline.worker.vision.backbones import load_backbone
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.heatmap import heat_map
from gaussline.worker.vision.registry import names
from gaussline.worker.vision.runtime import RuntimeChoice
from gaussline.worker.vision.scorer import Scorer
from gaussline.worker.vision.weights import WeightsSource
from tests.vision.models import fitted

SIZE = 64
FRAMES = 48
MODES = ("float32", "bfloat16")
# One of each family everywhere; the big ones of a family differ from the small ones in depth alone.
FAMILIES = (
    "efficientnet_b0",
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "squeezenet1_1",
    "convnext_tiny",
)


def frames(number: int, seed: int = 0) -> torch.Tensor:
    """Pictures that differ as those of one part do: a fixed one, with noise of several scales and changing light."""
    generator = torch.Generator().manual_seed(seed)
    part = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(99))
    total = torch.nn.functional.interpolate(part, size=SIZE, mode="bilinear") * 40 + 128
    total = total * (1 + 0.05 * torch.randn(number, 1, 1, 1, generator=generator))
    for scale, strength in ((4, 10.0), (16, 8.0), (64, 5.0)):
        noise = torch.randn(number, 3, scale, scale, generator=generator) * strength
        total = total + torch.nn.functional.interpolate(noise, size=SIZE, mode="bilinear")
    return total.clamp(0, 255).round().to(torch.uint8)


def extractor(name: str, mode: str, batch_size: int = 16) -> FeatureExtractor:
    backbone = load_backbone(name, WeightsSource(random_seed=0), input_size=(SIZE, SIZE), numeric_mode=mode)
    return FeatureExtractor(backbone, RuntimeChoice(batch_size=batch_size))


def test_every_family_is_here() -> None:
    assert {name.rstrip("0123456789") for name in names()} - {"wide_resnet50_"} <= {
        name.rstrip("0123456789") for name in FAMILIES
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FAMILIES)
def test_scores_whitening_and_heat_maps(name: str, mode: str) -> None:
    extract = extractor(name, mode)
    features = extract.extract(frames(FRAMES))
    model = fitted(extract.spec, features)
    new = frames(16, seed=1)
    tensors, maps = extract.extract_with_maps(new)
    for level, plain in zip(tensors, extract.extract(new), strict=True):
        np.testing.assert_array_equal(level.numpy(), plain)  # with and without maps
    # The float32 product against the float64 reference.
    scorer = Scorer(extract.spec)
    distances = scorer.distances(tensors, scorer.prepare(model))
    reference = model.distances([level.numpy() for level in tensors])
    np.testing.assert_allclose(distances, reference, rtol=1e-4)
    # Heat maps add up, at every level and in all.
    for row in (0, 7):
        heat = heat_map(model, [level[row].numpy() for level in tensors], maps.of(row))
        for place, path in enumerate(extract.spec.levels):
            assert heat.levels[path].sum() == pytest.approx(reference[row, place] ** 2, rel=1e-5)
        assert heat.combined.shape == (SIZE, SIZE)
        assert heat.combined.sum() == pytest.approx(
            float(model.scores([t[row : row + 1].numpy() for t in tensors])[0]), rel=1e-5
        )
        assert heat.score == pytest.approx(heat.combined.sum(), rel=1e-9)
    # Company changes nothing: one by one, against batches of 2 to 64.
    singles = [extract.extract_tensors(new[row : row + 1]) for row in range(16)]
    alone = [torch.cat(level) for level in zip(*singles, strict=True)]
    alone_scores = model.scores([level.numpy() for level in alone])
    for size, batch in ((2, new), (7, new), (16, new), (64, torch.cat([new] * 4))):
        extract.batch_size = size
        together = [level[-16:] for level in extract.extract_tensors(batch)]
        for one, two in zip(together, alone, strict=True):
            moved = float(((one - two).norm(dim=1) / two.norm(dim=1)).max())
            assert moved <= (1e-5 if mode == "float32" else 0.0 if FAST_BFLOAT16 else 1e-2), size
        np.testing.assert_allclose(model.scores([level.numpy() for level in together]), alone_scores, rtol=1e-4)


FAST_BFLOAT16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()


@pytest.mark.parametrize("rule", list(Rule))
def test_heat_maps_follow_the_models_own_combination(rule: Rule) -> None:
    extract = extractor("squeezenet1_1", "float32")
    model = fitted(extract.spec, extract.extract(frames(FRAMES)), rule)
    tensors, maps = extract.extract_with_maps(frames(4, seed=1) // 2)  # half the light: far out
    scores = model.scores([level.numpy() for level in tensors])
    for row in range(4):
        assert scores[row] > 0
        assert heat_map(model, [level[row].numpy() for level in tensors], maps.of(row)).combined.sum() == pytest.approx(
            scores[row], rel=1e-5
        )


@pytest.mark.parametrize("projection", [Projection.PCA, Projection.NPCA])
def test_heat_maps_of_projected_models_add_up(projection: Projection) -> None:
    extract = extractor("squeezenet1_1", "bfloat16")
    model = fitted(extract.spec, extract.extract(frames(FRAMES)), projection=projection)
    tensors, maps = extract.extract_with_maps(frames(2, seed=1))
    scores = model.scores([level.numpy() for level in tensors])
    for row in range(2):
        assert heat_map(model, [level[row].numpy() for level in tensors], maps.of(row)).combined.sum() == pytest.approx(
            scores[row], rel=1e-5
        )
