"""The worker's end of an isolated process: it starts it, asks it, and knows which frame it died over."""

from __future__ import annotations

import os
import select
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgpack

from gaussline.worker.broker.intake import Message
from gaussline.worker.contract.limits import MessageLimits
from gaussline.worker.contract.verdict import Reason
from gaussline.worker.engine.isolated import LENGTH, READY, WHOLE, pack_order
from gaussline.worker.engine.judgement import Judgement
from gaussline.worker.engine.outcome_wire import unpack_outcome
from gaussline.worker.engine.prepare import Refusal
from gaussline.worker.errors import GausslineError

PROGRAM: Final = (sys.executable, "-m", "gaussline.worker.engine.isolated_main")
START_S: Final = 300.0
"""Longest time that its backbone may take to load."""
FRAME_S: Final = 60.0
"""Longest time one frame may take there; longer, and the frame counts as one that hangs its process."""
MAX_DEATHS: Final = 8
"""Frames of one message that may kill it one after the other; beyond, all that are left are given up."""


class IsolatedProcess:
    """Judges whole messages in a process that may die; another takes its place then.

    Args:
        about: how the process makes its judge, msgpack-able; asked at each start.
        frame_s: longest time one frame may take.
        program: what is run; for tests.
    """

    def __init__(
        self,
        about: Callable[[], dict[str, Any]],
        *,
        limits: MessageLimits,
        now_us: Callable[[], int],
        frame_s: float = FRAME_S,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self._about = about
        self._limits = limits
        self._now_us = now_us
        self._frame_s = frame_s
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._loaded = False
        self.deaths = 0

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return None if self._process is None else self._process.pid

    def judge(self, message: Message) -> tuple[list[Judgement | Refusal], bool]:
        """One outcome a frame, `poison` for those it died over; and whether it could read the message.

        Raises GausslineError where it cannot be started.
        """
        outcomes: dict[int, Judgement | Refusal] = {}
        for _ in range(MAX_DEATHS):
            guilty, how = self._ask(message, outcomes)
            if guilty is None:
                break
            self.deaths += 1
            refusal = Refusal(Reason.POISON, f"{message.crashes} worker(s) died over its message, and alone it {how}")
            if guilty == WHOLE:
                return [refusal] * message.frame_count, False
            outcomes[guilty] = refusal
        given_up = Refusal(Reason.POISON, f"{MAX_DEATHS} frames of its message killed the process that judged them")
        return [outcomes.get(offset, given_up) for offset in range(message.frame_count)], True

    def _ask(self, message: Message, outcomes: dict[int, Judgement | Refusal]) -> tuple[int | None, str]:
        """Fill in outcomes; the frame it died over and how, None where it lives."""
        process = self._started()
        assert process.stdin is not None
        begun = WHOLE
        try:
            data = pack_order(message, set(outcomes), self._limits, self._now_us())
            process.stdin.write(LENGTH.pack(len(data)) + data)
            process.stdin.flush()
        except BrokenPipeError:
            return begun, self._end()
        while True:
            head = self._receive(self._frame_s)
            if head is None:
                return begun, self._end()
            if not head:
                return None, ""
            (begun,) = struct.unpack("<i", head)
            if begun == WHOLE:
                continue
            outcome = self._receive(self._frame_s)
            if outcome is None:
                return begun, self._end()
            outcomes[begun] = unpack_outcome(outcome)

    def prepare(self) -> None:
        """Start the process, so that it has imported what it needs before it is asked; its backbone is loaded then."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            try:
                self._process = subprocess.Popen(
                    [*self._program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
                )
            except OSError as error:
                raise GausslineError(f"the isolated process did not start: {error.strerror or error}") from None
            self._loaded = False

    def load(self) -> None:
        """Start it and have it load its backbone, so that it can judge at once. Raises GausslineError."""
        self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        self.prepare()
        process = self._process
        assert process is not None
        if self._loaded:
            return process
        assert process.stdin is not None
        about = msgpack.packb(self._about(), use_bin_type=True)
        assert isinstance(about, bytes)
        try:
            process.stdin.write(LENGTH.pack(len(about)) + about)
            process.stdin.flush()
            ready = self._receive(START_S)
        except BrokenPipeError:
            ready = None
        if ready != READY:
            raise GausslineError(f"the isolated process did not start: it {self._end()}")
        self._loaded = True
        return process

    def _receive(self, within_s: float) -> bytes | None:
        head = self._read(LENGTH.size, within_s)
        return None if head is None else self._read(LENGTH.unpack(head)[0], within_s)

    def _read(self, size: int, within_s: float) -> bytes | None:
        """So many bytes; None where it ended, or said nothing for too long."""
        assert self._process is not None
        assert self._process.stdout is not None
        source, got = self._process.stdout.fileno(), b""
        poll = select.poll()
        poll.register(source, select.POLLIN)
        while len(got) < size:
            piece = os.read(source, size - len(got)) if poll.poll(1000 * within_s) else b""
            if not piece:
                return None
            got += piece
        return got

    def _end(self) -> str:
        """Put it down; how it ended, for a person."""
        assert self._process is not None
        try:
            code = self._process.wait(1.0)
            how = f"killed its process (signal {-code})" if code < 0 else f"ended its process with code {code}"
        except subprocess.TimeoutExpired:
            how = f"hung its process for {self._frame_s:g} s"
        self.close()
        return how

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.kill()
            process.wait()
            process.stdout.close()
            try:
                process.stdin.close()
            except BrokenPipeError:
                return  # what it was still to be told
