"""A decoding process whose codec can be broken: what is written in an image says how."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import numpy as np

from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.errors import ImageError
from gaussline.worker.vision.decode import Pixels, decode
from gaussline.worker.vision.decode_process import main


def broken(data: bytes, encoding: str, limits: ImageLimits) -> Pixels:
    """Decode, but for images that say CRASH, HANG, GREED, LIE or ONCE and a file."""
    if b"CRASH" in data:
        ctypes.string_at(0)
    if b"HANG" in data:
        ctypes.CDLL(None).sleep(60)
    if b"LIE" in data:
        raise ImageError("a reason that is none", "")
    if b"GREED" in data:
        np.ones(2**33, np.uint8)
    if b"ONCE" in data:
        mark = Path(os.environ["DECODER_MARK"])
        if not mark.exists():
            mark.touch()
            ctypes.string_at(0)
    return decode(data, encoding, limits)


if __name__ == "__main__":
    main(sys.argv[1:], broken)
