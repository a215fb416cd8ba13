"""Decoding: what comes out, and what is refused with which reason."""

from __future__ import annotations

import io
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.contract.verdict import Reason
from gaussline.worker.errors import ImageError
from gaussline.worker.vision.decode import decode
from tests.vision.images import encoded, exif, png, png_chunk, scene

LIMITS = ImageLimits()
LOSSLESS = ["png", "bmp", "tiff"]


def refusal(data: bytes, encoding: str, limits: ImageLimits = LIMITS, **raw: Any) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(data, encoding, limits, **raw)
    assert Reason(caught.value.reason)
    return caught.value


@pytest.mark.parametrize("encoding", LOSSLESS)
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_every_mode_becomes_the_rgb_that_it_shows(encoding: str, mode: str) -> None:
    image = Image.fromarray(scene()).convert(mode)
    expected = np.asarray(image.convert("RGB"))
    found = decode(encoded(image, encoding), encoding, LIMITS)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_lossy_formats_come_out_as_their_codec_gives_them() -> None:
    for encoding, options in (
        ("jpeg", {"quality": 95}),
        ("jpeg", {"progressive": True, "quality": 95}),
        ("webp", {"quality": 95}),
    ):
        found = decode(encoded(scene(), encoding, **options), encoding, LIMITS).astype(int)
        assert np.abs(found - scene()).mean() < 4.0
    np.testing.assert_array_equal(decode(encoded(scene(), "webp", lossless=True), "webp", LIMITS), scene())


def test_grey_is_one_channel_seen_three_times() -> None:
    grey = scene()[..., 0]
    for encoding in ("png", "tiff", "bmp"):
        found = decode(encoded(grey, encoding), encoding, LIMITS)
        assert found.strides[2] == 0
        np.testing.assert_array_equal(found[..., 1], grey)
    assert decode(encoded(grey, "jpeg"), "jpeg", LIMITS).strides[2] == 0


def test_alpha_is_dropped_and_the_colour_under_it_stands() -> None:
    clear = np.dstack([scene(), np.zeros(scene().shape[:2], np.uint8)])
    np.testing.assert_array_equal(decode(encoded(clear, "png"), "png", LIMITS), scene())


def test_cmyk_jpeg_is_read_by_adobes_inversion() -> None:
    cmyk = Image.fromarray(scene()).convert("CMYK")
    data = encoded(cmyk, "jpeg", quality=98)
    assert b"Adobe" in data
    found = decode(data, "jpeg", LIMITS).astype(int)
    assert np.abs(found - scene()).mean() < 3.0
    # Without the marker the numbers are not inverted: the two readings must differ.
    start = data.index(b"\xff\xee")
    length = int.from_bytes(data[start + 2 : start + 4], "big")
    plain = decode(data[:start] + data[start + 2 + length :], "jpeg", LIMITS).astype(int)
    assert np.abs(plain - scene()).mean() > 30.0


@pytest.mark.parametrize("encoding", ["png", "tiff"])
def test_sixteen_bits_become_eight_by_257(encoding: str) -> None:
    deep = np.array([[0, 128, 129, 257, 385, 386], [32767, 32768, 65406, 65407, 65535, 514]], np.uint16)
    expected = np.rint(deep / 257.0).astype(np.uint8)
    found = decode(encoded(Image.fromarray(deep), encoding), encoding, LIMITS)
    np.testing.assert_array_equal(found[..., 0], expected)
    raw = decode(deep.tobytes(), "raw", LIMITS, shape=deep.shape, dtype="uint16")
    np.testing.assert_array_equal(raw, found)


