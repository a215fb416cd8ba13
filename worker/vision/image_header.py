"""What an encoded image says of itself, read without decoding it.

Five formats: JPEG (ITU-T T.81), PNG (ISO/IEC 15948), BMP, WebP (RIFF container) and TIFF 6.0. Reading costs memory and
time in proportion to the number of segments, which is bounded. Where the format allows it, the container is rebuilt of
the parts that a decoder needs: comments, colour profiles, thumbnails and what hangs behind the end never reach it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gaussline.worker.errors import ImageError

MAX_SEGMENTS: Final = 65_536
MAX_SCANS: Final = 64
"""A progressive JPEG of very many scans costs a decoder minutes; real ones have about ten."""
_OTHER_FORMATS: Final = {
    b"GIF8": "GIF",
    b"%PDF": "PDF",
    b"8BPS": "Photoshop",
    b"\0\0\1\0": "ICO",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"v/1\x01": "OpenEXR",
    b"II+\0": "BigTIFF",
    b"MM\0+": "BigTIFF",
}


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """An image before it is decoded.

    Attributes:
        format: jpeg, png, bmp, webp or tiff.
        width, height: in pixels, as stored, before any rotation.
        channels: as stored; a palette counts as one.
        bits: of one channel.
        orientation: EXIF orientation, 1 to 8; 1 where none is said.
        payload: what a decoder is to read.
    """

    format: str
    width: int
    height: int
    channels: int
    bits: int
    orientation: int
    payload: bytes


def sniff(data: bytes) -> str | None:
    """The format that the first bytes show: one of the five, another format's name in capitals, or None."""
    if data[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "tiff"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:2] == b"BM":
        return "bmp"
    return next((name for magic, name in _OTHER_FORMATS.items() if data.startswith(magic)), None)


def read_header(data: bytes, encoding: str) -> ImageHeader:
    """Read the header of an image that was declared as `encoding`.

    Raises ImageError: `unsupported_format` for another format than the five or a variant that is not decoded here,
    `undecodable` for a broken one, or one that is not what it was declared to be.
    """
    found = sniff(data)
    if found is not None and found not in _READERS:
        raise ImageError("unsupported_format", f"the bytes are {found}; send jpeg, png, bmp, webp, tiff or a raw array")
    if found is None:
        raise ImageError("undecodable", f"the bytes do not begin as any {encoding} does: {data[:8].hex(' ')}")
    if found != encoding:
        raise ImageError("undecodable", f"declared as {encoding}, but the bytes begin as {found}")
    try:
        header = _READERS[found](data)
    except (struct.error, IndexError):
        raise ImageError("undecodable", f"the {found} ends within its header") from None
    if header.width < 1 or header.height < 1:
        raise ImageError("undecodable", f"the {found} says {header.width}x{header.height} pixels")
    return header


def _jpeg(data: bytes) -> ImageHeader:
    kept = [b"\xff\xd8"]
    position, orientation, frame = 2, 1, None
    for _ in range(MAX_SEGMENTS):
        if data[position] != 0xFF:
            raise ImageError("undecodable", f"jpeg has no marker at byte {position}")
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in (0x00, 0x01, 0xD8, 0xD9) or 0xD0 <= marker <= 0xD7:
            raise ImageError("undecodable", f"jpeg has marker {marker:02x} before its first scan")
        (length,) = struct.unpack_from(">H", data, position + 2)
        end = position + 2 + length
        if length < 2 or end > len(data):
            raise ImageError("undecodable", "jpeg ends within a segment of its header")
        if marker == 0xE1 and data[position + 4 : position + 10] == b"Exif\0\0":
            orientation = _exif_orientation(data[position + 10 : end])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if frame is not None:
                raise ImageError("undecodable", "jpeg has two frame headers")
            if marker > 0xC2:
                raise ImageError("unsupported_format", f"jpeg of kind SOF{marker - 0xC0}: send baseline or progressive")
            frame = struct.unpack_from(">BHHB", data, position + 4)
        # Of the application segments only JFIF and Adobe say how colours are stored.
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or marker in (0xE0, 0xEE):
            kept.append(data[position:end])
        if marker == 0xDA:
            break
        position = end
    else:
        raise ImageError("undecodable", f"jpeg has over {MAX_SEGMENTS} segments")
    if frame is None:
        raise ImageError("undecodable", "jpeg has a scan before its frame header")
    bits, height, width, channels = frame
    if bits != 8 or channels not in (1, 3, 4):
        raise ImageError("unsupported_format", f"jpeg of {channels} channels with {bits} bits")
    body = data[end:]
    tail = body.rstrip(b"\0\xff\n\r ")
    if not (tail.endswith(b"\xd9") and tail[-2:-1] == b"\xff"):
        raise ImageError("undecodable", "jpeg does not end with its end marker: cut off, or something hangs behind it")
    if body.count(b"\xff\xda") > MAX_SCANS:
        raise ImageError("undecodable", f"jpeg has over {MAX_SCANS} scans")
    return ImageHeader("jpeg", width, height, channels, bits, orientation, b"".join((*kept, tail)))


def _png(data: bytes) -> ImageHeader:
    kept = [data[:8]]
    position, orientation = 8, 1
    for index in range(MAX_SEGMENTS):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise ImageError("undecodable", "png is cut off")
        if index == 0 and (kind != b"IHDR" or length != 13):
            raise ImageError("undecodable", "png does not begin with its header chunk")
        if kind == b"acTL":
            raise ImageError("unsupported_format", "png is animated: send one picture a frame")
        if kind == b"eXIf":
            orientation = _exif_orientation(data[position + 8 : end - 4])
        # Bit 5 of a chunk's first letter marks it as one that a decoder may do without.
        if not kind[0] & 0x20:
            kept.append(data[position:end])
        position = end
        if kind == b"IEND":
            break
    else:
        raise ImageError("undecodable", f"png has over {MAX_SEGMENTS} chunks")
    if data[position:].strip(b"\0"):
        raise ImageError("undecodable", f"{len(data) - position} bytes hang behind the end of the png")
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour)
    if channels is None or bits not in (1, 2, 4, 8, 16):
        raise ImageError("undecodable", f"png says colour type {colour} with {bits} bits")
    return ImageHeader("png", width, height, channels, bits, orientation, b"".join(kept))


