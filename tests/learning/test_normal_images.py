"""What a fit is told of its folder: unreadable files, copies, leaks, mixed channels; and nothing half-written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gaussline.producer.sources.synthetic import SyntheticParts, write_folder
from gaussline.worker.errors import FitError, SourceError
from gaussline.worker.learning.fit import FitOptions, fit_model
from gaussline.worker.learning.normal_images import read_normal
from gaussline.worker.learning.pipeline import BackboneOptions
from gaussline.worker.vision.features import FeatureExtractor
from tests.learning.synthetic import SPEC, normal


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    options = BackboneOptions(
        "squeezenet1_1",
        random_seed=1,
        levels=("features.1",),
        input_size=64,
        device="cpu",
        memory_format="channels_last",
        batch_size=4,
    )
    return options.open()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(SyntheticParts(5, size=64), tmp_path / "plates", good=8, defects=1)
    return tmp_path / "plates"


def test_a_clean_folder_needs_no_word(folder: Path, extractor: FeatureExtractor) -> None:
    images = read_normal(folder, extractor)
    assert (len(images.samples), images.skipped, images.warnings, images.test) == (8, (), (), None)


def test_unreadable_images_are_named_and_left_out_only_where_asked(folder: Path, extractor: FeatureExtractor) -> None:
    (folder / "good" / "broken.png").write_bytes(b"no image")
    whole = (folder / "good" / "00000.png").read_bytes()
    (folder / "good" / "torn.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"2 images cannot be read .*broken\.png.*--skip-bad"):
        read_normal(folder, extractor)
    images = read_normal(folder, extractor, skip_bad=True)
    assert len(images.samples) == len(images.features[0]) == 8
    assert sorted(path.name for path, _ in images.skipped) == ["broken.png", "torn.png"]


def test_where_nothing_can_be_read_nothing_is_fitted(tmp_path: Path, extractor: FeatureExtractor) -> None:
    (tmp_path / "good").mkdir()
    with pytest.raises(SourceError, match="no normal images"):
        read_normal(tmp_path, extractor)
    (tmp_path / "good" / "a.png").write_bytes(b"no image")
    with pytest.raises(SourceError, match="none of its normal images can be read"):
        read_normal(tmp_path, extractor, skip_bad=True)


def test_copies_and_leaks_are_told(folder: Path, extractor: FeatureExtractor) -> None:
    first = folder / "good" / "00000.png"
    shutil.copy(first, folder / "good" / "copy.png")
    shutil.copy(first, folder / "bad" / "scratch" / "leak.png")
    told = read_normal(folder, extractor).warnings
    assert "1 training images are copies of others" in told[0]
    assert "1 defective images are copies of training images (such as leak.png)" in told[1]


def test_mixed_numbers_of_channels_are_told(folder: Path, extractor: FeatureExtractor) -> None:
    first = folder / "good" / "00000.png"
    with Image.open(first) as image:
        image.convert("L").save(folder / "good" / "grey.png")
    (told,) = read_normal(folder, extractor).warnings
    assert "different numbers of channels (1 with 1, 8 with 3)" in told


def test_features_that_cannot_be_fitted_are_refused_by_name() -> None:
    options = FitOptions(rate=0.1)
    one = [level[:1] for level in normal(40)]
    with pytest.raises(FitError, match=r"1 normal frames.*give at least"):
        fit_model(one, SPEC, options)
    broken = normal(40)
    broken[1][7, 3] = np.nan
    with pytest.raises(FitError, match="level middle: features hold NaN"):
        fit_model(broken, SPEC, options)
    still = [np.ones_like(level) for level in normal(40)]
    with pytest.raises(FitError, match="level shallow: all 28 frames have the same features"):
        fit_model(still, SPEC, options)
    wrong = [level[:, :5] for level in normal(40)]
    with pytest.raises(FitError, match="features have shapes"):
        fit_model(wrong, SPEC, options)


def test_more_features_than_frames_and_a_constant_channel_are_handled() -> None:
    few = normal(30)  # 21 frames train, of 24 features
    few[2][:, 5] = 0.25
    model = fit_model(few, SPEC, FitOptions(rate=0.2))
    assert model.gaussians[2].count < model.gaussians[2].dimension
    fresh = normal(50, 1)
    fresh[2][:, 5] = 0.25
    scores = model.scores(list(fresh))
    assert np.isfinite(scores).all()
    moved = [level.copy() for level in fresh]
    moved[2][:, 5] += 1.0  # what never varied says the most
    assert (model.scores(list(moved)) > scores).all()
