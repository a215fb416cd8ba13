"""Test frames: each carries a token of its own, so that a verdict can be told to be its frame's and no other's."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

HEAD: Final = 5
"""Bytes of a raw frame that mean something: the token (big-endian, 4) and the kind (1)."""


class Kind(IntEnum):
    """What is in a frame, and so what must become of it."""

    GOOD = 0
    DEFECT = 1
    BROKEN = 2
    """No image: not_judged(undecodable)."""
    LATE = 3
    """Its deadline is over before it is sent: not_judged(expired)."""
    POISON = 4
    """Decoding it kills the process: not_judged(poison)."""


def pixels(token: int, kind: Kind, size: int = 16) -> NDArray[np.uint8]:
    """A raw frame: uint8 (1, size)."""
    image = np.zeros((1, max(size, HEAD)), np.uint8)
    image[0, :HEAD] = np.frombuffer(token.to_bytes(4, "big") + bytes([kind]), np.uint8)
    return image


def broken_png(token: int) -> bytes:
    """Bytes that begin as a PNG and are none."""
    return b"\x89PNG\r\n\x1a\n" + token.to_bytes(4, "big")


def read(data: bytes) -> tuple[int, Kind]:
    """Token and kind of a raw frame's bytes."""
    return int.from_bytes(data[:4], "big"), Kind(data[4])
