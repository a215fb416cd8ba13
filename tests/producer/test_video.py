"""Videos are decoded by PyAV where it is installed, and asked for plainly where it is not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from gaussline.producer.sources.video import Video, is_video
from gaussline.worker.errors import SourceError
from tests.producer.times import START_US, HandClock

av = pytest.importorskip("av", reason="PyAV is not installed: pip install av")
FRAMES = 6


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames that get brighter, without loss."""
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 32, 16, "bgr0"
        for number in range(FRAMES):
            array = np.full((16, 32, 3), (number * 40, 10, 200), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_frames_come_in_order_as_red_green_blue(film: Path) -> None:
    shots = list(Video(film))
    assert [shot.name for shot in shots] == [f"frame{number}" for number in range(FRAMES)]
    assert {(shot.image.shape, shot.image.dtype.name, shot.captured_at) for shot in shots} == {
        ((16, 32, 3), "uint8", None)
    }
    assert [tuple(int(v) for v in shot.image[3, 3]) for shot in shots] == [
        (number * 40, 10, 200) for number in range(FRAMES)
    ]


def test_a_file_loops(film: Path) -> None:
    reds = [int(shot.image[0, 0, 0]) for shot in islice(Video(film, loop=True), 2 * FRAMES)]
    assert reds == [number * 40 for number in range(FRAMES)] * 2


def test_grey_video_stays_grey(tmp_path: Path) -> None:
    path = tmp_path / "grey.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 32, 16, "gray"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((16, 32), 77, np.uint8), format="gray")))
        container.mux(stream.encode(None))
    (shot,) = Video(path)
    assert np.array_equal(shot.image, np.full((16, 32), 77, np.uint8))


def test_what_is_no_video_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is no file"):
        Video(tmp_path / "none.mp4")
    path = tmp_path / "x.mp4"
    path.write_bytes(b"no video at all")
    with pytest.raises(SourceError, match=r"x\.mp4 cannot be read"):
        list(Video(path))
    with pytest.raises(SourceError, match="cannot loop"):
        Video("/dev/video0", loop=True)


def test_a_missing_library_is_asked_for_without_the_cameras_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SourceError, match=r"pip install 'gaussline\[video\]'") as told:
        Video("rtsp://user:secret@10.0.0.7/stream")
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("source", "answer"),
    [
        ("/dev/video0", True),
        ("rtsp://10.0.0.7/stream", True),
        ("film.MP4", True),
        ("pictures", False),
        ("a.png", False),
        ("synthetic", False),
    ],
)
def test_videos_are_known_by_their_names(source: str, answer: bool) -> None:
    assert is_video(source) is answer


class Broken:
    """A live source that breaks off: each opening gives what the script says, then ends or raises."""

    def __init__(self, *script: int | None) -> None:
        self.script = list(script)
        self.opened = 0

    def __call__(self) -> Iterator[Any]:
        self.opened += 1
        frames = self.script.pop(0) if self.script else None
        for _ in range(frames or 0):
            yield np.zeros((2, 2), np.uint8)
        if frames is None:
            raise av.error.ConnectionRefusedError(111, "Connection refused", "rtsp://user:secret@camera")


def test_a_live_source_is_opened_again_and_stamped_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HandClock()
    video = Video("rtsp://user:secret@camera/1", clock=clock, random=Random(1))
    broken = Broken(2, None, None, 1)
    monkeypatch.setattr(video, "_frames", broken)
    shots = list(islice(video, 3))
    assert broken.opened == 4
    assert [shot.name for shot in shots] == ["frame0", "frame1", "frame2"]
    assert shots[0].captured_at == START_US
    assert shots[2].captured_at == clock.now_us() > START_US


def test_a_live_source_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HandClock()
    video = Video("rtsp://user:secret@camera/1", clock=clock, random=Random(1), reopen_for_s=20.0)
    monkeypatch.setattr(video, "_frames", Broken(1))
    with pytest.raises(SourceError, match="gave no frame for") as told:
        list(video)
    assert 20.0 <= clock.elapsed_s < 26.0
    assert "secret" not in str(told.value)
    never = Video("rtsp://user:secret@camera/1", clock=clock)
    monkeypatch.setattr(never, "_frames", Broken())
    with pytest.raises(SourceError, match="cannot be read") as told:
        list(never)
    assert "secret" not in str(told.value)
