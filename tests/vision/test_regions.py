"""Levels cut into regions, and features averaged over views: what they mean, and that a heat map still adds up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.model import Model
from gaussline.worker.contract.regions import Cut, bounds, cuts, region_names
from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.errors import ArtefactError, ModelError, NotFound
from gaussline.worker.gaussian.combination import Combination, Rule
from gaussline.worker.learning.fit import FitOptions, fit_model
from gaussline.worker.vision.backbones import load_backbone, load_for
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.heatmap import explain, heat_map
from gaussline.worker.vision.runtime import RuntimeChoice
from gaussline.worker.vision.scorer import Scorer
from gaussline.worker.vision.weights import WeightsSource

SEED = WeightsSource(random_seed=3)


def _extractor(grid: int = 1, views: tuple[str, ...] = (), name: str = "squeezenet1_1") -> FeatureExtractor:
    backbone = load_backbone(name, SEED, input_size=(72, 72), grid=grid, views=views)
    return FeatureExtractor(backbone, RuntimeChoice(batch_size=8))


def _batch(n: int, seed: int = 0) -> torch.Tensor:
    """Smooth pictures that are not symmetric."""
    draw = np.random.default_rng(seed)
    coarse = torch.from_numpy(draw.uniform(0, 255, (n, 3, 9, 9)).astype(np.float32))
    return torch.nn.functional.interpolate(coarse, size=(72, 72), mode="bilinear").to(torch.uint8)


# --- names -----------------------------------------------------------------------------------------------------------
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 9)), min_size=1, max_size=5))
def test_names_of_regions_are_read_back(levels: list[tuple[int, int]]) -> None:
    want = tuple(Cut(f"features.{place}", grid, width) for place, (grid, width) in enumerate(levels))
    names = [name for cut in want for name in cut.names]
    assert len(set(names)) == sum(cut.regions for cut in want)
    assert cuts(names, [cut.channels for cut in want for _ in cut.names]) == want


@pytest.mark.parametrize(
    "names",
    [
        region_names("a", 2)[:3],
        region_names("a", 2)[::-1],
        (*region_names("a", 2), "a"),
        ("a@1/0.0",),
        ("a@2/0",),
        ("a@17/0.0",),
        ("@2/0.0",),
        ("a", *region_names("b", 2)[1:]),
    ],
)
def test_regions_that_are_not_all_there_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ArtefactError):
        cuts(names, [4] * len(names))


def test_regions_of_one_level_have_one_width() -> None:
    with pytest.raises(ArtefactError):
        cuts(region_names("a", 2), [4, 4, 4, 5])


@given(st.integers(1, 16), st.integers(1, 40))
def test_regions_cover_every_cell_and_are_never_empty(grid: int, size: int) -> None:
    parts = [bounds(index, grid, size) for index in range(grid)]
    assert {cell for part in parts for cell in range(size)[part]} == set(range(size))
    assert all(0 <= part.start < part.stop <= size for part in parts)


# --- features --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("grid", [2, 3])
def test_a_regions_feature_is_the_mean_over_its_cells(grid: int) -> None:
    extractor, whole = _extractor(grid), _extractor()
    batch = _batch(3)
    features, maps = extractor.extract_with_maps(batch)
    plain, _ = whole.extract_with_maps(batch)
    place = 0
    for cut, level, mean in zip(extractor.spec.cuts, maps.levels, plain, strict=True):
        assert cut.grid == grid
        torch.testing.assert_close(level.mean((2, 3)), mean, rtol=1e-5, atol=1e-6)
        for row in range(grid):
            for column in range(grid):
                own = level[:, :, bounds(row, grid, level.shape[2]), bounds(column, grid, level.shape[3])]
                torch.testing.assert_close(features[place], own.mean((2, 3)), rtol=1e-5, atol=1e-6)
                place += 1
    assert place == len(features) == len(extractor.spec.levels)
    for mine, theirs in zip(features, extractor.extract_tensors(batch), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_wide_levels_stay_whole_and_a_map_smaller_than_the_grid_is_refused() -> None:
    spec = load_backbone("mobilenet_v2", SEED, grid=3).spec
    assert [cut.grid for cut in spec.cuts] == [3] * 7 + [1]
    assert len(spec.levels) == 64
    with pytest.raises(ModelError, match="cannot be cut into 5 x 5 regions"):
        _extractor(5).extract(_batch(1))
    with pytest.raises(NotFound, match="grid of 17"):
        load_backbone("mobilenet_v2", SEED, grid=17)


def test_a_defect_moves_the_features_of_its_region_alone_and_more_than_those_of_the_whole() -> None:
    batch = _batch(1)
    spoilt = batch.clone()
    spoilt[:, :, 4:12, 4:12] = 255 - spoilt[:, :, 4:12, 4:12]
    backbone = load_backbone("squeezenet1_1", SEED, levels=["features.1"], input_size=(72, 72), grid=3)
    cut = FeatureExtractor(backbone, RuntimeChoice(batch_size=1))
    moved = [np.linalg.norm(a - b) for a, b in zip(cut.extract(batch), cut.extract(spoilt), strict=True)]
    whole = load_backbone("squeezenet1_1", SEED, levels=["features.1"], input_size=(72, 72))
    extractor = FeatureExtractor(whole, RuntimeChoice(batch_size=1))
    thin = float(np.linalg.norm(extractor.extract(batch)[0] - extractor.extract(spoilt)[0]))
    assert moved[0] == pytest.approx(9 * thin, rel=0.1)
    assert max(moved[1:]) < 1e-6


# --- views -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("views", [("identity", "hflip"), ("identity", "rot90", "rot180", "rot270")])
def test_features_do_not_change_when_the_part_is_turned_as_a_view_turns_it(views: tuple[str, ...]) -> None:
    extractor, plain = _extractor(views=views), _extractor()
    batch = _batch(2)
    turned = batch.flip(-1) if "hflip" in views else batch.rot90(1, (-2, -1))
    for before, after in zip(extractor.extract(batch), extractor.extract(turned), strict=True):
        np.testing.assert_allclose(before, after, rtol=2e-5, atol=2e-6)
    apart = [np.abs(a - b).max() for a, b in zip(plain.extract(batch), plain.extract(turned), strict=True)]
    assert min(apart) > 1e-4, "without the view they do change: the test before can fail"


def test_regions_of_a_turned_part_are_those_of_the_part_turned() -> None:
    extractor = _extractor(2, ("identity", "hflip"))
    batch = _batch(2)
    before, after = extractor.extract(batch), extractor.extract(batch.flip(-1))
    for start in range(0, len(before), 4):
        for mine, theirs in ((0, 1), (1, 0), (2, 3), (3, 2)):
            np.testing.assert_allclose(before[start + mine], after[start + theirs], rtol=2e-5, atol=2e-6)


def test_brightness_is_a_view() -> None:
    dark = (_batch(2).float() * 0.8 + 0.5).to(torch.uint8)
    for mine, theirs in zip(
        _extractor(views=("brightness:0.8",)).extract(_batch(2)), _extractor().extract(dark), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("views", [("upside",), ("hflip", "hflip"), ("brightness:9",), ("brightness:x",)])
def test_views_that_are_none_are_refused(views: tuple[str, ...]) -> None:
    with pytest.raises(ArtefactError, match="view"):
        load_backbone("squeezenet1_1", SEED, views=views)


def test_turned_views_need_a_square_input() -> None:
    with pytest.raises(ArtefactError, match="square"):
        load_backbone("squeezenet1_1", SEED, input_size=(72, 64), views=("rot90",))


def test_the_spec_says_views_and_regions_and_a_worker_loads_by_it() -> None:
    spec = _extractor(2, ("identity", "vflip")).spec
    assert load_for(spec, SEED).spec == spec
    assert BackboneSpec.from_json(spec.to_json()) == spec
    assert replace(spec, views=()).digest != spec.digest
    said = replace(spec, views=()).to_dict()
    del said["views"]
    assert BackboneSpec.from_dict(said).digest == replace(spec, views=()).digest


# --- models ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rule", list(Rule))
@pytest.mark.parametrize("views", [(), ("identity", "hflip")])
def test_a_heat_map_of_regions_adds_up_to_the_score_and_lies_in_the_farthest_region(
    rule: Rule, views: tuple[str, ...]
) -> None:
    extractor = _extractor(2, views)
    model = fit_model(extractor.extract(_batch(60, 1)), extractor.spec, FitOptions(rate=0.1, rule=rule))
    model = Model.from_artefact(Artefact.unpack(model.to_artefact().data))
    assert model.combination.groups == (4,) * 5
    features, maps = extractor.extract_with_maps(_batch(3, 2))
    prepared = Scorer(extractor.spec).prepare(model)
    distances = Scorer(extractor.spec).distances(features, prepared)
    by_level = model.combination.by_level(distances)
    for row in range(3):
        told = heat_map(model, [level[row].numpy() for level in features], maps.of(row))
        assert told.score == pytest.approx(float(model.combination.combine(distances[row])), rel=1e-4)
        assert told.combined.sum() == pytest.approx(told.score, rel=1e-5, abs=1e-6)
        for place, (name, values) in enumerate(told.levels.items()):
            assert told.distances[name] == pytest.approx(float(by_level[row, place]), rel=1e-4)
            far = int(np.argmax(distances[row, 4 * place : 4 * place + 4]))
            outside = values.copy()
            outside[bounds(far // 2, 2, values.shape[0]), bounds(far % 2, 2, values.shape[1])] = 0.0
            assert not outside.any()
        found = tuple(model.combination.farthest(distances)[row].tolist())
        given = explain(model, [level[row].numpy() for level in features], maps.of(row), farthest=found)
        for name, values in given.levels.items():
            np.testing.assert_array_equal(values, told.levels[name])


def test_a_region_that_scoring_has_found_need_not_be_looked_for() -> None:
    rng = np.random.default_rng(3)
    distances = rng.random((5, 4 + 1 + 9))
    combination = Combination(groups=(4, 1, 9))
    found = combination.farthest(distances)
    first = np.array([0, 4, 5])
    picked = np.take_along_axis(distances, found + first, axis=1)
    np.testing.assert_array_equal(picked, combination.by_level(distances))
    np.testing.assert_array_equal(Combination().farthest(distances), np.zeros(distances.shape, int))


def test_a_level_is_as_far_out_as_its_farthest_region() -> None:
    combination = Combination(Rule.SUM, groups=(2, 1, 3))
    assert combination.by_level([1.0, 5.0, 2.0, 3.0, 4.0, 0.0]).tolist() == [5.0, 2.0, 4.0]
    assert combination.combine([[1.0, 5.0, 2.0, 3.0, 4.0, 0.0]]).tolist() == [11.0]


def test_a_model_whose_groups_are_not_its_levels_is_refused() -> None:
    extractor = _extractor(2)
    model = fit_model(extractor.extract(_batch(60, 1)), extractor.spec, FitOptions(rate=0.1))
    with pytest.raises(ArtefactError, match="groups"):
        replace(model, combination=Combination())
