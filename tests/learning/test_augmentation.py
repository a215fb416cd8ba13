"""Augmented copies: drawn by the seed and the image's own bytes, fitted on, never calibrating."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gaussline.producer.sources.synthetic import SyntheticParts, write_folder
from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.calibration import Method
from gaussline.worker.learning.augmentation import Augmentation
from gaussline.worker.learning.category import Extraction, read_category
from gaussline.worker.learning.content_store import ContentStore
from gaussline.worker.learning.evaluation import run_plan
from gaussline.worker.learning.feature_cache import FeatureCache
from gaussline.worker.learning.fit import FitOptions, fit_model
from gaussline.worker.learning.normal_images import read_normal
from gaussline.worker.learning.pipeline import BackboneOptions
from gaussline.worker.learning.protocol import Protocol, plans
from tests.learning.synthetic import SPEC, normal

FLIPS = Augmentation.parse("hflip,rot180,brightness:0.8..1.2", 2, 7)
DIGEST = "ab" * 32


def extraction() -> Extraction:
    return Extraction(
        BackboneOptions(
            "squeezenet1_1",
            random_seed=1,
            levels=("features.1",),
            input_size=64,
            device="cpu",
            memory_format="channels_last",
            batch_size=4,
        )
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plates")
    write_folder(SyntheticParts(5, size=64), root, good=12, defects=1)
    return root


def picture() -> torch.Tensor:
    return torch.randint(60, 180, (3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_what_is_stated_is_what_is_drawn() -> None:
    image = picture()
    wanted = {"identity": image, "hflip": image.flip(-1), "rot180": image.flip(-2, -1)}
    turns = Augmentation.parse("hflip,rot180", 100, 3)
    drawn = [turns.copy(image, DIGEST, number) for number in range(1, 101)]
    counts = {name: sum(torch.equal(one, turned) for one in drawn) for name, turned in wanted.items()}
    assert sum(counts.values()) == 100
    assert min(counts.values()) > 15
    light = Augmentation.parse("brightness:0.5..1.25", 100, 3)
    factors = [float(light.copy(image, DIGEST, number).float().mean() / image.float().mean()) for number in range(100)]
    assert 0.5 <= min(factors) < 0.6
    assert 1.15 < max(factors) <= 1.26


def test_a_copy_is_the_seeds_the_numbers_and_the_images_own() -> None:
    image = picture()
    light = Augmentation.parse("brightness:0.5..1.5", 3, 1)
    first = light.copy(image, DIGEST, 1)
    assert torch.equal(first, light.copy(image, DIGEST, 1))
    other_seed = Augmentation.parse("brightness:0.5..1.5", 3, 2)
    for other in (light.copy(image, DIGEST, 2), light.copy(image, "cd" * 32, 1), other_seed.copy(image, DIGEST, 1)):
        assert not torch.equal(first, other)
    keys = {light.key(1), light.key(2), other_seed.key(1), FLIPS.key(1)}
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "changes nothing"),
        ("identity", "no augmentation 'identity'"),
        ("upside", "no augmentation 'upside'"),
        ("brightness:0.9", "no augmentation"),
        ("brightness:0.1..1", "no view"),
        ("brightness:1.2..0.9", "more than"),
        ("brightness:...1..1", "brightness"),
    ],
)
def test_what_is_no_augmentation_is_refused(text: str, told: str) -> None:
    with pytest.raises(FitError, match=told):
        Augmentation.parse(text, 2, 0)
    with pytest.raises(FitError, match="between 1 and 100"):
        Augmentation.parse("hflip", 0, 0)


def test_a_fit_takes_copies_of_training_frames_alone() -> None:
    frames, copies = normal(300), [normal(300, 1), normal(300, 2)]
    options = FitOptions(rate=0.05)
    model = fit_model(frames, SPEC, options, copies=copies)
    assert model.info["training_frames"] == 210
    assert model.moments[0].count == 630
    training = np.random.default_rng(0).permutation(300)[90:]
    stacked = np.concatenate([frames[0][training], copies[0][0][training], copies[1][0][training]])
    np.testing.assert_allclose(model.gaussians[0].mean, stacked.mean(axis=0, dtype=np.float64), rtol=1e-6)
    # Copies of calibration frames are not looked at, and calibration frames stand as they are.
    spoilt = [[level.copy() for level in copy] for copy in copies]
    for copy in spoilt:
        for level in copy:
            level[np.setdiff1d(np.arange(300), training)] = 1e6
    again = fit_model(frames, SPEC, options, copies=spoilt)
    assert again.to_artefact().digest == model.to_artefact().digest
    assert len(model.working_point.scores) == 90


@pytest.mark.parametrize("options", [FitOptions(0.1, robust=True), FitOptions(0.05, method=Method.CROSS_CONFORMAL)])
def test_every_kind_of_fit_takes_copies(options: FitOptions) -> None:
    plain = fit_model(normal(200), SPEC, options)
    model = fit_model(normal(200), SPEC, options, copies=[normal(200, 1)])
    assert model.moments[0].count > 1.9 * plain.moments[0].count
    assert model.info["training_frames"] <= 200


def test_folders_give_copies_of_what_they_train_on(folder: Path, tmp_path: Path) -> None:
    images = read_normal(folder, extraction().extractor, augmentation=FLIPS)
    assert len(images.copies) == 2
    assert all(not np.allclose(copy[0], images.features[0]) for copy in images.copies)
    cache = FeatureCache(ContentStore(tmp_path, 2**30))
    first = read_category(folder, extraction(), cache, augmentation=FLIPS)
    rows = first.rows(lambda sample: sample.normal)
    for one, two in zip(first.copies, images.copies, strict=True):
        np.testing.assert_allclose(one[0][rows], two[0], rtol=1e-4)
    cold = extraction()
    again = read_category(folder, cold, cache, augmentation=FLIPS)
    assert cold.runtime is None
    for one, two in zip(first.copies, again.copies, strict=True):
        np.testing.assert_array_equal(one[0], two[0])
    plan = plans(first.data, Protocol.SPLIT)[0]
    fitted = run_plan(first, plan, extraction().spec.levels, FitOptions(), keep=True).fitted
    assert fitted is not None
    assert fitted.moments[0].count == 3 * plan.train.size
