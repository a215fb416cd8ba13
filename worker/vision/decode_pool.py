"""Decoding in processes that may die: what a worker does with images from outside.

The codecs are native code, and files from outside are the way into it. So a worker does not run them itself: each of
its decoding threads has a process that does (see decode_process). A crash there is known to be its frame's fault,
because a process decodes one at a time; it is tried once more, in case the process was killed from outside, and then
the frame is refused as `poison`.
"""

from __future__ import annotations

import fcntl
import os
import queue
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Final

import numpy as np

from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.contract.verdict import Reason
from gaussline.worker.errors import ImageError
from gaussline.worker.vision.decode import Pixels
from gaussline.worker.vision.decode_process import ANSWER, DECODED, DIED, ENCODINGS, REQUEST, Shared

PROGRAM: Final = (sys.executable, "-m", "gaussline.worker.vision.decode_process")
GRACE_S: Final = 5.0
"""So much longer than an image may take is waited for an answer; then the process itself is stuck."""
START_BYTES: Final = 2**20
KEEP_BYTES: Final = 64 * 2**20
"""A process whose shared memory has grown beyond this is replaced: one huge image must not hold memory for ever."""
MEMORY_BYTES: Final = 3 * 2**30
TRIES: Final = 2
_REASONS: Final = frozenset(reason.value for reason in Reason)
_ENVIRONMENT: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Every image takes and gives back the same few megabytes; to fault them in anew each time costs more than a copy.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
    "MALLOC_TOP_PAD_": str(16 * 2**20),
}


class DecodePool:
    """Decodes for as many threads at a time as it has processes.

    Args:
        limits: bounds of one image, checked off its header before memory is spent.
        processes: how many; each takes about 40 MB.
        timeout_s: longest time one image may take, in whole seconds.
        program: what is run; for tests.
    """

    def __init__(
        self, limits: ImageLimits, *, processes: int = 1, timeout_s: int = 10, program: Sequence[str] = PROGRAM
    ) -> None:
        self._limits = limits
        self._timeout_s = timeout_s
        self._arguments = [
            *program,
            *(str(value) for value in (limits.max_bytes, limits.max_pixels, limits.max_side, timeout_s, MEMORY_BYTES)),
        ]
        self._free: queue.SimpleQueue[_Process | None] = queue.SimpleQueue()
        self._count = processes
        for _ in range(processes):
            self._free.put(None)  # started when it is needed first
        self.deaths = 0

    @contextmanager
    def decoded(self, data: bytes, encoding: str) -> Iterator[Pixels]:
        """The pixels of one image, as `decode` gives them; theirs is the block's time only: the memory is used again.

        Raises ImageError as `decode` does, and with the reason `poison` where decoding kills the process.
        """
        if encoding not in ENCODINGS:
            raise ImageError("unsupported_format", f"{encoding!r:.40} is none of {', '.join(ENCODINGS)}, raw")
        if len(data) > self._limits.max_bytes:
            raise ImageError("too_large", f"{len(data)} bytes, over the limit of {self._limits.max_bytes}")
        process = self._free.get()
        try:
            if process is not None and not process.lives:
                process.close()
                process = None
            for left in reversed(range(TRIES)):
                if process is None:
                    process = _Process(self._arguments, self._timeout_s + GRACE_S)
                found = process.decode(data, encoding)
                if not isinstance(found, int):
                    break
                self.deaths += 1
                if not process.lives:
                    process = None
                if left == 0 or found == signal.SIGALRM:
                    raise ImageError("poison", self._obituary(found))
            assert not isinstance(found, int)
            yield found
        finally:
            if process is not None and (not process.lives or process.size > KEEP_BYTES):
                process.close()
                process = None
            self._free.put(process)

    def _obituary(self, number: int) -> str:
        if number == signal.SIGALRM:
            return f"decoding it takes longer than {self._timeout_s} s"
        name = signal.Signals(number).name if number else "an error of its own"
        return f"the process that decodes it dies of {name}, each of {TRIES} times"

    def close(self) -> None:
        """End the processes; those in use end with their last image."""
        for _ in range(self._count):
            process = self._free.get()
            if process is not None:
                process.close()
            self._free.put(None)

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Process:
    """One decoding process and the memory it shares."""

    def __init__(self, arguments: Sequence[str], timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._memory = os.memfd_create("gaussline-decode", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self._memory, START_BYTES)
        # What the other side cuts off must not become a bus error on this one.
        fcntl.fcntl(self._memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        program, rest = arguments[:-5], arguments[-5:]
        try:
            self._process = subprocess.Popen(
                [*program, str(self._memory), *rest],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(self._memory,),
                env=os.environ | _ENVIRONMENT,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._memory)
            raise
        self._shared = Shared(self._memory)
        assert self._process.stdout is not None
        self._poll = select.poll()  # select knows file descriptors up to 1,023 only
        self._poll.register(self._process.stdout, select.POLLIN)

    @property
    def lives(self) -> bool:
        """It can be asked again."""
        return self._process.poll() is None

    @property
    def size(self) -> int:
        """Bytes of the shared memory."""
        return os.fstat(self._memory).st_size

    def decode(self, data: bytes, encoding: str) -> Pixels | int:
        """The pixels; or the number of the signal that its child died of, 0 where it was none. Raises ImageError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._shared.view(len(data))[:] = np.frombuffer(data, np.uint8)
        try:
            os.write(self._process.stdin.fileno(), REQUEST.pack(ENCODINGS.index(encoding), len(data)))
        except BrokenPipeError:
            self.close()
            return signal.SIGKILL
        answer = self._read(ANSWER.size)
        if answer is None:
            return signal.SIGKILL
        status, height, width, channels, text = ANSWER.unpack(answer)
        if status == DIED:
            return int(height)
        if status != DECODED:
            said = self._read(text) or b"undecodable\n"
            reason, _, detail = said.decode("utf-8", "replace").partition("\n")
            if reason not in _REASONS:  # its memory is not its own any more
                self.close()
                raise ImageError("poison", f"its decoder answers nonsense: {reason!r:.80}")
            raise ImageError(reason, detail)
        pixels = self._shared.view(height * width * channels).reshape(height, width, channels)
        return np.broadcast_to(pixels, (height, width, 3)) if channels == 1 else pixels

    def _read(self, size: int) -> bytes | None:
        """So many bytes of an answer; None where the process has ended, or is stuck and was ended."""
        assert self._process.stdout is not None
        source, got = self._process.stdout.fileno(), b""
        while len(got) < size:
            piece = os.read(source, size - len(got)) if self._poll.poll(1000 * self._timeout_s) else b""
            if not piece:
                self.close()
                return None
            got += piece
        return got

    def close(self) -> None:
        """End it; the child that it forked ends with it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1