def test_sixteen_bit_colour_png_is_within_one_level_of_the_rule() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (5, 7, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    found = decode(png(7, 5, 16, 2, rows), "png", LIMITS).astype(int)
    assert np.abs(found - np.rint(deep.astype(float) / 257.0)).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    note = exif(orientation)
    data = encoded(scene(), "jpeg", exif=b"Exif\0\0" + note, quality=95)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    np.testing.assert_array_equal(decode(data, "jpeg", LIMITS), expected)
    upright = np.asarray(ImageOps.exif_transpose(_tagged(orientation)).convert("RGB"))
    for encoding in ("png", "webp"):
        data = encoded(scene(), encoding, exif=_exif(orientation), lossless=True)
        np.testing.assert_array_equal(decode(data, encoding, LIMITS), upright)
    tiff = encoded(scene(), "tiff", tiffinfo={0x0112: orientation})
    np.testing.assert_array_equal(decode(tiff, "tiff", LIMITS), upright)
    big_endian = encoded(scene(), "jpeg", exif=b"Exif\0\0" + exif(orientation, ">"), quality=95)
    np.testing.assert_array_equal(decode(big_endian, "jpeg", LIMITS), expected)


def _exif(orientation: int) -> Image.Exif:
    note = Image.Exif()
    note[0x0112] = orientation
    return note


def _tagged(orientation: int) -> Image.Image:
    image = Image.fromarray(scene())
    image.getexif()[0x0112] = orientation
    return image


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_raw_arrays(dtype: str, channels: int | None) -> None:
    rng = np.random.default_rng(0)
    shape = (5, 7) if channels is None else (5, 7, channels)
    unit = rng.random(shape)
    array = unit.astype("<f4")
    if dtype == "uint8":
        array = np.rint(unit * 255).astype(np.uint8)
    elif dtype == "uint16":
        array = np.rint(unit * 65535).astype("<u2")
    found = decode(array.tobytes(), "raw", LIMITS, shape=shape, dtype=dtype)
    assert found.shape == (5, 7, 3)
    reference = unit.reshape(5, 7, -1)[..., :3] * 255
    assert np.abs(found - np.broadcast_to(reference, found.shape)).max() <= 0.51


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shape": None}, "shape and dtype"),
        ({"dtype": None}, "shape and dtype"),
        ({"shape": (24,)}, "not (H, W)"),
        ({"shape": (4, 0)}, "not (H, W)"),
        ({"shape": (4, -6)}, "not (H, W)"),
        ({"shape": (2, 6, 2)}, "2 channels"),
        ({"shape": (4, 7)}, "takes 28"),
        ({"dtype": "float64"}, "float64"),
        ({"dtype": "object"}, "object"),
        ({"dtype": "uint16"}, "takes 48"),
    ],
)
def test_a_raw_array_that_contradicts_itself_is_refused(change: dict[str, object], says: str) -> None:
    raw: dict[str, Any] = {"shape": (4, 6), "dtype": "uint8", **change}
    error = refusal(bytes(24), "raw", **raw)
    assert error.reason == "invalid_array"
    assert says in error.detail


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -0.01, 1.01])
def test_a_float_array_out_of_range_is_refused(bad: float) -> None:
    array = np.full((4, 6), 0.5, np.float32)
    array[2, 3] = bad
    assert refusal(array.tobytes(), "raw", shape=(4, 6), dtype="float32").reason == "invalid_array"


