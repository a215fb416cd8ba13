"""A folder is read in a known order, with the labels that its paths tell."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import pytest

from gaussline.producer.image import to_wire
from gaussline.producer.sources.folder import Folder
from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.errors import LimitExceeded, SourceError

OURS = ["good/1.png", "good/2.PNG", "bad/scratch/1.jpg", "bad/spot/1.bmp", "bad/9.tif", "notes.txt", ".hidden/x.png"]
MVTEC = [
    "train/good/000.png",
    "test/good/000.png",
    "test/broken_large/000.png",
    "ground_truth/broken_large/000_mask.png",
]


def build(root: Path, names: list[str]) -> Path:
    """Files that hold their own names."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, "utf-8")
    return root


def test_images_come_in_the_order_of_their_paths_with_their_labels(tmp_path: Path) -> None:
    folder = Folder(build(tmp_path, OURS))
    assert len(folder) == 5
    assert [(shot.name, shot.label, shot.image) for shot in folder] == [
        ("bad/9.tif", "bad", b"bad/9.tif"),
        ("bad/scratch/1.jpg", "scratch", b"bad/scratch/1.jpg"),
        ("bad/spot/1.bmp", "spot", b"bad/spot/1.bmp"),
        ("good/1.png", "good", b"good/1.png"),
        ("good/2.PNG", "good", b"good/2.PNG"),
    ]


def test_the_layout_of_mvtec_is_known_and_its_masks_are_no_parts(tmp_path: Path) -> None:
    assert [(shot.name, shot.label) for shot in Folder(build(tmp_path, MVTEC))] == [
        ("test/broken_large/000.png", "broken_large"),
        ("test/good/000.png", "good"),
        ("train/good/000.png", "good"),
    ]


@pytest.mark.parametrize(
    ("names", "inner", "label"),
    [
        (OURS, "good", "good"),
        (OURS, "bad/scratch", "scratch"),
        (MVTEC, "test/broken_large", "broken_large"),
        (MVTEC, "train/good", "good"),
        (["test/pictures/1.png"], "test/pictures", None),
        (["pictures/1.png"], "pictures", None),
        (["pictures/1.png"], ".", None),
        (OURS, "good/1.png", "good"),
        (OURS, "bad/scratch/1.jpg", "scratch"),
    ],
)
def test_a_part_of_a_data_set_keeps_its_labels(tmp_path: Path, names: list[str], inner: str, label: str | None) -> None:
    (first, *_) = Folder(build(tmp_path / "data", names) / inner)
    assert first.label == label


def test_it_loops_and_shuffles_by_its_seed(tmp_path: Path) -> None:
    build(tmp_path, [f"{number}.png" for number in range(8)])
    plain = [shot.name for shot in islice(Folder(tmp_path, loop=True), 20)]
    assert plain == [f"{number % 8}.png" for number in range(20)]

    def shuffled(seed: int) -> list[str | None]:
        return [shot.name for shot in islice(Folder(tmp_path, loop=True, shuffle=True, seed=seed), 16)]

    first = shuffled(1)
    assert first == shuffled(1)
    assert first != shuffled(2)
    assert sorted(first[:8], key=str) == sorted(first[8:], key=str) == plain[:8]
    assert first[:8] != first[8:]


def test_it_stays_in_the_folder_where_it_is_asked_to(tmp_path: Path) -> None:
    build(tmp_path, ["a.png", "inner/b.png"])
    assert [shot.name for shot in Folder(tmp_path, recursive=False)] == ["a.png"]


def test_one_file_is_a_folder_of_one(tmp_path: Path) -> None:
    build(tmp_path, ["a.dat", "b.png"])
    (shot,) = Folder(tmp_path / "b.png")
    assert (shot.name, shot.image) == ("b.png", b"b.png")
    with pytest.raises(SourceError, match=r"a\.dat is no image"):
        list(Folder(tmp_path / "a.dat"))
    (tmp_path / "a.dat").write_bytes(b"BM and so on")
    assert [shot.encoding for shot in Folder(tmp_path / "a.dat")] == ["bmp"]


def test_a_broken_file_is_sent_as_what_its_name_says_and_stops_nothing(tmp_path: Path) -> None:
    build(tmp_path, ["a.png", "b.jpg", "c.png"])
    (tmp_path / "b.jpg").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert [shot.encoding for shot in Folder(tmp_path)] == ["png", "png", "png"]
    assert to_wire(b"a.png", "png").encoding == "png"


def test_mistakes_are_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nothing of this name"):
        Folder(tmp_path / "none")
    with pytest.raises(SourceError, match="holds no images, nor do the folders inside it"):
        Folder(tmp_path)
    build(tmp_path, ["inner/b.png"])
    with pytest.raises(SourceError, match="not looked into"):
        Folder(tmp_path, recursive=False)
    with pytest.raises(LimitExceeded, match="image_max_bytes"):
        list(Folder(tmp_path, limits=ImageLimits(max_bytes=3)))
    folder = Folder(tmp_path)
    os.unlink(tmp_path / "inner" / "b.png")
    with pytest.raises(SourceError, match=r"b\.png cannot be read"):
        list(folder)
