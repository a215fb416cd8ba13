"""Heat maps: resizing that keeps sums, pictures, and where a map points."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.occlusion import mended
from gaussline.producer.sources.synthetic import SyntheticParts
from gaussline.worker.errors import ModelError
from gaussline.worker.gaussian.combination import Combination, Rule
from gaussline.worker.vision.backbones import load_backbone
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.heatmap import HeatMap, heat_map, level_map, shares, spread
from gaussline.worker.vision.preprocess import preprocess_one
from gaussline.worker.vision.runtime import RuntimeChoice
from gaussline.worker.vision.weights import WeightsSource
from tests.vision.models import fitted


@given(
    h=st.integers(1, 40),
    w=st.integers(1, 40),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    seed=st.integers(0, 9),
)
def test_resizing_keeps_the_sum_whatever_the_sizes(h: int, w: int, height: int, width: int, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal((h, w))
    found = spread(values, (height, width))
    assert found.shape == (height, width)
    assert found.sum() == pytest.approx(values.sum(), rel=1e-12, abs=1e-10)


def test_resizing_keeps_the_place() -> None:
    point = np.zeros((7, 9))
    point[2, 6] = 5.0
    found = spread(point, (70, 90))
    rows, columns = np.mgrid[0:70, 0:90] + 0.5
    assert (found * rows).sum() / 5.0 == pytest.approx(25.0)
    assert (found * columns).sum() / 5.0 == pytest.approx(65.0)
    assert np.count_nonzero(found[:14]) == np.count_nonzero(found[:, :54]) == 0
    assert (spread(np.ones((4, 4)), (8, 8)) > 0).all()
    # Interpolating and rescaling to the old sum, the obvious way, breaks where a signed map adds up to little.
    signed = np.array([[1.0, -1.0], [-1.0, 1.0 + 1e-9]])
    assert np.abs(spread(signed, (6, 6))).max() < 1.0


def test_shares_add_up_to_the_score_under_every_rule() -> None:
    rng = np.random.default_rng(0)
    normal = rng.gamma(20.0, 1.0, (200, 4))
    for rule in Rule:
        combination = Combination.learn(rule, normal)
        for distances in rng.gamma(30.0, 1.0, (20, 4)):
            found = shares(combination, list(distances))
            assert sum(found) == pytest.approx(float(combination.combine(distances)), rel=1e-12)
            assert min(found) >= 0.0


SIZE = 64


def frames(number: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    texture = torch.randn(number, 3, 16, 16, generator=generator) * 12
    light = 128 + 4 * torch.randn(number, 1, 1, 1, generator=generator)
    return (torch.nn.functional.interpolate(texture, size=SIZE, mode="bilinear") + light).clamp(0, 255).to(torch.uint8)


def test_a_map_points_at_the_defect() -> None:
    backbone = load_backbone(
        "resnet18", WeightsSource(random_seed=0), levels=["maxpool", "layer1"], input_size=(SIZE, SIZE)
    )
    extract = FeatureExtractor(backbone, RuntimeChoice(batch_size=16))
    model = fitted(extract.spec, extract.extract(frames(300, 0)))
    scratched = frames(4, 1)
    scratched[:, :, 40:52, 8:20] = 255
    features, maps = extract.extract_with_maps(scratched)
    for row in range(4):
        heat = heat_map(model, [level[row].numpy() for level in features], maps.of(row))
        assert list(heat.levels) == ["maxpool", "layer1"]
        assert heat.levels["maxpool"].shape == (16, 16)
        inside = heat.combined[36:56, 4:24].sum()
        assert inside > 0.5 * heat.score  # from a tenth of the area
        assert heat.combined.min() < 0.0  # signed
    with pytest.raises(ModelError, match="channels for levels of"):
        heat_map(model, [level[0].numpy() for level in features], maps.of(0)[:1])


def test_the_square_that_a_map_names_is_the_one_the_score_hangs_on() -> None:
    """By occlusion: mending that square alone, out of a board of 49, takes off most of what the defect added."""
    backbone = load_backbone(
        "resnet18", WeightsSource(random_seed=0), levels=["maxpool", "layer1"], input_size=(112, 112)
    )
    extract = FeatureExtractor(backbone, RuntimeChoice(batch_size=16))
    parts = SyntheticParts(7, size=112)

    def picture(index: int, label: str) -> torch.Tensor:
        return preprocess_one(parts.render(index, label).image, (112, 112))

    good = torch.stack([picture(index, "good") for index in range(80)])
    model = fitted(extract.spec, extract.extract(good))
    found = [
        mended(extract, model, picture(index, "missing_hole"), picture(index, "good")) for index in range(100, 106)
    ]
    assert np.mean([one.named for one in found]) > 0.8 * np.mean([one.best for one in found])
    assert np.mean([one.best for one in found]) > 10 * np.mean([one.mean for one in found])


def test_rounding_of_the_pooled_feature_does_not_break_the_sum() -> None:
    """What the verdict scored was rounded to float32; the map explains that number, not a slightly other one."""
    rng = np.random.default_rng(0)
    normal = (1000.0 + 0.01 * rng.standard_normal((400, 16))).astype(np.float32)
    backbone = load_backbone("mobilenet_v2", WeightsSource(random_seed=0), levels=["features.1"])
    model = fitted(backbone.spec, [normal])
    maps = (1000.0 + rng.standard_normal((16, 9, 7))).astype(np.float32)
    pooled = maps.mean(axis=(1, 2))
    exact = float(model.gaussians[0].mahalanobis_sq(pooled))
    assert level_map(model.gaussians[0], pooled, maps).sum() == pytest.approx(exact, rel=1e-9)
    residual = maps.reshape(16, -1).astype(np.float64).mean(axis=1) - model.gaussians[0].mean
    unrounded = float(((model.gaussians[0].whitening @ residual) ** 2).sum())
    assert abs(unrounded / exact - 1) > 1e-5  # so a map of the unrounded feature would miss


def test_pictures_and_arrays() -> None:
    combined = np.zeros((20, 30))
    combined[5, 5], combined[10, 20] = 2.0, -2.0
    heat = HeatMap(combined, {}, {}, 0.0)
    image = np.full((20, 30, 3), 100, np.uint8)
    picture = np.asarray(Image.open(io.BytesIO(heat.to_png(image, full_scale=2.0)))).astype(int)
    assert picture.shape == (20, 30, 3)
    assert (picture[0, 0] == 100).all()
    assert picture[5, 5, 0] > picture[5, 5, 2] + 50  # red adds
    assert picture[10, 20, 2] > picture[10, 20, 0] + 50  # blue takes away
    np.testing.assert_array_equal(np.load(io.BytesIO(heat.to_npy()), allow_pickle=False), combined.astype(np.float32))
    assert heat.to_png(image) == heat.to_png(image)
    HeatMap(np.zeros((20, 30)), {}, {}, 0.0).to_png(image)  # nothing to show, and nothing divided by it
    with pytest.raises(ValueError, match="the map"):
        heat.to_png(image[:10])