def test_limits_are_read_off_the_header() -> None:
    picture = scene(48, 64)
    for encoding in ("jpeg", "png", "bmp", "webp", "tiff"):
        data = encoded(picture, encoding)
        assert refusal(data, encoding, ImageLimits(max_bytes=len(data) - 1)).reason == "too_large"
        assert refusal(data, encoding, ImageLimits(max_pixels=48 * 64 - 1)).reason == "too_large"
        assert refusal(data, encoding, ImageLimits(max_side=63)).reason == "too_large"
        decode(data, encoding, ImageLimits(max_bytes=len(data), max_pixels=48 * 64, max_side=64))
    assert refusal(bytes(100), "raw", ImageLimits(max_side=9), shape=(10, 10), dtype="uint8").reason == "too_large"
    # A bomb: a header alone, whose pixels would take 12 GB.
    bomb = png(65_500, 65_500, 8, 2, b"\0")
    assert refusal(bomb, "png", ImageLimits(max_side=100_000)).reason == "too_large"
    jpeg = bytearray(encoded(picture, "jpeg"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    assert refusal(bytes(jpeg), "jpeg").reason == "too_large"


def test_other_formats_are_named() -> None:
    for kind, name in (("gif", "GIF"), ("ico", "ICO"), ("jpeg2000", "JPEG 2000")):
        error = refusal(encoded(scene(), kind), "png")
        assert error.reason == "unsupported_format"
        assert name in error.detail
    assert refusal(b"%PDF-1.7", "jpeg").reason == "unsupported_format"
    assert refusal(encoded(scene(), "png"), "gif").reason == "unsupported_format"


def test_what_is_declared_must_be_what_it_is() -> None:
    error = refusal(encoded(scene(), "png"), "jpeg")
    assert error.reason == "undecodable"
    assert "declared as jpeg" in error.detail
    assert refusal(b"", "png").reason == "undecodable"
    assert refusal(b"hello, world", "png").reason == "undecodable"


@pytest.mark.parametrize("encoding", ["jpeg", "png", "webp"])
def test_what_hangs_behind_the_end_is_refused(encoding: str) -> None:
    data = encoded(scene(), encoding)
    assert refusal(data + b"PK\x05\x06" + bytes(18), encoding).reason == "undecodable"
    padded = decode(data + bytes(64), encoding, LIMITS)  # cameras pad to a transfer size
    np.testing.assert_array_equal(padded, decode(data, encoding, LIMITS))


@pytest.mark.parametrize("encoding", ["jpeg", "png", "bmp", "webp", "tiff"])
def test_a_file_cut_off_anywhere_is_refused(encoding: str) -> None:
    data = encoded(scene(12, 16), encoding)
    for length in range(0, len(data), max(1, len(data) // 60)):
        assert refusal(data[:length], encoding).reason in {"undecodable", "too_large"}, length


def test_animations_and_pages_are_refused() -> None:
    pages = [Image.fromarray(scene(seed=seed)) for seed in range(3)]
    for encoding in ("png", "webp", "tiff"):
        data = encoded(pages[0], encoding, save_all=True, append_images=pages[1:])
        assert refusal(data, encoding).reason == "unsupported_format"


def test_kinds_that_are_not_decoded_are_named() -> None:
    floats = encoded(Image.fromarray(np.ones((4, 4), np.float32)), "tiff")
    assert "float" in refusal(floats, "tiff").detail
    squeezed = encoded(scene(), "tiff", compression="jpeg")
    assert "compression 7" in refusal(squeezed, "tiff").detail
    jpeg = bytearray(encoded(scene(), "jpeg"))
    jpeg[jpeg.index(b"\xff\xc0") + 1] = 0xC9
    assert "SOF9" in refusal(bytes(jpeg), "jpeg").detail


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    data = encoded(scene(), "jpeg", progressive=True)
    scan = data.rindex(b"\xff\xda")
    assert refusal(data[:-2] + data[scan:-2] * 100 + data[-2:], "jpeg").reason == "undecodable"


def test_side_notes_never_reach_the_decoder() -> None:
    rows = b"".join(b"\0" + bytes(row) for row in np.full((4, 4), 77, np.uint8))
    # A broken checksum in a chunk that decoders may do without, and a text that inflates to a gigabyte.
    broken = png_chunk(b"gAMA", bytes(4))[:-1] + b"\x00"
    data = png(4, 4, 8, 0, rows, broken, png_chunk(b"iCCP", b"x\0\0" + b"rubbish"))
    assert (decode(data, "png", LIMITS) == 77).all()
    odd_note = encoded(scene(), "jpeg", exif=b"Exif\0\0" + b"rubbish")
    assert decode(odd_note, "jpeg", LIMITS).shape == (48, 64, 3)


SEEDS = [(kind, encoded(scene(12, 16), kind)) for kind in ("jpeg", "png", "bmp", "webp", "tiff")]
SEEDS.append(("jpeg", encoded(scene(12, 16), "jpeg", progressive=True, exif=b"Exif\0\0" + exif(6))))
SEEDS.append(("tiff", encoded(scene(12, 16), "tiff", compression="tiff_lzw")))
SMALL = ImageLimits(max_pixels=4096, max_side=4096, max_bytes=65_536)


@settings(max_examples=300, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.integers(0, 2**16), st.binary(max_size=6), st.booleans()), min_size=1, max_size=4),
)
def test_damaged_bytes_give_pixels_or_an_image_error(
    seed: tuple[str, bytes], edits: list[tuple[int, bytes, bool]]
) -> None:
    encoding, data = seed
    for place, piece, insert in edits:
        place %= len(data) + 1
        data = data[:place] + piece + data[place if insert else place + len(piece) :]
    outcome = _outcome(encoding, data)
    if isinstance(outcome, ImageError):
        assert Reason(outcome.reason)
        assert len(outcome.detail) < 400
    else:
        assert outcome.dtype == np.uint8
        assert outcome.shape[0] * outcome.shape[1] <= 4096
        assert outcome.shape[2:] == (3,)


def _outcome(encoding: str, data: bytes) -> ImageError | NDArray[np.uint8]:
    try:
        return decode(data, encoding, SMALL)
    except ImageError as error:
        return error


@settings(max_examples=200, deadline=None)
@given(encoding=st.sampled_from(["jpeg", "png", "bmp", "webp", "tiff"]), body=st.binary(max_size=200))
def test_noise_behind_a_right_beginning_gives_an_image_error(encoding: str, body: bytes) -> None:
    start = {
        "jpeg": b"\xff\xd8\xff",
        "png": b"\x89PNG\r\n\x1a\n",
        "bmp": b"BM",
        "webp": b"RIFF",
        "tiff": b"II*\0",
    }[encoding]
    with pytest.raises(ImageError):
        decode(start + body, encoding, SMALL)


def test_threads_may_decode_side_by_side() -> None:
    files = [(kind, encoded(scene(200, 300, seed), kind)) for seed in range(4) for kind in ("jpeg", "png")]
    expected = [decode(data, kind, LIMITS) for kind, data in files]
    found: list[bool] = []

    def work() -> None:
        for (kind, data), pixels in zip(files, expected, strict=True):
            found.append(bool(np.array_equal(decode(data, kind, LIMITS), pixels)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 32
