"""Features of image files: in their order, whatever the batch, with the unreadable one named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.errors import SourceError
from gaussline.worker.learning import pipeline
from gaussline.worker.learning.dataset import Sample, read_dataset
from gaussline.worker.learning.features import extract_features
from gaussline.worker.learning.fit import FitOptions, fit_model
from gaussline.worker.learning.pipeline import BackboneOptions, ImageFeatures, read_features
from gaussline.worker.vision.backbones import load_backbone
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.runtime import RuntimeChoice, choose_runtime
from gaussline.worker.vision.weights import WeightsSource

SIDE = 48
GOOD, BAD = 24, 5


def _render(path: Path, rng: np.random.Generator, *, scratch: bool) -> None:
    """A grey plate with a disc, a little different each time; a bad one has a bright scratch."""
    image = Image.new("RGB", (64, 56), (90, 90, 100))
    draw = ImageDraw.Draw(image)
    x, y = int(rng.integers(26, 38)), int(rng.integers(22, 34))
    draw.ellipse((x - 14, y - 14, x + 14, y + 14), fill=tuple(int(v) for v in rng.integers(140, 170, 3)))
    if scratch:
        draw.line((4, 50, 60, int(rng.integers(4, 20))), fill=(255, 250, 240), width=3)
    noise = rng.normal(0.0, 4.0, (56, 64, 3))
    Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tests run side by side: threads that wait for each other on a busy machine take ten times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plates")
    rng = np.random.default_rng(0)
    for folder, count in (("good", GOOD), ("bad/scratch", BAD)):
        (root / folder).mkdir(parents=True)
        for index in range(count):
            # Three kinds of file, so that each is read by its own decoder.
            ending = (".png", ".bmp", ".tiff")[index % 3]
            _render(root / folder / f"{index:02}{ending}", rng, scratch=folder != "good")
    return root


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    backbone = load_backbone("squeezenet1_1", WeightsSource(random_seed=3), input_size=(SIDE, SIDE))
    return FeatureExtractor(backbone, RuntimeChoice(batch_size=8))


@pytest.fixture(scope="module")
def alone(extractor: FeatureExtractor, plates: Path) -> list[NDArray[np.float32]]:
    """Features of every plate, one image at a time."""
    return extract_features(extractor, read_dataset(plates).samples, batch=1, threads=1)


def _near(have: Sequence[NDArray[np.float32]], want: Sequence[NDArray[np.float32]]) -> None:
    for mine, theirs in zip(have, want, strict=True):
        assert mine.shape == theirs.shape
        assert np.linalg.norm(mine - theirs, axis=1).max() <= 1e-5 * np.linalg.norm(theirs, axis=1).max()


@pytest.mark.parametrize("batch", [2, 7, GOOD + BAD, 100])
@pytest.mark.parametrize("threads", [1, 3])
def test_features_do_not_depend_on_the_batch_or_on_threads(
    extractor: FeatureExtractor, plates: Path, alone: list[NDArray[np.float32]], batch: int, threads: int
) -> None:
    told: list[int] = []
    samples = read_dataset(plates).samples
    features = extract_features(extractor, samples, batch=batch, threads=threads, progress=told.append)
    _near(features, alone)
    assert sum(told) == len(samples)
    assert max(told) <= batch


def test_features_come_in_the_order_of_the_samples(
    extractor: FeatureExtractor, plates: Path, alone: list[NDArray[np.float32]]
) -> None:
    samples = read_dataset(plates).samples
    order = np.random.default_rng(1).permutation(len(samples))
    _near(extract_features(extractor, [samples[i] for i in order], batch=4), [level[order] for level in alone])


def test_features_have_the_shapes_of_the_spec(extractor: FeatureExtractor, alone: list[NDArray[np.float32]]) -> None:
    assert [level.shape for level in alone] == [(GOOD + BAD, width) for width in extractor.spec.channels]
    assert all(level.dtype == np.float32 for level in alone)
    # Every image gives features of its own: one image in two places would show.
    assert len(np.unique(alone[-1], axis=0)) == GOOD + BAD


def test_no_samples_give_no_features(extractor: FeatureExtractor) -> None:
    assert [level.shape for level in extract_features(extractor, [])] == [(0, w) for w in extractor.spec.channels]


def test_an_image_that_cannot_be_read_is_named(extractor: FeatureExtractor, plates: Path, tmp_path: Path) -> None:
    good = list(read_dataset(plates).normal)
    torn = tmp_path / "torn.png"
    torn.write_bytes(good[0].path.read_bytes()[:300])
    for path, text in ((torn, r"torn\.png"), (tmp_path / "gone.png", r"gone\.png cannot be read")):
        with pytest.raises(SourceError, match=text):
            extract_features(extractor, [*good[:5], Sample(path, "good"), *good[5:]], batch=3)


def test_limits_hold_for_files_too(extractor: FeatureExtractor, plates: Path) -> None:
    with pytest.raises(SourceError, match=r"00\.png"):
        extract_features(extractor, read_dataset(plates).samples, limits=ImageLimits(max_pixels=1000))


def test_the_same_seed_gives_the_same_backbone(
    extractor: FeatureExtractor, plates: Path, alone: list[NDArray[np.float32]]
) -> None:
    samples = read_dataset(plates).samples[:3]
    for seed, same in ((3, True), (4, False)):
        backbone = load_backbone("squeezenet1_1", WeightsSource(random_seed=seed), input_size=(SIDE, SIDE))
        other = FeatureExtractor(backbone, RuntimeChoice(batch_size=1))
        features = extract_features(other, samples, batch=1)
        assert all(np.array_equal(x, level[:3]) for x, level in zip(features, alone, strict=True)) == same
        assert (other.spec.digest == extractor.spec.digest) == same


def test_a_folder_of_images_becomes_a_model_that_finds_scratches(
    extractor: FeatureExtractor, plates: Path, alone: list[NDArray[np.float32]]
) -> None:
    data = read_dataset(plates)
    images = ImageFeatures(data.samples, alone)
    normal = images.take([row for row, sample in enumerate(data.samples) if sample.normal])
    bad = images.take([row for row, sample in enumerate(data.samples) if not sample.normal])
    model = fit_model(normal, extractor.spec, FitOptions(rate=0.15))
    assert model.working_point.fails(model.scores(list(bad))).all()
    assert model.spec.random_weights


def test_backbone_options_open_what_they_name(plates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "choose_runtime", partial(choose_runtime, budget_s=0.05))
    options = BackboneOptions(
        "squeezenet1_1",
        random_seed=3,
        input_size=SIDE,
        device="cpu",
        memory_format="channels_last",
        batch_size=4,
        threads=1,
    )
    extractor = options.open()
    assert extractor.spec.name == "squeezenet1_1"
    assert extractor.spec.input_size == (SIDE, SIDE)
    assert extractor.batch_size == 4
    images = read_features(extractor, read_dataset(plates).samples[:2], threads=1)
    assert [len(level) for level in images.features] == [2] * len(extractor.spec.levels)