def _bmp(data: bytes) -> ImageHeader:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    if compression not in (0, 1, 2, 3, 6):
        raise ImageError("unsupported_format", f"bmp of compression {compression}")
    if bits not in (1, 4, 8, 16, 24, 32):
        raise ImageError("unsupported_format", f"bmp of {bits} bits a pixel")
    return ImageHeader("bmp", width, abs(height), 1 if bits <= 8 else 3, 8, 1, data)


def _webp(data: bytes) -> ImageHeader:
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise ImageError("undecodable", "webp is cut off")
    if data[size + 8 :].strip(b"\0"):
        raise ImageError("undecodable", f"{len(data) - size - 8} bytes hang behind the end of the webp")
    kind, orientation = data[12:16], 1
    if kind == b"VP8 ":
        if data[23:26] != b"\x9d\x01\x2a":
            raise ImageError("undecodable", "webp has no key frame")
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    elif kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        width, height = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    elif kind == b"VP8X":
        if data[20] & 0x02:
            raise ImageError("unsupported_format", "webp is animated: send one picture a frame")
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        orientation = _webp_orientation(data, size + 8)
    else:
        raise ImageError("undecodable", f"webp begins with chunk {kind!r}")
    return ImageHeader("webp", width, height, 3, 8, orientation, data)


def _webp_orientation(data: bytes, end: int) -> int:
    position = 12
    for _ in range(64):
        if position + 8 > end:
            break
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind == b"EXIF":
            return _exif_orientation(data[position + 8 : position + 8 + length].removeprefix(b"Exif\0\0"))
        position += 8 + length + length % 2
    return 1


_TIFF_ORDERS: Final = {b"II*\0": "<", b"MM\0*": ">"}
_TIFF_COMPRESSIONS: Final = {1: "none", 5: "LZW", 8: "deflate", 32946: "deflate", 32773: "PackBits"}


def _tiff(data: bytes) -> ImageHeader:
    tags, following = _ifd(data)
    if following:
        raise ImageError("unsupported_format", "tiff holds several pages: send one picture a frame")
    if 256 not in tags or 257 not in tags:
        raise ImageError("undecodable", "tiff does not say its width and height")
    compression = tags.get(259, [1])[0]
    if compression not in _TIFF_COMPRESSIONS:
        known = ", ".join(sorted(set(_TIFF_COMPRESSIONS.values())))
        raise ImageError("unsupported_format", f"tiff of compression {compression}: send one of {known}")
    channels = tags.get(277, [1])[0]
    depths = set(tags.get(258, [1]))
    bits = max(depths)
    if set(tags.get(339, [1])) != {1}:
        raise ImageError("unsupported_format", "tiff of signed or floating numbers: send a raw float32 array")
    if len(depths) != 1 or bits not in (1, 2, 4, 8, 16) or channels not in (1, 2, 3, 4):
        raise ImageError("unsupported_format", f"tiff of {channels} channels with {sorted(depths)} bits")
    if bits == 16 and channels != 1:
        raise ImageError("unsupported_format", "tiff of 16-bit colour: send a 16-bit png or a raw uint16 array")
    orientation = _orientation(tags)
    payload = data if orientation == 1 else _without_orientation(data)
    return ImageHeader("tiff", tags[256][0], tags[257][0], channels, bits, orientation, payload)


def _without_orientation(data: bytes) -> bytes:
    """A TIFF that says it stands upright; decoders differ in whether and when they turn one that does not."""
    order = _TIFF_ORDERS[data[:4]]
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    upright = bytearray(data)
    for position in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from(f"{order}H", data, position) == (0x0112,):
            struct.pack_into(f"{order}HHIHH", upright, position, 0x0112, 3, 1, 1, 0)
    return bytes(upright)


def _ifd(data: bytes) -> tuple[dict[int, list[int]], int]:
    """The whole-number tags of a TIFF structure's first directory, up to eight values each; where the next one is."""
    order = _TIFF_ORDERS[data[:4]]
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    tags: dict[int, list[int]] = {}
    for position in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, length = struct.unpack_from(f"{order}HHI", data, position)
        letter, size = {1: ("B", 1), 3: ("H", 2), 4: ("I", 4)}.get(kind, ("", 0))
        if letter and length:
            length = min(length, 8)
            where = position + 8
            if length * size > 4:
                (where,) = struct.unpack_from(f"{order}I", data, where)
            tags[tag] = list(struct.unpack_from(f"{order}{length}{letter}", data, where))
    (following,) = struct.unpack_from(f"{order}I", data, start + 2 + 12 * count)
    return tags, following


def _exif_orientation(data: bytes) -> int:
    try:
        return _orientation(_ifd(data)[0])
    except (struct.error, KeyError):
        return 1  # a broken note beside the picture must not cost a part its verdict


def _orientation(tags: dict[int, list[int]]) -> int:
    said = tags.get(0x0112, [1])[0]
    return said if 1 <= said <= 8 else 1


_READERS: Final[dict[str, Callable[[bytes], ImageHeader]]] = {
    "jpeg": _jpeg,
    "png": _png,
    "bmp": _bmp,
    "webp": _webp,
    "tiff": _tiff,
}
