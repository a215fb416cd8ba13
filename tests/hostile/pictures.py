"""Hostile images, each with the reasons that it may be refused for."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from random import Random
from typing import Final, NamedTuple

import numpy as np

from tests.vision.images import encoded, png, png_chunk, scene

UNDECODABLE: Final = frozenset({"undecodable"})
TOO_LARGE: Final = frozenset({"too_large"})
FORMAT: Final = frozenset({"unsupported_format"})
ARRAY: Final = frozenset({"invalid_array"})
ANY: Final = UNDECODABLE | TOO_LARGE | FORMAT


class Picture(NamedTuple):
    """Fields of a frame, and what may be said of it; `judged` where the damage need not show."""

    encoding: str
    data: bytes
    reasons: frozenset[str]
    judged: bool = False
    shape: tuple[int, ...] | None = None
    dtype: str | None = None


_SCENE: Final = scene(24, 32)
_FILES: Final = {kind: encoded(_SCENE, kind) for kind in ("jpeg", "png", "bmp", "webp", "tiff")}


def _kind(random: Random) -> tuple[str, bytes]:
    kind = random.choice(sorted(_FILES))
    return kind, _FILES[kind]


def truncated(random: Random) -> Picture:
    """Cut off somewhere."""
    kind, data = _kind(random)
    return Picture(kind, data[: random.randrange(len(data) - 24)], ANY)


def flipped(random: Random) -> Picture:
    """Some bytes are others."""
    kind, data = _kind(random)
    torn = bytearray(data)
    for _ in range(random.randint(1, 8)):
        torn[random.randrange(len(torn))] = random.randrange(256)
    return Picture(kind, bytes(torn), ANY, judged=True)


def spliced(random: Random) -> Picture:
    """The beginning of one file and the end of another."""
    kind, data = _kind(random)
    other = _kind(random)[1]
    return Picture(kind, data[: random.randrange(1, len(data))] + other[random.randrange(len(other)) :], ANY, True)


def noise(random: Random) -> Picture:
    """No image at all; perhaps it begins as one."""
    kind, data = _kind(random)
    return Picture(kind, data[: random.choice((0, 4, 12))] + random.randbytes(random.randrange(200)), ANY)


def png_bomb(random: Random) -> Picture:
    """Few bytes that say they are gigapixels."""
    width, height = random.choice(((65_500, 65_500), (2**31 - 1, 1), (16_000, 16_000), (1, 2**31 - 1)))
    return Picture("png", png(width, height, 8, 2, b"\0"), TOO_LARGE)


def png_flood(random: Random) -> Picture:
    """A small picture whose data inflate to far more than it needs."""
    rows = b"".join(b"\0" + bytes(24) for _ in range(8)) + bytes(2**22)
    return Picture("png", png(8, 8, 8, 2, rows), ANY, judged=True)


def png_loop(random: Random) -> Picture:
    """Very many chunks."""
    data = _FILES["png"]
    return Picture("png", data[:33] + png_chunk(b"teXt", b"a") * 70_000 + data[33:], UNDECODABLE)


def jpeg_bomb(random: Random) -> Picture:
    """65535 pixels a side."""
    data = bytearray(_FILES["jpeg"])
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    return Picture("jpeg", bytes(data), TOO_LARGE)


def jpeg_scans(random: Random) -> Picture:
    """A progressive JPEG of a thousand scans."""
    data = encoded(_SCENE, "jpeg", progressive=True)
    scan = data.rindex(b"\xff\xda")
    return Picture("jpeg", data[:scan] + data[scan:-2] * 1000 + b"\xff\xd9", UNDECODABLE)


def gif(random: Random) -> Picture:
    """A format that is not on the list, honest or not."""
    return Picture(random.choice(("png", "jpeg", "gif")), encoded(_SCENE, "gif"), FORMAT)


def tiff_bomb(random: Random) -> Picture:
    """A directory that says 2³¹ pixels a side."""
    order = "<"
    tags = [(256, 4, 1, 2**31 - 1), (257, 4, 1, 2**31 - 1), (258, 3, 1, 8), (259, 3, 1, 1), (273, 4, 1, 8)]
    body = b"".join(struct.pack(f"{order}HHII", *tag) for tag in tags)
    data = b"II*\0" + struct.pack(f"{order}IH", 8, len(tags)) + body + bytes(4)
    return Picture("tiff", data, TOO_LARGE)


def tiff_ring(random: Random) -> Picture:
    """A directory that says it is followed by itself."""
    data = bytearray(_FILES["tiff"])
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    struct.pack_into("<I", data, start + 2 + 12 * count, start)
    return Picture("tiff", bytes(data), ANY)


def polyglot(random: Random) -> Picture:
    """A picture and something else behind it."""
    kind = random.choice(("png", "jpeg", "webp"))
    return Picture(kind, _FILES[kind] + b"PK\x03\x04<script>alert(1)</script>%PDF-1.7", UNDECODABLE)


def misnamed(random: Random) -> Picture:
    """One format under the name of another."""
    kind, data = _kind(random)
    other = random.choice(sorted(set(_FILES) - {kind}))
    return Picture(other, data, UNDECODABLE)


def not_finite(random: Random) -> Picture:
    """A float array with a number in it that is none."""
    array = np.full((6, 8), 0.5, np.float32)
    array[random.randrange(6), random.randrange(8)] = random.choice((np.nan, np.inf, -np.inf, -1.0, 2.0, 1e38))
    return Picture("raw", array.tobytes(), ARRAY, shape=(6, 8), dtype="float32")


def raw_lies(random: Random) -> Picture:
    """A raw array that is not what it says."""
    shape, dtype, reasons = random.choice(
        (
            ((6, 9), "uint8", ARRAY),
            ((6, 8, 2), "uint8", ARRAY),
            ((65_535, 65_535), "uint8", TOO_LARGE),
            ((2**62, 2**62), "uint8", TOO_LARGE),
            ((48,), "uint8", ARRAY),
            ((6, 8), "object", ARRAY),
            ((6, 8), "float32", ARRAY),
        )
    )
    return Picture("raw", bytes(48), reasons, shape=shape, dtype=dtype)


def wrong_checksum(random: Random) -> Picture:
    """A PNG whose data were changed and whose checksum was not."""
    data = bytearray(_FILES["png"])
    place = data.index(b"IDAT") + 8
    data[place] ^= 0x55
    assert zlib.crc32(bytes(data))
    return Picture("png", bytes(data), UNDECODABLE)


PICTURES: Final[tuple[Callable[[Random], Picture], ...]] = (
    truncated,
    flipped,
    spliced,
    noise,
    png_bomb,
    png_flood,
    jpeg_bomb,
    jpeg_scans,
    gif,
    tiff_bomb,
    tiff_ring,
    polyglot,
    misnamed,
    not_finite,
    raw_lies,
    wrong_checksum,
)
"""All but `png_loop`, which is large, and has a test of its own."""
