"""Masks: read, checked against their images, shrunk; and pixel metrics of the exact map on parts with known defects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gaussline.producer.sources.synthetic import SyntheticParts, write_folder
from gaussline.worker.contract.heat_map import Explanation
from gaussline.worker.errors import SourceError
from gaussline.worker.gaussian.combination import Rule
from gaussline.worker.gaussian.covariance import Estimator
from gaussline.worker.learning.category import Category, Extraction, read_category
from gaussline.worker.learning.content_store import ContentStore
from gaussline.worker.learning.evaluation import Run, run_all, run_plan
from gaussline.worker.learning.fit import FitOptions
from gaussline.worker.learning.localisation import explained, masked, pixel_table, read_masks, shrunk
from gaussline.worker.learning.map_cache import MapCache, fit_digest
from gaussline.worker.learning.pipeline import BackboneOptions
from gaussline.worker.learning.protocol import Protocol, plans

OPTIONS = BackboneOptions(
    "squeezenet1_1",
    random_seed=1,
    levels=("features.1", "features.4"),
    input_size=64,
    device="cpu",
    memory_format="channels_last",
    batch_size=4,
)


@pytest.fixture(scope="module")
def extraction() -> Extraction:
    return Extraction(OPTIONS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plates")
    write_folder(SyntheticParts(5, size=64), root, good=30, defects=2)
    return root


@pytest.fixture(scope="module")
def parts(folder: Path, extraction: Extraction) -> Category:
    return read_category(folder, extraction, None)


@pytest.fixture(scope="module")
def run(parts: Category, extraction: Extraction) -> Run:
    return run_all(parts, plans(parts.data, Protocol.SPLIT), extraction.spec.levels, FitOptions(rule=Rule.SUM))[0]


def test_masks_of_all_defects_are_read(parts: Category) -> None:
    masks = read_masks(parts)
    assert len(masks) == len(parts.data.defective)
    assert all(mask.shape == (64, 64) and mask.any() for mask in masks.values())


def test_maps_add_up_to_the_scores_of_the_run(parts: Category, run: Run, extraction: Extraction) -> None:
    for score, one in zip(run.combined_defective, explained(parts, run.plan.defective, extraction, run), strict=True):
        assert one.map.combined.sum() == pytest.approx(score, rel=1e-4)
        assert one.image.shape == (64, 64, 3)


def test_pixel_metrics_of_the_map(parts: Category, run: Run, extraction: Extraction) -> None:
    masks = read_masks(parts)
    told: list[int] = []
    table = pixel_table(parts, run, extraction, masks, seed=0, progress=told.append)
    row = table.row("exact heat map")
    assert sum(told) == masked(run, parts, masks)
    assert row["images with a mask"] == len(masks)
    # Random weights still show edges and holes; a map that says nothing has 0.5 and 0.15.
    assert float(row["pixel AUROC"] or 0) > 0.6
    assert 0.15 < float(row["PRO up to 0.3 FPR"] or 0) <= 1.0


def test_maps_that_were_kept_need_no_backbone_and_are_the_same_numbers(
    tmp_path: Path, parts: Category, run: Run, extraction: Extraction
) -> None:
    masks, store = read_masks(parts), ContentStore(tmp_path, 10**8)
    first = pixel_table(parts, run, extraction, masks, seed=0, store=store)
    assert first.rows == pixel_table(parts, run, extraction, masks, seed=0).rows
    started: list[object] = []
    idle = Extraction(OPTIONS, started.append)
    assert pixel_table(parts, run, idle, masks, seed=0, store=store).rows == first.rows
    # A row may be wanted twice: a report shows the images that are both missed and clear, where there are few.
    twice = np.concatenate([run.plan.defective, run.plan.defective[:1]])
    shown = list(explained(parts, twice, idle, run, store=store))
    assert [one.sample for one in shown] == [parts.data.samples[row] for row in twice]
    assert not started
    for file in sorted(tmp_path.rglob("*.map"))[:3]:
        file.write_bytes(file.read_bytes()[:-1])
    assert pixel_table(parts, run, idle, masks, seed=0, store=store).rows == first.rows
    assert store.damaged == 3
    assert started


@pytest.mark.parametrize("other", [FitOptions(estimator=Estimator.OAS), FitOptions(rule=Rule.MAX)], ids=["oas", "max"])
def test_maps_of_another_fit_are_not_found(tmp_path: Path, parts: Category, run: Run, other: FitOptions) -> None:
    spec = Extraction(OPTIONS).spec
    fitted = run_plan(parts, run.plan, spec.levels, other, keep=True).fitted
    assert run.fitted is not None
    assert fitted is not None
    again = run_plan(parts, run.plan, spec.levels, FitOptions(rule=Rule.SUM), keep=True).fitted
    assert again is not None
    assert fit_digest(again) == fit_digest(run.fitted)
    assert fit_digest(fitted) != fit_digest(run.fitted)
    store = ContentStore(tmp_path, 10**8)
    one = Explanation(1.0, (64, 64), {"a": np.ones((2, 2), np.float32)}, {"a": 2.0}, {"a": 1.0})
    MapCache(store, spec, "cpu", run.fitted).put("0" * 64, one)
    assert MapCache(store, spec, "cpu", again).get("0" * 64) is not None
    for cache in (
        MapCache(store, spec, "cpu", fitted),
        MapCache(store, spec, "cuda", again),
        MapCache(store, replace(spec, numeric_mode="bfloat16"), "cpu", again),
    ):
        assert cache.get("0" * 64) is None
        assert (cache.hits, cache.misses) == (0, 1)


def test_masks_that_do_not_fit_are_all_named(tmp_path: Path, extraction: Extraction) -> None:
    write_folder(SyntheticParts(6, size=64), tmp_path, good=4, defects=1)
    files = sorted((tmp_path / "ground_truth").rglob("*.png"))
    Image.new("L", (32, 16), 255).save(files[0])
    Image.new("L", (64, 64), 0).save(files[1])
    files[2].write_bytes(b"no image")
    category = read_category(tmp_path, extraction, None)
    with pytest.raises(SourceError) as told:
        read_masks(category)
    text = str(told.value)
    assert "32x16 pixels, its image" in text
    assert "64x64" in text
    assert "marks nothing" in text
    assert files[2].name in text
    assert "--no-pixels" in text


def test_a_mask_of_zeros_and_ones_is_read_like_one_of_255(tmp_path: Path, extraction: Extraction) -> None:
    write_folder(SyntheticParts(6, size=64), tmp_path, good=4, defects=1)
    category = read_category(tmp_path, extraction, None)
    before = read_masks(category)
    for path in (tmp_path / "ground_truth").rglob("*.png"):
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8)).save(path)
    for path, mask in read_masks(category).items():
        np.testing.assert_array_equal(mask, before[path])


def test_the_noise_of_a_mask_is_no_defect(tmp_path: Path, extraction: Extraction) -> None:
    write_folder(SyntheticParts(6, size=64), tmp_path, good=4, defects=1)
    category = read_category(tmp_path, extraction, None)
    before = read_masks(category)
    noise = np.random.default_rng(0).integers(0, 40, (64, 64), dtype=np.uint8)  # such as a lossy copy leaves
    for path in (tmp_path / "ground_truth").rglob("*.png"):
        pixels = np.asarray(Image.open(path))
        Image.fromarray(np.where(pixels > 0, pixels - noise, noise).astype(np.uint8)).save(path)
    for path, mask in read_masks(category).items():
        np.testing.assert_array_equal(mask, before[path])


def test_shrinking_keeps_what_is_mostly_covered_and_never_loses_a_defect() -> None:
    mask = np.zeros((8, 8), np.bool_)
    mask[0:4, 0:4] = True
    mask[6, 0] = True
    want = np.zeros((4, 4), np.bool_)
    want[0:2, 0:2] = True
    np.testing.assert_array_equal(shrunk(mask, (4, 4)), want)
    dot = np.zeros((100, 100), np.bool_)
    dot[37, 61] = True
    small = shrunk(dot, (10, 10))
    assert small.sum() == 1
    assert small[3, 6]
    np.testing.assert_array_equal(shrunk(mask, (8, 8)), mask)
    assert shrunk(np.ones((5, 7), np.bool_), (3, 4)).all()
