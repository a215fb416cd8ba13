"""Folders of both layouts, and folders that are neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from gaussline.worker.errors import SourceError
from gaussline.worker.learning.dataset import ENCODINGS, Sample, read_dataset


def _fill(root: Path, *names: str) -> Path:
    """Files that look like images by their names; each holds its own name."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def _names(root: Path, samples: tuple[Sample, ...]) -> list[str]:
    return [sample.path.relative_to(root).as_posix() for sample in samples]


# --- good and bad ----------------------------------------------------------------------------------------------------
def test_good_and_bad(tmp_path: Path) -> None:
    root = _fill(tmp_path, "good/b.png", "good/a.jpg", "good/deep/c.png", "bad/scratch/1.png", "bad/dent/2.png")
    data = read_dataset(root)
    assert _names(root, data.normal) == ["good/a.jpg", "good/b.png", "good/deep/c.png"]
    assert [(sample.path.name, sample.defect) for sample in data.defective] == [("2.png", "dent"), ("1.png", "scratch")]
    assert data.defects == ("dent", "scratch")
    assert all(sample.normal and sample.fixed_split is None and sample.mask is None for sample in data.normal)


def test_defects_without_a_folder_of_their_own_are_bad(tmp_path: Path) -> None:
    data = read_dataset(_fill(tmp_path, "good/a.png", "bad/x.png", "bad/dent/y.png"))
    assert {sample.path.name: sample.defect for sample in data.defective} == {"x.png": "bad", "y.png": "dent"}


def test_only_images_count_by_their_ending_in_any_case(tmp_path: Path) -> None:
    names = [f"good/a{ending}" for ending in ENCODINGS] + ["good/A.PNG", "good/notes.txt", "good/none", "good/.png/x"]
    data = read_dataset(_fill(tmp_path, *names))
    assert len(data.samples) == len(ENCODINGS) + 1
    assert {sample.frame().encoding for sample in data.samples} == {"png", "jpeg", "bmp", "webp", "tiff"}


def test_a_folder_that_ends_like_an_image_is_none(tmp_path: Path) -> None:
    data = read_dataset(_fill(tmp_path, "good/a.png", "good/b.png/c.jpg"))
    assert _names(tmp_path, data.samples) == ["good/a.png", "good/b.png/c.jpg"]


def test_masks_beside_good_and_bad(tmp_path: Path) -> None:
    root = _fill(tmp_path, "good/a.png", "bad/dent/1.png", "bad/dent/2.png", "ground_truth/dent/1_mask.png")
    data = read_dataset(root)
    assert [sample.mask for sample in data.defective] == [root / "ground_truth/dent/1_mask.png", None]


# --- the layout of MVTec AD ------------------------------------------------------------------------------------------
MVTEC = (
    "train/good/000.png",
    "train/good/001.png",
    "test/good/000.png",
    "test/broken/000.png",
    "test/broken/001.png",
    "test/thread/000.png",
    "ground_truth/broken/000_mask.png",
    "ground_truth/broken/001.png",
)


def test_mvtec(tmp_path: Path) -> None:
    data = read_dataset(_fill(tmp_path, *MVTEC))
    assert [(sample.defect, sample.fixed_split) for sample in data.samples] == [
        ("good", "train"),
        ("good", "train"),
        ("broken", "test"),
        ("broken", "test"),
        ("good", "test"),
        ("thread", "test"),
    ]
    assert data.defects == ("broken", "thread")
    masks = [sample.mask and sample.mask.relative_to(tmp_path).as_posix() for sample in data.defective]
    assert masks == ["ground_truth/broken/000_mask.png", "ground_truth/broken/001.png", None]
    assert not [sample for sample in data.samples if "ground_truth" in sample.path.parts]


def test_mvtec_keeps_its_own_split_whatever_the_seed(tmp_path: Path) -> None:
    data = read_dataset(_fill(tmp_path, *MVTEC))
    for seed in range(3):
        split = data.split(0.1, seed)
        assert _names(tmp_path, split.train) == ["train/good/000.png", "train/good/001.png"]
        assert _names(tmp_path, split.held_out) == ["test/good/000.png"]


def test_mvtec_without_a_test_folder_is_all_training(tmp_path: Path) -> None:
    split = read_dataset(_fill(tmp_path, "train/good/a.png")).split(0.5, 0)
    assert (len(split.train), len(split.held_out)) == (1, 0)


# --- splitting -------------------------------------------------------------------------------------------------------
def test_a_split_is_a_partition_drawn_by_the_seed(tmp_path: Path) -> None:
    data = read_dataset(_fill(tmp_path, *(f"good/{i:02}.png" for i in range(20)), "bad/x/1.png"))
    split = data.split(0.7, 0)
    assert (len(split.train), len(split.held_out)) == (14, 6)
    assert set(split.train) | set(split.held_out) == set(data.normal)
    assert not set(split.train) & set(split.held_out)
    assert data.split(0.7, 0) == split
    assert data.split(0.7, 1) != split
    assert list(split.train) != sorted(split.train, key=lambda sample: sample.path)


# --- duplicates ------------------------------------------------------------------------------------------------------
def test_files_with_the_same_bytes_are_grouped(tmp_path: Path) -> None:
    root = _fill(tmp_path, "good/a.png", "good/b.png", "good/c.png", "bad/x/1.png")
    for name in ("good/b.png", "bad/x/1.png"):
        (root / name).write_bytes(b"good/a.png")
    assert read_dataset(root).duplicates() == [[root / "good/a.png", root / "good/b.png", root / "bad/x/1.png"]]
    assert read_dataset(_fill(tmp_path / "other", "good/a.png", "good/b.png")).duplicates() == []


def test_a_file_that_went_away_is_named(tmp_path: Path) -> None:
    data = read_dataset(_fill(tmp_path, "good/a.png"))
    (tmp_path / "good/a.png").unlink()
    with pytest.raises(SourceError, match=r"a\.png cannot be read: No such file"):
        data.samples[0].frame()
    with pytest.raises(SourceError, match=r"a\.png cannot be read: No such file"):
        data.duplicates()


# --- what is no data set ---------------------------------------------------------------------------------------------
def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is no folder"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="is no folder"):
        read_dataset(_fill(tmp_path, "a.png") / "a.png")


@pytest.mark.parametrize("names", [(), ("a.png",), ("bad/x/1.png",), ("train/bad/a.png",), ("test/good/a.png",)])
def test_neither_layout(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(SourceError, match=r"neither good/ .* nor train/good"):
        read_dataset(_fill(tmp_path, *names))


@pytest.mark.parametrize("names", [("good/notes.txt", "bad/x/1.png"), ("train/good/notes.txt", "test/x/1.png")])
def test_no_normal_images(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(SourceError, match=r"holds no normal images \(\.bmp, "):
        read_dataset(_fill(tmp_path, *names))


@pytest.mark.parametrize("name", ["good/a.png", "train/good/a.png"])
def test_one_class_is_enough_to_fit_and_too_little_to_evaluate(tmp_path: Path, name: str) -> None:
    root = _fill(tmp_path, name)
    data = read_dataset(root)
    assert (len(data.normal), data.defective, data.defects) == (1, (), ())
    with pytest.raises(SourceError, match="no defective images"):
        read_dataset(root, need_defects=True)
