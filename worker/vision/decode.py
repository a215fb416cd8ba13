"""From the bytes of a frame to RGB pixels, under limits that are checked before memory is spent.

What is done, the same for fitting and scoring:
  - grey is repeated into three equal channels (as a view); palettes are looked up;
  - alpha is dropped: the colours stored under it stand as they are;
  - CMYK JPEG (inverted where it has Adobe's marker) becomes RGB = (255 - CMY) * (255 - K) / 255, without profiles;
  - 16-bit grey and raw arrays become 8 bits by round(v / 257), which maps 0..65535 linearly onto 0..255; float
    arrays by round(255 v). A 16-bit colour PNG keeps its high byte (Pillow's doing): at most one level less;
  - EXIF orientation is applied, so that a person who opens the file sees what was judged;
  - colour profiles are ignored;
  - one picture a file: animations and further pages are refused.
A JPEG has no checksum: damage within its scan is decoded as it stands, and the score will say so. A file that is cut
off, does not end where its format ends, or is not what it was declared to be, is
refused. Pillow decodes, and frees the interpreter meanwhile (torchvision's faster decoders are deprecated).
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, ImageChops, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.errors import ImageError
from gaussline.worker.vision.image_header import ImageHeader, read_header

Pixels = NDArray[np.uint8]
"""uint8 (H, W, 3), RGB; perhaps read-only, perhaps a view whose three channels share their memory."""

_PLUGINS: Final[dict[str, type[ImageFile.ImageFile]]] = {
    "jpeg": JpegImagePlugin.JpegImageFile,
    "png": PngImagePlugin.PngImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
}
_MODES: Final = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr"})
_RAW_DTYPES: Final = {"uint8": "|u1", "uint16": "<u2", "float32": "<f4"}


def decode(
    data: bytes,
    encoding: str,
    limits: ImageLimits,
    *,
    shape: tuple[int, ...] | None = None,
    dtype: str | None = None,
) -> Pixels:
    """Decode one image.

    Args:
        data: the encoded image, or the bytes of a C-contiguous little-endian array.
        encoding: jpeg, png, bmp, webp, tiff or raw.
        shape, dtype: of a raw array: (H, W) or (H, W, C) with C of 1, 3 or 4; uint8, uint16, or float32 in 0..1.

    Returns:
        uint8 (H, W, 3), RGB; see `Pixels`.

    Raises:
        ImageError: with the reason `undecodable`, `too_large`, `unsupported_format` or `invalid_array`. Nothing else.
    """
    if len(data) > limits.max_bytes:
        raise ImageError("too_large", f"{len(data)} bytes, over the limit of {limits.max_bytes}")
    if encoding == "raw":
        return _raw(data, limits, shape, dtype)
    if encoding not in _PLUGINS:
        raise ImageError("unsupported_format", f"{encoding!r:.40} is none of jpeg, png, bmp, webp, tiff, raw")
    header = read_header(data, encoding)
    _check_size(header.width, header.height, limits)
    try:
        pixels = _decoded(header)
    except ImageError:
        raise
    # The codecs raise whatever they like for a broken file; every kind means the same here.
    except (OSError, ValueError, RuntimeError, SyntaxError, EOFError, IndexError, KeyError, TypeError) as error:
        raise _broken(header, error) from None
    except (struct.error, zlib.error, OverflowError, AttributeError, Warning) as error:
        raise _broken(header, error) from None
    return _upright(pixels, header.orientation)


def _broken(header: ImageHeader, error: Exception) -> ImageError:
    said = str(error).replace("\n", " ").strip()
    return ImageError("undecodable", f"the {header.format} cannot be decoded: {said[:200] or type(error).__name__}")


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if max(width, height) > limits.max_side:
        raise ImageError("too_large", f"{width}x{height} pixels, over the limit of {limits.max_side} a side")
    if width * height > limits.max_pixels:
        raise ImageError("too_large", f"{width}x{height} pixels, over the limit of {limits.max_pixels} in all")


def _decoded(header: ImageHeader) -> Pixels:
    # The plugin is called by name: `Image.open` would try others, and its limits and warnings are global.
    with _PLUGINS[header.format](io.BytesIO(header.payload)) as image:
        if image.size != (header.width, header.height):
            raise ImageError("undecodable", f"the {header.format} says two sizes of itself")
        if image.mode.startswith("I;16"):
            image.load()
            return _three(_to_8_bits(np.asarray(image).astype(np.uint16, copy=False)[..., None]))
        if image.mode not in _MODES:
            raise ImageError("unsupported_format", f"{header.format} of mode {image.mode}")
        if image.mode in ("1", "L", "LA"):
            return _three(np.asarray(image.convert("L"))[..., None])
        if image.mode == "CMYK" and header.format == "jpeg" and "adobe" not in image.info:
            return np.asarray(ImageChops.invert(image).convert("RGB"))  # Pillow inverts all, Adobe's or not
        return np.asarray(image.convert("RGB"))


def _to_8_bits(array: NDArray[np.uint16]) -> Pixels:
    return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _three(array: Pixels) -> Pixels:
    """(H, W, 1 or 3 or 4) as (H, W, 3); grey as a view."""
    if array.shape[2] == 1:
        return np.broadcast_to(array, (*array.shape[:2], 3))
    return array[..., :3]


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation (CIPA DC-008, tag 0x0112)."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _raw(data: bytes, limits: ImageLimits, shape: tuple[int, ...] | None, dtype: str | None) -> Pixels:
    if shape is None or dtype is None:
        raise ImageError("invalid_array", "a raw array comes with its shape and dtype")
    if len(shape) not in (2, 3) or any(type(side) is not int or side < 1 for side in shape):
        raise ImageError("invalid_array", f"shape is {shape!r:.60}, not (H, W) or (H, W, C)")
    if len(shape) == 3 and shape[2] not in (1, 3, 4):
        raise ImageError("invalid_array", f"{shape[2]} channels, not 1, 3 or 4")
    if dtype not in _RAW_DTYPES:
        raise ImageError("invalid_array", f"dtype is {dtype!r:.40}, not one of {', '.join(_RAW_DTYPES)}")
    _check_size(shape[1], shape[0], limits)
    kind: np.dtype[Any] = np.dtype(_RAW_DTYPES[dtype])
    expected = math.prod(shape) * kind.itemsize
    if len(data) != expected:
        raise ImageError("invalid_array", f"{len(data)} bytes for shape {shape} of {dtype}, which takes {expected}")
    array = np.frombuffer(data, kind).reshape(*shape[:2], -1)[..., :3]
    if dtype == "uint16":
        array = _to_8_bits(array)
    elif dtype == "float32":
        # One comparison refuses what is out of range, infinite or not a number.
        if not (array.min() >= 0.0 and array.max() <= 1.0):
            raise ImageError("invalid_array", "a float32 array holds numbers in 0..1; here are others, or NaN")
        array = np.rint(array * np.float32(255.0)).astype(np.uint8)
    return _three(array)
