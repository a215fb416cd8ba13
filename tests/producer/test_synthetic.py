"""Rendered parts: repeatable, alike where they are good, different exactly where the mask says."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gaussline.producer.sources.folder import Folder
from gaussline.producer.sources.synthetic import DEFECTS, GOOD, SyntheticParts, write_folder
from gaussline.worker.errors import SettingsError, SourceError


def test_a_part_depends_on_seed_and_index_alone() -> None:
    parts = SyntheticParts(3, size=96)
    alone = SyntheticParts(3, size=96).render(17)
    for index in range(17):
        parts.render(index)
    after = parts.render(17)
    assert np.array_equal(alone.image, after.image)
    assert np.array_equal(alone.mask, after.mask)
    assert alone.label == after.label
    assert not np.array_equal(alone.image, SyntheticParts(4, size=96).render(17).image)
    assert not np.array_equal(alone.image, parts.render(18).image)


def test_pictures_have_the_promised_form() -> None:
    part = SyntheticParts(0, size=224).render(0, GOOD)
    assert (part.image.shape, part.image.dtype.name) == ((224, 224, 3), "uint8")
    assert (part.mask.shape, part.mask.dtype.name) == ((224, 224), "bool")
    assert not part.mask.any()
    # It is a part on a belt: bright metal in the middle, dark holes in it, a dark rim round it.
    grey = part.image.mean(axis=2)
    assert grey[:10].mean() < 45
    assert grey[60:70, 60:160].mean() > 120
    assert grey[105:119, 90:104].mean() < 25


@pytest.mark.parametrize("kind", DEFECTS)
def test_a_defect_shows_where_its_mask_says_and_nowhere_else(kind: str) -> None:
    parts = SyntheticParts(5, size=160)
    severities = []
    for index in range(12):
        good, bad = parts.render(index, GOOD), parts.render(index, kind)
        difference = np.abs(good.image.astype(int) - bad.image.astype(int)).max(axis=2)
        severities.append(bad.severity)
        assert bad.label == kind
        assert bad.mask.any()
        inside, outside = difference[bad.mask], difference[~_widened(bad.mask)]
        assert inside.max() >= 6
        # Out of focus the belt's own weave is lost too, a little.
        assert outside.max() <= (12 if kind == "blur" else 4)
        if kind in {"scratch", "spot"}:
            assert 0.00005 < bad.mask.mean() < 0.06
    assert min(severities) < 0.3
    assert max(severities) > 0.7


def _widened(mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    wide = mask.copy()
    for _ in range(7):
        wide[1:] |= wide[:-1].copy()
        wide[:-1] |= wide[1:].copy()
        wide[:, 1:] |= wide[:, :-1].copy()
        wide[:, :-1] |= wide[:, 1:].copy()
    return wide


def test_more_severe_defects_show_more() -> None:
    parts = SyntheticParts(8, size=128)
    for kind in ("scratch", "spot", "blur"):
        pairs = []
        for index in range(40):
            good, bad = parts.render(index, GOOD), parts.render(index, kind)
            pairs.append((bad.severity, np.abs(good.image.astype(int) - bad.image.astype(int)).sum()))
        severity, change = np.array(pairs).T
        assert np.corrcoef(severity.argsort().argsort(), change.argsort().argsort())[0, 1] > 0.5, kind


def test_the_share_of_defects_is_what_was_asked_for() -> None:
    parts = SyntheticParts(1, size=32, defect_share=0.3)
    labels = [parts.label(index) for index in range(2_000)]
    assert 0.27 < np.mean([label != GOOD for label in labels]) < 0.33
    assert set(labels) == {GOOD, *DEFECTS}
    assert [parts.render(index).label for index in range(20)] == labels[:20]
    assert {SyntheticParts(1, size=32, defect_share=0.0).label(index) for index in range(50)} == {GOOD}
    only = SyntheticParts(1, size=32, defect_share=1.0, defects=["spot"])
    assert {only.label(index) for index in range(50)} == {"spot"}


def test_light_can_drift() -> None:
    bright, dim = (SyntheticParts(1, size=64, brightness=b).render(0, GOOD).image.mean() for b in (1.0, 0.8))
    assert dim / bright == pytest.approx(0.8, abs=0.03)


def test_it_is_a_source_of_shots() -> None:
    shots = list(islice(SyntheticParts(2, size=32, defect_share=0.5), 10))
    assert [shot.name for shot in shots] == [f"part{index}" for index in range(10)]
    assert {shot.label for shot in shots} >= {GOOD}
    assert len(list(SyntheticParts(2, size=32, count=3))) == 3


def test_a_folder_of_parts_is_one_that_a_folder_source_knows(tmp_path: Path) -> None:
    parts = SyntheticParts(2, size=32)
    assert write_folder(parts, tmp_path, good=3, defects=2) == 3 + 2 * len(DEFECTS)
    labels = [shot.label for shot in Folder(tmp_path)]
    assert sorted(label for label in labels if label) == sorted([GOOD] * 3 + [*DEFECTS] * 2)
    mask = np.asarray(Image.open(next((tmp_path / "ground_truth" / "spot").iterdir())))
    assert set(np.unique(mask)) == {0, 255}
    with pytest.raises(SourceError, match="cannot be written"):
        write_folder(parts, Path("/dev/null/x"), good=1, defects=0)


@pytest.mark.parametrize(
    "options", [{"size": 8}, {"defect_share": 1.5}, {"defects": ["dent"]}, {"defects": []}, {"seed": -1}]
)
def test_no_such_parts(options: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        SyntheticParts(**options)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="no defect 'dent'"):
        SyntheticParts(size=32).render(0, "dent")


@pytest.mark.alone
def test_a_hundred_parts_a_second() -> None:
    parts = SyntheticParts(0, size=224)
    parts.render(0)
    best_s = min(_time(parts, start) for start in range(0, 60, 10))
    assert best_s < 10 / 100, f"{10 / best_s:.0f} parts a second"


def _time(parts: SyntheticParts, start: int) -> float:
    began_s = time.perf_counter()
    for index in range(start, start + 10):
        parts.render(index)
    return time.perf_counter() - began_s
