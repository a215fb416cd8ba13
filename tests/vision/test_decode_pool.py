"""Decoding in processes: the same pixels as without, and a crash that costs its own frame alone."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.errors import ImageError
from gaussline.worker.vision.decode import decode
from gaussline.worker.vision.decode_pool import DecodePool
from tests.support.waiting import eventually
from tests.vision.images import encoded, exif, saying, scene

LIMITS = ImageLimits()
BROKEN = (sys.executable, "-m", "tests.vision.bad_decoder")


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(LIMITS, processes=2) as running:
        yield running


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DecodePool]:
    monkeypatch.setenv("DECODER_MARK", str(tmp_path / "mark"))
    with DecodePool(LIMITS, processes=1, timeout_s=1, program=BROKEN) as running:
        yield running


def pixels(pool: DecodePool, data: bytes, encoding: str = "png") -> np.ndarray:
    with pool.decoded(data, encoding) as found:
        return found.copy()


@pytest.mark.parametrize("encoding", ["jpeg", "png", "bmp", "webp", "tiff"])
def test_pixels_are_those_of_decode(pool: DecodePool, encoding: str) -> None:
    for picture in (scene(), scene()[..., 0], scene(900, 1200, 3)):
        data = encoded(picture, encoding)
        with pool.decoded(data, encoding) as found:
            plain = decode(data, encoding, LIMITS)
            np.testing.assert_array_equal(found, plain)
            assert (found.strides[2] == 0) == (plain.strides[2] == 0), "grey stays one channel"
    turned = encoded(scene(), "jpeg", exif=b"Exif\0\0" + exif(6))
    np.testing.assert_array_equal(pixels(pool, turned, "jpeg"), decode(turned, "jpeg", LIMITS))


@pytest.mark.parametrize(
    ("data", "encoding", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n", "png", "undecodable"),
        (b"GIF89a", "png", "unsupported_format"),
        (b"", "jpeg", "undecodable"),
        (b"x", "gif", "unsupported_format"),
    ],
)
def test_refusals_are_those_of_decode(pool: DecodePool, data: bytes, encoding: str, reason: str) -> None:
    with pytest.raises(ImageError) as caught, pool.decoded(data, encoding):
        pass
    assert caught.value.reason == reason
    with pytest.raises(ImageError) as plain:
        decode(data, encoding, LIMITS)
    assert caught.value.detail.split(":")[0][:20] == plain.value.detail.split(":")[0][:20]


def test_threads_share_the_processes(pool: DecodePool) -> None:
    files = [encoded(scene(seed=number), "png") for number in range(40)]
    with ThreadPoolExecutor(4) as threads:
        for number, found in enumerate(threads.map(lambda data: pixels(pool, data), files)):
            np.testing.assert_array_equal(found, scene(seed=number))


def test_a_crash_of_the_codec_is_its_frames_fault_alone(broken: DecodePool) -> None:
    for _ in range(3):
        with pytest.raises(ImageError, match="dies of SIGSEGV") as caught, broken.decoded(saying(b"CRASH"), "png"):
            pass
        assert caught.value.reason == "poison"
        np.testing.assert_array_equal(pixels(broken, encoded(scene(), "png")), scene())
    assert broken.deaths == 6


def test_crashes_come_cheap(broken: DecodePool) -> None:
    pixels(broken, encoded(scene(), "png"))
    begin = time.monotonic()
    for _ in range(20):
        with pytest.raises(ImageError), broken.decoded(saying(b"CRASH"), "png"):
            pass
    assert time.monotonic() - begin < 10.0, "a storm of crashes must not cost an interpreter's start each"


def test_a_process_that_was_killed_from_outside_costs_no_frame(broken: DecodePool) -> None:
    np.testing.assert_array_equal(pixels(broken, saying(b"ONCE")), scene())
    assert broken.deaths == 1


def test_a_codec_that_hangs_is_ended(broken: DecodePool) -> None:
    begin = time.monotonic()
    with pytest.raises(ImageError, match="longer than 1 s") as caught, broken.decoded(saying(b"HANG"), "png"):
        pass
    assert caught.value.reason == "poison"
    assert time.monotonic() - begin < 5.0
    np.testing.assert_array_equal(pixels(broken, encoded(scene(), "png")), scene())


def test_a_codec_that_takes_too_much_memory_is_refused(broken: DecodePool) -> None:
    with pytest.raises(ImageError, match="more memory") as caught, broken.decoded(saying(b"GREED"), "png"):
        pass
    assert caught.value.reason == "too_large"


def test_a_huge_image_does_not_hold_its_memory() -> None:
    with DecodePool(LIMITS) as pool:
        data = encoded(np.zeros((6000, 4000, 3), np.uint8), "png")
        assert pixels(pool, data).shape == (6000, 4000, 3)
        assert pixels(pool, encoded(scene(), "png")).shape == scene().shape


def test_nothing_is_left_running() -> None:
    before = {thread.name for thread in threading.enumerate()}
    pool = DecodePool(LIMITS)
    pixels(pool, encoded(scene(), "png"))
    process = pool._free.get()
    assert process is not None
    pool._free.put(process)
    pool.close()
    children = Path(f"/proc/{process._process.pid}")
    eventually(lambda: not children.exists(), what="the end of the process")
    assert {thread.name for thread in threading.enumerate()} == before


def test_a_codec_that_answers_nonsense_is_poison(broken: DecodePool) -> None:
    """A reason that is none would end the lane that asks, and so the worker."""
    for _ in range(2):
        with pytest.raises(ImageError, match="nonsense") as caught, broken.decoded(saying(b"LIE"), "png"):
            pass
        assert caught.value.reason == "poison"
        np.testing.assert_array_equal(pixels(broken, encoded(scene(), "png")), scene())


def child_of(pool: DecodePool) -> int:
    """The process that decodes, forked by the only process of a pool."""
    process = pool._free.get()
    assert process is not None
    pool._free.put(process)
    pid = process._process.pid
    return int(eventually(lambda: Path(f"/proc/{pid}/task/{pid}/children").read_text(), what="the child"))


def another_than(child: int, pool: DecodePool) -> bool:
    return child_of(pool) != child


def test_a_child_that_dies_between_two_images_mixes_up_nothing(broken: DecodePool) -> None:
    """An answer that nobody asked for would be taken for that of the next image, and so on from there for ever."""
    for round_ in range(3):
        np.testing.assert_array_equal(pixels(broken, encoded(scene(), "png")), scene())
        child = child_of(broken)
        os.kill(child, signal.SIGKILL)
        eventually(partial(another_than, child, broken), what="another child")
        for seed in range(4):
            picture = scene(24 + 8 * seed, 32, seed=10 * round_ + seed)
            np.testing.assert_array_equal(pixels(broken, encoded(picture, "png")), picture)
    assert broken.deaths == 0, "it died over no image"


def test_a_process_that_cannot_start_leaves_no_descriptor_behind() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    with DecodePool(LIMITS, program=("/nonexistent",)) as pool:
        before = descriptors()
        for _ in range(5):
            with pytest.raises(OSError, match="nonexistent"), pool.decoded(encoded(scene(), "png"), "png"):
                pass
        assert descriptors() == before
