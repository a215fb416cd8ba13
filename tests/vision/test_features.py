"""The extractor: cutting batches, running out of memory, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gaussline.worker.errors import BackboneMismatch, ModelError, SettingsError
from gaussline.worker.vision.backbones import Backbone, load_backbone
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.runtime import RuntimeChoice
from gaussline.worker.vision.scorer import Scorer, slabs
from gaussline.worker.vision.weights import WeightsSource
from tests.vision.models import fitted

RANDOM = WeightsSource(random_seed=0)


def small(mode: str = "float32", **changes: Any) -> Backbone:
    return load_backbone("squeezenet1_1", RANDOM, input_size=(48, 64), numeric_mode=mode, **changes)


def pictures(number: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (number, 3, 48, 64), dtype=torch.uint8, generator=generator)


class Recorder(FeatureExtractor):
    """Writes down the size of every pass, and has memory for so many frames."""

    def __init__(self, memory: int, batch_size: int) -> None:
        super().__init__(small(levels=["features.1", "features.12"]), RuntimeChoice(batch_size=batch_size))
        self.memory = memory
        self.passes: list[int] = []

    def _pass(self, chunk: torch.Tensor, maps: bool) -> list[torch.Tensor]:
        self.passes.append(len(chunk))
        if len(chunk) > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super()._pass(chunk, maps)


def test_a_batch_is_cut_into_even_parts() -> None:
    extract = Recorder(memory=100, batch_size=8)
    for number, parts in ((1, [1]), (8, [8]), (9, [5, 4]), (17, [6, 6, 5])):
        extract.passes.clear()
        features = extract.extract(pictures(number))
        assert extract.passes == parts
        assert [level.shape for level in features] == [(number, 64), (number, 512)]
        assert {level.dtype for level in features} == {np.dtype(np.float32)}


def test_out_of_memory_halves_the_batch_and_goes_on() -> None:
    extract = Recorder(memory=3, batch_size=16)
    features = extract.extract(pictures(16))
    assert extract.passes == [16, 8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    assert extract.batch_size == 2  # and it stays there: the next batch does not fail first
    plenty = Recorder(memory=100, batch_size=16).extract(pictures(16))
    for one, two in zip(features, plenty, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    with pytest.raises(ModelError, match="no memory left for one frame of squeezenet1_1"):
        Recorder(memory=0, batch_size=4).extract(pictures(4))


def test_maps_are_what_the_features_are_the_means_of() -> None:
    for mode in ("float32", "bfloat16"):
        extract = FeatureExtractor(small(mode), RuntimeChoice(batch_size=2))
        features, maps = extract.extract_with_maps(pictures(5))
        for row in (0, 4):
            for feature, level in zip(features, maps.of(row), strict=True):
                assert level.dtype == np.float32
                np.testing.assert_allclose(level.mean((1, 2)), feature[row].numpy(), rtol=1e-5, atol=1e-6)
        kept = maps.of(0)[0]
        before = kept.copy()
        maps.levels[0].zero_()
        np.testing.assert_array_equal(kept, before)


def test_wrong_batches_are_programming_errors() -> None:
    extract = FeatureExtractor(small(), RuntimeChoice())
    for wrong in (pictures(2)[:, :, :47], pictures(2).float(), pictures(2)[0], pictures(0)):
        with pytest.raises(ValueError, match="not uint8"):
            extract.extract(wrong)


def test_a_device_that_would_compute_something_else_is_refused() -> None:
    with pytest.raises(ModelError, match="tf32 exists on CUDA devices only"):
        FeatureExtractor(small("tf32"), RuntimeChoice())
    with pytest.raises(SettingsError, match="memory_format = 'contiguous' would move the features"):
        FeatureExtractor(small("bfloat16"), RuntimeChoice(memory_format="contiguous"))


def test_layouts_agree_in_float32() -> None:
    one, two = (
        FeatureExtractor(small(), RuntimeChoice(memory_format=name)).extract(pictures(3))
        for name in ("contiguous", "channels_last")
    )
    for first, second in zip(one, two, strict=True):
        assert np.linalg.norm(first - second) <= 1e-5 * np.linalg.norm(first)


def test_the_scorer_takes_only_models_of_its_own_backbone() -> None:
    extract = FeatureExtractor(small(), RuntimeChoice())
    features = extract.extract(pictures(24))
    model = fitted(extract.spec, features)
    Scorer(extract.spec).prepare(model)
    for other in (
        small(levels=["features.1"]).spec,
        small("bfloat16").spec,
        load_backbone("squeezenet1_1", WeightsSource(random_seed=1), input_size=(48, 64)).spec,
        load_backbone("squeezenet1_1", RANDOM, input_size=(64, 64)).spec,
    ):
        with pytest.raises(BackboneMismatch):
            Scorer(other).prepare(model)


def test_models_share_a_pass_and_are_scored_each_by_itself() -> None:
    extract = FeatureExtractor(small(), RuntimeChoice())
    one = fitted(extract.spec, extract.extract(pictures(24)))
    two = fitted(extract.spec, extract.extract(pictures(48)[24:]))
    scorer = Scorer(extract.spec)
    features = extract.extract_tensors(pictures(8))
    found = [scorer.distances(features, scorer.prepare(model)) for model in (one, two)]
    for distances, model in zip(found, (one, two), strict=True):
        np.testing.assert_allclose(distances, model.distances([level.numpy() for level in features]), rtol=1e-4)
    assert not np.allclose(found[0], found[1], rtol=1e-2)


def test_centring_in_float32_would_not_do() -> None:
    """A mean far from zero: the float64 difference keeps the digits that low-variance directions live on."""
    rng = np.random.default_rng(0)
    spec = small(levels=["features.1"]).spec
    x = (1000.0 + 0.01 * rng.standard_normal((400, 64))).astype(np.float32)
    model = fitted(spec, [x])
    features = torch.from_numpy((1000.0 + 0.01 * rng.standard_normal((50, 64))).astype(np.float32))
    reference = model.distances([features.numpy()])
    scorer = Scorer(spec)
    np.testing.assert_allclose(scorer.distances([features], scorer.prepare(model)), reference, rtol=1e-4)
    naive = (features - torch.as_tensor(model.gaussians[0].mean).float()) @ torch.as_tensor(
        model.gaussians[0].whitening.T
    ).float()
    assert np.abs(naive.norm(dim=1).numpy() / reference[:, 0] - 1).max() > 1e-4


def test_a_broken_feature_gives_no_number() -> None:
    spec = small(levels=["features.1"]).spec
    model = fitted(spec, [np.random.default_rng(0).standard_normal((200, 64)).astype(np.float32)])
    scorer = Scorer(spec)
    features = torch.zeros(3, 64)
    features[1, 5] = float("nan")
    features[2, 5] = float("inf")
    distances = scorer.distances([features], scorer.prepare(model))
    assert list(np.isfinite(distances[:, 0])) == [True, False, False]


@pytest.mark.parametrize("triangular", [True, False])
def test_slabs_leave_out_the_zeros_of_a_whitening_and_nothing_else(triangular: bool) -> None:
    full = torch.randn(300, 300, generator=torch.Generator().manual_seed(1))
    transposed = full.triu() if triangular else full
    parts = slabs(transposed, 128)
    assert [part.shape[1] for part in parts] == [128, 128, 44]
    assert [len(part) for part in parts] == ([128, 256, 300] if triangular else [300, 300, 300])
    rows = torch.randn(5, 300, generator=torch.Generator().manual_seed(2))
    product = torch.cat([rows[:, : len(part)] @ part for part in parts], dim=1)
    torch.testing.assert_close(product, rows @ transposed)
    assert slabs(torch.zeros(4, 2), 1)[0].shape == (1, 1), "a direction that counts for nothing is still there"
