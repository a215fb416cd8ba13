"""What is accepted from outside, before memory is spent on it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Bounds of one image, read off its header.

    Attributes:
        max_bytes: encoded size in bytes.
        max_pixels: width times height, in pixels.
        max_side: the longer side, in pixels.
    """

    max_bytes: int = 32 * 2**20
    max_pixels: int = 64_000_000
    max_side: int = 16_384


@dataclass(frozen=True, slots=True)
class MessageLimits:
    """Bounds of one message.

    Attributes:
        max_bytes: size of the msgpack payload in bytes.
        max_frames: frames in one message.
        max_text: length of one text field (part id, trace context) in bytes.
    """

    max_bytes: int = 64 * 2**20
    max_frames: int = 64
    max_text: int = 256
