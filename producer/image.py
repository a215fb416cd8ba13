"""From what a program holds of an image to what goes over the wire.

Bytes of an image file go as they are: nothing is decoded or encoded again, and what the camera made is what is judged.
Pixels (a numpy array, a Pillow image) go as a raw array, or as PNG or JPEG where bandwidth is dearer than time.
Arrays are height, width and channels in the order red, green, blue(, alpha); OpenCV's blue, green, red must be turned
round first (`array[..., ::-1]`).
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.contract.frame import DTYPES, ENCODINGS
from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.errors import ContractError, LimitExceeded, SourceError

if TYPE_CHECKING:
    from PIL import Image as Pillow

JPEG_QUALITY: Final = 95
HEADER_BYTES: Final = 12
ENCODING_OF: Final = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".png": "png",
    ".bmp": "bmp",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
}
SUFFIXES: Final = frozenset(ENCODING_OF)
PIXEL_ENCODINGS: Final = ("raw", "png", "jpeg")
_DEFAULT_LIMITS: Final = ImageLimits()


@dataclass(frozen=True, slots=True)
class WireImage:
    """An image as the contract's frame holds it; the attributes are those of `contract.frame.Frame`."""

    data: bytes
    encoding: str
    shape: tuple[int, ...] | None = None
    dtype: str | None = None


def sniff(header: bytes) -> str | None:
    """The encoding that a file's first `HEADER_BYTES` bytes tell, None where they tell none of the contract's."""
    if header.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if header.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if header.startswith(b"RIFF") and header[8:12] == b"WEBP":
        return "webp"
    if header.startswith((b"II*\0", b"MM\0*")):
        return "tiff"
    return "bmp" if header.startswith(b"BM") else None


def to_wire(
    image: object, encoding: str | None = None, *, pixels_as: str = "raw", limits: ImageLimits = _DEFAULT_LIMITS
) -> WireImage:
    """What to send for `image`: bytes of an image file, the path of one, a numpy array, or a Pillow image.

    Args:
        encoding: of bytes and paths, what they are (None: their first bytes tell); of pixels, what to send them as.
        pixels_as: what pixels are sent as where `encoding` is None.

    Raises ContractError for what cannot be sent, LimitExceeded, SourceError where a file cannot be read.
    """
    if encoding is not None and encoding not in ENCODINGS:
        raise ContractError(f"encoding {encoding!r:.40} is none of {', '.join(sorted(ENCODINGS))}")
    if isinstance(image, bytes | bytearray | memoryview):
        return _encoded(bytes(image), encoding, "image", limits)
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        return _encoded(read_image(path, limits), encoding, f"file {path}", limits)
    if isinstance(image, np.ndarray):
        return _pixels(image, encoding or pixels_as, limits)
    if hasattr(image, "getexif") and hasattr(image, "mode"):
        return _pixels(_from_pillow(image), encoding or pixels_as, limits)
    raise ContractError(
        f"an image is bytes of an image file, a path, a numpy array or a Pillow image, not a {type(image).__name__}"
    )


def read_image(path: Path, limits: ImageLimits = _DEFAULT_LIMITS) -> bytes:
    """Bytes of an image file, its size looked at first. Raises SourceError, LimitExceeded."""
    try:
        with path.open("rb") as file:
            _check_size(os.fstat(file.fileno()).st_size, f"file {path}", limits)
            return file.read()
    except OSError as error:
        raise SourceError(f"image {path} cannot be read: {error.strerror or error}") from None


def _check_size(size: int, what: str, limits: ImageLimits) -> None:
    if size > limits.max_bytes:
        raise LimitExceeded(f"{what} has {size} bytes, over the limit of {limits.max_bytes} (image_max_bytes)")


def _encoded(data: bytes, encoding: str | None, what: str, limits: ImageLimits) -> WireImage:
    if encoding == "raw":
        raise ContractError(f"{what} is bytes; a raw image is sent as a numpy array, which knows its shape")
    _check_size(len(data), what, limits)
    told = encoding or sniff(data[:HEADER_BYTES])
    if told is None:
        raise ContractError(
            f"{what} begins with {data[:8]!r}, which is none of {', '.join(sorted(ENCODINGS - {'raw'}))}; say "
            "encoding=… if it is one all the same"
        )
    return WireImage(data, told)


def _pixels(array: NDArray[Any], encoding: str, limits: ImageLimits) -> WireImage:
    if encoding not in PIXEL_ENCODINGS:
        raise ContractError(f"pixels are sent as {', '.join(PIXEL_ENCODINGS)}, not as {encoding!r:.40}")
    if array.dtype.name not in DTYPES:
        raise ContractError(f"array has dtype {array.dtype}, none of {', '.join(sorted(DTYPES))}")
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ContractError(f"array has shape {array.shape}, not (height, width) or (height, width, 1, 3 or 4)")
    height, width = array.shape[:2]
    if height * width > limits.max_pixels or max(height, width) > limits.max_side:
        raise LimitExceeded(
            f"array of {width} × {height} pixels is over the limit of {limits.max_pixels} pixels (image_max_pixels) or "
            f"of {limits.max_side} a side (image_max_side)"
        )
    if encoding != "raw":
        return WireImage(_compress(array, encoding), encoding)
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return WireImage(little.tobytes(), "raw", tuple(int(side) for side in array.shape), array.dtype.name)


def _compress(array: NDArray[Any], encoding: str) -> bytes:
    from PIL import Image

    flat = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    deep = flat.dtype == np.uint16 and flat.ndim == 2 and encoding == "png"
    if flat.dtype != np.uint8 and not deep:
        raise ContractError(
            f"an array of {flat.dtype} and shape {array.shape} cannot be sent as {encoding}: that takes uint8"
            + (", or uint16 grey" if encoding == "png" else "")
        )
    if encoding == "jpeg" and flat.ndim == 3 and flat.shape[2] == 4:
        raise ContractError("an array with an alpha channel cannot be sent as jpeg: use png or raw")
    out = io.BytesIO()
    pillow = Image.fromarray(np.ascontiguousarray(flat))
    if encoding == "jpeg":
        pillow.save(out, "JPEG", quality=JPEG_QUALITY)
    else:
        pillow.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _from_pillow(image: Any) -> NDArray[Any]:
    from PIL import ImageOps

    # A photograph that says which way is up is turned: raw pixels have no place to say it.
    pillow: Pillow.Image = ImageOps.exif_transpose(image)
    mode = pillow.mode
    if mode in {"L", "RGB", "RGBA"}:
        return np.asarray(pillow)
    if mode in {"I;16", "I;16L", "I;16B", "I"}:
        array = np.asarray(pillow).astype(np.int64)
        if array.size and not 0 <= int(array.min()) <= int(array.max()) <= 65_535:
            raise ContractError(f"Pillow image of mode {mode} holds values beyond 16 bits")
        return array.astype(np.uint16)
    if mode == "F":
        return np.asarray(pillow, dtype=np.float32)
    if mode == "1":
        return np.asarray(pillow.convert("L"))
    return np.asarray(pillow.convert("RGBA" if mode in {"LA", "PA", "La", "RGBa"} else "RGB"))
