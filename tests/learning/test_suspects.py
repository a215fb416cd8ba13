"""The most suspicious training images: planted defects come first, each with a heat map, and none explains itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gaussline.producer.sources.synthetic import SyntheticParts, write_folder
from gaussline.worker.errors import FitError, SourceError
from gaussline.worker.learning import suspects
from gaussline.worker.learning.fit import FitOptions, Fitted, fit_rows
from gaussline.worker.learning.normal_images import NormalImages, read_normal
from gaussline.worker.learning.pipeline import BackboneOptions
from gaussline.worker.learning.suspects import write_suspects
from gaussline.worker.vision.features import FeatureExtractor

PLANTED = 3
OPTIONS = FitOptions(rate=0.1)


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    options = BackboneOptions(
        "squeezenet1_1",
        random_seed=1,
        levels=("features.1", "features.4"),
        input_size=64,
        device="cpu",
        memory_format="channels_last",
        batch_size=8,
    )
    return options.open()


@pytest.fixture(scope="module")
def images(extractor: FeatureExtractor, tmp_path_factory: pytest.TempPathFactory) -> NormalImages:
    folder = tmp_path_factory.mktemp("plates")
    write_folder(SyntheticParts(5, size=64), folder, good=60, defects=1)
    for number, path in enumerate(sorted((folder / "good").iterdir())[:PLANTED]):
        pixels = np.array(Image.open(path))
        pixels[20:40, 12 * number : 12 * number + 20] = (255, 0, 0)
        Image.fromarray(pixels).save(folder / "good" / f"planted_{path.name}")
    return read_normal(folder, extractor)


def test_planted_defects_come_first_with_maps(
    images: NormalImages, extractor: FeatureExtractor, tmp_path: Path
) -> None:
    found = write_suspects(extractor, images.samples, images.features, OPTIONS, 5, tmp_path / "out")
    assert [one.path.name.startswith("planted_") for one in found] == [True] * PLANTED + [False] * 2
    assert all(one.left_out for one in found[:PLANTED])
    assert (np.diff([one.score for one in found]) <= 0.0).all()
    assert (np.diff([one.p_value for one in found]) >= 0.0).all()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [one.map_file.name for one in found]
    for one in found[:PLANTED]:
        pixels = np.asarray(Image.open(one.map_file)).astype(int)
        assert pixels.shape == (64, 64, 3)
        assert (pixels[..., 0] - pixels[..., 2]).max() > 60  # red: seen by the others' fit, they are far out


def test_no_suspect_has_a_part_in_the_fit_that_explains_it(
    images: NormalImages, extractor: FeatureExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[set[int]] = []

    def watched(features: Any, rows: Any, *others: Any) -> Fitted:
        taken.append(set(rows.tolist()))
        return fit_rows(features, rows, *others)

    monkeypatch.setattr(suspects, "fit_rows", watched)
    found = write_suspects(extractor, images.samples, images.features, OPTIONS, 5, tmp_path / "out")
    rows = {row for row, sample in enumerate(images.samples) if sample.path in {one.path for one in found}}
    assert len(rows) == 5
    (fitted_on,) = taken
    assert not rows & fitted_on
    assert len(fitted_on) >= len(images.samples) - 5 - 3  # and hardly any other is missing


def test_what_cannot_be_listed_leaves_nothing_behind(
    images: NormalImages, extractor: FeatureExtractor, tmp_path: Path
) -> None:
    few = [level[:9] for level in images.features]
    with pytest.raises(FitError, match="too few"):
        write_suspects(extractor, images.samples[:9], few, OPTIONS, 3, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("in the way", "utf-8")
    with pytest.raises(SourceError, match="file cannot be written to"):
        write_suspects(extractor, images.samples, images.features, OPTIONS, 3, tmp_path / "file")
