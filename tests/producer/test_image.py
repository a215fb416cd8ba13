"""What a program holds of an image becomes what the contract holds of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gaussline.producer.image import WireImage, sniff, to_wire
from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.errors import ContractError, LimitExceeded, SourceError


def encoded(form: str, **options: Any) -> bytes:
    """A small picture as a file of this form."""
    out = io.BytesIO()
    Image.new("RGB", (5, 3), (10, 20, 30)).save(out, form, **options)
    return out.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "WEBP", "TIFF"])
def test_files_tell_their_own_encoding_and_keep_their_bytes(form: str, tmp_path: Path) -> None:
    data = encoded(form)
    assert sniff(data[:12]) == form.lower()
    for given in (data, bytearray(data), memoryview(data)):
        assert to_wire(given) == WireImage(data, form.lower())
    path = tmp_path / "picture.dat"
    path.write_bytes(data)
    assert to_wire(path) == to_wire(str(path)) == WireImage(data, form.lower())


def test_big_endian_tiff_is_known() -> None:
    assert sniff(b"MM\0*" + bytes(8)) == "tiff"


@pytest.mark.parametrize("data", [b"", b"GIF89a......", b"RIFF....AVI ", b"\xff\xd8", b"not an image"])
def test_other_bytes_are_refused_unless_somebody_vouches_for_them(data: bytes) -> None:
    with pytest.raises(ContractError, match="begins with"):
        to_wire(data)
    assert to_wire(data, "jpeg").encoding == "jpeg"


@pytest.mark.parametrize(("dtype", "shape"), [("uint8", (3, 5, 3)), ("uint16", (3, 5)), ("float32", (3, 5, 4))])
def test_arrays_travel_little_endian_and_in_order(dtype: str, shape: tuple[int, ...]) -> None:
    array = (np.arange(np.prod(shape)).reshape(shape) / 100).astype(dtype)
    little = array.astype(np.dtype(dtype).newbyteorder("<"))
    wanted = WireImage(little.tobytes(), "raw", shape, dtype)
    assert to_wire(array) == wanted
    assert to_wire(array.astype(np.dtype(dtype).newbyteorder(">"))) == wanted
    assert to_wire(np.asfortranarray(array)) == wanted
    doubled = np.repeat(array, 2, axis=0)
    assert to_wire(doubled[::2]) == wanted


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (np.zeros((2, 2)), "dtype float64"),
        (np.zeros((2, 2), np.int16), "dtype int16"),
        (np.zeros((2, 2), bool), "dtype bool"),
        (np.zeros(4, np.uint8), "shape"),
        (np.zeros((2, 2, 2), np.uint8), "shape"),
        (np.zeros((0, 2), np.uint8), "shape"),
        (np.zeros((1, 2, 2, 3), np.uint8), "shape"),
    ],
)
def test_other_arrays_are_refused(array: NDArray[Any], word: str) -> None:
    with pytest.raises(ContractError, match=word):
        to_wire(array)


def test_pixels_are_compressed_on_demand() -> None:
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    back = Image.open(io.BytesIO(to_wire(grey, "png").data))
    assert np.array_equal(np.asarray(back), grey)
    colour = np.zeros((8, 8, 3), np.uint8)
    colour[..., 0] = 255
    jpeg = to_wire(colour, pixels_as="jpeg")
    assert jpeg.encoding == "jpeg"
    red, green, _ = np.asarray(Image.open(io.BytesIO(jpeg.data)))[4, 4]
    assert red > 240
    assert green < 15
    one_channel = to_wire(np.full((4, 4, 1), 7, np.uint8), "png")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(one_channel.data))), np.full((4, 4), 7))


@pytest.mark.parametrize(
    ("array", "encoding"),
    [
        (np.zeros((2, 2), np.float32), "png"),
        (np.zeros((2, 2, 3), np.uint16), "png"),
        (np.zeros((2, 2), np.uint16), "jpeg"),
        (np.zeros((2, 2, 4), np.uint8), "jpeg"),
        (np.zeros((2, 2), np.uint8), "tiff"),
        (np.zeros((2, 2), np.uint8), "gif"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(array: NDArray[Any], encoding: str) -> None:
    with pytest.raises(ContractError):
        to_wire(array, encoding)


@pytest.mark.parametrize(
    ("mode", "shape", "dtype"),
    [
        ("L", (3, 5), "uint8"),
        ("1", (3, 5), "uint8"),
        ("RGB", (3, 5, 3), "uint8"),
        ("RGBA", (3, 5, 4), "uint8"),
        ("P", (3, 5, 3), "uint8"),
        ("LA", (3, 5, 4), "uint8"),
        ("CMYK", (3, 5, 3), "uint8"),
        ("YCbCr", (3, 5, 3), "uint8"),
        ("I;16", (3, 5), "uint16"),
        ("I", (3, 5), "uint16"),
        ("F", (3, 5), "float32"),
    ],
)
def test_every_kind_of_pillow_image_is_sent(mode: str, shape: tuple[int, ...], dtype: str) -> None:
    wire = to_wire(Image.new(mode, (5, 3)))
    assert (wire.encoding, wire.shape, wire.dtype) == ("raw", shape, dtype)
    assert len(wire.data) == int(np.prod(shape)) * np.dtype(dtype).itemsize


def test_a_pillow_image_beyond_16_bits_is_refused() -> None:
    with pytest.raises(ContractError, match="16 bits"):
        to_wire(Image.new("I", (2, 2), 70_000))


def test_a_turned_photograph_is_turned_back() -> None:
    upright = Image.new("RGB", (4, 2))
    upright.putpixel((0, 0), (255, 0, 0))
    turned = Image.new("RGB", (4, 2))
    turned.putpixel((3, 1), (255, 0, 0))
    exif = turned.getexif()
    exif[0x0112] = 3
    out = io.BytesIO()
    turned.save(out, "PNG", exif=exif.tobytes())
    assert to_wire(Image.open(io.BytesIO(out.getvalue()))).data == to_wire(upright).data


def test_limits_are_kept(tmp_path: Path) -> None:
    limits = ImageLimits(max_bytes=100, max_pixels=50, max_side=20)
    path = tmp_path / "big.png"
    path.write_bytes(bytes(101))
    for image in (bytes(101), path):
        with pytest.raises(LimitExceeded, match="image_max_bytes"):
            to_wire(image, "png", limits=limits)
    for shape in ((8, 8), (1, 21)):
        with pytest.raises(LimitExceeded, match="image_max_pixels"):
            to_wire(np.zeros(shape, np.uint8), limits=limits)
    assert to_wire(np.zeros((2, 20), np.uint8), limits=limits).shape == (2, 20)


def test_what_is_no_image_is_said(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="not a list"):
        to_wire([1, 2])
    with pytest.raises(ContractError, match="'heic' is none of"):
        to_wire(b"", "heic")
    with pytest.raises(ContractError, match="numpy array, which knows its shape"):
        to_wire(b"1234", "raw")
    with pytest.raises(SourceError, match="Is a directory"):
        to_wire(tmp_path)
