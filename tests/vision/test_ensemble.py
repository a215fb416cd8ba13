"""Several backbones side by side: the features of each as if it were alone, one spec, one model, one heat map."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gaussline.worker.contract.model import Model
from gaussline.worker.errors import ArtefactError, BackboneMismatch, NotFound, WeightsUnavailable
from gaussline.worker.learning.fit import FitOptions, fit_model
from gaussline.worker.vision.backbones import load_backbone, load_for
from gaussline.worker.vision.ensemble import Ensemble
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.heatmap import combined, explain
from gaussline.worker.vision.preprocess import Normaliser
from gaussline.worker.vision.runtime import RuntimeChoice
from gaussline.worker.vision.scorer import Scorer
from gaussline.worker.vision.weights import WeightsSource
from tests.support.skips import data, needs_data
from tests.vision.test_numerics import frames

SIZE = 64
PAIR = "squeezenet1_1+resnet18"
RANDOM = WeightsSource(random_seed=0)


def ensemble(mode: str = "float32", grid: int = 1, views: tuple[str, ...] = ()) -> FeatureExtractor:
    backbone = load_backbone(PAIR, RANDOM, input_size=(SIZE, SIZE), numeric_mode=mode, grid=grid, views=views)
    return FeatureExtractor(backbone, RuntimeChoice(batch_size=8))


@pytest.mark.parametrize("mode", ["float32", "bfloat16"])
def test_each_backbone_gives_what_it_gives_alone(mode: str) -> None:
    both = ensemble(mode, grid=2)
    seen = both.extract(frames(4))
    alone = []
    for name in PAIR.split("+"):
        backbone = load_backbone(name, RANDOM, input_size=(SIZE, SIZE), numeric_mode=mode, grid=2)
        alone += FeatureExtractor(backbone, RuntimeChoice(batch_size=8)).extract(frames(4))
    assert [level.shape[1] for level in seen] == list(both.spec.channels)
    for one, two in zip(seen, alone, strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_spec_names_all_and_changes_with_each() -> None:
    spec = ensemble().spec
    assert spec.name == PAIR
    assert spec.levels[0] == "squeezenet1_1:features.1"
    assert spec.levels[-1] == "resnet18:layer4"
    assert spec.random_weights
    other = load_backbone(PAIR, WeightsSource(random_seed=1), input_size=(SIZE, SIZE)).spec
    assert other.weights_digest != spec.weights_digest
    turned = load_backbone("resnet18+squeezenet1_1", RANDOM, input_size=(SIZE, SIZE)).spec
    assert turned.weights_digest != spec.weights_digest
    with pytest.raises(BackboneMismatch, match="weights_digest"):
        load_for(spec, WeightsSource(random_seed=1))


def test_a_model_of_an_ensemble_comes_back_and_scores_and_explains() -> None:
    extract = ensemble(grid=2)
    model = fit_model(extract.extract(frames(48)), extract.spec, FitOptions(rate=0.1))
    twin = Model.from_artefact(model.to_artefact())
    again = FeatureExtractor(load_for(twin.spec, RANDOM), RuntimeChoice(batch_size=8))
    features, maps = again.extract_with_maps(frames(3, seed=1))
    pooled = [level.numpy() for level in features]
    scorer = Scorer(again.spec)
    distances = scorer.distances(features, scorer.prepare(twin))
    np.testing.assert_allclose(distances, model.distances(list(pooled)), rtol=1e-4)
    for row in range(3):
        told = explain(twin, [level[row] for level in pooled], maps.of(row))
        assert set(told.levels) == {cut.level for cut in twin.spec.cuts}
        assert combined(told).combined.sum() == pytest.approx(model.scores([p[row : row + 1] for p in pooled])[0], 1e-5)


def test_views_are_those_of_every_backbone() -> None:
    plain, both = ensemble(), ensemble(views=("identity", "hflip"))
    batch = frames(2)
    mean = [(a + b) / 2 for a, b in zip(plain.extract(batch), plain.extract(batch.flip(-1)), strict=True)]
    for one, two in zip(both.extract(batch), mean, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)


def test_a_backbone_gets_the_colours_that_it_was_trained_with() -> None:
    first, second = (load_backbone(name, RANDOM, input_size=(SIZE, SIZE)) for name in PAIR.split("+"))
    second.spec = replace(second.spec, mean=(0.5, 0.5, 0.5), std=(0.5, 0.4, 0.3))
    both = Ensemble([first, second])
    batch = frames(2)
    with torch.inference_mode():
        found = both(Normaliser(both.spec)(batch))[len(first.spec.levels) :]
        want = second(Normaliser(second.spec)(batch))
    for one, two in zip(found, want, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    assert both.spec.weights_digest != Ensemble([first, load_backbone("resnet18", RANDOM)]).spec.weights_digest


def test_levels_are_chosen_by_backbone() -> None:
    chosen = ("resnet18:layer2", "squeezenet1_1:features.4")
    with pytest.raises(NotFound, match="must begin with one of its backbones"):
        load_backbone(PAIR, RANDOM, levels=("layer2",))
    spec = load_backbone(PAIR, RANDOM, levels=chosen).spec
    assert set(spec.levels) == set(chosen)
    assert load_for(spec, RANDOM).spec.digest == spec.digest
    for wrong in ("resnet18+resnet18", "resnet18+", "+"):
        with pytest.raises((NotFound, ArtefactError)):
            load_backbone(wrong, RANDOM)


@needs_data("weights/mobilenet_v2_features.pth", "weights/squeezenet1_1.pth")
def test_a_folder_holds_the_weights_of_each(tmp_path: Path) -> None:
    backbone = load_backbone("mobilenet_v2+squeezenet1_1", data("weights"))
    assert backbone.spec.weights_source == "file:mobilenet_v2_features.pth+file:squeezenet1_1.pth"
    assert not backbone.spec.random_weights
    alone = load_backbone("squeezenet1_1", data("weights")).spec
    assert alone.weights_digest == load_backbone("squeezenet1_1", data("weights/squeezenet1_1.pth")).spec.weights_digest
    for name in ("squeezenet1_1.pth", "squeezenet1_1_old.pth", "squeezenet1_1_older.pth"):
        shutil.copy(data("weights/squeezenet1_1.pth"), tmp_path / name)
    assert WeightsSource(file=tmp_path).of("squeezenet1_1").file == tmp_path / "squeezenet1_1.pth"
    (tmp_path / "squeezenet1_1.pth").unlink()
    with pytest.raises(WeightsUnavailable, match=r"it has squeezenet1_1_old\.pth, squeezenet1_1_older\.pth"):
        load_backbone("squeezenet1_1", tmp_path)
    with pytest.raises(WeightsUnavailable, match="it has none"):
        load_backbone("mobilenet_v2+squeezenet1_1", tmp_path)
