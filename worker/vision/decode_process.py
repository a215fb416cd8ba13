"""The process that decodes images for a worker, so that a codec's native crash costs one frame and no worker.

    python -m gaussline.worker.vision.decode_process <memory fd> <limits and bounds>

It imports no torch. Requests come on standard input, answers go to standard output, and bytes and pixels lie in a
shared memory that only grows. The process forks: its child decodes, and where the child dies over an image, it says so
and forks another within milliseconds. One that dies between two images is replaced without a word: an answer that
nobody asked for would be taken for that of the next image. An alarm ends a child that takes too long, in native code
too.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.errors import ImageError
from gaussline.worker.vision.decode import Pixels, decode

REQUEST: Final = struct.Struct("<BQ")
"""Index of the encoding, bytes of the image."""
ANSWER: Final = struct.Struct("<BIIII")
"""Status, height, width and channels of the pixels, bytes of the text that follows."""
ENCODINGS: Final = ("jpeg", "png", "bmp", "webp", "tiff")
DECODED, REFUSED, DIED = range(3)
_READY, _BUSY = range(2)
"""What the child tells its parent in a memory of their own: it has begun to serve; it owes an answer."""
_PR_SET_PDEATHSIG: Final = 1
Decode = Callable[[bytes, str, ImageLimits], Pixels]


def main(arguments: Sequence[str], decoder: Decode = decode) -> None:
    """Fork a child that decodes, until nobody asks any more.

    Args:
        arguments: file descriptor of the shared memory; most bytes, pixels and side of an image; seconds that one may
            take; bytes of memory that the process may have.
    """
    memory, *bounds = (int(word) for word in arguments)
    limits, seconds, most_memory = ImageLimits(*bounds[:3]), bounds[3], bounds[4]
    _die_with(os.getppid())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (most_memory, most_memory))
    # A Ctrl-C is for the worker, which ends this process in its turn.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    state = mmap.mmap(-1, 2)
    while True:
        own = os.getpid()
        state[:] = bytes(2)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _die_with(own)
                _serve(memory, limits, seconds, decoder, state)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == 0 or not state[_READY]:
            return
        if state[_BUSY]:
            _write(ANSWER.pack(DIED, max(0, -code), 0, 0, 0))


def _serve(memory: int, limits: ImageLimits, seconds: int, decoder: Decode, state: mmap.mmap) -> None:
    """Answer requests until there are no more."""
    shared = Shared(memory)
    state[_READY] = 1
    while request := _read(REQUEST.size):
        # Should it die between a pipe and its word of it, either way, the worker waits in vain, and ends this process.
        state[_BUSY] = 1
        index, size = REQUEST.unpack(request)
        data = shared.view(size).tobytes()
        signal.alarm(seconds)
        answer, text = _answer(shared, data, ENCODINGS[index], limits, decoder)
        signal.alarm(0)
        state[_BUSY] = 0
        _write(ANSWER.pack(*answer, len(text)) + text)


def _answer(
    shared: Shared, data: bytes, encoding: str, limits: ImageLimits, decoder: Decode
) -> tuple[tuple[int, int, int, int], bytes]:
    try:
        pixels = decoder(data, encoding, limits)
        grey = pixels.strides[2] == 0
        seen = pixels[..., :1] if grey else pixels
        np.copyto(shared.view(seen.size).reshape(seen.shape), seen)
    except ImageError as error:
        return (REFUSED, 0, 0, 0), f"{error.reason}\n{error.detail}".encode("utf-8", "replace")
    except MemoryError:
        return (REFUSED, 0, 0, 0), b"too_large\nto decode it takes more memory than a decoder may have"
    return (DECODED, *seen.shape), b""


class Shared:
    """A memory file, mapped as far as it is needed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._map = mmap.mmap(descriptor, os.fstat(descriptor).st_size)

    def view(self, size: int) -> Pixels:
        """The first `size` bytes as uint8 (size,); the file grows where it is shorter."""
        if size > len(self._map):
            here = os.fstat(self._descriptor).st_size
            if size > here:
                here = -(-size // 2**20) * 2**20
                os.ftruncate(self._descriptor, here)
            self._map = mmap.mmap(self._descriptor, here)
        return np.frombuffer(self._map, np.uint8, size)


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _read(size: int) -> bytes:
    """So many bytes, none at the end. A request is smaller than what a pipe passes on at once."""
    return os.read(0, size)


def _write(data: bytes) -> None:
    os.write(1, data)


if __name__ == "__main__":
    main(sys.argv[1:])
