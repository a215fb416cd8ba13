"""The cache of features: found by content, safe against damage, bounded, and never the reason of a failure."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gaussline.worker.errors import SourceError
from gaussline.worker.learning.category import Category, Extraction, find_categories, read_category
from gaussline.worker.learning.content_store import ContentStore
from gaussline.worker.learning.feature_cache import FeatureCache
from gaussline.worker.learning.pipeline import BackboneOptions
from tests.learning.synthetic import CHANNELS, SPEC

IMAGE = hashlib.sha256(b"an image").hexdigest()


def features(seed: int = 0) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(width).astype(np.float32) for width in CHANNELS]


def same(a: list[NDArray[np.float32]] | None, b: list[NDArray[np.float32]]) -> bool:
    return a is not None and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_what_was_kept_is_found_by_content_alone(tmp_path: Path) -> None:
    cache = FeatureCache(ContentStore(tmp_path, 10**6))
    assert cache.get(IMAGE, SPEC, "cpu") is None
    cache.put(IMAGE, SPEC, "cpu", features())
    assert same(FeatureCache(ContentStore(tmp_path, 10**6)).get(IMAGE, SPEC, "cpu"), features())
    assert same(cache.get(IMAGE, replace(SPEC, weights_source="elsewhere"), "cpu"), features())
    for other in (replace(SPEC, input_size=(16, 16)), replace(SPEC, numeric_mode="bfloat16")):
        assert cache.get(IMAGE, other, "cpu") is None
    assert cache.get(IMAGE, SPEC, "cuda") is None
    assert cache.get("0" * 64, SPEC, "cpu") is None
    assert (cache.hits, cache.misses, cache.store.damaged, cache.store.trouble) == (1, 5, 0, None)


@pytest.mark.parametrize("how", ["cut", "bit", "empty", "other"])
def test_damage_is_found_and_removed(tmp_path: Path, how: str) -> None:
    cache = FeatureCache(ContentStore(tmp_path, 10**6))
    cache.put(IMAGE, SPEC, "cpu", features())
    (file,) = tmp_path.rglob("*.features")
    data = bytearray(file.read_bytes())
    if how == "cut":
        data = data[:-7]
    elif how == "bit":
        data[len(data) // 2] ^= 4
    elif how == "empty":
        data = bytearray()
    else:
        body = b"no safetensors"
        data = bytearray(body + hashlib.sha256(body).digest())
    file.write_bytes(data)
    assert cache.get(IMAGE, SPEC, "cpu") is None
    assert cache.store.damaged == 1
    assert not file.exists()
    cache.put(IMAGE, SPEC, "cpu", features())
    assert same(cache.get(IMAGE, SPEC, "cpu"), features())


def test_features_of_another_shape_are_none(tmp_path: Path) -> None:
    cache = FeatureCache(ContentStore(tmp_path, 10**6))
    cache.put(IMAGE, SPEC, "cpu", features()[:2])
    assert cache.get(IMAGE, SPEC, "cpu") is None


def test_the_folder_is_bounded_and_what_was_used_the_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = FeatureCache(ContentStore(tmp_path, 10**9))
    names = [hashlib.sha256(bytes([number])).hexdigest() for number in range(20)]
    for number, name in enumerate(names):
        cache.put(name, SPEC, "cpu", features(number))
        (file,) = tmp_path.rglob(f"{name}.features")
        os.utime(file, (1000 + number, 1000 + number))
    size = sum(file.stat().st_size for file in tmp_path.rglob("*.features"))
    dead = next(tmp_path.rglob("*.features")).with_name(".old.part")
    dead.write_bytes(b"x")
    os.utime(dead, (1, 1))
    assert cache.get(names[0], SPEC, "cpu") is not None  # used now: it must stay
    cache.store.max_bytes = size // 2
    assert cache.store.trim() > 0
    left = {file.stem for file in tmp_path.rglob("*.features")}
    assert names[0] in left
    assert names[19] in left
    assert not {names[1], names[2], names[3]} & left
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.features")) <= size // 2
    assert not dead.exists()
    assert cache.store.trim() == 0


def test_a_cache_that_cannot_be_written_is_told_and_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = FeatureCache(ContentStore(tmp_path / "file", 10**6))
    cache.put(IMAGE, SPEC, "cpu", features())
    assert cache.get(IMAGE, SPEC, "cpu") is None
    assert cache.store.trouble is not None
    assert cache.store.trim() == 0


# --- a folder through the cache ---------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def extraction() -> Extraction:
    return Extraction(
        BackboneOptions(
            "squeezenet1_1",
            random_seed=1,
            levels=("features.1", "features.4"),
            input_size=48,
            device="cpu",
            memory_format="channels_last",
            batch_size=4,
        )
    )


def _folder(root: Path, *, good: int = 8, bad: int = 3) -> Path:
    rng = np.random.default_rng(0)
    for number in range(good + bad):
        path = root / ("good" if number < good else "bad/dent") / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return root


def _read(folder: Path, extraction: Extraction, cache: FeatureCache | None, *, skip_bad: bool = False) -> Category:
    return read_category(folder, extraction, cache, skip_bad=skip_bad)


def test_a_damaged_entry_is_computed_again_to_the_bit(tmp_path: Path, extraction: Extraction) -> None:
    folder, cache = _folder(tmp_path / "parts"), FeatureCache(ContentStore(tmp_path / "cache", 10**7))
    first = _read(folder, extraction, cache)
    assert (cache.hits, cache.misses) == (0, 11)
    for file in sorted((tmp_path / "cache").rglob("*.features"))[:4]:
        file.write_bytes(file.read_bytes()[:-1])
    second = _read(folder, extraction, cache)
    assert (cache.hits, cache.store.damaged) == (7, 4)
    for a, b in zip(first.features, second.features, strict=True):
        np.testing.assert_array_equal(a, b)
    _read(folder, extraction, cache)
    assert cache.hits == 7 + 11


def test_a_moved_and_renamed_image_is_known_and_a_changed_one_is_not(tmp_path: Path, extraction: Extraction) -> None:
    folder, cache = _folder(tmp_path / "parts"), FeatureCache(ContentStore(tmp_path / "cache", 10**7))
    _read(folder, extraction, cache)
    folder = (folder).rename(tmp_path / "other")
    (folder / "good" / "00.png").rename(folder / "good" / "renamed.png")
    Image.new("RGB", (50, 40), (3, 2, 1)).save(folder / "good" / "01.png")
    _read(folder, extraction, cache)
    assert (cache.hits, cache.misses) == (10, 12)


def test_unreadable_images_are_all_listed_and_skipped_only_when_asked(tmp_path: Path, extraction: Extraction) -> None:
    folder = _folder(tmp_path / "parts")
    whole = (folder / "good" / "03.png").read_bytes()
    (folder / "good" / "03.png").write_bytes(whole[: len(whole) // 2])  # its header is right: found on decoding
    (folder / "good" / "04.png").write_bytes(b"no image")
    (folder / "bad" / "dent" / "09.png").write_bytes(b"")
    with pytest.raises(SourceError, match="--skip-bad") as told:
        _read(folder, extraction, None)
    assert "04.png" in str(told.value)
    assert "09.png" in str(told.value)
    category = _read(folder, extraction, None, skip_bad=True)
    assert sorted(one.path.name for one in category.skipped) == ["03.png", "04.png", "09.png"]
    assert len(category.data.samples) == len(category.features[0]) == len(category.digests) == 8
    assert any("3 images cannot be read and were left out" in text for text in category.warnings)
    for name in ("04.png", "03.png"):
        (folder / "good" / name).unlink()
    (folder / "bad" / "dent" / "09.png").unlink()
    for name in ("08.png", "10.png"):
        (folder / "bad" / "dent" / name).write_bytes(b"no image")
    with pytest.raises(SourceError, match="no defective image can be read"):
        _read(folder, extraction, None, skip_bad=True)


def test_copies_wrong_labels_and_mixed_channels_are_told(tmp_path: Path, extraction: Extraction) -> None:
    folder = _folder(tmp_path / "parts")
    (folder / "good" / "copy.png").write_bytes((folder / "good" / "00.png").read_bytes())
    (folder / "bad" / "dent" / "copy.png").write_bytes((folder / "good" / "01.png").read_bytes())
    Image.new("L", (50, 40), 9).save(folder / "good" / "grey.png")
    told = _read(folder, extraction, None).warnings
    assert any("2 groups of files have the same bytes" in text for text in told)
    assert any("labelled good and defective at once" in text for text in told)
    assert any("different numbers of channels (1 with 1, 13 with 3)" in text for text in told)
    assert not any("file format" in text for text in told)


def test_a_folder_whose_two_kinds_differ_in_channels_measures_the_file_format(
    tmp_path: Path, extraction: Extraction
) -> None:
    folder = _folder(tmp_path / "parts")
    for path in (folder / "bad").rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert any("file format" in text for text in _read(folder, extraction, None).warnings)


def test_categories_are_found_in_a_folder_of_them(tmp_path: Path) -> None:
    for name in ("bottle", "cable"):
        (tmp_path / "mvtec" / name / "train" / "good").mkdir(parents=True)
    (tmp_path / "mvtec" / "notes").mkdir()
    (tmp_path / "one" / "good").mkdir(parents=True)
    root = tmp_path / "mvtec"
    assert find_categories([root, tmp_path / "one"]) == [root / "bottle", root / "cable", tmp_path / "one"]
    with pytest.raises(SourceError, match="no folder"):
        find_categories([tmp_path / "nowhere"])
    with pytest.raises(SourceError, match="two folders are named bottle"):
        find_categories([root, root / "bottle"])
